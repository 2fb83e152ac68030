//! The tensors of a `pytorch_model.bin`, read through Candle's unpickler, which builds values and executes nothing.
//! `pickle.rs` has checked the pickle before.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::DType;
use candle_core::pickle::PthTensors;
use candlewick_kernels::SourceType;
use half::f16;

use crate::error::without_backtrace;
use crate::files::pickle;
use crate::files::reading::{corrupt, file_name, open_regular, refuse_foreign};
use crate::files::tensors::{Entry, Place, ReadWhole, Tensors};
use crate::{ModelError, Result};

/// The tensors of all `paths`.
pub(crate) fn open_all(paths: &[PathBuf]) -> Result<Tensors> {
    let mut tensors = Tensors::new();
    for path in paths {
        for (name, entry) in open(path)? {
            if tensors.insert(name.clone(), entry).is_some() {
                return Err(corrupt(&file_name(path), format!("{name} is in two files")));
            }
        }
    }
    Ok(tensors)
}

pub(crate) fn open(path: &Path) -> Result<Tensors> {
    let file = file_name(path);
    let opened = open_regular(path)?;
    refuse_foreign(&opened, &file)?;
    let size = opened.metadata().map_err(|e| corrupt(&file, e.to_string()))?.len();
    pickle::check(path).map_err(|reason| corrupt(&file, reason))?;
    let reader = std::panic::catch_unwind(|| PthTensors::new(path, None))
        .map_err(|_| corrupt(&file, "not a PyTorch checkpoint"))?
        .map_err(|e| corrupt(&file, without_backtrace(&e)))?;
    let checkpoint = Arc::new(Checkpoint { file, reader });
    let mut tensors = Tensors::new();
    for (name, info) in checkpoint.reader.tensor_infos() {
        let elements = info.layout.dims().iter().try_fold(1u64, |n, &d| n.checked_mul(d as u64));
        let bytes = elements.and_then(|n| n.checked_mul(info.dtype.size_in_bytes() as u64));
        let Some(elements) = elements.filter(|_| bytes.is_some_and(|bytes| bytes <= size)) else {
            return Err(corrupt(&checkpoint.file, format!("{} is larger than the file", info.name)));
        };
        let (source, each) = match info.dtype {
            DType::F16 => (Some(SourceType::F16), 2),
            // bf16 is read as f32, which holds it exactly.
            DType::F32 | DType::BF16 => (Some(SourceType::F32), 4),
            _ => (None, info.dtype.size_in_bytes()),
        };
        let entry = Entry {
            source,
            dtype: format!("{:?}", info.dtype),
            shape: info.layout.dims().to_vec(),
            bytes: elements as usize * each,
            place: Place::Whole(checkpoint.clone()),
        };
        tensors.insert(name.clone(), entry);
    }
    Ok(tensors)
}

struct Checkpoint {
    file: String,
    reader: PthTensors,
}

impl ReadWhole for Checkpoint {
    fn read(&self, name: &str) -> Result<Vec<u8>> {
        let bad = |e: candle_core::Error| {
            corrupt(&self.file, format!("cannot read {name}: {}", without_backtrace(&e)))
        };
        let tensor = self.reader.get(name).map_err(bad)?;
        let tensor = tensor.ok_or_else(|| ModelError::MissingTensor(name.to_string()))?;
        let flat = tensor.flatten_all().map_err(bad)?;
        if flat.dtype() == DType::F16 {
            let values: Vec<f16> = flat.to_vec1().map_err(bad)?;
            return Ok(values.iter().flat_map(|v| v.to_le_bytes()).collect());
        }
        let values: Vec<f32> = flat.to_dtype(DType::F32).map_err(bad)?.to_vec1().map_err(bad)?;
        Ok(values.iter().flat_map(|v| v.to_le_bytes()).collect())
    }
}
