//! LoRA adapters in PEFT's files: `adapter_config.json` and `adapter_model.safetensors`. Hu et al., "LoRA: Low-Rank
//! Adaptation of Large Language Models" (2021): y = x Wᵀ + scale · (x Aᵀ) Bᵀ.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use crate::source::read_json;
use crate::{ModelError, Result, Weights};

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

/// An adapter: what it adds, by the module's name in the checkpoint without the model's prefix (`h.0.attn.c_attn`).
#[derive(Debug, Clone)]
pub struct Adapter {
    pub modules: BTreeMap<String, LoraWeights>,
}

/// What of `adapter_config.json` changes the mathematics. Anything else that would is refused.
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
    rank_pattern: BTreeMap<String, usize>,
    #[serde(default)]
    alpha_pattern: BTreeMap<String, f64>,
}

/// Fields that add to plain LoRA when they are set.
const EXTRAS: [&str; 10] = [
    "bias",
    "modules_to_save",
    "target_parameters",
    "trainable_token_indices",
    "layer_replication",
    "lora_bias",
    "use_qalora",
    "use_bdlora",
    "alora_invocation_tokens",
    "arrow_config",
];

/// PEFT's pattern keys end a module's name; that they may be regular expressions is not followed.
fn pattern<'a, T>(patterns: &'a BTreeMap<String, T>, module: &str) -> Option<&'a T> {
    let ends =
        |key: &str| module.strip_suffix(key).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    patterns.iter().find(|(key, _)| ends(key)).map(|(_, value)| value)
}

impl Adapter {
    /// Reads the adapter in `folder`, made for a model whose checkpoint has `prefix` (`transformer`, `bert`).
    ///
    /// # Errors
    /// `UnsupportedModel` for what is not plain LoRA over linear layers; `Config`, `MissingTensor`, `TensorShape` for an
    /// adapter that is not whole.
    pub fn open(folder: &Path, prefix: &'static str) -> Result<Self> {
        let value = read_json(&folder.join("adapter_config.json"))?;
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

        let weights = Weights::open_file(&folder.join("adapter_model.safetensors"), prefix)?;
        let mut modules = BTreeMap::new();
        for name in weights.names() {
            let Some(module) = name.strip_suffix(".lora_A.weight") else {
                if name.ends_with(".lora_B.weight") {
                    continue;
                }
                return Err(unsupported(format!("tensor {name}")));
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
            modules.insert(plain_name(module, prefix).to_string(), lora);
        }
        if modules.is_empty() {
            return Err(ModelError::MissingTensor(format!("{}: any lora_A.weight", folder.display())));
        }
        Ok(Self { modules })
    }
}

/// `base_model.model.transformer.h.0.attn.c_attn` → `h.0.attn.c_attn`.
fn plain_name<'a>(name: &'a str, prefix: &str) -> &'a str {
    let name = name.strip_prefix("base_model.model.").unwrap_or(name);
    name.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('.')).unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lose_the_wrapper_and_the_prefix() {
        assert_eq!(
            plain_name("base_model.model.transformer.h.0.attn.c_attn", "transformer"),
            "h.0.attn.c_attn"
        );
        assert_eq!(plain_name("base_model.model.h.0.mlp.c_fc", "transformer"), "h.0.mlp.c_fc");
        let patterns = BTreeMap::from([("attn.c_proj".to_string(), 2)]);
        assert_eq!(pattern(&patterns, "base_model.model.h.0.attn.c_proj"), Some(&2));
        assert_eq!(pattern(&patterns, "base_model.model.h.0.crossattn.c_proj"), None);
        assert_eq!(pattern(&patterns, "base_model.model.h.0.mlp.c_proj"), None);
    }
}
