//! LoRA on a model's linear layers, in PEFT's files.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use candlewick_models::{self as models, LoraWeights, ModelError, Names};
use serde_json::{Map, Value, json};

use super::options::{FinetuneOptions, LoraOptions};
use super::tensors::{self, Sum, Tensor};
use crate::data::Task;
use crate::model::{LoraShape, Param, Params, Stack, attach, attach_given};
use crate::{Result, TrainError};

pub const WEIGHTS: &str = "adapter_model.safetensors";
const CONFIG: &str = "adapter_config.json";

/// An existing adapter whose training a run continues.
pub struct Start {
    config: Map<String, Value>,
    /// Tensors that the adapter holds whole.
    whole: Vec<String>,
    /// Its matrices, when the weights have been read.
    pub deltas: BTreeMap<String, LoraWeights>,
}

impl Start {
    pub fn new(adapter: &models::Adapter) -> Result<Self> {
        let config = adapter.config.as_object().cloned().unwrap_or_default();
        if config.get("bias").and_then(Value::as_str).is_some_and(|bias| bias != "none") {
            let reason = format!("{}: training the biases of an adapter", adapter.folder.display());
            return Err(ModelError::UnsupportedModel(reason).into());
        }
        let whole = adapter.whole().map(str::to_string).collect();
        Ok(Self { config, whole, deltas: BTreeMap::new() })
    }

    /// Refuses options that contradict the existing adapter's shape.
    fn contradicts(&self, lora: &LoraOptions) -> Result<()> {
        let fail = |name: &str, has: &Value| {
            Err(TrainError::option("lora", format!("the adapter has {name} {has}")))
        };
        let of = |key: &str| self.config.get(key).unwrap_or(&Value::Null);
        if lora.rank.is_some_and(|rank| of("r").as_u64() != Some(rank as u64)) {
            return fail("rank", of("r"));
        }
        if lora.alpha.is_some_and(|alpha| of("lora_alpha").as_f64().map(|has| has as f32) != Some(alpha)) {
            return fail("alpha", of("lora_alpha"));
        }
        if let Some(targets) = &lora.target_modules {
            let sorted = |mut names: Vec<String>| {
                names.sort_unstable();
                names
            };
            let has: Option<Vec<String>> = serde_json::from_value(of("target_modules").clone()).ok();
            if has.map(sorted) != Some(sorted(targets.clone())) {
                return fail("targetModules", of("target_modules"));
            }
        }
        Ok(())
    }
}

/// Adapters beside a network's linear layers: `adapter_config.json` as it will be written.
#[derive(Debug, Clone)]
pub struct Adapter {
    config: Map<String, Value>,
    /// Tensors that the continued adapter holds whole.
    whole: Vec<String>,
}

impl Adapter {
    /// Freezes the model and puts a pair of matrices beside each target; a head stays trainable.
    /// `new`: names of parameters that the checkpoint lacks.
    pub fn attach(
        stack: &mut Stack,
        params: &mut Params,
        new: &[String],
        lora: &LoraOptions,
        names: Names,
        options: &FinetuneOptions,
    ) -> Result<Self> {
        let gpt2 = params.find("wte.weight").is_some();
        let targets = lora.target_modules.clone().unwrap_or_else(|| default_targets(gpt2, names));
        let rank = lora.rank.unwrap_or(8);
        let shape = LoraShape {
            rank,
            alpha: lora.alpha.unwrap_or(2.0 * rank as f32),
            dropout: lora.dropout.unwrap_or(0.0),
        };
        let mut whole = new_modules(new);
        let heads: &[&str] = match options.task {
            Task::TextClassification if gpt2 => &["score"],
            // PEFT takes every module whose name ends so: of a DistilBERT both.
            Task::TextClassification => &["classifier", "pre_classifier"],
            Task::TokenClassification => &["classifier"],
            Task::QuestionAnswering => &["qa_outputs"],
            _ => &[],
        };
        for head in heads.iter().filter(|head| params.has_module(head)) {
            if !whole.iter().any(|module| module == head) {
                whole.push(head.to_string());
            }
        }
        for param in &mut params.all {
            param.trainable = whole.iter().any(|module| param.name.starts_with(&format!("{module}.")));
        }
        attach(stack, params, shape, &targets, names, options.seed)?;
        let config = json!({
            "peft_type": "LORA",
            "task_type": task_type(options.task),
            "base_model_name_or_path": options.base_name.as_ref().unwrap_or(&options.model),
            "r": rank,
            "lora_alpha": shape.alpha,
            "lora_dropout": shape.dropout,
            "target_modules": targets,
            "fan_in_fan_out": gpt2,
            "bias": "none",
            "modules_to_save": if whole.is_empty() { json!(null) } else { json!(whole) },
            "inference_mode": true,
            "use_rslora": false,
            "use_dora": false,
        });
        let Value::Object(config) = config else { unreachable!("it was an object") };
        Ok(Self { config, whole: Vec::new() })
    }

    /// Goes on with an adapter as PEFT does with `is_trainable`: its matrices and the modules that it holds whole are
    /// trained, as is a head that neither it nor its base has.
    pub fn go_on(
        stack: &mut Stack,
        params: &mut Params,
        new: &[String],
        start: Start,
        options: &FinetuneOptions,
    ) -> Result<Self> {
        if let Some(lora) = &options.lora {
            start.contradicts(lora)?;
        }
        let new = new_modules(new);
        let Start { mut config, whole, deltas } = start;
        for param in &mut params.all {
            param.trainable = whole.contains(&param.name)
                || new.iter().any(|module| param.name.starts_with(&format!("{module}.")));
        }
        let unused = whole.iter().find(|name| params.find(name).is_none());
        if let Some(name) = unused {
            let reason = format!("the adapter holds {name}, which this task has not");
            return Err(TrainError::option("task", reason));
        }
        let given = options.lora.as_ref().and_then(|lora| lora.dropout);
        let dropout =
            given.unwrap_or(config.get("lora_dropout").and_then(Value::as_f64).unwrap_or(0.0) as f32);
        attach_given(stack, params, deltas, dropout)?;
        if let Some(dropout) = given {
            config.insert("lora_dropout".into(), json!(dropout));
        }
        config.insert("inference_mode".into(), json!(true));
        config.insert("task_type".into(), task_type(options.task));
        if let Some(base) = options.base_name.as_ref().or(options.base.as_ref()) {
            config.insert("base_model_name_or_path".into(), json!(base));
        }
        if !new.is_empty() {
            let mut modules: Vec<Value> =
                config.get("modules_to_save").and_then(Value::as_array).cloned().unwrap_or_default();
            modules.extend(new.iter().map(|module| json!(module)));
            config.insert("modules_to_save".into(), json!(modules));
        }
        Ok(Self { config, whole })
    }

    /// The part of the configuration that must be equal for a run to resume.
    pub fn facts(&self) -> String {
        let mut config = self.config.clone();
        config.remove("base_model_name_or_path");
        Value::Object(config).to_string()
    }

    /// Whether the parameter is an adapter's own.
    pub fn owns(param: &Param) -> bool {
        param.name.ends_with(".lora_A.weight") || param.name.ends_with(".lora_B.weight")
    }

    /// Writes the adapter's files into `folder`; `saved_name`: a parameter's name in PEFT's files.
    pub fn save(
        &self,
        params: &Params,
        saved_name: impl Fn(&Param) -> String,
        folder: &Path,
        sums: &mut BTreeMap<String, Sum>,
    ) -> Result<()> {
        let text =
            serde_json::to_vec_pretty(&self.config).map_err(|e| TrainError::Internal(e.to_string()))?;
        sums.insert(CONFIG.into(), tensors::write_bytes(&folder.join(CONFIG), &text)?);
        // Frozen parameters (`freezeLayers`) belong to the adapter too.
        let holds = |param: &&Param| param.trainable || Self::owns(param) || self.whole.contains(&param.name);
        let own = params.all.iter().filter(holds);
        let tensors: Vec<Tensor> =
            own.map(|param| (saved_name(param), param.shape.clone(), &param.value[..])).collect();
        sums.insert(WEIGHTS.into(), tensors::write(&folder.join(WEIGHTS), &tensors)?);
        Ok(())
    }
}

/// PEFT's name of the task.
fn task_type(task: Task) -> Value {
    match task {
        task if task.is_causal() => json!("CAUSAL_LM"),
        Task::TextClassification => json!("SEQ_CLS"),
        Task::TokenClassification => json!("TOKEN_CLS"),
        Task::QuestionAnswering => json!("QUESTION_ANS"),
        Task::FeatureExtraction => json!("FEATURE_EXTRACTION"),
        _ => json!(null),
    }
}

/// PEFT's own of a GPT-2 and of a BERT: queries and values, under the name that the model has for them.
fn default_targets(gpt2: bool, names: Names) -> Vec<String> {
    if gpt2 {
        return vec!["c_attn".to_string()];
    }
    let own = |module: &str| {
        let name = names.own(&format!("encoder.layer.0.attention.self.{module}")).into_owned();
        name.rsplit('.').next().map(str::to_string).unwrap_or(name)
    };
    ["query", "value"].map(own).to_vec()
}

/// Modules that the checkpoint lacks, so that they are trained and saved whole.
fn new_modules(new: &[String]) -> Vec<String> {
    let head = |name: &&String| !Names::is_body(name) || name.starts_with("pooler.");
    let modules: BTreeSet<&str> = new.iter().filter(head).filter_map(|name| name.split('.').next()).collect();
    modules.into_iter().map(str::to_string).collect()
}
