//! Options of a run, under transformers' `TrainingArguments` names.

use std::path::PathBuf;

use candlewick_models::{LayerIndices, ModuleNames, Ordered};
use serde::Deserialize;
use serde_json::Value;

use crate::data::{DataOptions, Task};
use crate::{Result, TrainError};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Schedule {
    /// To 0 at the last step.
    Linear,
    Cosine,
    Constant,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    #[default]
    AdamW,
    /// For the matrices inside the layers; AdamW for the rest.
    Muon,
}

/// What the inputs of the layers' products are rounded to. Weights, their gradients and moments, norms, the softmax and
/// the loss are f32 in all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PrecisionOption {
    #[default]
    F32,
    Bf16,
    /// bf16 where the processor has instructions for it, else f32; that of the checkpoint where a run goes on.
    Auto,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LoraOptions {
    /// `None`: 8.
    pub rank: Option<usize>,
    /// The delta is scaled by alpha / rank. `None`: twice the rank.
    pub alpha: Option<f32>,
    /// `None`: 0.
    pub dropout: Option<f32>,
    /// As PEFT's `target_modules`: last parts of names, a regular expression, or `all-linear`. `None`: `c_attn`
    /// of a GPT-2, else queries and values.
    pub target_modules: Option<ModuleNames>,
    /// As PEFT's fields of these names.
    pub exclude_modules: Option<ModuleNames>,
    pub layers_to_transform: Option<LayerIndices>,
    pub layers_pattern: Option<ModuleNames>,
    #[serde(default)]
    pub rank_pattern: Ordered<usize>,
    #[serde(default)]
    pub alpha_pattern: Ordered<f64>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FinetuneOptions {
    /// A folder; that of an adapter is trained on.
    pub model: String,
    /// The folder of an adapter's base. `None`: the path that the adapter gives, absolute or from its own folder.
    pub base: Option<String>,
    /// What `adapter_config.json` will call the base. `None`: its folder.
    pub base_name: Option<String>,
    pub task: Task,
    pub train: Vec<PathBuf>,
    #[serde(default)]
    pub validation: Vec<PathBuf>,
    pub output: PathBuf,
    /// Weights are initialised at random: the folder needs `config.json` and a tokenizer only.
    #[serde(default)]
    pub from_scratch: bool,
    /// Keys to be put over those of `config.json`.
    #[serde(default)]
    pub config: serde_json::Map<String, Value>,
    #[serde(default = "three")]
    pub epochs: f64,
    /// Optimiser steps; overrides `epochs`.
    pub max_steps: Option<u64>,
    #[serde(default = "eight")]
    pub batch_size: usize,
    #[serde(default = "one")]
    pub gradient_accumulation_steps: usize,
    #[serde(default)]
    pub optimizer: Method,
    #[serde(default)]
    pub precision: PrecisionOption,
    #[serde(default = "learning_rate")]
    pub learning_rate: f32,
    #[serde(default)]
    pub weight_decay: f32,
    #[serde(default = "beta_1")]
    pub adam_beta1: f32,
    #[serde(default = "beta_2")]
    pub adam_beta2: f32,
    #[serde(default = "epsilon")]
    pub adam_epsilon: f32,
    /// 0: no clipping.
    #[serde(default = "one_f32")]
    pub max_grad_norm: f32,
    #[serde(default = "linear")]
    pub lr_scheduler_type: Schedule,
    #[serde(default)]
    pub warmup_steps: u64,
    /// Share of all steps; overridden by `warmup_steps`.
    #[serde(default)]
    pub warmup_ratio: f64,
    #[serde(default)]
    pub label_smoothing: f32,
    /// All of the model's dropout probabilities. `None`: the configuration's.
    pub dropout: Option<f32>,
    #[serde(default)]
    pub gradient_checkpointing: bool,
    /// The embeddings and so many layers stay as they are.
    #[serde(default)]
    pub freeze_layers: usize,
    pub lora: Option<LoraOptions>,
    #[serde(default = "seed")]
    pub seed: u64,
    /// 0: as many as the machine has cores.
    #[serde(default)]
    pub threads: usize,
    /// `None`: at the end of each epoch.
    pub eval_steps: Option<u64>,
    pub save_steps: Option<u64>,
    /// Checkpoints that are kept, beside the best one's.
    #[serde(default = "two")]
    pub save_total_limit: usize,
    /// What the output holds at the end: the weights with the best evaluation. `None`: if there is a validation set.
    pub load_best_model_at_end: Option<bool>,
    /// A name among an evaluation's metrics, or a path: `macro.f1`.
    #[serde(default = "loss")]
    pub metric_for_best_model: String,
    /// `None`: not for a loss or a perplexity.
    pub greater_is_better: Option<bool>,
    /// So many evaluations without an improvement end the run.
    pub early_stopping_patience: Option<u64>,
    /// Go on from the output's last checkpoint, if there is one.
    #[serde(default)]
    pub resume: bool,
    #[serde(default)]
    pub options: DataOptions,
}

fn three() -> f64 {
    3.0
}
fn eight() -> usize {
    8
}
fn one() -> usize {
    1
}
fn two() -> usize {
    2
}
fn one_f32() -> f32 {
    1.0
}
fn learning_rate() -> f32 {
    5e-5
}
fn beta_1() -> f32 {
    0.9
}
fn beta_2() -> f32 {
    0.999
}
fn epsilon() -> f32 {
    1e-8
}
fn linear() -> Schedule {
    Schedule::Linear
}
fn seed() -> u64 {
    42
}
fn loss() -> String {
    "loss".into()
}

impl FinetuneOptions {
    /// Ranges; what depends on the model or the data is checked where that is known.
    pub fn check(&self) -> Result<()> {
        let fail = |option, reason: &str| Err(TrainError::option(option, reason));
        let probability = |p: f32| (0.0..1.0).contains(&p);
        if self.train.is_empty() {
            return fail("train", "no files");
        }
        if !(self.epochs > 0.0 && self.epochs <= 1e6) {
            return fail("epochs", "expected a number above 0");
        }
        if self.max_steps == Some(0) || self.eval_steps == Some(0) || self.save_steps == Some(0) {
            return fail("maxSteps, evalSteps, saveSteps", "expected at least 1");
        }
        if self.batch_size == 0 || self.gradient_accumulation_steps == 0 {
            return fail("batchSize, gradientAccumulationSteps", "expected at least 1");
        }
        if !(self.learning_rate > 0.0 && self.learning_rate.is_finite()) {
            return fail("learningRate", "expected a number above 0");
        }
        if !probability(self.adam_beta1) || !probability(self.adam_beta2) || self.adam_epsilon <= 0.0 {
            return fail("adamBeta1, adamBeta2, adamEpsilon", "out of range");
        }
        if !(self.weight_decay >= 0.0 && self.weight_decay.is_finite() && self.max_grad_norm >= 0.0) {
            return fail("weightDecay, maxGradNorm", "expected 0 or more");
        }
        if !probability(self.label_smoothing) || !self.dropout.is_none_or(probability) {
            return fail("labelSmoothing, dropout", "expected at least 0 and less than 1");
        }
        if !(0.0..=1.0).contains(&self.warmup_ratio) {
            return fail("warmupRatio", "expected 0 to 1");
        }
        if self.save_total_limit == 0 {
            return fail("saveTotalLimit", "expected at least 1");
        }
        if let Some(lora) = &self.lora {
            let patterns = lora.rank_pattern.0.iter().map(|(_, rank)| *rank);
            let mut ranks = patterns.chain([lora.rank.unwrap_or(1)]);
            if ranks.any(|rank| rank == 0 || rank > 4096) || !lora.dropout.is_none_or(probability) {
                return fail("lora", "expected a rank of 1 to 4096 and a dropout below 1");
            }
            let patterns = lora.alpha_pattern.0.iter().map(|(_, alpha)| *alpha as f32);
            let mut alphas = patterns.chain(lora.alpha);
            if alphas.any(|alpha| !(alpha.is_finite() && alpha > 0.0)) {
                return fail("lora", "expected an alpha above 0");
            }
        }
        if self.validation.is_empty()
            && (self.eval_steps.is_some()
                || self.early_stopping_patience.is_some()
                || self.metric_for_best_model != "loss"
                || self.greater_is_better.is_some()
                || self.load_best_model_at_end == Some(true))
        {
            return fail("validation", "evaluation was asked for, but there is no validation set");
        }
        Ok(())
    }

    pub fn keeps_best(&self) -> bool {
        self.load_best_model_at_end.unwrap_or(!self.validation.is_empty())
    }

    pub fn greater_is_better(&self) -> bool {
        let metric = self.metric_for_best_model.as_str();
        let is_loss = matches!(
            metric,
            "loss" | "perplexity" | "bitsPerByte" | "meanSquaredError" | "meanAbsoluteError"
        );
        self.greater_is_better.unwrap_or(!is_loss)
    }
}
