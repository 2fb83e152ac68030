//! LoRA adapters in PEFT's files: `adapter_config.json` and `adapter_model.safetensors`. Hu et al., "LoRA: Low-Rank
//! Adaptation of Large Language Models" (2021): y = x Wᵀ + scale · (x Aᵀ) Bᵀ. How they become part of the weights:
//! `delta.rs`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candlewick_kernels::Layout;
use serde::Deserialize;
use serde_json::Value;

use crate::family::architecture::Architecture;
use crate::files::checkpoint::Checkpoint;
use crate::files::names::Names;
use crate::files::reading::read_json;
use crate::{ModelError, Result};

/// One module's matrices, row-major.
#[derive(Debug, Clone)]
pub struct LoraWeights {
    pub rank: usize,
    pub input: usize,
    pub output: usize,
    /// (rank, input)
    pub a: Vec<f32>,
    /// (output, rank)
    pub b: Vec<f32>,
    /// alpha / rank, or alpha / √rank where the adapter is rank-stabilised.
    pub scale: f32,
}

/// An adapter. Names are those that a model asks for (`h.0.attn.c_attn`), whatever the checkpoint calls them.
pub struct Adapter {
    pub folder: PathBuf,
    /// `adapter_config.json`.
    pub config: Value,
    /// What it adds, by module.
    pub modules: BTreeMap<String, LoraWeights>,
    /// Tensors that take the place of the base's (`modules_to_save`, biases): their names in `weights`.
    pub(crate) whole: BTreeMap<String, String>,
    pub(crate) weights: Checkpoint,
}

pub(crate) const ADAPTER_CONFIG: &str = "adapter_config.json";
pub(crate) const ADAPTER_WEIGHTS: &str = "adapter_model.safetensors";

/// Modules that a base may lack: heads and poolers.
const HEADS: [&str; 9] = [
    "classifier.",
    "score.",
    "qa_outputs.",
    "cls.",
    "pooler.",
    "lm_head.",
    "pre_classifier.",
    "vocab_",
    "generator_",
];

/// The fields of `adapter_config.json` that change the output. Other fields that would change it are refused.
#[derive(Deserialize)]
struct AdapterConfig {
    peft_type: String,
    r: usize,
    lora_alpha: f64,
    #[serde(default)]
    use_rslora: bool,
    #[serde(default)]
    use_dora: bool,
    #[serde(default)]
    modules_to_save: Option<Vec<String>>,
    #[serde(default)]
    rank_pattern: BTreeMap<String, usize>,
    #[serde(default)]
    alpha_pattern: BTreeMap<String, f64>,
}

/// Fields that add to plain LoRA when they are set.
const EXTRAS: [&str; 11] = [
    "target_parameters",
    "trainable_token_indices",
    "layer_replication",
    "lora_bias",
    "use_qalora",
    "use_bdlora",
    "alora_invocation_tokens",
    "arrow_config",
    "kasa_config",
    "velora_config",
    "monteclora_config",
];

/// Initialisations that leave the base's weights unchanged. The others (PiSSA, OLoRA, LoftQ, …) subtract from them, by
/// a computation of PEFT's that its files do not hold; PEFT can save them converted to plain LoRA.
const PLAIN_BEGINNINGS: [&str; 3] = ["gaussian", "eva", "orthogonal"];

/// A PEFT pattern key matches the end of a module's name. Regular expressions are not supported.
fn pattern<'a, T>(patterns: &'a BTreeMap<String, T>, module: &str) -> Option<&'a T> {
    let ends =
        |key: &str| module.strip_suffix(key).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    patterns.iter().find(|(key, _)| ends(key)).map(|(_, value)| value)
}

impl Adapter {
    /// Reads the adapter in `folder`, made for a model whose checkpoint has `names`: an architecture's, or a prefix
    /// (`transformer`, `bert`).
    ///
    /// # Errors
    /// `UnsupportedModel` for what is not plain LoRA over linear layers; `Config`, `MissingTensor`, `TensorShape` for
    /// an adapter that is not whole.
    pub fn open(folder: &Path, names: impl Into<Names>) -> Result<Self> {
        let names = names.into();
        let value = read_json(&folder.join(ADAPTER_CONFIG))?;
        let unsupported =
            |what: String| ModelError::UnsupportedModel(format!("{}: {what}", folder.display()));
        let extra = |key: &str| match &value[key] {
            Value::Null | Value::Bool(false) => false,
            Value::String(text) => text != "none",
            Value::Array(values) => !values.is_empty(),
            _ => true,
        };
        let config: AdapterConfig = serde_json::from_value(value.clone())
            .map_err(|e| ModelError::Config(format!("{}: {e}", folder.display())))?;
        if config.peft_type != "LORA" || config.use_dora {
            let kind = if config.use_dora { "DoRA" } else { &config.peft_type };
            return Err(unsupported(format!("an adapter of type {kind}")));
        }
        if let Some(key) = EXTRAS.into_iter().find(|key| extra(key)) {
            return Err(unsupported(format!("{key}: {}", value[key])));
        }
        if let Some(beginning) = value["init_lora_weights"].as_str()
            && !PLAIN_BEGINNINGS.contains(&beginning)
        {
            return Err(unsupported(format!("init_lora_weights: {beginning}, which changes the base")));
        }

        let weights = Checkpoint::open_file(&folder.join(ADAPTER_WEIGHTS), names)?;
        let (mut modules, mut whole) = (BTreeMap::new(), BTreeMap::new());
        for name in weights.names() {
            let Some(module) = name.strip_suffix(".lora_A.weight") else {
                if name.ends_with(".lora_B.weight") {
                    continue;
                }
                if name.contains("lora_") {
                    return Err(unsupported(format!("tensor {name}")));
                }
                whole.insert(plain_name(&name, names).replace(".base_layer.", "."), name);
                continue;
            };
            let b_name = format!("{module}.lora_B.weight");
            let shape = |name: &str| -> Result<[usize; 2]> {
                let shape = weights.shape(name).ok_or_else(|| ModelError::MissingTensor(name.to_string()))?;
                <[usize; 2]>::try_from(shape).map_err(|found| ModelError::TensorShape {
                    name: name.to_string(),
                    expected: vec![0, 0],
                    found,
                })
            };
            let ([rank, input], [output, b_rank]) = (shape(&name)?, shape(&b_name)?);
            let stated = *pattern(&config.rank_pattern, module).unwrap_or(&config.r);
            if rank != stated || b_rank != stated || rank == 0 {
                let (name, expected) = if rank == stated {
                    (b_name, vec![output, stated])
                } else {
                    (name.clone(), vec![stated, input])
                };
                return Err(ModelError::TensorShape { name, expected, found: vec![rank, b_rank] });
            }
            let alpha = *pattern(&config.alpha_pattern, module).unwrap_or(&config.lora_alpha);
            let divisor = if config.use_rslora { (rank as f64).sqrt() } else { rank as f64 };
            let lora = LoraWeights {
                rank,
                input,
                output,
                a: weights.read(&name, &[rank, input])?.into_f32(),
                b: weights.read(&b_name, &[output, rank])?.into_f32(),
                scale: (alpha / divisor) as f32,
            };
            modules.insert(plain_name(module, names), lora);
        }
        if modules.is_empty() {
            return Err(ModelError::MissingTensor(format!("{}: any lora_A.weight", folder.display())));
        }
        if value["bias"].as_str().is_some_and(|bias| bias != "none")
            && !whole.keys().any(|name| name.ends_with(".bias"))
        {
            return Err(ModelError::MissingTensor(format!("{}: any bias", folder.display())));
        }
        // Some of them may be no module of this model: PEFT adds names that a classifier may have.
        let wanted = config.modules_to_save.unwrap_or_default();
        let there = |module: &String| {
            let inside = format!(".{module}.");
            whole.values().any(|name: &String| name.contains(&inside))
        };
        if !wanted.is_empty() && !wanted.iter().any(there) {
            return Err(ModelError::MissingTensor(format!("{}: any of {wanted:?}", folder.display())));
        }
        Ok(Self { folder: folder.to_path_buf(), config: value, modules, whole, weights })
    }

    /// Negates the adapter: merging it now removes it from a model that it was merged into. Tensors that it replaced
    /// whole stay replaced.
    pub fn reverse(&mut self) {
        self.modules.values_mut().for_each(|lora| lora.scale = -lora.scale);
        self.whole.clear();
    }

    /// Names of the tensors that take the place of the base's.
    pub fn whole(&self) -> impl Iterator<Item = &str> {
        self.whole.keys().map(String::as_str)
    }

    /// The transformers class that the adapter was made for, if it says; `encoder`: the base's, if it is one.
    pub(crate) fn architecture(&self, encoder: Option<&Architecture>) -> Option<String> {
        let class = |task: &str| match encoder {
            Some(encoder) => encoder.class_for(task),
            None => format!("GPT2For{task}"),
        };
        let fills = |encoder: &Architecture| {
            self.whole().any(|name| {
                name.strip_prefix(encoder.masked_lm.dense).is_some_and(|rest| rest.starts_with('.'))
            })
        };
        match self.config["task_type"].as_str() {
            Some("SEQ_CLS") => Some(class("SequenceClassification")),
            Some("TOKEN_CLS") => Some(class("TokenClassification")),
            Some("QUESTION_ANS") => Some(class("QuestionAnswering")),
            Some("FEATURE_EXTRACTION") => encoder.map(|encoder| encoder.class_for("")),
            _ if encoder.is_some_and(fills) => Some(class("MaskedLM")),
            _ => self.config["auto_mapping"]["base_model_class"].as_str().map(str::to_string),
        }
    }

    /// A head that the adapter replaces is not tied to the embedding any more. An embedding that it replaces without
    /// the tied head is refused: the head would change with it.
    pub(crate) fn untie(
        &self,
        config: &mut serde_json::Map<String, Value>,
        encoder: Option<&Architecture>,
    ) -> Result<()> {
        let class = config.get("architectures").and_then(|names| names[0].as_str()).unwrap_or_default();
        let (embedding, head, has_head) = match encoder {
            None => ("wte.weight", "lm_head.weight".into(), true),
            Some(encoder) => (
                "embeddings.word_embeddings.weight",
                format!("{}.weight", encoder.masked_lm.decoder),
                class == encoder.class_for("MaskedLM"),
            ),
        };
        if self.whole.contains_key(&head) {
            config.insert("tie_word_embeddings".into(), false.into());
        } else if self.whole.contains_key(embedding)
            && has_head
            && config.get("tie_word_embeddings") != Some(&Value::Bool(false))
        {
            let folder = self.folder.display();
            let reason = format!("{folder}: {embedding} as a whole, without the head that is tied to it");
            return Err(ModelError::UnsupportedModel(reason));
        }
        Ok(())
    }

    /// Whether the base has all that this changes, in the shapes that it changes.
    pub(crate) fn check(&self, base: &Checkpoint) -> Result<()> {
        let of = |name: &str| format!("{name}, which the adapter {} changes,", self.folder.display());
        for (module, lora) in &self.modules {
            let name = format!("{module}.weight");
            let found = base.shape(&name).ok_or_else(|| ModelError::MissingTensor(of(&name)))?;
            let expected = match base.layout_of(module) {
                Layout::OutIn => vec![lora.output, lora.input],
                Layout::InOut => vec![lora.input, lora.output],
            };
            if found != expected {
                return Err(ModelError::TensorShape { name: of(&name), expected, found });
            }
        }
        let head = |name: &str| HEADS.iter().any(|head| name.starts_with(head));
        match self.whole().find(|name| !base.contains(name) && !head(name)) {
            Some(name) => Err(ModelError::MissingTensor(of(name))),
            None => Ok(()),
        }
    }
}

/// `base_model.model.transformer.h.0.attn.c_attn` → `h.0.attn.c_attn`.
fn plain_name(name: &str, names: Names) -> String {
    names.scheme(name.strip_prefix("base_model.model.").unwrap_or(name)).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lose_the_wrapper_and_the_prefix() {
        assert_eq!(
            plain_name("base_model.model.transformer.h.0.attn.c_attn", "transformer".into()),
            "h.0.attn.c_attn"
        );
        assert_eq!(plain_name("base_model.model.h.0.mlp.c_fc", "transformer".into()), "h.0.mlp.c_fc");
        let patterns = BTreeMap::from([("attn.c_proj".to_string(), 2)]);
        assert_eq!(pattern(&patterns, "base_model.model.h.0.attn.c_proj"), Some(&2));
        assert_eq!(pattern(&patterns, "base_model.model.h.0.crossattn.c_proj"), None);
        assert_eq!(pattern(&patterns, "base_model.model.h.0.mlp.c_proj"), None);
    }
}
