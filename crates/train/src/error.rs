//! What can go wrong between a data file and a trained model. Each variant has one stable code; a model's errors keep
//! theirs.

use std::path::PathBuf;

use candlewick_models::ModelError;

pub type Result<T, E = TrainError> = std::result::Result<T, E>;

#[derive(Debug, Clone, thiserror::Error)]
pub enum TrainError {
    #[error("{0}")]
    Model(ModelError),
    /// An option with a value that cannot be; `option` is its public (camelCase) name.
    #[error("{option}: {reason}")]
    OptionInvalid { option: &'static str, reason: String },
    #[error("no such file: {0}")]
    DataNotFound(String),
    /// A row that cannot be read, or that lacks what the task needs; `place` is `file:line`.
    #[error("{place}: {reason}")]
    DataInvalid { place: String, reason: String },
    #[error("{place}: no column {wanted}; there are {}. The option columns names columns", known.join(", "))]
    ColumnUnknown { place: String, wanted: String, known: Vec<String> },
    #[error("{place}: the label {label:?} is none of the classes: {}", listed(known))]
    LabelUnknown { place: String, label: String, known: Vec<String> },
    #[error("no rows in {0}")]
    DataEmpty(String),
    /// The loss is NaN or infinite. `step` counts optimiser steps from 1, `batch` the epoch's batches from 0.
    #[error("the loss is {loss} at step {step} (epoch {epoch}, batch {batch})")]
    LossNotFinite { loss: f32, step: u64, epoch: u64, batch: u64 },
    /// A checkpoint, or an adapter, of another model, other data or other options.
    #[error("{path}: {reason}")]
    CheckpointMismatch { path: PathBuf, reason: String },
    #[error("{path}: {reason}")]
    CheckpointCorrupt { path: PathBuf, reason: String },
    #[error("{path}: {reason}")]
    Io { path: PathBuf, reason: String },
    /// Another run is writing to the output folder.
    #[error("{path}: another training run is writing here")]
    OutputBusy { path: PathBuf },
    /// The model's folder has no tokenizer, and the data is text.
    #[error(
        "this model has no tokenizer: its folder has none of tokenizer.json, vocab.json + merges.txt, vocab.txt; add them, or give token ids"
    )]
    TokenizerMissing,
    #[error("aborted")]
    Aborted,
    #[error("internal error: {0}")]
    Internal(String),
}

impl TrainError {
    /// The stable code that a user's program may test.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Model(error) => error.code(),
            Self::OptionInvalid { .. } => "OPTION_INVALID",
            Self::DataNotFound(_) => "DATA_NOT_FOUND",
            Self::DataInvalid { .. } => "DATA_INVALID",
            Self::ColumnUnknown { .. } => "COLUMN_UNKNOWN",
            Self::LabelUnknown { .. } => "LABEL_UNKNOWN",
            Self::DataEmpty(_) => "DATA_EMPTY",
            Self::LossNotFinite { .. } => "LOSS_NOT_FINITE",
            Self::CheckpointMismatch { .. } => "CHECKPOINT_MISMATCH",
            Self::CheckpointCorrupt { .. } => "CHECKPOINT_CORRUPT",
            Self::Io { .. } => "IO",
            Self::OutputBusy { .. } => "OUTPUT_BUSY",
            Self::TokenizerMissing => "TOKENIZER_MISSING",
            Self::Aborted => "ABORTED",
            Self::Internal(_) => "INTERNAL",
        }
    }

    pub fn option(option: &'static str, reason: impl Into<String>) -> Self {
        Self::OptionInvalid { option, reason: reason.into() }
    }

    pub fn io(path: impl Into<PathBuf>, error: &std::io::Error) -> Self {
        Self::Io { path: path.into(), reason: error.to_string() }
    }
}

impl From<ModelError> for TrainError {
    fn from(error: ModelError) -> Self {
        match error {
            ModelError::Stopped => Self::Aborted,
            ModelError::Internal(message) => Self::Internal(message),
            error => Self::Model(error),
        }
    }
}

/// Names for a message.
fn listed(names: &[String]) -> String {
    let more = if names.len() > 12 { format!(", … ({} in all)", names.len()) } else { String::new() };
    format!("{}{more}", names.iter().take(12).cloned().collect::<Vec<_>>().join(", "))
}
