//! GGUF files: GPT-2's weights, sizes and tokenizer in one file. Format: ggml's `docs/gguf.md`, versions 2 and 3,
//! little-endian.
//!
//! Nothing in the file is trusted: a count is checked against the bytes that are left before anything is allocated for
//! it, and a tensor's place against the file's size and the other tensors. What it says of itself reads
//! `gguf_metadata.rs`, its types of tensors are in `ggml_types.rs`.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use crate::files::foreign;
use crate::files::ggml_types::{GgmlType, Reading};
use crate::files::gguf_metadata::{Metadata, Reader, short};
use crate::files::reading::{corrupt, file_name, open_regular, read_exact_at, refuse_foreign};
use crate::files::tensors::{Entry, OpenFile, Place, Tensors, check_apart};
use crate::{ModelError, Result};

const MAX_TENSORS: u64 = 1 << 16;
/// Bytes of a tensor's name, as in ggml.
const MAX_NAME: usize = 63;
/// Of general.alignment, if the file does not say.
const ALIGNMENT: usize = 32;

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
pub struct Extent {
    /// llama.cpp's name for it.
    pub own: String,
    /// Outermost first, as everywhere else; the file has them innermost first.
    pub shape: Vec<usize>,
    pub kind: &'static GgmlType,
    pub begin: u64,
    pub bytes: usize,
}

pub struct Gguf {
    pub name: String,
    pub file: File,
    pub metadata: Metadata,
    /// By the checkpoint's names.
    pub tensors: HashMap<String, Extent>,
    /// What is wrong with the order of its tensors, if something is.
    gap: Option<ModelError>,
}

impl Gguf {
    pub fn open(path: &Path) -> Result<Self> {
        let name = file_name(path);
        let io = |e: std::io::Error| ModelError::Io { path: path.to_path_buf(), reason: e.to_string() };
        let file = open_regular(path)?;
        let size = file.metadata().map_err(io)?.len();
        let mut reader = Reader::new(&name, &file, size).map_err(io)?;
        if reader.bytes::<4>().ok().as_ref() != Some(b"GGUF") {
            refuse_foreign(&file, &name)?;
            let gguf = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf"));
            return Err(if gguf { corrupt(&name, "not a GGUF file") } else { foreign::file(path) });
        }
        let version = reader.u32()?;
        if !matches!(version, 2 | 3) {
            let order = if matches!(version.swap_bytes(), 2 | 3) { ", big-endian" } else { "" };
            return Err(ModelError::UnsupportedModel(format!("{name}: GGUF version {version}{order}")));
        }
        let (tensor_count, pair_count) = (reader.u64()?, reader.u64()?);
        // A tensor takes at least a name's length, a dimension's count, a type and an offset; a pair a key's length and
        // a type.
        reader.room(tensor_count, 24, "tensors")?;
        reader.room(pair_count, 13, "metadata pairs")?;
        if tensor_count > MAX_TENSORS {
            return Err(reader.bad(format!("{tensor_count} tensors")));
        }
        let metadata = Metadata::read(&mut reader, pair_count)?;
        let mut extents = Vec::with_capacity(tensor_count as usize);
        for _ in 0..tensor_count {
            extents.push(read_extent(&mut reader)?);
        }
        let alignment = metadata.size_if_any("general.alignment")?.unwrap_or(ALIGNMENT);
        if !alignment.is_power_of_two() || alignment > 1 << 16 {
            return Err(metadata.bad("general.alignment", format!("is {alignment}")));
        }
        let data = reader.at.next_multiple_of(alignment as u64);
        let gap = place(&mut extents, &name, data, alignment as u64, size)?;
        let mut tensors = HashMap::with_capacity(extents.len());
        for extent in extents {
            if let Some(old) = tensors.insert(checkpoint_name(&extent.own), extent) {
                return Err(corrupt(&name, format!("{} is there twice", old.own)));
            }
        }
        let gguf = Self { name, file, metadata, tensors, gap };
        gguf.check_kind()?;
        Ok(gguf)
    }

    /// Refuses what is no whole model, and blocks of another time.
    fn check_kind(&self) -> Result<()> {
        let refuse = |what: String| Err(ModelError::UnsupportedModel(format!("{}: {what}", self.name)));
        match self.metadata.text("general.type")? {
            None | Some("model") => {}
            Some("adapter") => return refuse("a LoRA adapter in GGUF's format".into()),
            Some(other) => return refuse(format!("general.type is {}, expected \"model\"", short(other))),
        }
        match self.metadata.size_if_any("split.count")? {
            None | Some(0 | 1) => {}
            Some(count) => {
                return refuse(format!("one of {count} parts (llama-gguf-split --merge joins them)"));
            }
        }
        let quantised = self.tensors.values().find(|extent| extent.kind.is_quantised());
        match (self.metadata.size_if_any("general.quantization_version")?, quantised) {
            // Version 1 had other blocks.
            (Some(version), Some(extent)) if version != 2 => Err(ModelError::UnsupportedDtype(format!(
                "{} is stored as {} of general.quantization_version {version}, expected 2",
                extent.own, extent.kind.name
            ))),
            _ => Ok(()),
        }
    }

    /// Whether two tensors have the same bytes: llama.cpp's converter writes a tied head a second time.
    pub fn same(&self, a: &str, b: &str) -> Result<bool> {
        let (Some(a), Some(b)) = (self.tensors.get(a), self.tensors.get(b)) else { return Ok(false) };
        if (&a.shape, a.kind.code, a.bytes) != (&b.shape, b.kind.code, b.bytes) {
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

    /// Checks that the file has the tensors `wanted`, by name and PyTorch's shape, and no other but `beside`, which
    /// would be ignored.
    ///
    /// # Errors
    /// `MissingTensor`, `TensorShape`, `UnsupportedModel`; `CorruptWeights`: there are gaps between the tensors.
    pub fn check_tensors(&self, wanted: &[(String, Vec<usize>)], beside: &str) -> Result<()> {
        for (name, shape) in wanted {
            let extent = self.tensors.get(name).ok_or_else(|| ModelError::MissingTensor(name.clone()))?;
            let mut expected = shape.clone();
            // GPT-2's own matrices are (in, out), here all are (out, in).
            if name.starts_with("h.") {
                expected.reverse();
            }
            if extent.shape != expected {
                let (name, found) = (extent.own.clone(), extent.shape.clone());
                return Err(ModelError::TensorShape { name, expected, found });
            }
        }
        let known: BTreeSet<&str> = wanted.iter().map(|(name, _)| name.as_str()).chain([beside]).collect();
        if let Some((_, other)) = self.tensors.iter().find(|(name, _)| !known.contains(name.as_str())) {
            let what = format!("{}: {}, which this GPT-2 has no place for", self.name, other.own);
            return Err(ModelError::UnsupportedModel(what));
        }
        self.gap.clone().map_or(Ok(()), Err)
    }

    pub(crate) fn into_tensors(self) -> Tensors {
        let file = Arc::new(OpenFile { name: self.name, file: self.file });
        let entry = |extent: Extent| {
            let (source, bytes, place) = match extent.kind.reading {
                Reading::As(source) => (Some(source), extent.bytes, Place::File(file.clone(), extent.begin)),
                _ => {
                    // Of its f32 values, which may be more than 32 bits can count: then a read of it fails.
                    let bytes = (extent.bytes / extent.kind.bytes).saturating_mul(4 * extent.kind.values);
                    let source = Some(candlewick_kernels::SourceType::F32);
                    (source, bytes, Place::Blocks(file.clone(), extent.begin, extent.kind))
                }
            };
            Entry { source, dtype: extent.kind.name.to_string(), shape: extent.shape, bytes, place }
        };
        self.tensors.into_iter().map(|(name, extent)| (name, entry(extent))).collect()
    }
}

/// A tensor's description; `begin` is still relative to the data.
fn read_extent(reader: &mut Reader) -> Result<Extent> {
    let own = reader.text()?;
    if own.len() > MAX_NAME {
        return Err(reader.bad(format!("a tensor's name of {} bytes", own.len())));
    }
    let dimensions = reader.u32()?;
    if dimensions > 4 {
        return Err(reader.bad(format!("{own} has {dimensions} dimensions")));
    }
    let mut shape = (0..dimensions).map(|_| reader.u64()).collect::<Result<Vec<_>>>()?;
    let code = reader.u32()?;
    let begin = reader.u64()?;
    let unsupported = |reason: String| ModelError::UnsupportedDtype(format!("{own} is stored as {reason}"));
    let kind = GgmlType::of(code).ok_or_else(|| unsupported(format!("a type that is not known, {code}")))?;
    if let Reading::Refused(reason) = kind.reading {
        return Err(unsupported(format!("{}: {reason}", kind.name)));
    }
    let (block, block_bytes) = (kind.values as u64, kind.bytes as u64);
    let huge = || reader.bad(format!("{own} of shape {shape:?} is not in the file"));
    let count = shape.iter().try_fold(1u64, |n, &d| n.checked_mul(d)).ok_or_else(huge)?;
    let width = shape.first().copied().unwrap_or(1);
    if width % block != 0 {
        return Err(reader.bad(format!("{own}: rows of {width} values in blocks of {block}, {}", kind.name)));
    }
    let bytes = (count / block).checked_mul(block_bytes).filter(|&b| b <= reader.size).ok_or_else(huge)?;
    shape.reverse();
    let shape = shape.into_iter().map(|d| d as usize).collect();
    Ok(Extent { own, shape, kind, begin, bytes: bytes as usize })
}

/// Makes the tensors' places absolute and checks them: inside the file, none over another. Returns what llama.cpp also
/// refuses: they do not follow each other in the order of the list, each at the next aligned byte, so one is larger
/// than its type makes it. What follows the last one is nobody's, and is left alone.
fn place(
    extents: &mut [Extent],
    name: &str,
    data: u64,
    alignment: u64,
    size: u64,
) -> Result<Option<ModelError>> {
    let (mut next, mut gap, mut ranges) = (0u64, None, Vec::with_capacity(extents.len()));
    for extent in extents {
        let (own, begin) = (&extent.own, extent.begin);
        if begin != next && gap.is_none() {
            gap = Some(corrupt(name, format!("{own} begins at byte {begin} of the data, expected {next}")));
        }
        let place = data.checked_add(begin);
        match place.and_then(|place| Some((place, place.checked_add(extent.bytes as u64)?))) {
            Some((place, end)) if end <= size => {
                ranges.push((place, end));
                extent.begin = place;
            }
            _ => return Err(corrupt(name, format!("{own} lies outside the file"))),
        }
        // Both are at most the file's size.
        next = begin + (extent.bytes as u64).next_multiple_of(alignment);
    }
    check_apart(ranges, name)?;
    Ok(gap)
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

    /// Of each type the values by the gguf package, to the bit.
    #[test]
    fn blocks_become_the_values_of_the_gguf_package() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../__test__/fixtures/gguf-types");
        let blocks = candle_core::safetensors::load(path.join("blocks.safetensors"), &Device::Cpu).unwrap();
        let mut decoded = 0;
        for code in 0..64 {
            let Some(kind) = GgmlType::of(code) else { continue };
            let Reading::Decoded(decode) = kind.reading else { continue };
            let expected = blocks[&format!("{}.values", kind.name)].flatten_all().unwrap();
            let expected = expected.to_vec1::<f32>().unwrap();
            let bytes = blocks[&format!("{}.bytes", kind.name)].to_vec2::<u8>().unwrap();
            let mut found = vec![f32::NAN; kind.values];
            for (bytes, expected) in bytes.iter().zip(expected.chunks_exact(kind.values)) {
                assert_eq!(bytes.len(), kind.bytes, "{}", kind.name);
                decode(bytes, &mut found);
                assert!(
                    found.iter().map(|x| x.to_bits()).eq(expected.iter().map(|x| x.to_bits())),
                    "{}",
                    kind.name
                );
            }
            decoded += bytes.len();
        }
        assert_eq!(decoded, 15 * 5);
    }
}
