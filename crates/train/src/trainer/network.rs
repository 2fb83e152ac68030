//! A checkpoint's model with gradients, and its files again.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use candlewick_models::{
    EncoderHead, EncoderUsage, ModelError, ModelFolder, PoolingMode, Tokenizer, Weights, bert, gpt2,
};
use serde_json::{Map, Value, json};

use super::lora::{Adapter, Start};
use super::options::FinetuneOptions;
use super::tensors::{self, Sum};
use crate::data::{Example, Opened, ProblemType, Task};
use crate::model::{
    Bert, BertDropouts, Cpu, Dropouts, Gpt2, HeadKind, Outcome, Param, Params, Pass, Source, Stack,
};
use crate::{Result, TrainError};

/// What else belongs to a model, copied as it is.
const SIDE_FILES: [&str; 12] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "generation_config.json",
    "modules.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
    "1_Pooling/config.json",
];

pub(super) const WEIGHTS: &str = "model.safetensors";

/// A model's folder before its weights are read.
pub struct Opening {
    folder: ModelFolder,
    weights: Option<Weights>,
    /// Where the model is an adapter: what the run goes on with.
    start: Option<Start>,
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
        let causal = folder.model_type()? == "gpt2";
        if options.task == Task::FeatureExtraction {
            pools_by_mean(&folder)?;
        }
        if causal != options.task.is_causal() {
            let kind = if causal { "a GPT-2" } else { "a BERT" };
            return Err(TrainError::option("task", format!("the model is {kind}: another task's")));
        }
        let prefix = if causal { "transformer" } else { "bert" };
        let mut start = folder.adapter.as_ref().map(Start::new).transpose()?;
        let mut weights = if options.from_scratch { None } else { Some(folder.weights(prefix)?) };
        if let (Some(start), Some(weights)) = (&mut start, &mut weights) {
            // They stay beside the weights.
            start.deltas = weights.take_deltas();
        }
        let (positions, vocabulary) = if causal {
            let config = gpt2::Config::from_folder(&folder)?;
            (config.n_positions, config.vocab_size)
        } else {
            let config = bert::Config::from_folder(&folder)?;
            (config.max_position_embeddings, config.vocab_size)
        };
        if tokenizer.vocab_size() > vocabulary {
            let tokenizer = tokenizer.vocab_size();
            return Err(ModelError::VocabularyMismatch { tokenizer, embedding: vocabulary }.into());
        }
        let labels = match &weights {
            Some(weights) if !causal => {
                let head = bert::head_of(&folder, weights);
                let wanted = match options.task {
                    Task::TextClassification => EncoderHead::SequenceClassification,
                    Task::TokenClassification => EncoderHead::TokenClassification,
                    _ => EncoderHead::None,
                };
                if head == wanted { bert::labels_of(&folder, weights, head)? } else { Vec::new() }
            }
            _ => Vec::new(),
        };
        let eos = folder.token_ids("eos_token_id")?.first().copied();
        Ok(Self { folder, weights, start, tokenizer, labels, positions, eos })
    }
}

/// The loss is that of the vectors that are then used: the means of the tokens.
fn pools_by_mean(folder: &ModelFolder) -> Result<()> {
    let usage = EncoderUsage::from_folder(folder)?;
    let other = match (&usage.unsupported_module, &usage.pooling.modes[..]) {
        (Some(module), _) => module.clone(),
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

enum Net {
    Gpt2(Box<Gpt2>),
    Bert(Box<Bert>),
}

pub struct Network {
    net: Net,
    pub params: Params,
    pub adapter: Option<Adapter>,
    /// Names of parameters that the checkpoint had not.
    pub new: Vec<String>,
    /// As it will be written.
    config: Value,
    /// Side files: name, bytes.
    files: Vec<(String, Vec<u8>)>,
    /// What transformers puts before the body's names, if there is a head.
    prefix: &'static str,
}

impl Network {
    pub fn new(opening: Opening, options: &FinetuneOptions, data: &Opened) -> Result<Self> {
        let Opening { folder, weights, start, .. } = opening;
        let folder = &folder;
        let deviation = folder.config["initializer_range"].as_f64().unwrap_or(0.02) as f32;
        let mut source = Source::new(weights.as_ref(), deviation, options.seed);
        let probability = |key: &str| match (options.dropout, folder.config[key].as_f64()) {
            (Some(p), _) => Ok(p),
            (None, Some(p)) if !(0.0..1.0).contains(&p) => {
                Err(TrainError::from(ModelError::Config(format!("{key} is {p}"))))
            }
            (None, p) => Ok(p.unwrap_or(0.1) as f32),
        };
        let (net, head) = if options.task.is_causal() {
            let dropouts = Dropouts {
                embedding: probability("embd_pdrop")?,
                attention: probability("attn_pdrop")?,
                residual: probability("resid_pdrop")?,
            };
            let config = gpt2::Config::from_folder(folder)?;
            (Net::Gpt2(Box::new(Gpt2::new(&mut source, config, dropouts)?)), None)
        } else {
            let hidden = probability("hidden_dropout_prob")?;
            let classifier = match folder.config["classifier_dropout"].as_f64() {
                Some(_) => probability("classifier_dropout")?,
                None => hidden,
            };
            let attention = probability("attention_probs_dropout_prob")?;
            let dropouts = BertDropouts { hidden, attention, classifier };
            let config = bert::Config::from_folder(folder)?;
            let head = head_kind(options.task, data)?;
            let bias = weights.as_ref().map_or("cls.predictions.bias", bert::Config::decoder_bias);
            (Net::Bert(Box::new(Bert::new(&mut source, config, dropouts, head, bias)?)), Some(head))
        };
        let Source { params, new, .. } = source;
        let mut network = Self {
            net,
            params,
            adapter: None,
            new,
            config: written_config(&folder.config, head, options.task, data),
            files: side_files(folder)?,
            prefix: match head {
                None => "transformer.",
                Some(HeadKind::Embedding) => "",
                Some(_) => "bert.",
            },
        };
        if let Some(start) = start {
            network.adapter = Some(Adapter::go_on(&mut network, start, options)?);
        } else if let Some(lora) = &options.lora {
            network.adapter = Some(Adapter::attach(&mut network, lora, options)?);
        }
        network.freeze(options)?;
        network.stack().checkpointing = options.gradient_checkpointing;
        Ok(network)
    }

    pub fn stack(&mut self) -> &mut Stack {
        match &mut self.net {
            Net::Gpt2(model) => &mut model.stack,
            Net::Bert(model) => &mut model.stack,
        }
    }

    pub(super) fn bert(&mut self) -> Result<(&mut Bert, &mut Params)> {
        match &mut self.net {
            Net::Bert(model) => Ok((model, &mut self.params)),
            Net::Gpt2(_) => Err(TrainError::Internal("the model is a GPT-2".into())),
        }
    }

    pub(super) fn gpt2(&mut self) -> Result<(&mut Gpt2, &mut Params)> {
        match &mut self.net {
            Net::Gpt2(model) => Ok((model, &mut self.params)),
            Net::Bert(_) => Err(TrainError::Internal("the model is a BERT".into())),
        }
    }

    /// The stack and the parameters, both to be changed.
    pub(super) fn parts(&mut self) -> (&mut Stack, &mut Params) {
        let stack = match &mut self.net {
            Net::Gpt2(model) => &mut model.stack,
            Net::Bert(model) => &mut model.stack,
        };
        (stack, &mut self.params)
    }

    /// Keeps the lowest layers and the embeddings as they are, and finds where the backward pass may end.
    fn freeze(&mut self, options: &FinetuneOptions) -> Result<()> {
        let layers = self.stack().blocks.len();
        if options.freeze_layers > layers {
            return Err(TrainError::option("freezeLayers", format!("the model has {layers} layers")));
        }
        let layer = |name: &str| -> Option<usize> {
            let rest = name.strip_prefix("h.").or_else(|| name.strip_prefix("encoder.layer."))?;
            rest.split('.').next()?.parse().ok()
        };
        let embedding = |name: &str| {
            name.starts_with("wte.") || name.starts_with("wpe.") || name.starts_with("embeddings.")
        };
        if options.freeze_layers > 0 {
            for param in &mut self.params.all {
                if embedding(&param.name) || layer(&param.name).is_some_and(|i| i < options.freeze_layers) {
                    param.trainable = false;
                }
            }
        }
        let trains = self.params.all.iter().filter(|param| param.trainable);
        let lowest = trains.map(|param| match layer(&param.name) {
            _ if embedding(&param.name) => 0,
            Some(i) => i,
            None => layers,
        });
        let lowest =
            lowest.min().ok_or_else(|| TrainError::option("freezeLayers", "nothing is left to train"))?;
        self.stack().lowest = lowest;
        Ok(())
    }

    /// Whether what is trained is all numbers.
    pub fn is_finite(&self) -> bool {
        let mut trained = self.params.all.iter().filter(|param| param.trainable);
        trained.all(|param| param.value.iter().all(|x| x.is_finite()))
    }

    pub fn targets(&self, examples: &[Example]) -> Result<u64> {
        match &self.net {
            Net::Gpt2(_) => Gpt2::targets(examples),
            Net::Bert(model) => Ok(model.targets(examples)),
        }
    }

    pub fn run(
        &mut self,
        cpu: &mut Cpu,
        examples: &[Example],
        pass: Pass,
        stop: &dyn Fn() -> bool,
    ) -> Result<Outcome> {
        match &mut self.net {
            Net::Gpt2(model) => model.run(cpu, &mut self.params, examples, pass, stop),
            Net::Bert(model) => model.run(cpu, &mut self.params, examples, pass, stop),
        }
    }

    /// A parameter's name in transformers' files, or in PEFT's where there is an adapter.
    pub fn saved_name(&self, param: &Param) -> String {
        let name = self.base_name(param);
        if self.adapter.is_some() { format!("base_model.model.{name}") } else { name }
    }

    pub(super) fn base_name(&self, param: &Param) -> String {
        let heads = ["lm_head.", "classifier.", "qa_outputs.", "cls."];
        let prefix = if heads.iter().any(|head| param.name.starts_with(head)) { "" } else { self.prefix };
        format!("{prefix}{}", param.name)
    }

    fn write_side_files(&self, folder: &Path, sums: &mut BTreeMap<String, Sum>) -> Result<()> {
        for (name, bytes) in &self.files {
            let path = folder.join(name);
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent).map_err(|error| TrainError::io(parent, &error))?;
            }
            sums.insert(name.clone(), tensors::write_bytes(&path, bytes)?);
        }
        Ok(())
    }

    /// A checkpoint's files: the model's, or the adapter's alone.
    pub fn save(&self, folder: &Path) -> Result<BTreeMap<String, Sum>> {
        let mut sums = BTreeMap::new();
        self.write_side_files(folder, &mut sums)?;
        if let Some(adapter) = &self.adapter {
            self.save_config(folder, &mut sums)?;
            adapter.save(self, folder, &mut sums)?;
        } else {
            self.save_weights(folder, &mut sums)?;
        }
        Ok(sums)
    }

    fn save_config(&self, folder: &Path, sums: &mut BTreeMap<String, Sum>) -> Result<()> {
        let config =
            serde_json::to_vec_pretty(&self.config).map_err(|e| TrainError::Internal(e.to_string()))?;
        sums.insert("config.json".into(), tensors::write_bytes(&folder.join("config.json"), &config)?);
        Ok(())
    }

    fn save_weights(&self, folder: &Path, sums: &mut BTreeMap<String, Sum>) -> Result<()> {
        self.save_config(folder, sums)?;
        let own = self.params.all.iter().filter(|param| !Adapter::owns(param));
        let tensors: Vec<tensors::Tensor> =
            own.map(|param| (self.base_name(param), param.shape.clone(), &param.value[..])).collect();
        sums.insert(WEIGHTS.into(), tensors::write(&folder.join(WEIGHTS), &tensors)?);
        Ok(())
    }

    /// The weights that `save` wrote.
    pub fn load(&mut self, folder: &Path) -> Result<()> {
        let file = folder.join(if self.adapter.is_some() { super::lora::WEIGHTS } else { WEIGHTS });
        let names: Vec<String> = self.params.all.iter().map(|param| self.saved_name(param)).collect();
        let params = &mut self.params.all;
        let mismatch = |name: &str| TrainError::CheckpointMismatch {
            path: file.clone(),
            reason: format!("{name} is of another model"),
        };
        tensors::read(&file, |name, values| {
            let at = names.iter().position(|known| known == name).ok_or_else(|| mismatch(name))?;
            if params[at].value.len() != values.len() {
                return Err(mismatch(name));
            }
            params[at].value = values;
            Ok(())
        })
    }

    /// Puts the model into `output`, file by file: each is the old or the new one, whole. An adapter goes into a folder
    /// of its own, and is then part of the weights.
    pub fn publish(&mut self, cpu: &mut Cpu, output: &Path) -> Result<()> {
        let aside = output.join(".checkpoint-model");
        let io = |error: std::io::Error| TrainError::io(output, &error);
        if aside.exists() {
            fs::remove_dir_all(&aside).map_err(io)?;
        }
        fs::create_dir(&aside).map_err(io)?;
        let published = self.move_through(cpu, &aside, output);
        // Of what a full disk had no room for, nothing is left over.
        let removed = fs::remove_dir_all(&aside).map_err(io);
        published.and(removed)?;
        super::checkpoint::sync_folder(output)
    }

    fn move_through(&mut self, cpu: &mut Cpu, aside: &Path, output: &Path) -> Result<()> {
        let io = |error: std::io::Error| TrainError::io(output, &error);
        let mut sums = BTreeMap::new();
        if self.adapter.is_some() {
            let mut adapter_sums = BTreeMap::new();
            fs::create_dir(aside.join("adapter")).map_err(io)?;
            let adapter = self.adapter.as_ref().expect("checked above");
            // Its classes' names travel with it.
            self.save_config(&aside.join("adapter"), &mut adapter_sums)?;
            adapter.save(self, &aside.join("adapter"), &mut adapter_sums)?;
            sums.extend(adapter_sums.into_iter().map(|(name, sum)| (format!("adapter/{name}"), sum)));
            self.merge(cpu);
        }
        self.write_side_files(aside, &mut sums)?;
        self.save_weights(aside, &mut sums)?;
        for name in sums.keys() {
            let to = output.join(name);
            if let Some(parent) = to.parent() {
                fs::create_dir_all(parent).map_err(io)?;
            }
            fs::rename(aside.join(name), to).map_err(io)?;
        }
        Ok(())
    }
}

fn head_kind(task: Task, data: &Opened) -> Result<HeadKind> {
    Ok(match task {
        Task::TextClassification => {
            let problem = data.problem_type.unwrap_or(ProblemType::SingleLabelClassification);
            let classes = if problem == ProblemType::Regression { 1 } else { data.labels.len() };
            HeadKind::Sequence { classes, problem }
        }
        Task::TokenClassification => HeadKind::Token { classes: data.labels.len() },
        Task::QuestionAnswering => HeadKind::Questions,
        Task::FillMask => HeadKind::MaskedLm,
        Task::FeatureExtraction => HeadKind::Embedding,
        _ => return Err(TrainError::Internal("a causal task has no such head".into())),
    })
}

/// `value` as an object, which it becomes if it is none.
fn object(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = json!({});
    }
    value.as_object_mut().expect("made one above")
}

/// `config.json` of what is trained.
fn written_config(config: &Value, head: Option<HeadKind>, task: Task, data: &Opened) -> Value {
    let mut config = config.as_object().cloned().unwrap_or_default();
    let architecture = match head {
        None => "GPT2LMHeadModel",
        Some(HeadKind::Sequence { .. }) => "BertForSequenceClassification",
        Some(HeadKind::Token { .. }) => "BertForTokenClassification",
        Some(HeadKind::Questions) => "BertForQuestionAnswering",
        Some(HeadKind::MaskedLm) => "BertForMaskedLM",
        Some(HeadKind::Embedding) => "BertModel",
    };
    config.insert("architectures".into(), json!([architecture]));
    config.remove("torch_dtype");
    config.insert("dtype".into(), json!("float32"));
    if let Some(HeadKind::Sequence { problem, .. }) = head {
        config.insert("problem_type".into(), json!(problem));
    }
    if matches!(head, Some(HeadKind::Sequence { .. } | HeadKind::Token { .. })) {
        let labels = if data.labels.is_empty() { vec!["LABEL_0".to_string()] } else { data.labels.clone() };
        with_labels(&mut config, &labels);
    }
    // How a prompt was joined to what follows it, which whoever generates has to do in the same way. Other keys of the
    // task stay.
    if let Some(separator) = &data.separator {
        let tasks = object(config.entry("task_specific_params").or_insert(Value::Null));
        let name = json!(task).as_str().unwrap_or_default().to_string();
        object(tasks.entry(name).or_insert(Value::Null)).insert("separator".into(), json!(separator));
    }
    Value::Object(config)
}

/// The names of a head's classes, by number and back.
pub(super) fn with_labels(config: &mut Map<String, Value>, labels: &[String]) {
    let numbered = labels.iter().enumerate();
    let id2label: Map<String, Value> =
        numbered.clone().map(|(id, label)| (id.to_string(), json!(label))).collect();
    let label2id: Map<String, Value> = numbered.map(|(id, label)| (label.clone(), json!(id))).collect();
    config.insert("id2label".into(), Value::Object(id2label));
    config.insert("label2id".into(), Value::Object(label2id));
    config.remove("num_labels");
}

pub(super) fn side_files(folder: &ModelFolder) -> Result<Vec<(String, Vec<u8>)>> {
    let there = SIDE_FILES.iter().map(|name| (name, folder.file(name))).filter(|(_, path)| path.is_file());
    there
        .map(|(name, path): (_, PathBuf)| {
            let bytes = fs::read(&path).map_err(|error| TrainError::io(&path, &error))?;
            Ok((name.to_string(), bytes))
        })
        .collect()
}
