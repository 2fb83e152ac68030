//! Which head a checkpoint has, and the names of its classes.

use super::architecture::Architecture;
use super::known;
use crate::contract::info::EncoderHead;
use crate::files::config::of_head;
use crate::files::folder::ModelFolder;
use crate::files::foreign;
use crate::files::weights::Weights;
use crate::{ModelError, Result};

/// The classifier of tokens, and the layer of question answering's two scores.
pub const TOKEN_CLASSIFIER: &str = "classifier";
pub const QA_OUTPUTS: &str = "qa_outputs";

/// # Errors
/// `UnsupportedModel`: the folder holds another model than an encoder of ours.
pub(super) fn architecture_of(folder: &ModelFolder) -> Result<&'static Architecture> {
    folder.encoder()?.ok_or_else(|| foreign::model_type(&folder.config))
}

/// Which head a checkpoint has: what `architectures` says, else what its tensors say.
pub fn head_of(folder: &ModelFolder, weights: &Weights) -> Result<EncoderHead> {
    let architecture = architecture_of(folder)?;
    let has = |name: &str| weights.contains(&format!("{name}.weight"));
    let class = folder.config["architectures"][0].as_str().unwrap_or_default();
    // A bare BERT may have been wrapped in a module that classifies.
    let wrapped = classifier_of(architecture, weights).is_some();
    Ok(match known::task_of(class) {
        Some("MaskedLM") => EncoderHead::MaskedLm,
        Some("PreTraining") if has(architecture.masked_lm.dense) => EncoderHead::MaskedLm,
        Some("SequenceClassification") => EncoderHead::SequenceClassification,
        Some("TokenClassification") => EncoderHead::TokenClassification,
        Some("QuestionAnswering") => EncoderHead::QuestionAnswering,
        Some("") if wrapped && architecture.classifies_pooled() => EncoderHead::SequenceClassification,
        Some(_) => EncoderHead::None,
        None if !class.is_empty() => EncoderHead::None,
        None if has(QA_OUTPUTS) => EncoderHead::QuestionAnswering,
        None if wrapped => EncoderHead::SequenceClassification,
        None if has(TOKEN_CLASSIFIER) => EncoderHead::TokenClassification,
        None if has(architecture.masked_lm.dense) => EncoderHead::MaskedLm,
        None => EncoderHead::None,
    })
}

/// The name of the layer that gives a text's classes, if it is there.
pub fn classifier_of(architecture: &Architecture, weights: &Weights) -> Option<&'static str> {
    let head = &architecture.sequence;
    let has = |name: &&str| weights.contains(&format!("{name}.weight"));
    // DistilBERT's classifier of tokens has the same name: the layer before it tells them apart.
    if !architecture.classifies_pooled() && !has(&head.dense) {
        return None;
    }
    std::iter::once(head.classifier).chain(head.other_classifiers.iter().copied()).find(has)
}

/// A bound far above any label set: an untrusted header may claim any number.
const MAX_CLASSES: usize = 1 << 16;

/// The classes of a classification head: `id2label`, else `LABEL_0` … for as many rows as `classifier` has.
pub fn labels_of(folder: &ModelFolder, weights: &Weights, head: EncoderHead) -> Result<Vec<String>> {
    let architecture = architecture_of(folder)?;
    let name = match head {
        EncoderHead::SequenceClassification => {
            classifier_of(architecture, weights).unwrap_or(architecture.sequence.classifier)
        }
        EncoderHead::TokenClassification => TOKEN_CLASSIFIER,
        EncoderHead::QuestionAnswering => {
            // A start and an end.
            of_head(&folder.config, folder.is_adapter(), 2)?;
            return Ok(Vec::new());
        }
        _ => return Ok(Vec::new()),
    };
    let bias = format!("{name}.bias");
    let classes = weights.shape(&bias).and_then(|shape| shape.first().copied());
    let classes = classes.ok_or(ModelError::MissingTensor(bias))?;
    class_names(folder, classes)
}

/// `id2label` of a head with so many classes, else `LABEL_0` ….
pub(crate) fn class_names(folder: &ModelFolder, classes: usize) -> Result<Vec<String>> {
    if classes == 0 || classes > MAX_CLASSES {
        return Err(ModelError::Config(format!("a classifier of {classes} classes")));
    }
    of_head(&folder.config, folder.is_adapter(), classes)
}
