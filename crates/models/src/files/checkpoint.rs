//! A checkpoint's tensors under the names that a model asks for.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use candlewick_kernels::{Layout, SourceType};

use crate::contract::dtype::Dtype;
use crate::files::gguf::Gguf;
use crate::files::names::Names;
use crate::files::reading::file_name;
use crate::files::tensors::{Entry, StoredTensor, Tensors};
use crate::files::values::Values;
use crate::files::{foreign, pytorch, safetensors};
use crate::{ModelError, Result};

/// The files that a checkpoint may be, in transformers' order of preference. An index stands for the shards it names.
pub(crate) const WEIGHT_FILES: [&str; 4] = [
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
];

/// The tensors of one checkpoint. They are asked for by the scheme of `names.rs` (`wte.weight`, `encoder.layer.0…`).
pub(crate) struct Checkpoint {
    tensors: Tensors,
    /// How it calls what is asked for.
    names: Names,
    /// Where it is: one of its files, if it has several.
    file: PathBuf,
    /// How all matrices lie; `None`: as PyTorch's modules have them.
    layout: Option<Layout>,
    /// The files that hold it and say what it should be, for messages.
    files: String,
}

impl Checkpoint {
    /// Opens what `folder` holds, in transformers' order of preference.
    pub fn open(folder: &Path, names: Names) -> Result<Self> {
        let Some(name) = WEIGHT_FILES.into_iter().find(|name| folder.join(name).is_file()) else {
            return Err(foreign::folder(
                folder,
                "weights (model.safetensors, pytorch_model.bin, or the index of shards of either)",
            ));
        };
        let path = folder.join(name);
        let tensors = match name {
            "model.safetensors" => safetensors::open(std::slice::from_ref(&path))?,
            "pytorch_model.bin" => pytorch::open(&path)?,
            "pytorch_model.bin.index.json" => pytorch::open_all(&safetensors::shards(folder, &path)?)?,
            _ => safetensors::open(&safetensors::shards(folder, &path)?)?,
        };
        Ok(Self { tensors, names, file: path, layout: None, files: format!("{name}, with config.json") })
    }

    /// The tensors of one file: of safetensors, or of PyTorch (`.bin`).
    pub fn open_file(path: &Path, names: Names) -> Result<Self> {
        let file = path.to_path_buf();
        let is_pickle = path.extension().is_some_and(|extension| extension == "bin");
        let tensors =
            if is_pickle { pytorch::open(path)? } else { safetensors::open(std::slice::from_ref(&file))? };
        Ok(Self { tensors, names, file, layout: None, files: file_name(path) })
    }

    /// The tensors of a GGUF file that holds a GPT-2, which has all matrices as (out, in).
    pub fn from_gguf(gguf: Gguf) -> Self {
        Self {
            tensors: gguf.into_tensors(),
            names: "transformer".into(),
            file: PathBuf::new(),
            layout: Some(Layout::OutIn),
            files: "a GGUF file".into(),
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

    /// The type in which `name` is held by default.
    pub fn native_dtype(&self, name: &str) -> Dtype {
        self.find(name).map_or(Dtype::F32, |(_, entry)| entry.native_dtype())
    }

    /// The name of the type of `name`'s blocks, if it is quantised.
    pub fn quantised(&self, name: &str) -> Option<&str> {
        self.find(name)?.1.quantised()
    }

    /// The type in which most values of matrices are held by default.
    pub fn main_dtype(&self) -> Dtype {
        let mut counts: Vec<(Dtype, usize)> = Vec::new();
        for entry in self.tensors.values().filter(|entry| entry.source.is_some() && entry.shape.len() == 2) {
            let (dtype, values) = (entry.native_dtype(), entry.shape.iter().product());
            match counts.iter_mut().find(|(other, _)| *other == dtype) {
                Some((_, count)) => *count += values,
                None => counts.push((dtype, values)),
            }
        }
        counts.into_iter().max_by_key(|(_, count)| *count).map_or(Dtype::F32, |(dtype, _)| dtype)
    }

    /// Of a tensor that the configuration asks for.
    pub fn lacks(&self, name: &str) -> ModelError {
        ModelError::MissingTensor(format!("{name} ({})", self.files))
    }

    /// Where the values of `name` are, which must have `shape`.
    pub fn stored(&self, name: &str, shape: &[usize]) -> Result<StoredTensor<'_>> {
        let (own, entry) = self.find(name).ok_or_else(|| self.lacks(name))?;
        if entry.shape != shape {
            let (expected, found) = (shape.to_vec(), entry.shape.clone());
            let name = format!("{own} ({})", self.files);
            return Err(ModelError::TensorShape { name, expected, found });
        }
        entry.open(own)
    }

    /// Reads `name`, which must have `shape`.
    pub fn read(&self, name: &str, shape: &[usize]) -> Result<Values> {
        let stored = self.stored(name, shape)?;
        Values::read(stored.source, stored.bytes, |buffer| stored.read(0, buffer))
    }

    /// As [`Self::read`], in f32.
    ///
    /// # Errors
    /// `NotFinite`: a value is no number.
    pub fn floats(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let values = self.read(name, shape)?;
        if values.are_finite() { Ok(values.into_f32()) } else { Err(ModelError::not_finite(name)) }
    }
}
