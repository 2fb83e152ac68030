//! Reading files safely: opening regular files only, positioned reads, JSON of a bounded size. Nothing here knows a
//! format.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde::de::{Deserialize, DeserializeOwned, Deserializer, MapAccess, Visitor};
use serde_json::Value;

use crate::files::foreign;
use crate::{ModelError, Result};

/// No configuration file is larger than this; a tokenizer's may be (see `tokenizer.rs`).
const MAX_TEXT_BYTES: u64 = 64 << 20;

pub(crate) fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

pub(crate) fn corrupt(file: &str, reason: impl Into<String>) -> ModelError {
    ModelError::CorruptWeights { file: file.to_string(), reason: reason.into() }
}

#[cfg(unix)]
/// Fills `buffer` from `offset` on, whatever other threads read.
pub fn read_exact_at(file: &File, buffer: &mut [u8], offset: u64) -> std::io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, buffer, offset)
}

#[cfg(windows)]
pub fn read_exact_at(file: &File, mut buffer: &mut [u8], mut offset: u64) -> std::io::Result<()> {
    while !buffer.is_empty() {
        let n = std::os::windows::fs::FileExt::seek_read(file, buffer, offset)?;
        if n == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        buffer = &mut buffer[n..];
        offset += n as u64;
    }
    Ok(())
}

/// Opens a regular file. Other kinds are refused: a pipe would block, a device would never end.
pub fn open_regular(path: &Path) -> Result<File> {
    let io = |e: std::io::Error| match e.kind() {
        std::io::ErrorKind::NotFound => ModelError::NotFound(path.display().to_string()),
        _ => ModelError::Io { path: path.to_path_buf(), reason: e.to_string() },
    };
    if !std::fs::metadata(path).map_err(io)?.is_file() {
        return Err(ModelError::Io { path: path.to_path_buf(), reason: "not a regular file".into() });
    }
    File::open(path).map_err(io)
}

/// Refuses a file of weights that begins as something else: a Git LFS pointer, an HTML page.
pub(crate) fn refuse_foreign(file: &File, name: &str) -> Result<()> {
    foreign::content_of(file).map_or(Ok(()), |reason| Err(corrupt(name, reason)))
}

/// Reads a text file of a bounded size.
pub(crate) fn read_text(path: &Path) -> Result<String> {
    read_text_within(path, MAX_TEXT_BYTES)
}

/// Reads a text file of at most `most` bytes.
pub(crate) fn read_text_within(path: &Path, most: u64) -> Result<String> {
    let io = |reason: String| ModelError::Io { path: path.to_path_buf(), reason };
    let mut text = String::new();
    let file = open_regular(path)?;
    file.take(most + 1).read_to_string(&mut text).map_err(|e| io(e.to_string()))?;
    if text.len() as u64 > most {
        return Err(io(format!("over {most} bytes of configuration")));
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
    let text = read_text(path)?;
    let value: Value = serde_json::from_str(&text).map_err(|e| {
        let reason = foreign::content(text.as_bytes()).unwrap_or_else(|| e.to_string());
        ModelError::Config(format!("{}: {reason}", path.display()))
    })?;
    if !value.is_object() {
        return Err(ModelError::Config(format!("{} is not an object", path.display())));
    }
    Ok(value)
}

/// Reads a JSON object, or an empty one where there is no such file.
pub(crate) fn read_json_if_any(path: &Path) -> Result<Value> {
    if path.is_file() { read_json(path) } else { Ok(Value::Object(Default::default())) }
}

/// What `file` says under `field`: `None` where it lacks the field or says null, which is Python's "not set".
///
/// # Errors
/// `Config`, which names file and field: a value of another type, or out of the type's range.
pub fn optional<T: DeserializeOwned>(object: &Value, file: &str, field: &str) -> Result<Option<T>> {
    let value = object.get(field).cloned().unwrap_or(Value::Null);
    serde_json::from_value(value).map_err(|error| wrong(file, field, &error.to_string()))
}

pub(crate) fn wrong(file: &str, field: &str, reason: &str) -> ModelError {
    ModelError::Config(format!("{file}: {field}: {reason}"))
}

/// The fields of `object`, the contents of `file`, that `T` has.
///
/// # Errors
/// `Config`, which names file and field.
pub(crate) fn fields<T: DeserializeOwned>(object: &Value, file: &str) -> Result<T> {
    let error = match serde_json::from_value(object.clone()) {
        Ok(value) => return Ok(value),
        Err(error) => error.to_string(),
    };
    // serde says what is wrong, not where: without the field that is wrong it says something else.
    let without = |field: &String| {
        let mut rest = object.clone();
        rest.as_object_mut().and_then(|rest| rest.remove(field));
        serde_json::from_value::<T>(rest).err().is_none_or(|other| other.to_string() != error)
    };
    let names = object.as_object().into_iter().flat_map(|object| object.keys());
    Err(match names.into_iter().find(|name| without(name)) {
        Some(field) => wrong(file, field, &error),
        None => ModelError::Config(format!("{file}: {error}")),
    })
}

/// A value for a message: its first 60 characters.
pub fn short(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// A JSON object's entries, in the order of the file; a name that is there twice is there twice.
pub(crate) struct Entries<T = Value>(pub Vec<(String, T)>);

impl<T> Default for Entries<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Entries<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder<T>(std::marker::PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for InOrder<T> {
            type Value = Entries<T>;

            fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Entries(entries))
            }
        }
        deserializer.deserialize_map(InOrder(std::marker::PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde_json::json;

    use super::{fields, optional};

    #[derive(Debug, Deserialize)]
    #[allow(dead_code)] // read by the derived Debug and by serde alone
    struct Sizes {
        width: usize,
        #[serde(default)]
        epsilon: f64,
    }

    #[test]
    fn the_field_that_is_wrong_is_named() {
        let says = |config| fields::<Sizes>(&config, "config.json").unwrap_err().to_string();
        for (config, field) in [
            (json!({"other": 1, "width": 3, "epsilon": "1e-12"}), "epsilon"),
            (json!({"epsilon": null, "width": 3}), "epsilon"),
            (json!({"width": -1, "epsilon": 1}), "width"),
            (json!({"width": 2.5}), "width"),
            (json!({"epsilon": 1}), "width"),
        ] {
            let message = says(config);
            assert!(message.contains("config.json: ") && message.contains(field), "{message}");
        }
        assert!(fields::<Sizes>(&json!({"width": 3}), "config.json").is_ok());
    }

    #[test]
    fn what_is_absent_or_null_is_not_said_and_anything_else_must_be_of_the_type() {
        let file = json!({"a": null, "b": "2", "c": 2});
        assert_eq!(optional::<u32>(&file, "f", "x").unwrap(), None);
        assert_eq!(optional::<u32>(&file, "f", "a").unwrap(), None);
        assert_eq!(optional::<u32>(&file, "f", "c").unwrap(), Some(2));
        assert!(optional::<u32>(&file, "f", "b").unwrap_err().to_string().contains("f: b: "));
    }
}
