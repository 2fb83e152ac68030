//! A model on disk: a folder in Hugging Face's layout and the JSON files in it.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::family::architecture::Architecture;
use crate::family::known;
use crate::files::adapter::{ADAPTER_PICKLE, ADAPTER_WEIGHTS};
use crate::files::adapter_config::ADAPTER_CONFIG;
use crate::files::checkpoint::WEIGHT_FILES;
use crate::files::modules::{MODULE_FILES, MODULES, Module, ModuleKind, TRANSFORMER_CONFIGS, read_modules};
use crate::files::names::Names;
use crate::files::reading::{optional, read_json, read_json_if_any, read_json_list, wrong};
use crate::files::{config, foreign};
use crate::{Adapter, ChatTemplate, ModelError, Result, Tokenizer, Weights};

/// A model's folder and its parsed configuration; or an adapter's in PEFT's layout, over that of its base.
pub struct ModelFolder {
    /// Where the model's own files are.
    pub path: PathBuf,
    /// Where `modules.json` is, if there is one: above `path` in sentence-transformers' older layout.
    root: PathBuf,
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
        let named: String = optional(&named, ADAPTER_CONFIG, "base_model_name_or_path")?.unwrap_or_default();
        let base = match base {
            Some(base) => PathBuf::from(base),
            None if named.is_empty() => PathBuf::new(),
            None => path.join(&named),
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
        let mut adapter = Adapter::open(&path, encoder)?;
        let own_config = path.join("config.json").is_file();
        let config = folder.config.as_object_mut().expect("read as an object");
        if let Some(architecture) = adapter.architecture().filter(|_| !own_config) {
            config.insert("architectures".into(), serde_json::json!([architecture]));
        }
        adapter.untie(config)?;
        folder.adapter = Some(adapter);
        Ok(folder)
    }

    fn plain(path: PathBuf, over: Option<PathBuf>) -> Result<Self> {
        let root = path;
        let path = model_folder(&root)?;
        let mut folder = Self {
            path,
            root,
            over,
            adapter: None,
            config: Value::Null,
            generation: Value::Object(Default::default()),
        };
        let file = folder.file("config.json");
        if !file.exists() {
            return Err(foreign::folder(&folder.path, "config.json"));
        }
        folder.config = read_json(&file)?;
        config::check(&folder.config)?;
        folder.generation = read_json_if_any(&folder.file("generation_config.json"))?;
        Ok(folder)
    }

    /// A folder that has a tokenizer alone.
    pub fn without_config(path: PathBuf) -> Self {
        let empty = Value::Object(Default::default());
        let root = path.clone();
        Self { path, root, over: None, adapter: None, config: empty.clone(), generation: empty }
    }

    /// Where the file `name` is, if it is there: the adapter's own comes first. A tokenizer's files are all of one
    /// folder.
    pub fn file(&self, name: &str) -> PathBuf {
        if Tokenizer::FILES.contains(&name) {
            return self.tokenizer_folder().join(name);
        }
        let own = self.over.as_ref().map(|over| over.join(name)).filter(|own| own.is_file());
        own.unwrap_or_else(|| self.path.join(name))
    }

    /// Where the file `name` of sentence-transformers' is, named from the folder of `modules.json` on.
    pub(crate) fn root_file(&self, name: &str) -> PathBuf {
        let own = self.over.as_ref().map(|over| over.join(name)).filter(|own| own.is_file());
        own.unwrap_or_else(|| self.root.join(name))
    }

    /// What `modules.json` lists, if there is one.
    pub(crate) fn modules(&self) -> Result<Option<Vec<Module>>> {
        read_modules(&self.root_file(MODULES))
    }

    /// sentence-transformers' files, by the names that they have beside a model in today's layout: `modules.json`, in
    /// which the transformer is then at the root, and whatever that list names.
    pub fn sentence_files(&self) -> Result<Vec<(String, SentenceFile)>> {
        let mut files = Vec::new();
        let mut add = |name: String, path: PathBuf| {
            if path.is_file() {
                files.push((name, SentenceFile::Copy(path)));
            }
        };
        let modules = self.modules()?;
        add("config_sentence_transformers.json".into(), self.root_file("config_sentence_transformers.json"));
        let is_transformer = |module: &&Module| module.kind == ModuleKind::Transformer;
        let transformer = modules.iter().flatten().find(is_transformer);
        for name in TRANSFORMER_CONFIGS {
            let named = transformer.map_or(name.to_string(), |module| module.file(name));
            add(name.into(), self.root_file(&named));
        }
        let Some(modules) = modules else { return Ok(files) };
        for module in modules.iter().filter(|module| !module.path.is_empty() && !is_transformer(module)) {
            for name in MODULE_FILES {
                add(module.file(name), self.root_file(&module.file(name)));
            }
        }
        let mut listed = read_json_list(&self.root_file(MODULES))?;
        for (entry, module) in listed.iter_mut().zip(&modules) {
            if module.kind == ModuleKind::Transformer {
                entry["path"] = Value::from("");
            }
        }
        files.push((MODULES.into(), SentenceFile::List(Value::Array(listed))));
        Ok(files)
    }

    /// Whether the model is an adapter over another.
    pub(crate) fn is_adapter(&self) -> bool {
        self.over.is_some()
    }

    /// Where the tokenizer is: an adapter with one has its own.
    fn tokenizer_folder(&self) -> &Path {
        self.over.as_deref().filter(|over| Tokenizer::is_in(over)).unwrap_or(&self.path)
    }

    /// transformers' name for what the tokenizer is (`BertTokenizer`), if there is one.
    pub fn tokenizer_class(&self) -> Result<Option<&'static str>> {
        Tokenizer::class_in(self.tokenizer_folder())
    }

    pub fn tokenizer(&self) -> Result<Option<Tokenizer>> {
        let found = Tokenizer::open(self.tokenizer_folder())?;
        Ok(if found.is_some() && !self.gives_token_types()? { found.map(Tokenizer::untyped) } else { found })
    }

    /// Whether transformers gives the model its texts' token types: what `model_input_names` says, else what the
    /// tokenizer's class has.
    fn gives_token_types(&self) -> Result<bool> {
        let model = self.config["model_type"].as_str().unwrap_or_default();
        // With one type there is nothing to say; a tokenizer of another model's class would say more than it reads.
        if self.config["type_vocab_size"].as_u64() == Some(1) {
            return Ok(false);
        }
        if model == "gpt2" || known::of(model).is_some_and(|encoder| !encoder.token_types) {
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
            if own.is_some() || Tokenizer::is_in(over) {
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

    /// As [`Self::token_ids`], of a model with `vocabulary` tokens.
    ///
    /// # Errors
    /// `Config`: an id that no token has. Only 50256 is passed over: transformers writes it, its own GPT-2's, into
    /// every GPT-2's configuration, whatever its vocabulary.
    pub fn token_ids_of(&self, key: &str, vocabulary: usize) -> Result<Vec<u32>> {
        let mut ids = self.token_ids(key)?;
        ids.retain(|id| *id != 50256 || vocabulary > 50256);
        match ids.iter().find(|id| **id as usize >= vocabulary) {
            Some(id) => {
                let file =
                    if self.generation.get(key).is_some() { "generation_config.json" } else { "config.json" };
                let reason =
                    format!("{id} is no token of a vocabulary of {vocabulary} (vocab_size in config.json)");
                Err(wrong(file, key, &reason))
            }
            None => Ok(ids),
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
const UNTYPED: [&str; 15] = [
    "AlbertTokenizer",
    "BigBirdTokenizer",
    "CamembertTokenizer",
    "DistilBertTokenizer",
    "GPT2Tokenizer",
    "HerbertTokenizer",
    "MBartTokenizer",
    "MPNetTokenizer",
    "PreTrainedTokenizer",
    "PythonBackend",
    "RemBertTokenizer",
    "RobertaTokenizer",
    "T5Tokenizer",
    "TokenizersBackend",
    "XLMRobertaTokenizer",
];

/// The folder of the model that `root` holds: `root` itself, or what `modules.json` names for the transformer.
fn model_folder(root: &Path) -> Result<PathBuf> {
    let modules = read_modules(&root.join(MODULES))?;
    let inside = modules.iter().flatten().find(|module| module.kind == ModuleKind::Transformer);
    let Some(module) = inside.filter(|module| !module.path.is_empty()) else { return Ok(root.to_path_buf()) };
    let path = root.join(&module.path);
    if !path.join("config.json").is_file() {
        let name = &module.path;
        let what =
            format!("{MODULES} names {name:?} for {:?}, and {name}/config.json is not there", module.class);
        return Err(ModelError::Inconsistent(what));
    }
    Ok(path)
}

/// A file of a model that is written elsewhere.
pub enum SentenceFile {
    Copy(PathBuf),
    List(Value),
}

fn has_weights(folder: &Path) -> bool {
    WEIGHT_FILES.iter().any(|name| folder.join(name).is_file())
}

/// As in transformers an adapter comes before weights that lie beside it.
fn is_adapter(folder: &Path) -> bool {
    let own = || [ADAPTER_WEIGHTS, ADAPTER_PICKLE].iter().any(|name| folder.join(name).is_file());
    folder.join(ADAPTER_CONFIG).is_file() && (own() || !has_weights(folder))
}
