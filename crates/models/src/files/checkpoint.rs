//! A checkpoint's tensors by name, as they are stored: safetensors (one file or a shard index), `pytorch_model.bin` or
//! a GGUF file.
//!
//! Headers are untrusted: every length, offset and shape is checked against the file's real size before anything is
//! allocated. Tensors are read one at a time with positioned reads, so that loading never holds two copies of a model,
//! and a file that shrinks while it is read gives an error instead of a fault. Format:
//! <https://huggingface.co/docs/safetensors>.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::path::{Component, Path, PathBuf};

use candle_core::DType;
use candlewick_kernels::{Layout, SourceType};
use half::f16;
use serde::Deserialize;

use crate::contract::dtype::Dtype;
use crate::error::without_backtrace;
use crate::files::foreign;
use crate::files::gguf::Gguf;
use crate::files::reading::{corrupt, file_name, open_regular, read_exact_at, read_text, refuse_foreign};
use crate::files::values::Values;
use crate::{ModelError, Result};

/// The format's own bound on a header.
const MAX_HEADER_BYTES: u64 = 100_000_000;

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

#[derive(Debug)]
struct Entry {
    file: usize,
    /// `None`: a dtype that no parameter can have (an index buffer, a mask).
    stored: Option<SourceType>,
    dtype: String,
    shape: Vec<usize>,
    begin: u64,
    bytes: usize,
}

#[derive(Debug, Deserialize)]
struct HeaderEntry {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: (u64, u64),
}

enum Store {
    Safetensors {
        files: Vec<(String, File)>,
        entries: HashMap<String, Entry>,
    },
    /// Read through Candle's unpickler, which builds values and executes nothing.
    Pickle {
        file: String,
        reader: candle_core::pickle::PthTensors,
    },
    Gguf(Gguf),
}

enum Place<'a> {
    File { file_name: &'a str, file: &'a File, begin: u64 },
    Memory(Vec<u8>),
}

/// A tensor of a checkpoint, which can be read in parts.
pub(crate) struct StoredTensor<'a> {
    pub name: String,
    pub source: SourceType,
    /// Bytes of the whole.
    pub bytes: usize,
    place: Place<'a>,
}

impl StoredTensor<'_> {
    /// Fills `buffer` from byte `at` on.
    pub fn read(&self, at: usize, buffer: &mut [u8]) -> Result<()> {
        match &self.place {
            Place::Memory(bytes) => buffer.copy_from_slice(&bytes[at..][..buffer.len()]),
            Place::File { file_name, file, begin } => read_exact_at(file, buffer, begin + at as u64)
                .map_err(|e| corrupt(file_name, format!("cannot read {}: {e}", self.name)))?,
        }
        Ok(())
    }
}

/// The tensors of one checkpoint. Names are asked for without the model's prefix (`wte.weight`, `encoder.layer.0…`).
pub(crate) struct Checkpoint {
    store: Store,
    /// `transformer` or `bert`: checkpoints come with and without it.
    prefix: &'static str,
}

impl Checkpoint {
    /// Opens what `folder` holds, in transformers' order of preference.
    pub fn open(folder: &Path, prefix: &'static str) -> Result<Self> {
        let single = folder.join("model.safetensors");
        let index = folder.join("model.safetensors.index.json");
        let pickle = folder.join("pytorch_model.bin");
        let store = if single.is_file() {
            safetensors(&[single])?
        } else if index.is_file() {
            safetensors(&shards(folder, &index)?)?
        } else if pickle.is_file() {
            open_pickle(&pickle)?
        } else {
            return Err(foreign::folder(
                folder,
                "weights (model.safetensors, model.safetensors.index.json or pytorch_model.bin)",
            ));
        };
        Ok(Self { store, prefix })
    }

    /// The tensors of one safetensors file.
    pub fn open_file(path: &Path, prefix: &'static str) -> Result<Self> {
        Ok(Self { store: safetensors(&[path.to_path_buf()])?, prefix })
    }

    /// The tensors of a GGUF file that holds a GPT-2, under the checkpoint's names.
    pub fn from_gguf(gguf: Gguf) -> Self {
        Self { store: Store::Gguf(gguf), prefix: "transformer" }
    }

    /// All names as the checkpoint has them, sorted.
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = match &self.store {
            Store::Safetensors { entries, .. } => entries.keys().cloned().collect(),
            Store::Pickle { reader, .. } => reader.tensor_infos().keys().cloned().collect(),
            Store::Gguf(gguf) => gguf.tensors.keys().cloned().collect(),
        };
        names.sort_unstable();
        names
    }

    /// How the checkpoint has a linear layer's matrix: GPT-2's blocks are of `Conv1D`.
    pub fn layout_of(&self, module: &str) -> Layout {
        if self.prefix == "transformer" && module.starts_with("h.") { Layout::InOut } else { Layout::OutIn }
    }

    /// How the matrix `name`, which the checkpoint has in `layout`, lies here: GGUF has all of them as (out, in).
    pub fn layout(&self, layout: Layout) -> Layout {
        if matches!(self.store, Store::Gguf(_)) { Layout::OutIn } else { layout }
    }

    /// `name`, as the checkpoint has it, without the model's prefix and with today's names for a norm.
    pub fn plain_name(&self, name: &str) -> String {
        let name = name.strip_prefix(self.prefix).and_then(|rest| rest.strip_prefix('.')).unwrap_or(name);
        name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")
    }

    /// How `name` is stored; `None` if it is no weight.
    pub fn source_of(&self, name: &str) -> Option<SourceType> {
        let resolved = self.resolve(name)?;
        match &self.store {
            Store::Safetensors { entries, .. } => entries[&resolved].stored,
            Store::Gguf(gguf) => Some(gguf.tensors[&resolved].kind.into()),
            Store::Pickle { reader, .. } => match reader.tensor_infos()[&resolved].dtype {
                DType::F16 => Some(SourceType::F16),
                // As `stored` gives them.
                DType::F32 | DType::BF16 => Some(SourceType::F32),
                _ => None,
            },
        }
    }

    fn has(&self, name: &str) -> bool {
        match &self.store {
            Store::Safetensors { entries, .. } => entries.contains_key(name),
            Store::Pickle { reader, .. } => reader.tensor_infos().contains_key(name),
            Store::Gguf(gguf) => gguf.tensors.contains_key(name),
        }
    }

    /// The name under which the checkpoint holds `name`: as it is, with the prefix, or with TensorFlow's names for a
    /// norm.
    fn resolve(&self, name: &str) -> Option<String> {
        let old =
            name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta");
        let prefix = self.prefix;
        [name.to_string(), format!("{prefix}.{name}"), format!("{prefix}.{old}"), old]
            .into_iter()
            .find(|n| self.has(n))
    }

    pub fn contains(&self, name: &str) -> bool {
        self.resolve(name).is_some()
    }

    /// The shape of `name`, if it is there.
    pub fn shape(&self, name: &str) -> Option<Vec<usize>> {
        let resolved = self.resolve(name)?;
        match &self.store {
            Store::Safetensors { entries, .. } => Some(entries[&resolved].shape.clone()),
            Store::Pickle { reader, .. } => Some(reader.tensor_infos()[&resolved].layout.dims().to_vec()),
            Store::Gguf(gguf) => Some(gguf.tensors[&resolved].shape.clone()),
        }
    }

    /// Bytes of all tensors.
    pub fn total_bytes(&self) -> u64 {
        match &self.store {
            Store::Safetensors { entries, .. } => entries.values().map(|e| e.bytes as u64).sum(),
            Store::Pickle { reader, .. } => reader
                .tensor_infos()
                .values()
                .map(|i| (i.layout.shape().elem_count() * i.dtype.size_in_bytes()) as u64)
                .sum(),
            Store::Gguf(gguf) => gguf.tensors.values().map(|e| e.bytes as u64).sum(),
        }
    }

    /// The type in which `name` is held by default: as it is stored; bf16 as f32, because f16 lacks its range.
    pub fn native_dtype(&self, name: &str) -> Dtype {
        let dtype = self.resolve(name).map(|resolved| match &self.store {
            Store::Safetensors { entries, .. } if entries[&resolved].stored == Some(SourceType::F16) => {
                Dtype::F16
            }
            Store::Pickle { reader, .. } if reader.tensor_infos()[&resolved].dtype == DType::F16 => {
                Dtype::F16
            }
            Store::Gguf(gguf) => gguf.tensors[&resolved].kind,
            _ => Dtype::F32,
        });
        dtype.unwrap_or(Dtype::F32)
    }

    /// Where the values of `name` are, which must have `shape`.
    pub fn stored(&self, name: &str, shape: &[usize]) -> Result<StoredTensor<'_>> {
        let resolved = self.resolve(name).ok_or_else(|| ModelError::MissingTensor(name.to_string()))?;
        let found = self.shape(name).unwrap_or_default();
        if found != shape {
            return Err(ModelError::TensorShape { name: resolved, expected: shape.to_vec(), found });
        }
        let (source, place, bytes) = match &self.store {
            Store::Safetensors { files, entries } => {
                let entry = &entries[&resolved];
                let Some(source) = entry.stored else {
                    return Err(ModelError::TensorDtype { name: resolved, found: entry.dtype.clone() });
                };
                let (file_name, file) = &files[entry.file];
                (source, Place::File { file_name, file, begin: entry.begin }, entry.bytes)
            }
            Store::Gguf(gguf) => {
                let entry = &gguf.tensors[&resolved];
                let place = Place::File { file_name: &gguf.name, file: &gguf.file, begin: entry.begin };
                (entry.kind.into(), place, entry.bytes)
            }
            Store::Pickle { file, reader } => {
                let bad = |e: candle_core::Error| {
                    corrupt(file, format!("cannot read {name}: {}", without_backtrace(&e)))
                };
                let tensor = reader
                    .get(&resolved)
                    .map_err(bad)?
                    .ok_or_else(|| ModelError::MissingTensor(name.to_string()))?;
                let flat = tensor.flatten_all().map_err(bad)?;
                let (source, bytes): (_, Vec<u8>) = match flat.dtype() {
                    DType::F16 => {
                        let values: Vec<f16> = flat.to_vec1().map_err(bad)?;
                        (SourceType::F16, values.iter().flat_map(|v| v.to_le_bytes()).collect())
                    }
                    DType::F32 | DType::BF16 => {
                        let flat = flat.to_dtype(DType::F32).map_err(bad)?;
                        let values: Vec<f32> = flat.to_vec1().map_err(bad)?;
                        (SourceType::F32, values.iter().flat_map(|v| v.to_le_bytes()).collect())
                    }
                    other => {
                        return Err(ModelError::TensorDtype { name: resolved, found: format!("{other:?}") });
                    }
                };
                let len = bytes.len();
                (source, Place::Memory(bytes), len)
            }
        };
        Ok(StoredTensor { name: resolved, source, place, bytes })
    }

    /// Reads `name`, which must have `shape`.
    pub fn read(&self, name: &str, shape: &[usize]) -> Result<Values> {
        let stored = self.stored(name, shape)?;
        Values::read(stored.source, stored.bytes, |buffer| stored.read(0, buffer))
    }
}

fn open_pickle(path: &Path) -> Result<Store> {
    let file = file_name(path);
    let opened = open_regular(path)?;
    refuse_foreign(&opened, &file)?;
    let size = opened.metadata().map_err(|e| corrupt(&file, e.to_string()))?.len();
    crate::files::pickle::check(path).map_err(|reason| corrupt(&file, reason))?;
    let reader = std::panic::catch_unwind(|| candle_core::pickle::PthTensors::new(path, None))
        .map_err(|_| corrupt(&file, "not a PyTorch checkpoint"))?
        .map_err(|e| corrupt(&file, without_backtrace(&e)))?;
    for info in reader.tensor_infos().values() {
        let elements = info.layout.dims().iter().try_fold(1u64, |n, &d| n.checked_mul(d as u64));
        let bytes = elements.and_then(|n| n.checked_mul(info.dtype.size_in_bytes() as u64));
        if bytes.is_none_or(|bytes| bytes > size) {
            return Err(corrupt(&file, format!("{} is larger than the file", info.name)));
        }
    }
    Ok(Store::Pickle { file, reader })
}

/// The distinct files of a shard index, which may name files of its own folder only.
fn shards(folder: &Path, index: &Path) -> Result<Vec<PathBuf>> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let name = file_name(index);
    let text = read_text(index)?;
    let index: Index = serde_json::from_str(&text).map_err(|e| corrupt(&name, e.to_string()))?;
    let files: BTreeSet<_> = index.weight_map.into_values().collect();
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
            Ok(folder.join(path))
        })
        .collect()
}

fn safetensors(paths: &[PathBuf]) -> Result<Store> {
    let mut files = Vec::with_capacity(paths.len());
    let mut entries = HashMap::new();
    for (i, path) in paths.iter().enumerate() {
        let name = file_name(path);
        let file = open_regular(path)?;
        refuse_foreign(&file, &name)?;
        for (tensor, entry) in read_header(&file, &name, i)? {
            if entries.insert(tensor.clone(), entry).is_some() {
                return Err(corrupt(&name, format!("{tensor} is in two files")));
            }
        }
        files.push((name, file));
    }
    Ok(Store::Safetensors { files, entries })
}

/// Reads and checks one file's header: an 8-byte little-endian length, then JSON.
fn read_header(file: &File, name: &str, index: usize) -> Result<Vec<(String, Entry)>> {
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
        let stored = match entry.dtype.as_str() {
            "F32" => Some(SourceType::F32),
            "F16" => Some(SourceType::F16),
            "BF16" => Some(SourceType::BF16),
            _ => None,
        };
        let bytes = end - begin;
        let elements = entry.shape.iter().try_fold(1u64, |n, &d| n.checked_mul(d));
        if let Some(size) = size_of(&entry.dtype)
            && elements.and_then(|n| n.checked_mul(size)) != Some(bytes)
        {
            return Err(corrupt(name, format!("{tensor} of shape {:?} has {bytes} bytes", entry.shape)));
        }
        ranges.push((begin, end));
        let shape = entry.shape.iter().map(|&d| d as usize).collect();
        let entry = Entry {
            file: index,
            stored,
            dtype: entry.dtype,
            shape,
            begin: data + begin,
            bytes: bytes as usize,
        };
        entries.push((tensor, entry));
    }
    ranges.sort_unstable();
    if ranges.windows(2).any(|pair| pair[0].1 > pair[1].0) {
        return Err(corrupt(name, "tensors overlap"));
    }
    Ok(entries)
}
