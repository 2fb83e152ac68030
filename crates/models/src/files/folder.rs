//! A model on disk: a folder in Hugging Face's layout and the JSON files in it.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::family::architecture::Architecture;
use crate::family::known;
use crate::files::adapter::{ADAPTER_CONFIG, ADAPTER_WEIGHTS};
use crate::files::foreign;
use crate::files::names::Names;
use crate::files::reading::read_json;
use crate::{Adapter, ChatTemplate, ModelError, Result, Tokenizer, Weights};

/// A model's folder and its parsed configuration; or an adapter's in PEFT's layout, over that of its base.
pub struct ModelFolder {
    /// Where the weights are.
    pub path: PathBuf,
    /// An adapter's folder, whose files come before those of `path`.
    over: Option<PathBuf>,
    /// `None` after [`Self::weights`] has taken it.
    pub adapter: Option<Adapter>,
    /// `config.json`, an object.
    pub config: Value,
    /// `generation_config.json`, or an empty object.
    pub generation: Value,
}

impl ModelFolder {
    /// As `open_over`, and an adapter's base is looked up by the path that the adapter gives, absolute or from its own
    /// folder.
    pub fn open(source: &str) -> Result<Self> {
        Self::open_over(source, None)
    }

    /// A folder in Hugging Face's layout, or one of an adapter, whose base is in the folder `base`.
    pub fn open_over(source: &str, base: Option<&str>) -> Result<Self> {
        let path = PathBuf::from(source);
        if !path.is_dir() {
            return Err(if path.exists() {
                foreign::file(&path)
            } else {
                ModelError::NotFound(source.to_string())
            });
        }
        if !is_adapter(&path) {
            return Self::plain(path, None);
        }
        let named = read_json(&path.join(ADAPTER_CONFIG))?;
        let named = named["base_model_name_or_path"].as_str().unwrap_or_default();
        let base = match base {
            Some(base) => PathBuf::from(base),
            None if named.is_empty() => PathBuf::new(),
            None => path.join(named),
        };
        if !base.is_dir() {
            let (adapter, base) = (path.display(), base.display());
            return Err(ModelError::NotFound(format!(
                "{named:?}, the base of the adapter {adapter} (looked at {base})"
            )));
        }
        if !has_weights(&base) && is_adapter(&base) {
            let base = base.display();
            return Err(ModelError::UnsupportedModel(format!("the base {base} is an adapter itself")));
        }
        let mut folder = Self::plain(base, Some(path.clone()))?;
        let encoder = folder.encoder()?;
        let adapter = Adapter::open(&path, folder.names()?)?;
        let own_config = path.join("config.json").is_file();
        let config = folder.config.as_object_mut().expect("read as an object");
        if let Some(architecture) = adapter.architecture(encoder).filter(|_| !own_config) {
            config.insert("architectures".into(), serde_json::json!([architecture]));
        }
        adapter.untie(config, encoder)?;
        folder.adapter = Some(adapter);
        Ok(folder)
    }

    fn plain(path: PathBuf, over: Option<PathBuf>) -> Result<Self> {
        let mut folder = Self {
            path,
            over,
            adapter: None,
            config: Value::Null,
            generation: Value::Object(Default::default()),
        };
        let config = folder.file("config.json");
        if !config.exists() {
            return Err(foreign::folder(&folder.path, "config.json"));
        }
        folder.config = read_json(&config)?;
        let generation = folder.file("generation_config.json");
        if generation.is_file() {
            folder.generation = read_json(&generation)?;
        }
        Ok(folder)
    }

    /// A folder that has a tokenizer alone.
    pub fn without_config(path: PathBuf) -> Self {
        let empty = Value::Object(Default::default());
        Self { path, over: None, adapter: None, config: empty.clone(), generation: empty }
    }

    /// Where the file `name` is, if it is there: the adapter's own comes first.
    pub fn file(&self, name: &str) -> PathBuf {
        let own = self.over.as_ref().map(|over| over.join(name)).filter(|own| own.is_file());
        own.unwrap_or_else(|| self.path.join(name))
    }

    pub fn tokenizer(&self) -> Result<Option<Tokenizer>> {
        let own = self.over.as_deref().map(Tokenizer::open).transpose()?.flatten();
        let found = if own.is_some() { own } else { Tokenizer::open(&self.path)? };
        Ok(if found.is_some() && !self.gives_token_types()? { found.map(Tokenizer::untyped) } else { found })
    }

    /// Whether transformers gives the model its texts' token types: what `model_input_names` says, else what the
    /// tokenizer's class has.
    fn gives_token_types(&self) -> Result<bool> {
        let model = self.config["model_type"].as_str().unwrap_or_default();
        if known::of(model).is_some_and(|encoder| !encoder.token_types) {
            return Ok(false);
        }
        let file = self.file("tokenizer_config.json");
        let said = if file.is_file() { read_json(&file)? } else { Value::Null };
        if let Some(names) = said.get("model_input_names").filter(|names| !names.is_null()) {
            let is_text = |name: &Value| name.is_string();
            let list = names.as_array().filter(|list| list.iter().all(is_text));
            let list = list.ok_or_else(|| {
                ModelError::Config(format!("{}: model_input_names is no list of names", file.display()))
            })?;
            return Ok(list.iter().any(|name| name == "token_type_ids"));
        }
        let class = said["tokenizer_class"].as_str().or_else(|| self.config["tokenizer_class"].as_str());
        Ok(match class {
            Some(class) => !UNTYPED.contains(&class.strip_suffix("Fast").unwrap_or(class)),
            None => !matches!(model, "gpt2" | "roberta" | "xlm-roberta" | "camembert"),
        })
    }

    /// The chat template: the adapter's own comes first. An adapter with a tokenizer and no template has none, as in
    /// transformers: it was not taught to follow that of its base.
    pub fn chat_template(&self) -> Result<Option<ChatTemplate>> {
        if let Some(over) = &self.over {
            let own = ChatTemplate::open(over)?;
            let has_tokenizer = ["tokenizer.json", "vocab.json"].iter().any(|name| over.join(name).is_file());
            if own.is_some() || has_tokenizer {
                return Ok(own);
            }
        }
        ChatTemplate::open(&self.path)
    }

    /// The weights, with the adapter merged if there is one.
    pub fn weights(&mut self) -> Result<Weights> {
        let weights = Weights::open(&self.path, self.names()?)?;
        match self.adapter.take() {
            Some(adapter) => weights.merge(adapter),
            None => Ok(weights),
        }
    }

    /// `model_type`, which must be there.
    pub fn model_type(&self) -> Result<&str> {
        let found = self.config.get("model_type").and_then(Value::as_str);
        found.ok_or_else(|| foreign::model_type(&self.config))
    }

    /// The encoder that `model_type` names; `None`: it is a GPT-2.
    ///
    /// # Errors
    /// `UnsupportedModel`: it is none of ours.
    pub fn encoder(&self) -> Result<Option<&'static Architecture>> {
        match self.model_type()? {
            "gpt2" => Ok(None),
            other => known::of(other).map(Some).ok_or_else(|| foreign::model_type(&self.config)),
        }
    }

    /// How the weights are called.
    pub fn names(&self) -> Result<Names> {
        Ok(self.encoder()?.map_or("transformer".into(), |encoder| encoder.names))
    }

    /// Refuses a folder whose `model_type` is neither GPT-2 nor an encoder of BERT's family; keys in `over` come before
    /// the folder's own.
    pub fn refuse_foreign(&self, over: &serde_json::Map<String, Value>) -> Result<()> {
        let found = over.get("model_type").or_else(|| self.config.get("model_type"));
        match found.and_then(Value::as_str) {
            None | Some("gpt2") => Ok(()),
            Some(name) if known::of(name).is_some() => Ok(()),
            Some(_) => Err(foreign::model_type(&self.config)),
        }
    }

    /// Token ids under `key` of the generation configuration, else of the configuration: none (`null`), one or several.
    pub fn token_ids(&self, key: &str) -> Result<Vec<u32>> {
        let own = self.generation.get(key).map(|value| ("generation_config.json", value));
        let given = own.or_else(|| self.config.get(key).map(|value| ("config.json", value)));
        let Some((file, value)) = given else { return Ok(Vec::new()) };
        let id = |v: &Value| {
            let id = v.as_u64().and_then(|id| u32::try_from(id).ok());
            id.ok_or_else(|| ModelError::Config(format!("{file}: {key}: {v} is not a token id")))
        };
        match value {
            Value::Null => Ok(Vec::new()),
            Value::Array(ids) => ids.iter().map(id).collect(),
            one => Ok(vec![id(one)?]),
        }
    }
}

/// transformers' tokenizers, of those that encoders have, whose models are given no token types.
const UNTYPED: [&str; 12] = [
    "AlbertTokenizer",
    "BigBirdTokenizer",
    "CamembertTokenizer",
    "DistilBertTokenizer",
    "GPT2Tokenizer",
    "HerbertTokenizer",
    "MBartTokenizer",
    "MPNetTokenizer",
    "RemBertTokenizer",
    "RobertaTokenizer",
    "T5Tokenizer",
    "XLMRobertaTokenizer",
];

fn has_weights(folder: &Path) -> bool {
    ["model.safetensors", "model.safetensors.index.json", "pytorch_model.bin"]
        .iter()
        .any(|name| folder.join(name).is_file())
}

/// As in transformers an adapter comes before weights that lie beside it.
fn is_adapter(folder: &Path) -> bool {
    folder.join(ADAPTER_CONFIG).is_file() && (folder.join(ADAPTER_WEIGHTS).is_file() || !has_weights(folder))
}
