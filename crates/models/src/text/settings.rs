//! What `tokenizer_config.json`, `special_tokens_map.json` and `added_tokens.json` say: their fields in the order of
//! the file, on which the ids of tokens without one hang, and with the types that transformers takes.

use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use crate::files::foreign;
use crate::files::reading::{Entries, file_name, read_text, short};
use crate::{ModelError, Result};

pub(crate) const CONFIG: &str = "tokenizer_config.json";
pub(crate) const TOKEN_MAP: &str = "special_tokens_map.json";
pub(crate) const ADDED: &str = "added_tokens.json";
pub(crate) const JSON: &str = "tokenizer.json";

/// An object or something else.
#[derive(Deserialize)]
#[serde(untagged)]
enum Maybe {
    Object(Entries),
    Other(serde::de::IgnoredAny),
}

impl Default for Maybe {
    fn default() -> Self {
        Self::Other(serde::de::IgnoredAny)
    }
}

/// The fields of the configuration that are objects whose order or doubled names count.
#[derive(Default, Deserialize)]
struct Inner {
    #[serde(default)]
    added_tokens_decoder: Maybe,
    #[serde(default)]
    extra_special_tokens: Maybe,
}

/// Entries of a file in a model's folder; `None` where there is no such file.
pub(crate) fn entries<T: for<'de> Deserialize<'de>>(path: &Path) -> Result<Option<Entries<T>>> {
    if !path.is_file() {
        return Ok(None);
    }
    let text = read_text(path)?;
    let invalid = |error: serde_json::Error| {
        let reason = foreign::content(text.as_bytes()).unwrap_or_else(|| error.to_string());
        ModelError::Config(format!("{}: {reason}", file_name(path)))
    };
    let entries: Entries<T> = serde_json::from_str(&text).map_err(invalid)?;
    Ok(Some(entries))
}

/// Refuses a file with more fields than anyone has, since each is compared with the others.
pub(crate) fn few(file: &str, fields: usize) -> Result<()> {
    const MOST: usize = 2000;
    if fields <= MOST { Ok(()) } else { Err(ModelError::Tokenizer(format!("{file} has {fields} fields"))) }
}

/// `tokenizer_config.json`, and the two files that transformers reads where it lists no added tokens.
#[derive(Default)]
pub(crate) struct Settings {
    fields: Vec<(String, Value)>,
    /// `added_tokens_decoder`: added tokens by id. Where it is there, the next two files count for nothing: they are
    /// from before it (transformers' rule).
    pub listed: Option<Vec<(String, Value)>>,
    /// `extra_special_tokens`, if it is an object.
    pub extra: Option<Vec<(String, Value)>>,
    /// `special_tokens_map.json`.
    pub map: Vec<(String, Value)>,
    /// `added_tokens.json`.
    pub added: Vec<(String, Value)>,
}

impl Settings {
    pub fn read(folder: &Path) -> Result<Self> {
        let path = folder.join(CONFIG);
        let fields = entries(&path)?.unwrap_or_default().0;
        let mut settings = Self::default();
        few(CONFIG, fields.len())?;
        // Of a name that is there twice the later entry counts, as in Python.
        for (name, value) in fields {
            match settings.fields.iter_mut().find(|(own, _)| *own == name) {
                Some(entry) => entry.1 = value,
                None => settings.fields.push((name, value)),
            }
        }
        let is_object = |name: &str| settings.get(name).is_some_and(Value::is_object);
        if is_object("added_tokens_decoder") || is_object("extra_special_tokens") {
            let inner: Inner = serde_json::from_str(&read_text(&path)?)
                .map_err(|error| ModelError::Config(format!("{CONFIG}: {error}")))?;
            let object = |maybe| match maybe {
                Maybe::Object(entries) => Some(entries.0),
                Maybe::Other(_) => None,
            };
            settings.listed = object(inner.added_tokens_decoder);
            settings.extra = object(inner.extra_special_tokens);
            few(CONFIG, settings.extra.as_ref().map_or(0, Vec::len))?;
        }
        if settings.get("added_tokens_decoder").is_some() {
            if settings.listed.is_none() {
                return Err(settings.refuse("added_tokens_decoder", "an object of tokens by id"));
            }
        } else {
            settings.map = entries(&folder.join(TOKEN_MAP))?.unwrap_or_default().0;
            few(TOKEN_MAP, settings.map.len())?;
            settings.added = entries(&folder.join(ADDED))?.unwrap_or_default().0;
        }
        Ok(settings)
    }

    pub fn fields(&self) -> &[(String, Value)] {
        &self.fields
    }

    /// The field `name`, which may be null.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.fields.iter().find(|(own, _)| own == name).map(|(_, value)| value)
    }

    pub fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// The field is not what it has to be.
    pub fn refuse(&self, name: &str, expected: &str) -> ModelError {
        let given = short(self.get(name).unwrap_or(&Value::Null));
        ModelError::Tokenizer(format!("{CONFIG}: {name} is {given}, not {expected}"))
    }

    pub fn flag(&self, name: &str, default: bool) -> Result<bool> {
        match self.get(name) {
            None => Ok(default),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(_) => Err(self.refuse(name, "true or false")),
        }
    }

    /// As [`Self::flag`], and null is the default.
    pub fn flag_or_null(&self, name: &str, default: bool) -> Result<bool> {
        if self.get(name).is_some_and(Value::is_null) { Ok(default) } else { self.flag(name, default) }
    }

    /// `true` for what is to be done on the left.
    pub fn is_left(&self, name: &str, default: bool) -> Result<bool> {
        match self.get(name) {
            None => Ok(default),
            Some(Value::String(side)) if side == "left" => Ok(true),
            Some(Value::String(side)) if side == "right" => Ok(false),
            Some(_) => Err(self.refuse(name, "\"left\" or \"right\"")),
        }
    }

    /// `model_max_length`, or `max_len` as it was called: the tokens that texts are cut to. `None`: it does not say, or
    /// says a number that stands for that (above 10^20, transformers' own is 10^30).
    pub fn max_length(&self) -> Result<Option<usize>> {
        let name = if self.has("model_max_length") { "model_max_length" } else { "max_len" };
        match self.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Number(number)) => match number.as_u64() {
                Some(length) if length > 0 => Ok(usize::try_from(length).ok()),
                None if number.as_f64().is_some_and(|length| length > 1e20) => Ok(None),
                _ => Err(self.refuse(name, "a number of tokens")),
            },
            Some(_) => Err(self.refuse(name, "a number of tokens")),
        }
    }

    /// Fields with which a tokenizer would be another than its files say, and that no program writes.
    pub fn refuse_foreign(&self) -> Result<()> {
        const INNER: [&str; 7] = [
            "vocab",
            "merges",
            "tokenizer_object",
            "post_processor",
            "tokenizer_truncation",
            "tokenizer_padding",
            "gguf_file",
        ];
        if let Some(name) = INNER.iter().find(|name| self.has(name)) {
            return Err(ModelError::Tokenizer(format!("{CONFIG}: {name} belongs into another file")));
        }
        if self.get("init_inputs").is_some_and(|inputs| inputs.as_array().is_none_or(|list| !list.is_empty()))
        {
            return Err(self.refuse("init_inputs", "supported"));
        }
        let code = self.get("auto_map").filter(|map| map.is_array() || !map["AutoTokenizer"].is_null());
        if code.is_some() {
            return Err(ModelError::Tokenizer(format!(
                "{CONFIG}: auto_map: the tokenizer is a program of its own, which is not run here; without the field \
                 the files are read as those of tokenizer_class"
            )));
        }
        let versions = self.get("fast_tokenizer_files").and_then(Value::as_array);
        let is_version =
            |name: &str| name.starts_with("tokenizer.") && name != JSON && name.ends_with(".json");
        if versions.is_some_and(|names| names.iter().any(|name| name.as_str().is_none_or(is_version))) {
            return Err(self.refuse("fast_tokenizer_files", "supported: one file for every version is"));
        }
        Ok(())
    }
}
