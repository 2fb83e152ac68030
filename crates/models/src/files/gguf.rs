//! GGUF files: GPT-2's weights, sizes and tokenizer in one file. Format: ggml's `docs/gguf.md`, versions 2 and 3,
//! little-endian.
//!
//! Nothing in the file is trusted: a count is checked against the bytes that are left before anything is allocated for
//! it, and a tensor's place against the file's size and the other tensors. Only the metadata that a GPT-2 needs is
//! kept.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;

use candlewick_kernels::{BLOCK, Q4_0_BYTES, Q8_0_BYTES};

use crate::files::foreign;
use crate::files::reading::{corrupt, file_name, open_regular, read_exact_at, refuse_foreign};
use crate::files::tensors::{Entry, OpenFile, Place, Tensors, check_apart};
use crate::{Dtype, ModelError, Result};

/// Entries of a vocabulary or of a list of merges: far above any GPT-2's, and a bound on what a hostile file can make
/// us hold.
const MAX_ENTRIES: u64 = 1 << 20;
const MAX_STRING: u64 = 1 << 20;
const MAX_TENSORS: u64 = 1 << 16;

/// A metadata value of a kind that is used here.
#[derive(Debug, Clone, PartialEq)]
pub enum Meta {
    Integer(i64),
    Float(f64),
    Bool(bool),
    Text(String),
    Texts(Vec<String>),
    Integers(Vec<i64>),
}

/// ggml's codes of the types that are read here.
fn dtype_of(code: u32) -> Option<Dtype> {
    Some(match code {
        0 => Dtype::F32,
        1 => Dtype::F16,
        2 => Dtype::Q4_0,
        8 => Dtype::Q8_0,
        _ => return None,
    })
}

/// Values in a block, and its bytes.
fn block_of(dtype: Dtype) -> (u64, u64) {
    match dtype {
        Dtype::F32 => (1, 4),
        Dtype::F16 | Dtype::Bf16 => (1, 2),
        Dtype::Q8_0 => (BLOCK as u64, Q8_0_BYTES as u64),
        Dtype::Q4_0 => (BLOCK as u64, Q4_0_BYTES as u64),
        Dtype::Int8 => unreachable!("no file holds int8"),
    }
}

/// The checkpoint's name of one of llama.cpp's tensors, or the name as it is.
fn checkpoint_name(name: &str) -> String {
    let (stem, end) = name.rsplit_once('.').unwrap_or((name, ""));
    let stem = match stem {
        "token_embd" => "wte".to_string(),
        "position_embd" => "wpe".to_string(),
        "output_norm" => "ln_f".to_string(),
        "output" => "lm_head".to_string(),
        _ => {
            let part = |part: &str| match part {
                "attn_norm" => Some("ln_1"),
                "attn_qkv" => Some("attn.c_attn"),
                "attn_output" => Some("attn.c_proj"),
                "ffn_norm" => Some("ln_2"),
                "ffn_up" => Some("mlp.c_fc"),
                "ffn_down" => Some("mlp.c_proj"),
                _ => None,
            };
            let block = stem.strip_prefix("blk.").and_then(|rest| rest.split_once('.'));
            match block.and_then(|(index, name)| Some((index, part(name)?))) {
                Some((index, name)) => format!("h.{index}.{name}"),
                None => return name.to_string(),
            }
        }
    };
    format!("{stem}.{end}")
}

/// Where a tensor lies.
#[derive(Debug, Clone)]
pub struct Extent {
    /// Outermost first, as everywhere else; the file has them innermost first.
    pub shape: Vec<usize>,
    pub kind: Dtype,
    pub begin: u64,
    pub bytes: usize,
}

pub struct Gguf {
    pub name: String,
    pub file: File,
    pub metadata: HashMap<String, Meta>,
    /// By the checkpoint's names.
    pub tensors: HashMap<String, Extent>,
}

struct Reader<'a> {
    name: &'a str,
    inner: BufReader<&'a File>,
    at: u64,
    size: u64,
}

impl Reader<'_> {
    fn bad(&self, reason: impl Into<String>) -> ModelError {
        corrupt(self.name, format!("at byte {}: {}", self.at, reason.into()))
    }

    /// Checks that `count` items of at least `each` bytes are left in the file.
    fn room(&self, count: u64, each: u64, what: &str) -> Result<()> {
        match count.checked_mul(each) {
            Some(bytes) if bytes <= self.size - self.at => Ok(()),
            _ => Err(self.bad(format!("{count} {what} do not fit in the file"))),
        }
    }

    fn bytes<const N: usize>(&mut self) -> Result<[u8; N]> {
        self.room(N as u64, 1, "bytes")?;
        let mut bytes = [0; N];
        self.inner.read_exact(&mut bytes).map_err(|e| self.bad(e.to_string()))?;
        self.at += N as u64;
        Ok(bytes)
    }

    fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.bytes()?))
    }

    fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.bytes()?))
    }

    fn skip(&mut self, bytes: u64) -> Result<()> {
        self.room(bytes, 1, "bytes")?;
        // Bounded by the file's size, which fits.
        self.inner.seek_relative(bytes as i64).map_err(|e| self.bad(e.to_string()))?;
        self.at += bytes;
        Ok(())
    }

    fn text(&mut self) -> Result<String> {
        let length = self.u64()?;
        if length > MAX_STRING {
            return Err(self.bad(format!("a string of {length} bytes")));
        }
        self.room(length, 1, "bytes of a string")?;
        let mut bytes = vec![0; length as usize];
        self.inner.read_exact(&mut bytes).map_err(|e| self.bad(e.to_string()))?;
        self.at += length;
        String::from_utf8(bytes).map_err(|_| self.bad("a string that is not UTF-8"))
    }

    /// A scalar of type `kind`, or a text.
    fn scalar(&mut self, kind: u32) -> Result<Meta> {
        Ok(match kind {
            0 => Meta::Integer(self.bytes::<1>()?[0].into()),
            1 => Meta::Integer(i8::from_le_bytes(self.bytes()?).into()),
            2 => Meta::Integer(u16::from_le_bytes(self.bytes()?).into()),
            3 => Meta::Integer(i16::from_le_bytes(self.bytes()?).into()),
            4 => Meta::Integer(self.u32()?.into()),
            5 => Meta::Integer(i32::from_le_bytes(self.bytes()?).into()),
            6 => Meta::Float(f32::from_le_bytes(self.bytes()?).into()),
            7 => Meta::Bool(self.bytes::<1>()?[0] != 0),
            8 => Meta::Text(self.text()?),
            10 => Meta::Integer(self.u64()?.try_into().map_err(|_| self.bad("an integer over 2^63"))?),
            11 => Meta::Integer(i64::from_le_bytes(self.bytes()?)),
            12 => Meta::Float(f64::from_le_bytes(self.bytes()?)),
            _ => return Err(self.bad(format!("metadata of unknown type {kind}"))),
        })
    }

    fn skip_scalar(&mut self, kind: u32) -> Result<()> {
        match kind {
            0 | 1 | 7 => self.skip(1),
            2 | 3 => self.skip(2),
            4..=6 => self.skip(4),
            10..=12 => self.skip(8),
            8 => {
                let length = self.u64()?;
                self.skip(length)
            }
            _ => Err(self.bad(format!("metadata of unknown type {kind}"))),
        }
    }

    /// The value after a key: kept if `keep`, else passed over.
    fn value(&mut self, keep: bool) -> Result<Option<Meta>> {
        let kind = self.u32()?;
        if kind != 9 {
            return if keep { self.scalar(kind).map(Some) } else { self.skip_scalar(kind).map(|()| None) };
        }
        let (kind, count) = (self.u32()?, self.u64()?);
        let width = match kind {
            8 => 8, // at least the length
            0 | 1 | 7 => 1,
            2 | 3 => 2,
            4..=6 => 4,
            10..=12 => 8,
            _ => return Err(self.bad(format!("an array of type {kind}"))),
        };
        self.room(count, width, "array items")?;
        if !keep {
            if kind != 8 {
                self.skip(count * width)?;
            } else {
                (0..count).try_for_each(|_| self.skip_scalar(kind))?;
            }
            return Ok(None);
        }
        if count > MAX_ENTRIES {
            return Err(self.bad(format!("an array of {count} items")));
        }
        if kind == 8 {
            return Ok(Some(Meta::Texts((0..count).map(|_| self.text()).collect::<Result<_>>()?)));
        }
        let integer = |value: Meta| if let Meta::Integer(i) = value { Some(i) } else { None };
        let items = (0..count).map(|_| self.scalar(kind).map(integer)).collect::<Result<Option<Vec<_>>>>()?;
        Ok(items.map(Meta::Integers))
    }
}

fn kept(key: &str) -> bool {
    key.starts_with("general.arch")
        || key == "general.alignment"
        || key.starts_with("gpt2.")
        || key.starts_with("tokenizer.ggml.")
        || key == "tokenizer.chat_template"
}

impl Gguf {
    pub fn open(path: &Path) -> Result<Self> {
        let name = file_name(path);
        let io = |e: std::io::Error| ModelError::Io { path: path.to_path_buf(), reason: e.to_string() };
        let file = open_regular(path)?;
        let size = file.metadata().map_err(io)?.len();
        let mut reader = Reader { name: &name, inner: BufReader::with_capacity(1 << 16, &file), at: 0, size };
        reader.inner.seek(SeekFrom::Start(0)).map_err(io)?;
        if reader.bytes::<4>().ok().as_ref() != Some(b"GGUF") {
            refuse_foreign(&file, &name)?;
            let gguf = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf"));
            return Err(if gguf { corrupt(&name, "not a GGUF file") } else { foreign::file(path) });
        }
        let version = reader.u32()?;
        if !matches!(version, 2 | 3) {
            return Err(ModelError::UnsupportedModel(format!("{name}: GGUF version {version}")));
        }
        let (tensor_count, pair_count) = (reader.u64()?, reader.u64()?);
        // A tensor takes at least a name's length, a dimension's count, a type and an offset; a pair a key's length and
        // a type.
        reader.room(tensor_count, 24, "tensors")?;
        reader.room(pair_count, 13, "metadata pairs")?;
        if tensor_count > MAX_TENSORS {
            return Err(reader.bad(format!("{tensor_count} tensors")));
        }
        let mut metadata = HashMap::new();
        for _ in 0..pair_count {
            let key = reader.text()?;
            let value = reader.value(kept(&key))?;
            if let Some(value) = value {
                metadata.insert(key, value);
            }
        }
        let mut tensors = HashMap::with_capacity(tensor_count as usize);
        for _ in 0..tensor_count {
            let (tensor, extent) = read_extent(&mut reader)?;
            if tensors.insert(checkpoint_name(&tensor), extent).is_some() {
                return Err(reader.bad(format!("{tensor} is there twice")));
            }
        }
        let alignment = match metadata.get("general.alignment") {
            None => 32,
            Some(&Meta::Integer(a)) if a > 0 && a <= 1 << 16 && (a as u64).is_power_of_two() => a as u64,
            Some(other) => return Err(reader.bad(format!("an alignment of {other:?}"))),
        };
        let data = reader.at.next_multiple_of(alignment);
        drop(reader);
        place(&mut tensors, &name, data, size)?;
        Ok(Self { name, file, metadata, tensors })
    }

    pub fn text(&self, key: &str) -> Option<&str> {
        if let Some(Meta::Text(text)) = self.metadata.get(key) { Some(text) } else { None }
    }

    pub fn texts(&self, key: &str) -> Option<&[String]> {
        if let Some(Meta::Texts(texts)) = self.metadata.get(key) { Some(texts) } else { None }
    }

    pub fn integers(&self, key: &str) -> Option<&[i64]> {
        if let Some(Meta::Integers(items)) = self.metadata.get(key) { Some(items) } else { None }
    }

    /// A size or id that must be there.
    pub fn size(&self, key: &str) -> Result<usize> {
        self.size_if_any(key).ok_or_else(|| ModelError::Config(format!("{}: no {key}", self.name)))
    }

    pub fn size_if_any(&self, key: &str) -> Option<usize> {
        if let Some(&Meta::Integer(value)) = self.metadata.get(key) {
            usize::try_from(value).ok()
        } else {
            None
        }
    }

    /// Whether two tensors have the same bytes: llama.cpp's converter writes a tied head a second time.
    pub fn same(&self, a: &str, b: &str) -> Result<bool> {
        let (Some(a), Some(b)) = (self.tensors.get(a), self.tensors.get(b)) else { return Ok(false) };
        if (&a.shape, a.kind, a.bytes) != (&b.shape, b.kind, b.bytes) {
            return Ok(false);
        }
        let (mut left, mut right) = (vec![0; 1 << 20], vec![0; 1 << 20]);
        for at in (0..a.bytes).step_by(1 << 20) {
            let length = (a.bytes - at).min(1 << 20);
            for (buffer, begin) in [(&mut left, a.begin), (&mut right, b.begin)] {
                read_exact_at(&self.file, &mut buffer[..length], begin + at as u64)
                    .map_err(|e| corrupt(&self.name, e.to_string()))?;
            }
            if left[..length] != right[..length] {
                return Ok(false);
            }
        }
        Ok(true)
    }

    pub(crate) fn into_tensors(self) -> Tensors {
        let file = Arc::new(OpenFile { name: self.name, file: self.file });
        let entry = |extent: Extent| Entry {
            source: Some(extent.kind.into()),
            dtype: format!("{:?}", extent.kind),
            shape: extent.shape,
            bytes: extent.bytes,
            place: Place::File(file.clone(), extent.begin),
        };
        self.tensors.into_iter().map(|(name, extent)| (name, entry(extent))).collect()
    }

    pub fn float(&self, key: &str) -> Option<f64> {
        if let Some(&Meta::Float(value)) = self.metadata.get(key) { Some(value) } else { None }
    }
}

/// A tensor's description; `begin` is still relative to the data.
fn read_extent(reader: &mut Reader) -> Result<(String, Extent)> {
    let name = reader.text()?;
    let dimensions = reader.u32()?;
    if dimensions > 4 {
        return Err(reader.bad(format!("{name} has {dimensions} dimensions")));
    }
    let mut shape = (0..dimensions).map(|_| reader.u64()).collect::<Result<Vec<_>>>()?;
    let code = reader.u32()?;
    let begin = reader.u64()?;
    let kind = dtype_of(code)
        .ok_or_else(|| ModelError::UnsupportedDtype(format!("{name} is stored as GGUF type {code}")))?;
    let (block, block_bytes) = block_of(kind);
    let huge = || reader.bad(format!("{name} of shape {shape:?} is not in the file"));
    let count = shape.iter().try_fold(1u64, |n, &d| n.checked_mul(d)).ok_or_else(huge)?;
    if shape.first().copied().unwrap_or(1) % block != 0 {
        return Err(reader.bad(format!("{name}: rows of {:?} values in blocks of {block}", shape.first())));
    }
    let bytes = (count / block).checked_mul(block_bytes).filter(|&b| b <= reader.size).ok_or_else(huge)?;
    shape.reverse();
    let shape = shape.into_iter().map(|d| d as usize).collect();
    Ok((name, Extent { shape, kind, begin, bytes: bytes as usize }))
}

/// Makes the tensors' places absolute and checks them: inside the file, none over another.
fn place(tensors: &mut HashMap<String, Extent>, name: &str, data: u64, size: u64) -> Result<()> {
    let mut ranges = Vec::with_capacity(tensors.len());
    for (tensor, extent) in tensors.iter_mut() {
        let begin = data.checked_add(extent.begin);
        let end = begin.and_then(|begin| begin.checked_add(extent.bytes as u64));
        match (begin, end) {
            (Some(begin), Some(end)) if end <= size => {
                extent.begin = begin;
                ranges.push((begin, end));
            }
            _ => return Err(corrupt(name, format!("{tensor} lies outside the file"))),
        }
    }
    check_apart(ranges, name)
}

#[cfg(test)]
mod tests {
    use candle_core::Device;
    use candle_core::quantized::gguf_file::Content;
    use candle_transformers::quantized_var_builder::VarBuilder;

    use super::*;
    use crate::Weights;

    /// candle-transformers reads the same files by other code: names, shapes and dequantised values are equal.
    #[test]
    fn tensors_equal_those_of_candle_transformers() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../__test__/fixtures/gguf");
        for kind in ["f32", "f16", "q8_0", "q4_0"] {
            let path = folder.join(format!("{kind}.gguf"));
            let content = Content::read(&mut File::open(&path).unwrap()).unwrap();
            let theirs = VarBuilder::from_gguf(&path, &Device::Cpu).unwrap();
            let ours = Weights::from_gguf(Gguf::open(&path).unwrap());
            assert_eq!(ours.names().len(), content.tensor_infos.len());
            for (name, info) in &content.tensor_infos {
                let expected =
                    theirs.get(info.shape.clone(), name).unwrap().dequantize(&Device::Cpu).unwrap();
                let found = ours.tensor(&checkpoint_name(name), info.shape.dims(), &Device::Cpu).unwrap();
                let flat =
                    |tensor: &candle_core::Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
                assert_eq!(flat(&found), flat(&expected), "{kind}: {name}");
            }
        }
    }
}
