//! A model on disk: a folder in Hugging Face's layout and the JSON files in it.

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
            return Err(match path.extension() {
                _ if !path.exists() => ModelError::NotFound(source.to_string()),
                _ => ModelError::UnsupportedModel(format!("{source} is not a folder")),
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

/// Reads a text file of a bounded size.
pub(crate) fn read_text(path: &Path) -> Result<String> {
    let io = |e: std::io::Error| match e.kind() {
        std::io::ErrorKind::NotFound => ModelError::NotFound(path.display().to_string()),
        _ => ModelError::Io { path: path.to_path_buf(), reason: e.to_string() },
    };
    let size = std::fs::metadata(path).map_err(io)?.len();
    if size > MAX_TEXT_BYTES {
        return Err(ModelError::Io {
            path: path.to_path_buf(),
            reason: format!("{size} bytes of configuration"),
        });
    }
    std::fs::read_to_string(path).map_err(io)
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
