//! Reading files safely: opening regular files only, positioned reads, JSON of a bounded size. Nothing here knows a
//! format.

use std::fs::File;
use std::io::Read;
use std::path::Path;

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
