//! A model's weights by name: a checkpoint's tensors (`checkpoint.rs`), with what an adapter changes of them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use candle_core::Tensor;
use candlewick_kernels::{Layout, SourceType};

use crate::contract::dtype::Dtype;
use crate::files::adapter::{Adapter, LoraWeights};
use crate::files::checkpoint::Checkpoint;
use crate::files::delta::Change;
use crate::files::gguf::Gguf;
use crate::files::names::Names;
use crate::files::tensors::StoredTensor;
use crate::files::values::Values;
use crate::{ModelError, Result};

/// A tensor that can be read in parts.
pub struct Stored<'a> {
    tensor: StoredTensor<'a>,
    /// What an adapter changes of it as it is read.
    change: Option<Change<'a>>,
    pub source: SourceType,
    /// Bytes of the whole.
    pub bytes: usize,
}

impl<'a> From<StoredTensor<'a>> for Stored<'a> {
    fn from(tensor: StoredTensor<'a>) -> Self {
        Self { source: tensor.source, bytes: tensor.bytes, change: None, tensor }
    }
}

impl Stored<'_> {
    /// Fills `buffer` from byte `at` on: whole rows, if an adapter is being merged.
    pub fn read(&self, at: usize, buffer: &mut [u8]) -> Result<()> {
        match &self.change {
            None => self.tensor.read(at, buffer),
            Some(change) => change.read(&self.tensor, at, buffer),
        }
    }
}

/// The tensors of one model. They are asked for by the scheme of `names.rs` (`wte.weight`, `encoder.layer.0…`).
pub struct Weights {
    base: Checkpoint,
    /// The adapter that is merged into the tensors as they are read.
    adapter: Option<Box<Adapter>>,
}

impl Weights {
    /// Opens what `folder` holds, in transformers' order of preference. `names`: an architecture's, or a
    /// prefix (`transformer`, `bert`) where only that differs from the scheme.
    pub fn open(folder: &Path, names: impl Into<Names>) -> Result<Self> {
        Ok(Self { base: Checkpoint::open(folder, names.into())?, adapter: None })
    }

    /// The tensors of a GGUF file that holds a GPT-2, under the checkpoint's names.
    pub(crate) fn from_gguf(gguf: Gguf) -> Self {
        Self { base: Checkpoint::from_gguf(gguf), adapter: None }
    }

    /// From now on every tensor is read with what `adapter` changes of it: added in f32, a part at a time as it is
    /// read, so that nothing is read or held twice.
    ///
    /// # Errors
    /// `MissingTensor`, `TensorShape`: the adapter is another model's.
    pub fn merge(mut self, adapter: Adapter) -> Result<Self> {
        adapter.check(&self.base)?;
        self.adapter = Some(Box::new(adapter));
        Ok(self)
    }

    /// Takes the adapter's matrices out, so that they are no longer added: for callers that apply them separately.
    pub fn take_deltas(&mut self) -> BTreeMap<String, LoraWeights> {
        self.adapter.as_mut().map(|adapter| std::mem::take(&mut adapter.modules)).unwrap_or_default()
    }

    /// Where the tensor `name` is, before anything is added to it, and under which name: the adapter's own comes first;
    /// a head that it unties from the embedding begins as that.
    fn find<'a>(&'a self, name: &'a str) -> (&'a Checkpoint, &'a str) {
        let Some(adapter) = self.adapter.as_deref() else { return (&self.base, name) };
        let scheme = self.base.scheme(name);
        let untied = adapter.untied(&scheme);
        let (asked, replaces) = untied.unwrap_or((&scheme, true));
        match adapter.whole.get(asked).filter(|_| replaces) {
            Some(own) => (&adapter.weights, own),
            None => (&self.base, untied.map_or(name, |(embedding, _)| embedding)),
        }
    }

    /// Whether the adapter, which is applied beside these weights, is over all that it says of them.
    pub(crate) fn check_names(&self, adapter: &Adapter) -> Result<()> {
        adapter.check_names(&self.base)
    }

    /// The checkpoint's file, or the index of its files.
    pub(crate) fn file(&self) -> &Path {
        self.base.file()
    }

    /// All names as the checkpoint has them, sorted.
    pub fn names(&self) -> Vec<String> {
        self.base.names()
    }

    /// How the matrix `name`, which the checkpoint has in `layout`, lies here: GGUF has all of them as (out, in).
    pub(crate) fn layout(&self, layout: Layout) -> Layout {
        self.base.layout(layout)
    }

    /// What a model is made of, an adapter's tensors included: names of the scheme, sorted, and how each is
    /// stored. Buffers of indices are none of it.
    pub fn parameters(&self) -> Vec<(String, SourceType)> {
        let own = self.names();
        let adapters = self.adapter.iter().flat_map(|adapter| adapter.names());
        let names: BTreeSet<String> =
            own.iter().map(|name| self.base.plain_name(name)).chain(adapters).collect();
        names.into_iter().filter_map(|name| self.source_of(&name).map(|source| (name, source))).collect()
    }

    /// How `name` is stored, before anything is added to it; `None` if it is no weight.
    fn source_of(&self, name: &str) -> Option<SourceType> {
        let (weights, own) = self.find(name);
        weights.source_of(own)
    }

    pub fn contains(&self, name: &str) -> bool {
        let (weights, own) = self.find(name);
        weights.contains(own)
    }

    /// The shape of `name`, if it is there.
    pub fn shape(&self, name: &str) -> Option<Vec<usize>> {
        let (weights, own) = self.find(name);
        weights.shape(own)
    }

    /// Bytes of all tensors: what a load reports progress against.
    pub fn total_bytes(&self) -> u64 {
        self.base.total_bytes() + self.adapter.as_ref().map_or(0, |adapter| adapter.weights.total_bytes())
    }

    /// The type in which most values of matrices are held by default: what the model's is, of a file with several.
    pub fn main_dtype(&self) -> Dtype {
        self.base.main_dtype()
    }

    /// The type in which `name` is held by default ([`Entry::native_dtype`](crate::files::tensors::Entry)).
    pub fn native_dtype(&self, name: &str) -> Dtype {
        let (weights, own) = self.find(name);
        weights.native_dtype(own)
    }

    /// Where the values of `name` are, which must have `shape`.
    pub fn stored<'a>(&'a self, name: &'a str, shape: &[usize]) -> Result<Stored<'a>> {
        let (weights, own) = self.find(name);
        let tensor = weights.stored(own, shape)?;
        let change = match &self.adapter {
            Some(adapter) => adapter.change(&self.base.scheme(name), &self.base, &tensor)?,
            None => None,
        };
        if change.is_none() {
            return Ok(tensor.into());
        }
        if let Some(kind) = self.base.quantised(name) {
            return Err(ModelError::UnsupportedDtype(format!("an adapter over {kind} weights")));
        }
        let bytes = 4 * shape.iter().product::<usize>();
        Ok(Stored { tensor, change, source: SourceType::F32, bytes })
    }

    /// Reads `name`, which must have `shape`. bf16 becomes f32, which holds it exactly; all else stays as it is stored.
    ///
    /// # Errors
    /// `NotFinite`: a value is no number.
    pub fn read(&self, name: &str, shape: &[usize]) -> Result<Values> {
        let stored = self.stored(name, shape)?;
        let values = Values::read(stored.source, stored.bytes, |buffer| stored.read(0, buffer))?;
        if values.are_finite() { Ok(values) } else { Err(ModelError::not_finite(name)) }
    }

    /// Reads `name` as an f32 tensor on `device`.
    pub fn tensor(&self, name: &str, shape: &[usize], device: &candle_core::Device) -> Result<Tensor> {
        Ok(Tensor::from_vec(self.read(name, shape)?.into_f32(), shape, device)?)
    }
}
