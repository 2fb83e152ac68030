//! LoRA on a model's linear layers, in PEFT's files.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::json;

use super::network::Network;
use super::options::{FinetuneOptions, LoraOptions};
use super::tensors::{self, Sum, Tensor};
use crate::data::Task;
use crate::model::{Cpu, LoraShape, Param, attach, merge};
use crate::{Result, TrainError};

pub const WEIGHTS: &str = "adapter_model.safetensors";
const CONFIG: &str = "adapter_config.json";

/// What `adapter_config.json` says.
#[derive(Debug, Clone)]
pub struct Adapter {
    rank: usize,
    alpha: f32,
    dropout: f32,
    targets: Vec<String>,
    /// The base layers are `Conv1D`.
    fan_in_fan_out: bool,
    task: Task,
    base: String,
    /// Modules beside the adapters that are trained and saved whole.
    whole: Vec<&'static str>,
}

impl Adapter {
    /// Freezes the model and puts a pair of matrices beside each target; a head stays trainable.
    pub fn attach(network: &mut Network, lora: &LoraOptions, options: &FinetuneOptions) -> Result<Self> {
        let causal = options.task.is_causal();
        let defaults = if causal { vec!["c_attn"] } else { vec!["query", "value"] };
        let targets =
            lora.target_modules.clone().unwrap_or_else(|| defaults.into_iter().map(str::to_string).collect());
        let alpha = lora.alpha.unwrap_or(2.0 * lora.rank as f32);
        let mut whole = Vec::new();
        let new = network.new.clone();
        let mut trains = |module: &'static str, trains: bool| {
            if trains {
                whole.push(module);
            }
        };
        trains("classifier", matches!(options.task, Task::TextClassification | Task::TokenClassification));
        trains("qa_outputs", options.task == Task::QuestionAnswering);
        trains("pooler", new.iter().any(|name| name.starts_with("pooler.")));
        trains("cls", new.iter().any(|name| name.starts_with("cls.")));
        for param in &mut network.params.all {
            param.trainable = whole.iter().any(|module| param.name.starts_with(&format!("{module}.")));
        }
        let shape = LoraShape { rank: lora.rank, alpha, dropout: lora.dropout };
        let (stack, params) = network.parts();
        attach(stack, params, shape, &targets, options.seed)?;
        Ok(Self {
            rank: lora.rank,
            alpha,
            dropout: lora.dropout,
            targets,
            fan_in_fan_out: causal,
            task: options.task,
            base: options.model.clone(),
            whole,
        })
    }

    /// Whether the parameter is an adapter's own.
    pub fn owns(param: &Param) -> bool {
        param.name.ends_with(".lora_A.weight") || param.name.ends_with(".lora_B.weight")
    }

    pub fn save(&self, network: &Network, folder: &Path, sums: &mut BTreeMap<String, Sum>) -> Result<()> {
        let task = match self.task {
            task if task.is_causal() => json!("CAUSAL_LM"),
            Task::TextClassification => json!("SEQ_CLS"),
            Task::TokenClassification => json!("TOKEN_CLS"),
            Task::QuestionAnswering => json!("QUESTION_ANS"),
            Task::FeatureExtraction => json!("FEATURE_EXTRACTION"),
            _ => json!(null),
        };
        let config = json!({
            "peft_type": "LORA",
            "task_type": task,
            "base_model_name_or_path": self.base,
            "r": self.rank,
            "lora_alpha": self.alpha,
            "lora_dropout": self.dropout,
            "target_modules": self.targets,
            "fan_in_fan_out": self.fan_in_fan_out,
            "bias": "none",
            "modules_to_save": if self.whole.is_empty() { json!(null) } else { json!(self.whole) },
            "inference_mode": true,
            "use_rslora": false,
            "use_dora": false,
        });
        let text = serde_json::to_vec_pretty(&config).map_err(|e| TrainError::Internal(e.to_string()))?;
        sums.insert(CONFIG.into(), tensors::write_bytes(&folder.join(CONFIG), &text)?);
        let own = network.params.all.iter().filter(|param| param.trainable);
        let tensors: Vec<Tensor> =
            own.map(|param| (network.saved_name(param), param.shape.clone(), &param.value[..])).collect();
        sums.insert(WEIGHTS.into(), tensors::write(&folder.join(WEIGHTS), &tensors)?);
        Ok(())
    }
}

impl Network {
    /// The adapters' deltas become part of the weights.
    pub fn merge(&mut self, cpu: &mut Cpu) {
        let (stack, params) = self.parts();
        merge(cpu, stack, params);
    }
}
