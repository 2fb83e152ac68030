//! A checkpoint's model with gradients, and how it is saved.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use candlewick_models::{ModelError, ModelFolder, family, gpt2, optional_field};
use serde_json::Value;

use super::lora::{self, Adapter, Base};
use super::model_files::{WEIGHTS, side_files, without_chat_template, written_config};
use super::opening::Opening;
use super::options::FinetuneOptions;
use super::tensors::{self, Sum, sync_folder};
use crate::data::{Example, Opened, ProblemType, Task};
use crate::evaluate::Input;
use crate::model::{
    Bert, BertDropouts, Classes, Cpu, Dropouts, Gpt2, HeadKind, Linear, Outcome, Param, Params, Pass, Source,
    Stack, merge,
};
use crate::{Result, TrainError};

enum Net {
    Gpt2(Box<Gpt2>),
    Bert(Box<Bert>),
}

impl Net {
    fn stack(&mut self) -> &mut Stack {
        match self {
            Net::Gpt2(model) => &mut model.stack,
            Net::Bert(model) => &mut model.stack,
        }
    }

    /// All linear layers that a LoRA can be beside: the stack's, and those of the head.
    fn linears(&mut self) -> (&mut Stack, Vec<&mut Linear>) {
        match self {
            Net::Gpt2(model) => model.linears_mut(),
            Net::Bert(model) => model.linears_mut(),
        }
    }
}

pub struct Network {
    net: Net,
    pub params: Params,
    pub adapter: Option<Adapter>,
    /// Names of parameters that the checkpoint lacks.
    pub new: Vec<String>,
    /// `config.json` as it will be written.
    config: Value,
    /// Side files: name, bytes.
    files: Vec<(String, Vec<u8>)>,
    base: Base,
}

impl Network {
    pub fn new(opening: Opening, options: &FinetuneOptions, data: &Opened) -> Result<Self> {
        let Opening { folder, weights, start, .. } = opening;
        let folder = &folder;
        let field = |key: &str| optional_field::<f64>(&folder.config, "config.json", key);
        let deviation = field("initializer_range")?.unwrap_or(0.02) as f32;
        let mut source = Source::new(weights.as_ref(), deviation, options.seed);
        let probability = |key: &str| match (options.dropout, field(key)?) {
            (Some(p), _) => Ok(p),
            (None, Some(p)) if !(0.0..1.0).contains(&p) => {
                Err(TrainError::from(ModelError::Config(format!("config.json: {key} is {p}"))))
            }
            // transformers' own default, of all of them.
            (None, p) => Ok(p.unwrap_or(0.1) as f32),
        };
        let gpt2 = folder.model_type()? == "gpt2";
        let head = if options.task.is_causal() { None } else { Some(head_kind(options.task, data)?) };
        let mut net = if gpt2 {
            let dropouts = Dropouts {
                embedding: probability("embd_pdrop")?,
                attention: probability("attn_pdrop")?,
                residual: probability("resid_pdrop")?,
            };
            Net::Gpt2(Box::new(match head {
                None => Gpt2::new(&mut source, gpt2::Config::from_folder(folder)?, dropouts)?,
                Some(HeadKind::Sequence { classes, problem }) => {
                    let config = gpt2::Config::of_classifier(folder)?;
                    let classes = Classes { count: classes, problem, padding: gpt2::padding_of(folder)? };
                    Gpt2::classifier(&mut source, config, dropouts, classes)?
                }
                Some(_) => return Err(TrainError::Internal("a GPT-2 has no such head".into())),
            }))
        } else {
            let config = family::Config::from_folder(folder)?;
            let head = head.ok_or_else(|| TrainError::Internal("a BERT writes no text".into()))?;
            let keys = DropoutKeys::of(config.architecture.model_type, head);
            let hidden = probability(keys.hidden)?;
            let classifier = match keys.classifier {
                None => hidden,
                // Its default is the hidden layers' own.
                Some("classifier_dropout") if folder.config["classifier_dropout"].is_null() => hidden,
                Some(key) => match (options.dropout, &folder.config[key]) {
                    (None, Value::Null) => keys.classifier_default,
                    _ => probability(key)?,
                },
            };
            let attention = probability(keys.attention)?;
            let dropouts = BertDropouts { hidden, attention, classifier };
            let bias = config.decoder_bias(weights.as_ref());
            Net::Bert(Box::new(Bert::new(&mut source, config, dropouts, head, &bias)?))
        };
        let Source { mut params, new, .. } = source;
        let base = Base {
            encoder: folder.encoder()?,
            names: folder.names()?,
            prefixed: head != Some(HeadKind::Embedding),
        };
        let adapter = if let Some(start) = start {
            Some(Adapter::go_on(net.linears(), &mut params, &new, start, options)?)
        } else if let Some(lora) = &options.lora {
            Some(Adapter::attach(net.linears(), &mut params, &new, lora, &base, options)?)
        } else {
            None
        };
        let mut network = Self {
            net,
            params,
            adapter,
            new,
            config: written_config(
                &folder.config,
                architecture_name(folder, head)?,
                head,
                options.task,
                data,
            ),
            files: match options.task {
                Task::Dialogue => without_chat_template(side_files(folder)?)?,
                _ => side_files(folder)?,
            },
            base,
        };
        network.freeze(options)?;
        network.stack().checkpointing = options.gradient_checkpointing;
        Ok(network)
    }

    pub fn stack(&mut self) -> &mut Stack {
        self.net.stack()
    }

    /// A classifying head's logits of each input: (C), or (T, C).
    pub(super) fn logits(
        &mut self,
        cpu: &mut Cpu,
        inputs: &[Input],
        stop: &dyn Fn() -> bool,
    ) -> Result<Vec<Vec<f32>>> {
        match &mut self.net {
            Net::Bert(model) => model.logits(cpu, &self.params, inputs, stop),
            Net::Gpt2(model) => model.logits(cpu, &self.params, inputs, stop),
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

    /// The adapters' deltas become part of the weights.
    pub fn merge(&mut self, cpu: &mut Cpu) {
        let (stack, heads) = self.net.linears();
        merge(cpu, stack, heads, &mut self.params);
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
        // What all layers share, MPNet's bias by distance, is below the lowest one too.
        let below =
            ["wte.", "wpe.", "embeddings.", "embeddings_project.", "encoder.relative_attention_bias."];
        let embedding = |name: &str| below.iter().any(|part| name.starts_with(part));
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

    /// Whether all trained values are finite.
    pub fn is_finite(&self) -> bool {
        let mut trained = self.params.all.iter().filter(|param| param.trainable);
        trained.all(|param| param.value.iter().all(|x| x.is_finite()))
    }

    pub fn targets(&self, examples: &[Example]) -> Result<u64> {
        match &self.net {
            Net::Gpt2(model) => model.targets_of(examples),
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
        self.base.full(&param.name)
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
            adapter.save(&self.params, |param| self.saved_name(param), folder, &mut sums)?;
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
        let file = folder.join(if self.adapter.is_some() { lora::WEIGHTS } else { WEIGHTS });
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
        // After a full disk nothing partial is left.
        let removed = fs::remove_dir_all(&aside).map_err(io);
        published.and(removed)?;
        sync_folder(output)
    }

    fn move_through(&mut self, cpu: &mut Cpu, aside: &Path, output: &Path) -> Result<()> {
        let io = |error: std::io::Error| TrainError::io(output, &error);
        let mut sums = BTreeMap::new();
        if self.adapter.is_some() {
            let mut adapter_sums = BTreeMap::new();
            fs::create_dir(aside.join("adapter")).map_err(io)?;
            let adapter = self.adapter.as_ref().expect("checked above");
            // The configuration holds the names of its classes.
            self.save_config(&aside.join("adapter"), &mut adapter_sums)?;
            let folder = aside.join("adapter");
            adapter.save(&self.params, |param| self.saved_name(param), &folder, &mut adapter_sums)?;
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

/// What a configuration calls the probabilities of dropout.
struct DropoutKeys {
    hidden: &'static str,
    attention: &'static str,
    /// Before a classifier; `None`: the hidden layers' own.
    classifier: Option<&'static str>,
    classifier_default: f32,
}

impl DropoutKeys {
    fn of(model_type: &str, head: HeadKind) -> Self {
        let (hidden, attention) = match model_type {
            "distilbert" => ("dropout", "attention_dropout"),
            _ => ("hidden_dropout_prob", "attention_probs_dropout_prob"),
        };
        let (classifier, classifier_default) = match (model_type, head) {
            ("distilbert", HeadKind::Sequence { .. }) => (Some("seq_classif_dropout"), 0.2),
            ("distilbert", HeadKind::Questions) => (Some("qa_dropout"), 0.1),
            ("distilbert" | "mpnet", _) => (None, 0.0),
            _ => (Some("classifier_dropout"), 0.0),
        };
        Self { hidden, attention, classifier, classifier_default }
    }
}

/// transformers' class of what is trained.
fn architecture_name(folder: &ModelFolder, head: Option<HeadKind>) -> Result<String> {
    let encoder = folder.encoder()?;
    Ok(match (encoder, head) {
        (_, None) => "GPT2LMHeadModel".into(),
        (Some(encoder), Some(head)) => encoder.class_for(head.task()),
        (None, Some(head)) => format!("GPT2For{}", head.task()),
    })
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
