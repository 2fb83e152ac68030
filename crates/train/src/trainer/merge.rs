//! Merges an adapter into a model on the disk, and removes it again: W ± scale · B A, one tensor at a time.

use std::fs;
use std::path::{Path, PathBuf};

use candlewick_kernels::SourceType;
use candlewick_models::{
    Adapter, EncoderHead, ModelError, ModelFolder, Names, Weights, decode, encode, family,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::model_files::{WEIGHTS, side_files, with_labels};
use super::tensors::{self, Header, sync_folder};
use crate::{Observer, Result, TrainError};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WrittenType {
    F32,
    F16,
}

impl WrittenType {
    fn stored(self) -> SourceType {
        match self {
            Self::F32 => SourceType::F32,
            Self::F16 => SourceType::F16,
        }
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MergeOptions {
    /// The base model; to unmerge, the merged model.
    pub model: String,
    pub adapter: String,
    pub output: PathBuf,
    /// Unmerge: subtract the adapter.
    #[serde(default)]
    pub unmerge: bool,
    /// How weights are written. `None`: each as the model has it.
    pub dtype: Option<WrittenType>,
}

#[derive(Debug, Clone, Serialize)]
pub struct Merged {
    pub output: PathBuf,
    /// Matrices that were changed.
    pub modules: usize,
    /// Modules that the adapter holds whole, which took the place of the model's.
    pub replaced: usize,
    /// Of the weights.
    pub bytes: u64,
}

/// Values that are read, and written, at once.
const PART: usize = 1 << 20;

/// Writes the model of `options.output` in Hugging Face's layout, aside; then it gets its name.
pub fn merge_adapter(options: &MergeOptions, observer: &dyn Observer) -> Result<Merged> {
    let MergeOptions { model, adapter, output, .. } = options;
    for source in [model, adapter] {
        let same = |path: &Path| fs::canonicalize(path).ok();
        if same(output).is_some_and(|output| same(source.as_ref()) == Some(output)) {
            return Err(TrainError::option("output", format!("{source} would be overwritten")));
        }
    }
    let Opened { folder, weights, modules, replaced, names } = Opened::new(options)?;
    let written = Written::new(&weights, options.dtype, names)?;
    let config = config_of(&folder, &weights, options)?;

    let io = |error: std::io::Error| TrainError::io(output, &error);
    let is_new = !output.exists();
    fs::create_dir_all(output).map_err(io)?;
    let run = || {
        let aside = tempfile::Builder::new().prefix(".candlewick-").tempdir_in(output).map_err(io)?;
        let config =
            serde_json::to_vec_pretty(&config).map_err(|error| TrainError::Internal(error.to_string()))?;
        let mut files = side_files(&folder)?;
        files.push(("config.json".into(), config));
        for (name, bytes) in &files {
            make_parent(&aside.path().join(name))?;
            tensors::write_bytes(&aside.path().join(name), bytes)?;
        }
        let bytes = written.write(&weights, &aside.path().join(WEIGHTS), observer)?;
        // The weights come last: before, a folder that is new holds no model.
        for name in files.iter().map(|(name, _)| name.as_str()).chain([WEIGHTS]) {
            make_parent(&output.join(name))?;
            fs::rename(aside.path().join(name), output.join(name)).map_err(io)?;
        }
        sync_folder(output)?;
        Ok(Merged { output: output.clone(), modules, replaced, bytes })
    };
    let result = run();
    if result.is_err() && is_new {
        // The first error is reported, not one of the cleanup.
        let _ = fs::remove_dir_all(output);
    }
    result
}

fn make_parent(path: &Path) -> Result<()> {
    let parent = path.parent().unwrap_or(path);
    fs::create_dir_all(parent).map_err(|error| TrainError::io(parent, &error))
}

struct Opened {
    folder: ModelFolder,
    weights: Weights,
    modules: usize,
    replaced: usize,
    names: Names,
}

impl Opened {
    fn new(options: &MergeOptions) -> Result<Self> {
        let MergeOptions { model, adapter, .. } = options;
        if options.unmerge {
            let folder = ModelFolder::open(model)?;
            if folder.adapter.is_some() {
                return Err(ModelError::UnsupportedModel(format!(
                    "{model} is an adapter, nothing is merged"
                ))
                .into());
            }
            let names = folder.names()?;
            let mut adapter = Adapter::open(adapter.as_ref(), names)?;
            adapter.reverse();
            let modules = adapter.modules.len();
            let weights = Weights::open(&folder.path, names)?.merge(adapter)?;
            return Ok(Self { folder, weights, modules, replaced: 0, names });
        }
        let mut folder = ModelFolder::open_over(adapter, Some(model))?;
        let names = folder.names()?;
        let adapter = folder.adapter.as_ref();
        let modules = adapter.map_or(0, |adapter| adapter.modules.len());
        let replaced = adapter.map_or(0, |adapter| adapter.whole().count());
        let weights = folder.weights()?;
        Ok(Self { folder, weights, modules, replaced, names })
    }
}

/// The tensors of the output.
struct Written {
    /// Names for `weights`, shapes, and how they are written.
    tensors: Vec<(String, Vec<usize>, SourceType)>,
    header: Header,
}

impl Written {
    fn new(weights: &Weights, dtype: Option<WrittenType>, own: Names) -> Result<Self> {
        let names = weights.parameters();
        // As transformers writes them: a bare encoder's names have no prefix.
        let prefixed = own.prefix == "transformer" || names.iter().any(|(name, _)| !Names::is_body(name));
        let mut header = Header::default();
        let mut tensors = Vec::with_capacity(names.len());
        for (name, stored) in names {
            let shape = weights.shape(&name).unwrap_or_default();
            let written = dtype.map_or(stored, WrittenType::stored);
            let title = own.written(&name, prefixed);
            header.add(&title, written, &shape);
            tensors.push((name, shape, written));
        }
        Ok(Self { tensors, header })
    }

    /// Bytes of the tensors.
    fn write(&self, weights: &Weights, path: &Path, observer: &dyn Observer) -> Result<u64> {
        let total = self.header.bytes();
        let mut done = 0;
        let (mut bytes, mut values, mut converted) = (Vec::new(), Vec::new(), Vec::new());
        tensors::write_parts(path, |put| {
            put(&self.header.text())?;
            for (name, shape, written) in &self.tensors {
                let stored = weights.stored(name, shape)?;
                let columns = shape.last().copied().unwrap_or(1).max(1);
                let part = (PART / columns).max(1) * stored.source.row_bytes(columns);
                for at in (0..stored.bytes).step_by(part) {
                    if observer.stop() {
                        return Err(TrainError::Aborted);
                    }
                    bytes.resize(part.min(stored.bytes - at), 0);
                    stored.read(at, &mut bytes)?;
                    let mut out = &bytes;
                    if stored.source != *written {
                        values.clear();
                        converted.clear();
                        decode(stored.source, &bytes, &mut values);
                        encode(&values, *written, &mut converted);
                        out = &converted;
                    }
                    put(out)?;
                    done += out.len() as u64;
                    observer.progress(done, total);
                }
            }
            Ok(())
        })?;
        Ok(total)
    }
}

/// `config.json` of the output.
fn config_of(folder: &ModelFolder, weights: &Weights, options: &MergeOptions) -> Result<Value> {
    let mut config = folder.config.as_object().cloned().unwrap_or_default();
    if let Some(dtype) = options.dtype {
        config.remove("torch_dtype");
        let name = if dtype == WrittenType::F32 { "float32" } else { "float16" };
        config.insert("dtype".into(), json!(name));
    }
    if folder.encoder()?.is_some() {
        let head = family::head_of(folder, weights)?;
        if matches!(head, EncoderHead::SequenceClassification | EncoderHead::TokenClassification) {
            with_labels(&mut config, &family::labels_of(folder, weights, head)?);
        }
    }
    Ok(Value::Object(config))
}
