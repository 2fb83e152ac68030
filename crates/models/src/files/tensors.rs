//! Where the tensors of a checkpoint are, whatever its format: a map from name to type, shape and place that is made
//! when the checkpoint is opened.

use std::collections::BTreeMap;
use std::fs::File;
use std::sync::Arc;

use candlewick_kernels::SourceType;

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
            Place::Whole(reader) => From::Memory(reader.read(name)?),
        };
        Ok(StoredTensor { name, source, bytes: self.bytes, from })
    }
}

impl StoredTensor<'_> {
    /// Fills `buffer` from byte `at` on.
    pub fn read(&self, at: usize, buffer: &mut [u8]) -> Result<()> {
        match &self.from {
            From::Memory(bytes) => buffer.copy_from_slice(&bytes[at..][..buffer.len()]),
            From::File(file, begin) => read_exact_at(&file.file, buffer, begin + at as u64)
                .map_err(|e| corrupt(&file.name, format!("cannot read {}: {e}", self.name)))?,
        }
        Ok(())
    }
}

/// Refuses tensors of which two have a byte of the file `name` in common. `ranges`: where each begins and ends.
pub(crate) fn check_apart(mut ranges: Vec<(u64, u64)>, name: &str) -> Result<()> {
    ranges.sort_unstable();
    match ranges.windows(2).any(|pair| pair[0].1 > pair[1].0) {
        true => Err(corrupt(name, "tensors overlap")),
        false => Ok(()),
    }
}
