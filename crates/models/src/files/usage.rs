//! How a BERT is meant to be used, as its folder says: `config.json`, its tokenizer, and sentence-transformers' files.
//!
//! What is absent has the default that transformers and sentence-transformers have; what is there must be of its type.
//! A part that is whole but not supported (such as a module that we lack) is kept by name, so that a task that needs it
//! can refuse.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use crate::contract::pooling::Pooling;
use crate::contract::projection::VectorLayer;
use crate::files::folder::ModelFolder;
use crate::files::modules::{Module, ModuleKind, TRANSFORMER_CONFIGS};
use crate::files::reading::{optional, read_json_if_any, short, wrong};
use crate::files::sentences::{read_layers, unsupported_transformer};
use crate::{ModelError, Result, Tokenizer};

const SENTENCES: &str = "config_sentence_transformers.json";

/// The similarity function that a model's vectors are made for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Similarity {
    #[default]
    Cosine,
    Dot,
    Euclidean,
    Manhattan,
}

#[derive(Debug, Clone, Default)]
pub struct EncoderUsage {
    /// `problem_type`: "regression", "single_label_classification" or "multi_label_classification".
    pub problem_type: Option<String>,
    /// Tokens that the tokenizer cuts at, special ones included; `None`: it does not say.
    pub tokenizer_max_length: Option<usize>,
    /// The mask token (`[MASK]`).
    pub mask_token: Option<String>,
    /// A cross-encoder's last function as its configuration names it ("torch.nn.modules.linear.Identity").
    pub cross_encoder_activation: Option<String>,

    pub pooling: Pooling,
    /// Behind the pooling, before a last scaling to length 1. Shared: the matrices may be some megabytes.
    pub layers: Arc<[VectorLayer]>,
    /// Vectors are scaled to length 1.
    pub normalize: bool,
    /// Dimensions that are kept of a finished vector, the first ones; `None`: all.
    pub dimensions: Option<usize>,
    /// Tokens that sentence-transformers cuts at.
    pub sentence_max_length: Option<usize>,
    /// Texts become lower case before they are tokenised.
    pub lower_case: bool,
    /// Put before texts, by name ("query").
    pub prompts: BTreeMap<String, String>,
    pub default_prompt: Option<String>,
    pub similarity: Similarity,
    /// What of sentence-transformers' files we lack: the file and the module or field. Vectors without it would be
    /// wrong.
    pub unsupported_module: Option<String>,
}

impl EncoderUsage {
    /// `tokenizer`: the folder's, which knows what its own files say of it.
    pub fn from_folder(folder: &ModelFolder, tokenizer: Option<&Tokenizer>) -> Result<Self> {
        let config = &folder.config;
        let mut usage = Self {
            // `config.rs` has refused one that there is not.
            problem_type: optional(config, "config.json", "problem_type")?,
            tokenizer_max_length: tokenizer.and_then(Tokenizer::max_length),
            mask_token: tokenizer.and_then(Tokenizer::mask_token).map(str::to_string),
            ..Self::default()
        };
        let modules = folder.modules()?;
        // Without a list of modules sentence-transformers makes one of its own, and reads none of its other files.
        let sentences = match modules {
            Some(_) => read_json_if_any(&folder.root_file(SENTENCES))?,
            None => Value::Object(Default::default()),
        };
        usage.read_sentences(&sentences)?;
        let kind: Option<String> = optional(&sentences, SENTENCES, "model_type")?;
        usage.cross_encoder_activation = cross_encoder_activation(config, &sentences, kind.as_deref())?;
        if modules.is_some() {
            usage.read_transformer(folder, modules.as_deref())?;
        }
        match (modules, kind.as_deref()) {
            (Some(modules), None | Some("SentenceTransformer")) => {
                // DistilBERT's name for it is the other one. Without either the model itself does not load.
                let width = |name| optional::<usize>(config, "config.json", name);
                let hidden = match width("hidden_size")? {
                    Some(hidden) => hidden,
                    None => width("dim")?.unwrap_or(0),
                };
                let read = read_layers(folder, &modules, hidden)?;
                usage.pooling = read.pooling;
                usage.layers = read.layers.into();
                usage.normalize = read.normalize;
                usage.unsupported_module = usage.unsupported_module.or(read.unsupported);
            }
            // Its modules make scores of pairs; its vectors are the mean, as of any model without modules.
            (Some(_), Some("CrossEncoder")) | (None, _) => {}
            (Some(_), Some(other)) => {
                usage.unsupported_module = Some(format!("{SENTENCES}: model_type {other:?}"));
            }
        }
        Ok(usage)
    }

    /// What goes before a text unless a caller says otherwise.
    pub fn prompt(&self) -> Option<&str> {
        self.prompts.get(self.default_prompt.as_ref()?).map(String::as_str)
    }

    fn read_sentences(&mut self, file: &Value) -> Result<()> {
        let prompts: BTreeMap<String, Option<String>> =
            optional(file, SENTENCES, "prompts")?.unwrap_or_default();
        // Null is sentence-transformers' mark for a prompt that nobody has written.
        self.prompts = prompts.into_iter().map(|(name, text)| (name, text.unwrap_or_default())).collect();
        self.default_prompt = optional(file, SENTENCES, "default_prompt_name")?;
        if let Some(name) = &self.default_prompt
            && !self.prompts.contains_key(name)
        {
            // These two are in every model of sentence-transformers 5 on, empty unless the file has them.
            if name == "query" || name == "document" {
                self.prompts.insert(name.clone(), String::new());
            } else {
                let known: Vec<&str> = self.prompts.keys().map(String::as_str).collect();
                return Err(ModelError::Inconsistent(format!(
                    "{SENTENCES}: default_prompt_name is {name:?}, which is none of its prompts ({})",
                    known.join(", ")
                )));
            }
        }
        let similarity: Option<String> = optional(file, SENTENCES, "similarity_fn_name")?;
        self.similarity = match similarity.as_deref() {
            None | Some("cosine") => Similarity::Cosine,
            Some("dot") | Some("dot_product") => Similarity::Dot,
            Some("euclidean") => Similarity::Euclidean,
            Some("manhattan") => Similarity::Manhattan,
            Some(other) => {
                return Err(wrong(SENTENCES, "similarity_fn_name", &format!("{other:?} is not known")));
            }
        };
        self.dimensions = length(file, SENTENCES, "truncate_dim")?;
        Ok(())
    }

    /// `sentence_bert_config.json`, which lies with the transformer's files, or the first of its older names.
    fn read_transformer(&mut self, folder: &ModelFolder, modules: Option<&[Module]>) -> Result<()> {
        let transformer = modules.into_iter().flatten().find(|module| module.kind == ModuleKind::Transformer);
        let files = TRANSFORMER_CONFIGS.map(|name| transformer.map_or(name.to_string(), |it| it.file(name)));
        let Some(file) = files.iter().find(|file| folder.root_file(file).is_file()) else { return Ok(()) };
        let read = read_json_if_any(&folder.root_file(file))?;
        self.unsupported_module = unsupported_transformer(file, &read)?;
        self.sentence_max_length = length(&read, file, "max_seq_length")?;
        self.lower_case = optional(&read, file, "do_lower_case")?.unwrap_or(false);
        Ok(())
    }
}

/// As sentence-transformers looks for it: in its own file (since version 5), in `config.json` (since 4), under the
/// first name there.
fn cross_encoder_activation(config: &Value, sentences: &Value, kind: Option<&str>) -> Result<Option<String>> {
    let own = sentences.get("activation_fn").filter(|name| kind == Some("CrossEncoder") && !name.is_null());
    if own.is_some() {
        return optional(sentences, SENTENCES, "activation_fn");
    }
    let file = "config.json: sentence_transformers";
    match config.get("sentence_transformers").filter(|object| !object.is_null()) {
        Some(object) if !object.is_object() => {
            Err(wrong("config.json", "sentence_transformers", &format!("{} is no object", short(object))))
        }
        Some(object) if object.get("activation_fn").is_some() => optional(object, file, "activation_fn"),
        _ => optional(config, "config.json", "sbert_ce_default_activation_function"),
    }
}

/// A count from 1 on. What is above any count (transformers writes 1e30, which is no integer) is no limit.
fn length(object: &Value, file: &str, field: &str) -> Result<Option<usize>> {
    let value = object.get(field).unwrap_or(&Value::Null);
    match (value, value.as_u64(), value.as_f64()) {
        (Value::Null, ..) => Ok(None),
        (_, Some(count), _) if count >= 1 => Ok(usize::try_from(count).ok()),
        (_, _, Some(count)) if count >= u64::MAX as f64 => Ok(None),
        _ => Err(wrong(file, field, &format!("{} is no count from 1 on", short(value)))),
    }
}
