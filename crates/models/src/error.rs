//! What can go wrong with a model's files, its shape or its inputs. Each variant has one stable code.

use std::path::PathBuf;

pub type Result<T, E = ModelError> = std::result::Result<T, E>;

#[derive(Debug, Clone, thiserror::Error)]
pub enum ModelError {
    /// A folder, hub id or file that is not there.
    #[error("model not found: {0}")]
    NotFound(String),
    /// A file named by a model points outside its folder.
    #[error("{file}: the path {path:?} leaves the model's folder")]
    PathEscape { file: String, path: String },
    #[error("{path}: {reason}")]
    Io { path: PathBuf, reason: String },
    /// `config.json` is not JSON, lacks a key, or holds a value that cannot be.
    #[error("config: {0}")]
    Config(String),
    /// A model's files do not go together: one names another that is not there, or denies what another says.
    #[error("{0}")]
    Inconsistent(String),
    /// A weight file that is truncated, overlapping or otherwise not what its header says.
    #[error("{file}: {reason}")]
    CorruptWeights { file: String, reason: String },
    #[error("tensor {0} is missing")]
    MissingTensor(String),
    #[error("tensor {name} has shape {found:?}, expected {expected:?}")]
    TensorShape { name: String, expected: Vec<usize>, found: Vec<usize> },
    #[error("tensor {name} has dtype {found}")]
    TensorDtype { name: String, found: String },
    #[error("tokenizer: {0}")]
    Tokenizer(String),
    /// A chat template that is no Jinja, or cannot be followed.
    #[error("chat template: {0}")]
    ChatTemplate(String),
    /// The tokenizer can produce ids that the embedding has no row for.
    #[error("the tokenizer has {tokenizer} entries, the model's embedding {embedding}")]
    VocabularyMismatch { tokenizer: usize, embedding: usize },
    #[error("unsupported model: {0}")]
    UnsupportedModel(String),
    #[error("unsupported dtype: {0}")]
    UnsupportedDtype(String),
    #[error("unsupported device: {0}")]
    UnsupportedDevice(String),
    /// An input the model cannot take: an id outside the vocabulary, more positions than it has.
    #[error("{0}")]
    Input(String),
    /// A load option with a value that cannot be; `option` is its public (camelCase) name.
    #[error("{option}: {reason}")]
    Option { option: &'static str, reason: String },
    /// Memory of a GPU: what is needed, and what is free.
    #[error("out of memory: {0}")]
    OutOfMemory(String),
    /// A GPU that has failed: its models are lost.
    #[error("device lost: {0}")]
    DeviceLost(String),
    /// A model that gives NaN or infinity: its weights are no numbers, or too large for its arithmetic.
    #[error("{0} are not finite: the weights are no numbers, or too large for this dtype")]
    NotFinite(String),
    /// `stop()` said so.
    #[error("stopped")]
    Stopped,
    #[error("internal error: {0}")]
    Internal(String),
}

impl ModelError {
    /// Of the weights `name`.
    pub(crate) fn not_finite(name: &str) -> Self {
        Self::NotFinite(format!("values of {name}"))
    }

    /// The stable code that a user's program may test.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotFound(_) => "MODEL_NOT_FOUND",
            Self::PathEscape { .. } => "PATH_ESCAPE",
            Self::Io { .. } => "IO",
            Self::Config(_) => "CONFIG_INVALID",
            Self::Inconsistent(_) => "MODEL_INVALID",
            Self::CorruptWeights { .. } => "WEIGHTS_CORRUPT",
            Self::MissingTensor(_) => "TENSOR_MISSING",
            Self::TensorShape { .. } => "TENSOR_SHAPE",
            Self::TensorDtype { .. } => "TENSOR_DTYPE",
            Self::Tokenizer(_) => "TOKENIZER_INVALID",
            Self::ChatTemplate(_) => "CHAT_TEMPLATE_INVALID",
            Self::VocabularyMismatch { .. } => "VOCABULARY_MISMATCH",
            Self::UnsupportedModel(_) => "UNSUPPORTED_MODEL",
            Self::UnsupportedDtype(_) => "UNSUPPORTED_DTYPE",
            Self::UnsupportedDevice(_) => "UNSUPPORTED_DEVICE",
            Self::Input(_) => "INPUT_INVALID",
            Self::Option { .. } => "OPTION_INVALID",
            Self::OutOfMemory(_) => "OUT_OF_MEMORY",
            Self::DeviceLost(_) => "DEVICE_LOST",
            Self::NotFinite(_) => "NOT_FINITE",
            Self::Stopped => "ABORTED",
            Self::Internal(_) => "INTERNAL",
        }
    }
}

impl From<candle_core::Error> for ModelError {
    fn from(error: candle_core::Error) -> Self {
        Self::Internal(without_backtrace(&error))
    }
}

/// Candle's message; with `RUST_BACKTRACE` set its `Display` has a backtrace in it, which is not for users.
pub(crate) fn without_backtrace(error: &candle_core::Error) -> String {
    match error {
        candle_core::Error::WithBacktrace { inner, .. } => without_backtrace(inner),
        other => other.to_string(),
    }
}
