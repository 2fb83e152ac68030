//! A model on disk: a folder in Hugging Face's layout and the JSON files in it.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::{ModelError, Result};

/// No configuration file is larger than this; a tokenizer's may be (see `tokenizer.rs`).
const MAX_TEXT_BYTES: u64 = 64 << 20;

/// A model's folder and its parsed configuration.
#[derive(Debug, Clone)]
pub struct ModelFolder {
    pub path: PathBuf,
    /// `config.json`, an object.
    pub config: Value,
    /// `generation_config.json`, or an empty object.
    pub generation: Value,
}

impl ModelFolder {
    pub fn open(source: &str) -> Result<Self> {
        let path = PathBuf::from(source);
        if !path.is_dir() {
            return Err(if path.exists() {
                ModelError::UnsupportedModel(format!("{source} is not a folder"))
            } else {
                ModelError::NotFound(source.to_string())
            });
        }
        let config = read_json(&path.join("config.json"))?;
        let generation_path = path.join("generation_config.json");
        let generation = if generation_path.is_file() {
            read_json(&generation_path)?
        } else {
            Value::Object(Default::default())
        };
        Ok(Self { path, config, generation })
    }

    /// `model_type`, which must be there.
    pub fn model_type(&self) -> Result<&str> {
        self.config
            .get("model_type")
            .and_then(Value::as_str)
            .ok_or_else(|| ModelError::Config("model_type is missing".into()))
    }

    /// Token ids under `key` of the generation configuration, else of the configuration: none, one or several.
    pub fn token_ids(&self, key: &str) -> Vec<u32> {
        let value = self.generation.get(key).or_else(|| self.config.get(key)).unwrap_or(&Value::Null);
        let id = |v: &Value| v.as_u64().and_then(|id| u32::try_from(id).ok());
        match value {
            Value::Array(ids) => ids.iter().filter_map(id).collect(),
            one => id(one).into_iter().collect(),
        }
    }
}

/// Opens a regular file: a pipe would block, a device never end.
pub(crate) fn open_regular(path: &Path) -> Result<File> {
    let io = |e: std::io::Error| match e.kind() {
        std::io::ErrorKind::NotFound => ModelError::NotFound(path.display().to_string()),
        _ => ModelError::Io { path: path.to_path_buf(), reason: e.to_string() },
    };
    if !std::fs::metadata(path).map_err(io)?.is_file() {
        return Err(ModelError::Io { path: path.to_path_buf(), reason: "not a regular file".into() });
    }
    File::open(path).map_err(io)
}

/// Reads a text file of a bounded size.
pub(crate) fn read_text(path: &Path) -> Result<String> {
    let io = |reason: String| ModelError::Io { path: path.to_path_buf(), reason };
    let mut text = String::new();
    let file = open_regular(path)?;
    file.take(MAX_TEXT_BYTES + 1).read_to_string(&mut text).map_err(|e| io(e.to_string()))?;
    if text.len() as u64 > MAX_TEXT_BYTES {
        return Err(io(format!("over {MAX_TEXT_BYTES} bytes of configuration")));
    }
    Ok(text)
}

/// Reads a JSON array of objects.
pub(crate) fn read_json_list(path: &Path) -> Result<Vec<Value>> {
    match serde_json::from_str(&read_text(path)?) {
        Ok(Value::Array(list)) if list.iter().all(Value::is_object) => Ok(list),
        Ok(_) => Err(ModelError::Config(format!("{} is not a list of objects", path.display()))),
        Err(e) => Err(ModelError::Config(format!("{}: {e}", path.display()))),
    }
}

/// Reads a JSON object.
pub(crate) fn read_json(path: &Path) -> Result<Value> {
    let value: Value = serde_json::from_str(&read_text(path)?)
        .map_err(|e| ModelError::Config(format!("{}: {e}", path.display())))?;
    if !value.is_object() {
        return Err(ModelError::Config(format!("{} is not an object", path.display())));
    }
    Ok(value)
}
