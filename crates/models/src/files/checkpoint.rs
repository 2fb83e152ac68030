//! A checkpoint's tensors under the names that a model asks for.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use candlewick_kernels::{Layout, SourceType};

use crate::contract::dtype::Dtype;
use crate::files::gguf::Gguf;
use crate::files::names::Names;
use crate::files::tensors::{Entry, StoredTensor, Tensors};
use crate::files::values::Values;
use crate::files::{foreign, pytorch, safetensors};
use crate::{ModelError, Result};

/// The tensors of one checkpoint. They are asked for by the scheme of `names.rs` (`wte.weight`, `encoder.layer.0…`).
pub(crate) struct Checkpoint {
    tensors: Tensors,
    /// How it calls what is asked for.
    names: Names,
    /// Where it is: one of its files, if it has several.
    file: PathBuf,
    /// How all matrices lie; `None`: as PyTorch's modules have them.
    layout: Option<Layout>,
}

impl Checkpoint {
    /// Opens what `folder` holds, in transformers' order of preference.
    pub fn open(folder: &Path, names: Names) -> Result<Self> {
        let single = folder.join("model.safetensors");
        let index = folder.join("model.safetensors.index.json");
        let pickle = folder.join("pytorch_model.bin");
        let (tensors, file) = if single.is_file() {
            (safetensors::open(std::slice::from_ref(&single))?, single)
        } else if index.is_file() {
            (safetensors::open(&safetensors::shards(folder, &index)?)?, index)
        } else if pickle.is_file() {
            (pytorch::open(&pickle)?, pickle)
        } else {
            return Err(foreign::folder(
                folder,
                "weights (model.safetensors, model.safetensors.index.json or pytorch_model.bin)",
            ));
        };
        Ok(Self { tensors, names, file, layout: None })
    }

    /// The tensors of one safetensors file.
    pub fn open_file(path: &Path, names: Names) -> Result<Self> {
        let file = path.to_path_buf();
        Ok(Self { tensors: safetensors::open(std::slice::from_ref(&file))?, names, file, layout: None })
    }

    /// The tensors of a GGUF file that holds a GPT-2, which has all matrices as (out, in).
    pub fn from_gguf(gguf: Gguf) -> Self {
        Self {
            tensors: gguf.into_tensors(),
            names: "transformer".into(),
            file: PathBuf::new(),
            layout: Some(Layout::OutIn),
        }
    }

    /// All names as the checkpoint has them, sorted.
    pub fn names(&self) -> Vec<String> {
        self.tensors.keys().cloned().collect()
    }

    pub fn file(&self) -> &Path {
        &self.file
    }

    /// How the checkpoint has a linear layer's matrix: GPT-2's blocks are of `Conv1D`.
    pub fn layout_of(&self, module: &str) -> Layout {
        if self.names.prefix == "transformer" && module.starts_with("h.") {
            Layout::InOut
        } else {
            Layout::OutIn
        }
    }

    /// How a matrix that PyTorch's module has in `layout` lies here.
    pub fn layout(&self, layout: Layout) -> Layout {
        self.layout.unwrap_or(layout)
    }

    /// The name under which an adapter keeps what it changes of `name`, which may be the checkpoint's own.
    pub fn scheme<'a>(&self, name: &'a str) -> Cow<'a, str> {
        self.names.scheme(name)
    }

    /// The scheme's name of what the checkpoint calls `name`, with today's names for a norm.
    pub fn plain_name(&self, name: &str) -> String {
        let name = self.names.scheme(name);
        name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")
    }

    /// The checkpoint's own name for `name`, and what it has there: with or without the prefix, or with TensorFlow's
    /// names for a norm.
    fn find(&self, name: &str) -> Option<(&str, &Entry)> {
        let own = self.names.own(name);
        let old =
            own.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta");
        let prefix = self.names.prefix;
        let names = [own.to_string(), format!("{prefix}.{own}"), format!("{prefix}.{old}"), old];
        let (own, entry) = names.iter().find_map(|name| self.tensors.get_key_value(name))?;
        Some((own, entry))
    }

    pub fn contains(&self, name: &str) -> bool {
        self.find(name).is_some()
    }

    /// How `name` is stored; `None` if it is no weight.
    pub fn source_of(&self, name: &str) -> Option<SourceType> {
        self.find(name)?.1.source
    }

    /// The shape of `name`, if it is there.
    pub fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.find(name).map(|(_, entry)| entry.shape.clone())
    }

    /// Bytes of all tensors.
    pub fn total_bytes(&self) -> u64 {
        self.tensors.values().map(|entry| entry.bytes as u64).sum()
    }

    /// The type in which `name` is held by default: as it is stored; bf16 as f32, because f16 lacks its range.
    pub fn native_dtype(&self, name: &str) -> Dtype {
        match self.source_of(name) {
            None | Some(SourceType::F32 | SourceType::BF16) => Dtype::F32,
            Some(SourceType::F16) => Dtype::F16,
            Some(SourceType::Q8_0) => Dtype::Q8_0,
            Some(SourceType::Q4_0) => Dtype::Q4_0,
        }
    }

    /// Where the values of `name` are, which must have `shape`.
    pub fn stored(&self, name: &str, shape: &[usize]) -> Result<StoredTensor<'_>> {
        let (own, entry) = self.find(name).ok_or_else(|| ModelError::MissingTensor(name.to_string()))?;
        if entry.shape != shape {
            let (expected, found) = (shape.to_vec(), entry.shape.clone());
            return Err(ModelError::TensorShape { name: own.to_string(), expected, found });
        }
        entry.open(own)
    }

    /// Reads `name`, which must have `shape`.
    pub fn read(&self, name: &str, shape: &[usize]) -> Result<Values> {
        let stored = self.stored(name, shape)?;
        Values::read(stored.source, stored.bytes, |buffer| stored.read(0, buffer))
    }
}
