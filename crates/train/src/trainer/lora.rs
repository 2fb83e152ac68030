//! LoRA on a model's linear layers, in PEFT's files.

use std::collections::BTreeMap;
use std::path::Path;

use candlewick_kernels::train::{Floats, Gemm, View, random, scale};
use serde_json::json;

use super::network::Network;
use super::options::{FinetuneOptions, LoraOptions};
use super::tensors::{self, Sum, Tensor};
use crate::data::Task;
use crate::model::{Cpu, Linear, Lora, Param};
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
        let (stack, params) = network.parts();
        let mut unused: Vec<&String> = targets.iter().collect();
        for (index, block) in stack.blocks.iter_mut().enumerate() {
            for (place, linear) in block.linears_mut().into_iter().enumerate() {
                let weight = params[linear.weight].name.clone();
                let name = weight.strip_suffix(".weight").unwrap_or(&weight);
                let fits = |target: &String| name == target || name.ends_with(&format!(".{target}"));
                if !targets.iter().any(fits) {
                    continue;
                }
                unused.retain(|target| !fits(target));
                // As PEFT: A is uniform within 1 / √in (Kaiming's with a = √5), B is zero.
                let mut a = Floats::zeroed(lora.rank * linear.input);
                let bound = 1.0 / (linear.input as f32).sqrt();
                let key = random::key(&[options.seed, u64::MAX, index as u64, place as u64]);
                a.iter_mut().enumerate().for_each(|(i, x)| {
                    *x = (2.0 * random::uniform(key, i as u32) - 1.0) * bound;
                });
                let b = Floats::zeroed(linear.output * lora.rank);
                linear.lora = Some(Lora {
                    a: params.push(Param::new(
                        format!("{name}.lora_A.weight"),
                        &[lora.rank, linear.input],
                        a,
                    )),
                    b: params.push(Param::new(
                        format!("{name}.lora_B.weight"),
                        &[linear.output, lora.rank],
                        b,
                    )),
                    rank: lora.rank,
                    scale: alpha / lora.rank as f32,
                    dropout: lora.dropout,
                    site: block_site(block_number(index), place),
                });
            }
        }
        if let Some(target) = unused.first() {
            return Err(TrainError::option("lora", format!("no linear layer is named {target}")));
        }
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

fn block_number(index: usize) -> u64 {
    index as u64 + 1
}

/// Numbers of dropout masks that blocks do not use themselves.
fn block_site(block: u64, place: usize) -> u64 {
    16 * block + 8 + place as u64
}

impl Network {
    /// The adapters' deltas become part of the weights, and the adapters zero.
    pub fn merge(&mut self, cpu: &mut Cpu) {
        let (stack, params) = self.parts();
        for linear in stack.blocks.iter_mut().flat_map(|block| block.linears_mut()) {
            let Linear { weight, input, output, conv1d, .. } = *linear;
            let Some(lora) = linear.lora.take() else { continue };
            let mut a = Floats::from(params.value(lora.a));
            scale(&cpu.pool, lora.scale, &mut a);
            let b = Floats::from(params.value(lora.b));
            let (a, b) = (View::new(&a, lora.rank, input), View::new(&b, output, lora.rank));
            let value = &mut params[weight].value;
            if conv1d {
                cpu.gemm(a.transposed(), b.transposed(), Gemm::ADD, value);
            } else {
                cpu.gemm(b, a, Gemm::ADD, value);
            }
        }
    }
}
