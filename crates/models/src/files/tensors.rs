//! Where the tensors of a checkpoint are, whatever its format: a map from name to type, shape and place that is made
//! when the checkpoint is opened.

use std::collections::BTreeMap;
use std::fs::File;
use std::sync::Arc;

use candlewick_kernels::SourceType;

use crate::contract::dtype::Dtype;
use crate::files::ggml_types::{GgmlType, MOST_VALUES, Reading};
use crate::files::reading::{corrupt, read_exact_at};
use crate::{ModelError, Result};

/// Tensors by the names that the checkpoint has for them.
pub(crate) type Tensors = BTreeMap<String, Entry>;

pub(crate) struct Entry {
    /// How its values are read; `None`: of a type that no parameter can have (an index buffer, a mask).
    pub source: Option<SourceType>,
    /// The type's name in the checkpoint.
    pub dtype: String,
    /// Outermost dimension first.
    pub shape: Vec<usize>,
    /// Bytes of its values as they are read.
    pub bytes: usize,
    pub place: Place,
}

pub(crate) enum Place {
    /// Its values, row-major, begin at this byte of the file.
    File(Arc<OpenFile>, u64),
    /// Its blocks, row by row, begin at this byte of the file; they are read as f32.
    Blocks(Arc<OpenFile>, u64, &'static GgmlType),
    /// It can only be read as a whole.
    Whole(Arc<dyn ReadWhole>),
}

pub(crate) struct OpenFile {
    pub name: String,
    pub file: File,
}

pub(crate) trait ReadWhole: Send + Sync {
    /// The bytes of the tensor `name`, row-major, as its [`Entry`] says.
    fn read(&self, name: &str) -> Result<Vec<u8>>;
}

/// A tensor of a checkpoint, which can be read in parts.
pub(crate) struct StoredTensor<'a> {
    pub name: &'a str,
    pub source: SourceType,
    /// Bytes of the whole.
    pub bytes: usize,
    from: From<'a>,
}

enum From<'a> {
    File(&'a OpenFile, u64),
    Blocks(&'a OpenFile, u64, &'static GgmlType),
    Memory(Vec<u8>),
}

impl Entry {
    /// Its values, which are read now if they can only be read as a whole.
    pub fn open<'a>(&'a self, name: &'a str) -> Result<StoredTensor<'a>> {
        let Some(source) = self.source else {
            return Err(ModelError::TensorDtype { name: name.to_string(), found: self.dtype.clone() });
        };
        let from = match &self.place {
            Place::File(file, begin) => From::File(file, *begin),
            Place::Blocks(file, begin, kind) => From::Blocks(file, *begin, kind),
            Place::Whole(reader) => From::Memory(reader.read(name)?),
        };
        Ok(StoredTensor { name, source, bytes: self.bytes, from })
    }

    /// The type in which it is held by default: as it is stored, but
    /// - bf16 as f32, because f16 lacks its range;
    /// - blocks that the kernels do not know as q8_0, which rounds them by less than they were rounded (decision 034).
    pub fn native_dtype(&self) -> Dtype {
        match (&self.place, self.source) {
            (Place::Blocks(..), _) => Dtype::Q8_0,
            (_, None | Some(SourceType::F32 | SourceType::BF16)) => Dtype::F32,
            (_, Some(SourceType::F16)) => Dtype::F16,
            (_, Some(SourceType::Q8_0)) => Dtype::Q8_0,
            (_, Some(SourceType::Q4_0)) => Dtype::Q4_0,
        }
    }

    /// The name of the type of its blocks, if it is quantised.
    pub fn quantised(&self) -> Option<&str> {
        let is = matches!(self.place, Place::Blocks(..))
            || matches!(self.source, Some(SourceType::Q8_0 | SourceType::Q4_0));
        is.then_some(self.dtype.as_str())
    }
}

impl StoredTensor<'_> {
    /// Fills `buffer` from byte `at` on: whole rows, if its values come in blocks.
    pub fn read(&self, at: usize, buffer: &mut [u8]) -> Result<()> {
        match &self.from {
            From::Memory(bytes) => buffer.copy_from_slice(&bytes[at..][..buffer.len()]),
            From::File(file, begin) => self.read_file(file, begin + at as u64, buffer)?,
            From::Blocks(file, begin, kind) => self.read_blocks((file, *begin), kind, at, buffer)?,
        }
        Ok(())
    }

    fn read_file(&self, file: &OpenFile, at: u64, buffer: &mut [u8]) -> Result<()> {
        read_exact_at(&file.file, buffer, at)
            .map_err(|e| corrupt(&file.name, format!("cannot read {}: {e}", self.name)))
    }

    /// The f32 values of the blocks from the file's byte `begin` on, from their byte `at` on.
    fn read_blocks(
        &self,
        (file, begin): (&OpenFile, u64),
        kind: &GgmlType,
        at: usize,
        buffer: &mut [u8],
    ) -> Result<()> {
        let width = size_of::<f32>() * kind.values;
        let Reading::Decoded(decode) = kind.reading else {
            return Err(ModelError::Internal(format!("{} has no blocks to decode", kind.name)));
        };
        if !at.is_multiple_of(width) || !buffer.len().is_multiple_of(width) {
            return Err(ModelError::Internal(format!("a part of a block of {} is read", self.name)));
        }
        let mut from = begin + (at / width * kind.bytes) as u64;
        let mut blocks = vec![0; kind.bytes * (buffer.len() / width).min(BLOCKS)];
        let mut values = [0f32; MOST_VALUES];
        let values = &mut values[..kind.values];
        for part in buffer.chunks_mut(width * BLOCKS) {
            let blocks = &mut blocks[..part.len() / width * kind.bytes];
            self.read_file(file, from, blocks)?;
            from += blocks.len() as u64;
            for (block, part) in blocks.chunks_exact(kind.bytes).zip(part.chunks_exact_mut(width)) {
                decode(block, values);
                part.copy_from_slice(bytemuck::cast_slice(values));
            }
        }
        Ok(())
    }
}

/// Blocks that are read at once.
const BLOCKS: usize = 256;

/// Refuses tensors of which two have a byte of the file `name` in common. `ranges`: where each begins and ends.
pub(crate) fn check_apart(mut ranges: Vec<(u64, u64)>, name: &str) -> Result<()> {
    ranges.sort_unstable();
    match ranges.windows(2).any(|pair| pair[0].1 > pair[1].0) {
        true => Err(corrupt(name, "tensors overlap")),
        false => Ok(()),
    }
}
