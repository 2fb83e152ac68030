//! LoRA on a model's linear layers, in PEFT's files.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use candlewick_models::family::architecture::Architecture;
use candlewick_models::{
    self as models, AdapterConfig, Kind, LoraWeights, ModelError, ModuleNames, Names, Ordered, Targets,
    kind_of,
};
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::{Map, Value, json};

use super::options::{FinetuneOptions, LoraOptions};
use super::tensors::{self, Sum, Tensor};
use crate::data::Task;
use crate::model::{Linear, LoraShape, Param, Params, Stack, attach, attach_given};
use crate::{Result, TrainError};

pub const WEIGHTS: &str = "adapter_model.safetensors";
const CONFIG: &str = "adapter_config.json";

/// An existing adapter whose training a run continues.
pub struct Start {
    config: Map<String, Value>,
    settings: AdapterConfig,
    /// Tensors that the adapter holds whole.
    whole: Vec<String>,
    /// Its matrices, when the weights have been read.
    pub deltas: BTreeMap<String, LoraWeights>,
}

impl Start {
    pub fn new(adapter: &models::Adapter) -> Result<Self> {
        let config = adapter.config.as_object().cloned().unwrap_or_default();
        let settings = adapter.settings.clone();
        let biases = settings.bias.as_deref().is_some_and(|bias| bias != "none");
        for (is, what) in [
            (biases, "bias: the biases of an adapter"),
            (settings.use_dora, "use_dora: a DoRA"),
            (settings.lora_bias, "lora_bias: biases beside the matrices"),
            (settings.trainable_token_indices.is_some(), "trainable_token_indices: tokens of an adapter"),
        ] {
            if is {
                let folder = adapter.folder.display();
                let reason = format!("{folder}: training goes on with plain LoRA alone, not with {what}");
                return Err(ModelError::UnsupportedModel(reason).into());
            }
        }
        let whole = adapter.whole().map(str::to_string).collect();
        Ok(Self { config, settings, whole, deltas: BTreeMap::new() })
    }

    /// Refuses options that contradict the existing adapter's shape.
    fn contradicts(&self, lora: &LoraOptions) -> Result<()> {
        let has = &self.settings;
        let of = |key: &str| self.config.get(key).unwrap_or(&Value::Null);
        let differ = |given: &Option<ModuleNames>, has: &Option<ModuleNames>| {
            given.as_ref().is_some_and(|given| has.as_ref().map(sorted) != Some(sorted(given)))
        };
        let layers = &lora.layers_to_transform;
        for (differs, name, key) in [
            (lora.rank.is_some_and(|rank| has.r != rank), "rank", "r"),
            (lora.alpha.is_some_and(|alpha| has.lora_alpha as f32 != alpha), "alpha", "lora_alpha"),
            (differ(&lora.target_modules, &has.target_modules), "targetModules", "target_modules"),
            (differ(&lora.exclude_modules, &has.exclude_modules), "excludeModules", "exclude_modules"),
            (differ(&lora.layers_pattern, &has.layers_pattern), "layersPattern", "layers_pattern"),
            (
                layers.is_some() && *layers != has.layers_to_transform,
                "layersToTransform",
                "layers_to_transform",
            ),
            (differs(&lora.rank_pattern, &has.rank_pattern), "rankPattern", "rank_pattern"),
            (differs(&lora.alpha_pattern, &has.alpha_pattern), "alphaPattern", "alpha_pattern"),
        ] {
            if differs {
                return Err(TrainError::option("lora", format!("the adapter has {name} {}", of(key))));
            }
        }
        Ok(())
    }
}

/// Whether patterns were given, and others.
fn differs<T: PartialEq>(given: &Ordered<T>, has: &Ordered<T>) -> bool {
    !given.0.is_empty() && given != has
}

fn sorted(names: &ModuleNames) -> ModuleNames {
    let mut names = names.clone();
    if let ModuleNames::Many(names) = &mut names {
        names.sort_unstable();
    }
    names
}

/// The model beside whose layers an adapter is trained.
#[derive(Debug, Clone, Copy)]
pub struct Base {
    /// `None`: a GPT-2.
    pub encoder: Option<&'static Architecture>,
    pub names: Names,
    /// Of a model with a head: the body's names have a prefix.
    pub prefixed: bool,
}

impl Base {
    /// The name that transformers, and so PEFT, has for a tensor or module.
    pub fn full(&self, name: &str) -> String {
        self.names.written(name, self.prefixed)
    }

    /// What an adapter is over by default, as PEFT's of a GPT-2 and of a BERT: queries and values, under the name that
    /// the model has for them.
    fn default_targets(&self) -> Vec<String> {
        if self.encoder.is_none() {
            return vec!["c_attn".to_string()];
        }
        let own = |module: &str| {
            let name = self.names.own(&format!("encoder.layer.0.attention.self.{module}")).into_owned();
            name.rsplit('.').next().map(str::to_string).unwrap_or(name)
        };
        ["query", "value"].map(own).to_vec()
    }
}

/// Adapters beside a network's linear layers: `adapter_config.json` as it will be written.
#[derive(Debug, Clone)]
pub struct Adapter {
    config: Map<String, Value>,
    /// In their order, which says which of several counts.
    rank_pattern: Ordered<usize>,
    alpha_pattern: Ordered<f64>,
    /// Tensors that the continued adapter holds whole.
    whole: Vec<String>,
}

impl Adapter {
    /// Freezes the model and puts a pair of matrices beside each target; a head stays trainable.
    /// `linears`: the layers that can have one; `new`: names of parameters that the checkpoint lacks.
    pub fn attach(
        (stack, heads): (&mut Stack, Vec<&mut Linear>),
        params: &mut Params,
        new: &[String],
        lora: &LoraOptions,
        base: &Base,
        options: &FinetuneOptions,
    ) -> Result<Self> {
        let gpt2 = base.encoder.is_none();
        let defaults = base.default_targets();
        let rank = lora.rank.unwrap_or(8);
        let alpha = lora.alpha.unwrap_or(2.0 * rank as f32);
        let mut whole = new_modules(new);
        let saved: &[&str] = match options.task {
            Task::TextClassification if gpt2 => &["score"],
            // PEFT takes every module whose name ends so: of a DistilBERT both.
            Task::TextClassification => &["classifier", "pre_classifier"],
            Task::TokenClassification => &["classifier"],
            Task::QuestionAnswering => &["qa_outputs"],
            _ => &[],
        };
        for head in saved.iter().filter(|head| params.has_module(head)) {
            if !whole.iter().any(|module| module == head) {
                whole.push(head.to_string());
            }
        }
        let settings = AdapterConfig {
            task_type: task_type(options.task).as_str().map(str::to_string),
            r: rank,
            lora_alpha: f64::from(alpha),
            target_modules: lora.target_modules.clone(),
            exclude_modules: lora.exclude_modules.clone(),
            modules_to_save: Some(whole.iter().map(|module| module.to_string()).collect()),
            layers_to_transform: lora.layers_to_transform.clone(),
            layers_pattern: lora.layers_pattern.clone(),
            rank_pattern: lora.rank_pattern.clone(),
            alpha_pattern: lora.alpha_pattern.clone(),
            ..AdapterConfig::default()
        };
        let targets = Targets::new(&settings, &defaults.iter().map(String::as_str).collect::<Vec<_>>())
            .map_err(|error| of_option(&error.to_string()))?;
        for param in &mut params.all {
            param.trainable = whole.iter().any(|module| param.name.starts_with(&format!("{module}.")));
        }
        let modules = modules_of(params, base.encoder);
        let dropout = lora.dropout.unwrap_or(0.0);
        let mut trained = Vec::new();
        attach(stack, heads, params, dropout, options.seed, |name| {
            let full = base.full(name);
            if targets.refusal(&full, kind_of(name, &settings, base.encoder)).is_some() {
                return None;
            }
            let shape = LoraShape { rank: targets.rank_of(&full), scale: targets.scale_of(&full).ok()? };
            trained.push(full);
            Some(shape)
        });
        check_use(&targets, lora, &settings, &modules, &trained, base)?;
        let target_modules = match &lora.target_modules {
            // As PEFT writes it: what the model's linear layers are is not asked again.
            Some(ModuleNames::One(name)) if name.to_lowercase() == "all-linear" => json!(trained),
            Some(names) => json!(names),
            None => json!(defaults),
        };
        let config = json!({
            "peft_type": "LORA",
            "task_type": task_type(options.task),
            "base_model_name_or_path": options.base_name.as_ref().unwrap_or(&options.model),
            "r": rank,
            "lora_alpha": alpha,
            "lora_dropout": dropout,
            "target_modules": target_modules,
            "exclude_modules": lora.exclude_modules,
            "layers_to_transform": lora.layers_to_transform,
            "layers_pattern": lora.layers_pattern,
            "fan_in_fan_out": gpt2,
            "bias": "none",
            "modules_to_save": if whole.is_empty() { json!(null) } else { json!(whole) },
            "inference_mode": true,
            "use_rslora": false,
            "use_dora": false,
        });
        let Value::Object(config) = config else { unreachable!("it was an object") };
        let AdapterConfig { rank_pattern, alpha_pattern, .. } = settings;
        Ok(Self { config, rank_pattern, alpha_pattern, whole: Vec::new() })
    }

    /// Goes on with an adapter as PEFT does with `is_trainable`: its matrices and the modules that it holds whole are
    /// trained, as is a head that neither it nor its base has.
    pub fn go_on(
        (stack, heads): (&mut Stack, Vec<&mut Linear>),
        params: &mut Params,
        new: &[String],
        start: Start,
        options: &FinetuneOptions,
    ) -> Result<Self> {
        if let Some(lora) = &options.lora {
            start.contradicts(lora)?;
        }
        let new = new_modules(new);
        let Start { mut config, settings, whole, deltas } = start;
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
        attach_given(stack, heads, params, deltas, dropout)?;
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
        let AdapterConfig { rank_pattern, alpha_pattern, .. } = settings;
        Ok(Self { config, rank_pattern, alpha_pattern, whole })
    }

    /// The part of the configuration that must be equal for a run to resume.
    pub fn facts(&self) -> String {
        let mut adapter = self.clone();
        adapter.config.remove("base_model_name_or_path");
        json!([adapter.config, adapter.rank_pattern.0, adapter.alpha_pattern.0]).to_string()
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
        let text = serde_json::to_vec_pretty(self).map_err(|e| TrainError::Internal(e.to_string()))?;
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

/// `adapter_config.json`: a `Map` sorts its keys, and the patterns must keep their order.
impl Serialize for Adapter {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (key, value) in
            self.config.iter().filter(|(key, _)| !key.ends_with("_pattern") || *key == "layers_pattern")
        {
            map.serialize_entry(key, value)?;
        }
        map.serialize_entry("rank_pattern", &self.rank_pattern)?;
        map.serialize_entry("alpha_pattern", &self.alpha_pattern)?;
        map.end()
    }
}

/// What is wrong with a pattern, by the option's names instead of the file's.
fn of_option(message: &str) -> TrainError {
    let mut message = message.replace("config: ", "").replace("adapter_config.json: ", "");
    for (field, option) in [
        ("target_modules", "targetModules"),
        ("exclude_modules", "excludeModules"),
        ("layers_to_transform", "layersToTransform"),
        ("layers_pattern", "layersPattern"),
        ("rank_pattern", "rankPattern"),
        ("alpha_pattern", "alphaPattern"),
    ] {
        message = message.replace(field, option);
    }
    TrainError::option("lora", message)
}

/// The modules of a model and what PEFT makes of each, by its parameters; `Linear` may stand for an embedding.
fn modules_of(params: &Params, encoder: Option<&Architecture>) -> BTreeMap<String, Kind> {
    let mut modules = BTreeMap::new();
    for param in &params.all {
        let Some((module, _)) = param.name.rsplit_once('.') else { continue };
        for (end, _) in module.match_indices('.') {
            modules.entry(module[..end].to_string()).or_insert(Kind::Other);
        }
        let kind = if Names::is_embedding(module) { Kind::Embedding } else { Kind::Other };
        modules.insert(module.to_string(), kind);
    }
    match encoder {
        None if modules.contains_key("score") => {}
        None => drop(modules.insert("lm_head".into(), Kind::Head)),
        Some(encoder) if modules.contains_key(encoder.masked_lm.dense) => {
            modules.insert(encoder.masked_lm.decoder.into(), Kind::Head);
        }
        Some(_) => {}
    }
    modules
}

/// Refuses options that choose what cannot be trained, and those that choose nothing. `trained`: full names.
fn check_use(
    targets: &Targets,
    lora: &LoraOptions,
    settings: &AdapterConfig,
    modules: &BTreeMap<String, Kind>,
    trained: &[String],
    base: &Base,
) -> Result<()> {
    let refuse = |reason: String| Err(TrainError::option("lora", reason));
    let known: BTreeSet<&str> = trained.iter().map(String::as_str).collect();
    let (mut excluded, mut other) = (lora.exclude_modules.is_none(), None);
    for (module, kind) in modules {
        let full = base.full(module);
        match targets.refusal(&full, *kind) {
            Some(field) => excluded |= field == "exclude_modules",
            // A pooler that the task does not use learns nothing in PEFT either.
            None if !known.contains(full.as_str()) && module != "pooler.dense" => {
                other = other.or(Some(full))
            }
            None => (),
        }
    }
    if let Some(ModuleNames::Many(names)) = &settings.target_modules {
        let no =
            |end: &&String| !trained.iter().any(|name| name == *end || name.ends_with(&format!(".{end}")));
        if let Some(name) = names.iter().find(no) {
            return refuse(format!("targetModules: no linear layer that is trained is named {name}"));
        }
    }
    if let Some(name) = other {
        let reason = "which cannot have a LoRA here; excludeModules keeps it out";
        return refuse(format!("targetModules names {name}, {reason}"));
    }
    if trained.is_empty() {
        return refuse("targetModules names no linear layer".into());
    }
    if !excluded {
        return refuse("excludeModules names nothing of the model".into());
    }
    for name in trained {
        targets.scale_of(name).map_err(|error| of_option(&error.to_string()))?;
    }
    match targets.unused(trained) {
        None => Ok(()),
        Some(("rank_pattern", at)) => {
            refuse(format!("rankPattern: {} matches nothing", lora.rank_pattern.0[at].0))
        }
        Some((_, at)) => refuse(format!("alphaPattern: {} matches nothing", lora.alpha_pattern.0[at].0)),
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

/// Modules that the checkpoint lacks, so that they are trained and saved whole.
fn new_modules(new: &[String]) -> Vec<String> {
    let head = |name: &&String| !Names::is_body(name) || name.starts_with("pooler.");
    let modules: BTreeSet<&str> = new.iter().filter(head).filter_map(|name| name.split('.').next()).collect();
    modules.into_iter().map(str::to_string).collect()
}
