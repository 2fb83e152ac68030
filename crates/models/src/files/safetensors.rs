//! The tensors of safetensors files: one file, or those of a shard index. Format:
//! <https://huggingface.co/docs/safetensors>.
//!
//! Headers are untrusted: every length, offset and shape is checked against the file's real size before anything is
//! allocated.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use candlewick_kernels::SourceType;
use serde::Deserialize;

use crate::files::reading::{corrupt, file_name, open_regular, read_exact_at, read_text, refuse_foreign};
use crate::files::tensors::{Entry, OpenFile, Place, Tensors, check_apart};
use crate::{ModelError, Result};

/// The format's own bound on a header.
const MAX_HEADER_BYTES: u64 = 100_000_000;

#[derive(Debug, Deserialize)]
struct HeaderEntry {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: (u64, u64),
}

/// Bytes of a value of one of the format's types; `None` for a type that is newer than this.
fn size_of(dtype: &str) -> Option<u64> {
    Some(match dtype {
        "F64" | "I64" | "U64" | "C64" => 8,
        "F32" | "I32" | "U32" => 4,
        "F16" | "BF16" | "I16" | "U16" => 2,
        "I8" | "U8" | "BOOL" => 1,
        _ => return None,
    })
}

/// The tensors of all `paths`.
pub(crate) fn open(paths: &[PathBuf]) -> Result<Tensors> {
    let mut tensors = Tensors::new();
    for path in paths {
        let name = file_name(path);
        let file = open_regular(path)?;
        refuse_foreign(&file, &name)?;
        let file = Arc::new(OpenFile { name, file });
        for (tensor, entry) in read_header(&file)? {
            if tensors.insert(tensor.clone(), entry).is_some() {
                return Err(corrupt(&file.name, format!("{tensor} is in two files")));
            }
        }
    }
    Ok(tensors)
}

/// The distinct files of a shard index, which may name files of its own folder only.
pub(crate) fn shards(folder: &Path, index: &Path) -> Result<Vec<PathBuf>> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let name = file_name(index);
    let text = read_text(index)?;
    let index: Index = serde_json::from_str(&text).map_err(|e| corrupt(&name, e.to_string()))?;
    let files: BTreeSet<_> = index.weight_map.into_values().collect();
    if files.is_empty() {
        return Err(corrupt(&name, "its weight_map names no file"));
    }
    files
        .into_iter()
        .map(|file| {
            let path = Path::new(&file);
            let plain = path.components().count() == 1
                && matches!(path.components().next(), Some(Component::Normal(_)))
                && !file.contains('\\');
            if !plain {
                return Err(ModelError::PathEscape { file: name.clone(), path: file });
            }
            let shard = folder.join(path);
            match shard.exists() {
                true => Ok(shard),
                false => Err(ModelError::NotFound(format!("{name} names {file}, which is not there"))),
            }
        })
        .collect()
}

/// Reads and checks a file's header: an 8-byte little-endian length, then JSON.
fn read_header(open: &Arc<OpenFile>) -> Result<Vec<(String, Entry)>> {
    let OpenFile { name, file } = open.as_ref();
    let size = file.metadata().map_err(|e| corrupt(name, e.to_string()))?.len();
    let mut length = [0u8; 8];
    read_exact_at(file, &mut length, 0).map_err(|_| corrupt(name, "shorter than a header's length"))?;
    let length = u64::from_le_bytes(length);
    if length > MAX_HEADER_BYTES || length.checked_add(8).is_none_or(|end| end > size) {
        return Err(corrupt(name, format!("its header claims {length} bytes, the file has {size}")));
    }
    let mut header = vec![0u8; length as usize];
    read_exact_at(file, &mut header, 8).map_err(|e| corrupt(name, e.to_string()))?;
    let mut header: serde_json::Map<String, serde_json::Value> =
        serde_json::from_slice(&header).map_err(|e| corrupt(name, format!("header: {e}")))?;
    header.remove("__metadata__");

    let data = 8 + length;
    let mut ranges = Vec::with_capacity(header.len());
    let mut entries = Vec::with_capacity(header.len());
    for (tensor, value) in header {
        let entry: HeaderEntry =
            serde_json::from_value(value).map_err(|e| corrupt(name, format!("header of {tensor}: {e}")))?;
        let (begin, end) = entry.data_offsets;
        if begin > end || end > size - data {
            return Err(corrupt(name, format!("{tensor} lies at {begin}..{end}, outside the file")));
        }
        let bytes = end - begin;
        let elements = entry.shape.iter().try_fold(1u64, |n, &d| n.checked_mul(d));
        if let Some(size) = size_of(&entry.dtype)
            && elements.and_then(|n| n.checked_mul(size)) != Some(bytes)
        {
            return Err(corrupt(name, format!("{tensor} of shape {:?} has {bytes} bytes", entry.shape)));
        }
        ranges.push((begin, end));
        let entry = Entry {
            source: match entry.dtype.as_str() {
                "F32" => Some(SourceType::F32),
                "F16" => Some(SourceType::F16),
                "BF16" => Some(SourceType::BF16),
                _ => None,
            },
            dtype: entry.dtype,
            shape: entry.shape.iter().map(|&d| d as usize).collect(),
            bytes: bytes as usize,
            place: Place::File(open.clone(), data + begin),
        };
        entries.push((tensor, entry));
    }
    check_apart(ranges, name)?;
    Ok(entries)
}
