//! A model's folder as a run begins with it: what it is, whether it fits the task, its weights and its tokenizer.

use std::path::PathBuf;

use candlewick_models::{
    EncoderHead, EncoderUsage, ModelError, ModelFolder, PoolingMode, Tokenizer, Weights, family, gpt2,
};
use serde_json::json;

use super::lora::Start;
use super::options::FinetuneOptions;
use crate::data::Task;
use crate::{Result, TrainError};

/// A model's folder before its weights are read.
pub struct Opening {
    pub(super) folder: ModelFolder,
    pub(super) weights: Option<Weights>,
    /// The adapter to continue, if the model is one.
    pub(super) start: Option<Start>,
    pub tokenizer: Tokenizer,
    /// Of the checkpoint's classifier.
    pub labels: Vec<String>,
    pub positions: usize,
    pub eos: Option<u32>,
}

impl Opening {
    pub fn new(options: &FinetuneOptions) -> Result<Self> {
        let mut folder = open_folder(options)?;
        folder.refuse_foreign(&options.config)?;
        let tokenizer = folder.tokenizer()?.ok_or(TrainError::TokenizerMissing)?;
        if options.from_scratch && folder.adapter.is_some() {
            return Err(TrainError::option(
                "fromScratch",
                "the model is an adapter, which begins where it is",
            ));
        }
        if let Some(config) = folder.config.as_object_mut() {
            config.extend(options.config.clone());
            if options.from_scratch {
                config.entry("vocab_size").or_insert(json!(tokenizer.vocab_size()));
                if let Some(end) = tokenizer.token_to_id("<|endoftext|>") {
                    config.entry("eos_token_id").or_insert(json!(end));
                }
            }
        }
        let gpt2 = folder.model_type()? == "gpt2";
        if options.task == Task::FeatureExtraction {
            pools_by_mean(&folder)?;
        }
        let classifies = gpt2 && options.task == Task::TextClassification;
        if gpt2 != options.task.is_causal() && !classifies {
            let kind = if gpt2 { "a GPT-2" } else { "a BERT" };
            return Err(TrainError::option("task", format!("the model is {kind}: another task's")));
        }
        let mut start = folder.adapter.as_ref().map(Start::new).transpose()?;
        let mut weights = if options.from_scratch { None } else { Some(folder.weights()?) };
        if let (Some(start), Some(weights)) = (&mut start, &mut weights) {
            // The matrices stay beside the weights instead of being merged.
            start.deltas = weights.take_deltas();
        }
        let (positions, vocabulary) = if gpt2 {
            let config = match classifies {
                true => gpt2::Config::of_classifier(&folder)?,
                false => gpt2::Config::from_folder(&folder)?,
            };
            (config.n_positions, config.vocab_size)
        } else {
            let config = family::Config::from_folder(&folder)?;
            (config.max_positions(), config.vocab_size)
        };
        if tokenizer.vocab_size() > vocabulary {
            let tokenizer = tokenizer.vocab_size();
            return Err(ModelError::VocabularyMismatch { tokenizer, embedding: vocabulary }.into());
        }
        let labels = match &weights {
            Some(weights) if classifies && gpt2::is_classifier(&folder, weights) => {
                gpt2::labels_of(&folder, weights)?
            }
            Some(weights) if !gpt2 => {
                let head = family::head_of(&folder, weights)?;
                let wanted = match options.task {
                    Task::TextClassification => EncoderHead::SequenceClassification,
                    Task::TokenClassification => EncoderHead::TokenClassification,
                    _ => EncoderHead::None,
                };
                if head == wanted { family::labels_of(&folder, weights, head)? } else { Vec::new() }
            }
            _ => Vec::new(),
        };
        let eos = folder.token_ids_of("eos_token_id", vocabulary)?.first().copied();
        Ok(Self { folder, weights, start, tokenizer, labels, positions, eos })
    }
}

/// Refuses models whose vectors are not means of token vectors: the loss is computed on means.
fn pools_by_mean(folder: &ModelFolder) -> Result<()> {
    let usage = EncoderUsage::from_folder(folder, None)?;
    let other = match (&usage.unsupported_module, &usage.pooling.modes[..]) {
        (Some(module), _) => module.clone(),
        (None, _) if !usage.layers.is_empty() => "layers behind its pooling".into(),
        (None, [PoolingMode::Mean]) => return Ok(()),
        (None, modes) => format!("{modes:?}"),
    };
    Err(TrainError::option(
        "task",
        format!("the model's vectors are made by {other}; by the mean is what can be trained"),
    ))
}

/// A folder with a tokenizer alone is enough where the configuration is given.
fn open_folder(options: &FinetuneOptions) -> Result<ModelFolder> {
    let path = PathBuf::from(&options.model);
    let has = |name: &str| path.join(name).exists();
    if options.from_scratch && path.is_dir() && !has("config.json") && !has("adapter_config.json") {
        return Ok(ModelFolder::without_config(path));
    }
    Ok(ModelFolder::open_over(&options.model, options.base.as_deref())?)
}
