//! What can go wrong between a request and its last token. Each variant has one stable code; a model's errors keep
//! theirs.

use candlewick_models::ModelError;

pub type Result<T, E = EngineError> = std::result::Result<T, E>;

#[derive(Debug, Clone, thiserror::Error)]
pub enum EngineError {
    #[error("{0}")]
    Model(ModelError),
    /// An option with a value that cannot be; `option` is its public (camelCase) name.
    #[error("{option}: {reason}")]
    OptionInvalid { option: &'static str, reason: String },
    #[error("the prompt is empty")]
    PromptEmpty,
    /// `prompt` + `requested` tokens do not fit in the `limit` positions of the model.
    #[error("{prompt} prompt tokens and {requested} new ones do not fit in the model's {limit} positions")]
    ContextOverflow { prompt: usize, requested: usize, limit: usize },
    /// The model was closed before or while the request ran.
    #[error("the model is closed")]
    Closed,
    /// The request's own cancel token was cancelled.
    #[error("aborted")]
    Aborted,
    /// Too much waits for the model already.
    #[error("the queue is full: {reason}; try again in {retry_after_ms} ms")]
    QueueFull { reason: String, retry_after_ms: u64 },
    /// The request's deadline passed before its end.
    #[error("the deadline of {0} ms has passed")]
    DeadlineExceeded(u64),
    /// Keys and values of the request do not fit in the model's memory for them, whatever else runs.
    #[error("{0}")]
    OutOfMemory(String),
    /// A file that is no index of vectors, or not whole.
    #[error("{path}: {reason}")]
    IndexInvalid { path: String, reason: String },
    /// Text in or out was asked of a model that has no tokenizer files.
    #[error(
        "this model has no tokenizer: its folder has none of tokenizer.json, vocab.json + merges.txt, vocab.txt; add them, or give token ids"
    )]
    TokenizerMissing,
    /// What is wrong with one of a call's inputs: the prompt or text of this index.
    #[error("input {index}: {error}")]
    Input { index: usize, error: Box<EngineError> },
    #[error("internal error: {0}")]
    Internal(String),
}

impl EngineError {
    /// The stable code that a user's program may test.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Model(error) => error.code(),
            Self::OptionInvalid { .. } => "OPTION_INVALID",
            Self::PromptEmpty => "PROMPT_EMPTY",
            Self::ContextOverflow { .. } => "CONTEXT_OVERFLOW",
            Self::Closed => "MODEL_CLOSED",
            Self::Aborted => "ABORTED",
            Self::QueueFull { .. } => "QUEUE_FULL",
            Self::DeadlineExceeded(_) => "DEADLINE_EXCEEDED",
            Self::OutOfMemory(_) => "OUT_OF_MEMORY",
            Self::IndexInvalid { .. } => "INDEX_INVALID",
            Self::TokenizerMissing => "TOKENIZER_MISSING",
            Self::Input { error, .. } => error.code(),
            Self::Internal(_) => "INTERNAL",
        }
    }

    pub(crate) fn option(option: &'static str, reason: impl Into<String>) -> Self {
        Self::OptionInvalid { option, reason: reason.into() }
    }

    /// The same, said of the input `index`. What is no input's fault stays as it is.
    pub(crate) fn of_input(self, index: usize) -> Self {
        match self {
            Self::ContextOverflow { .. } | Self::PromptEmpty | Self::Model(ModelError::Input(_)) => {
                Self::Input { index, error: Box::new(self) }
            }
            other => other,
        }
    }

    /// The message of a caught panic.
    pub(crate) fn panicked(payload: &(dyn std::any::Any + Send)) -> Self {
        let text = payload.downcast_ref::<&str>().copied();
        let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        Self::Internal(format!("panicked: {}", text.unwrap_or("no message")))
    }
}

impl From<ModelError> for EngineError {
    fn from(error: ModelError) -> Self {
        match error {
            ModelError::Stopped => Self::Aborted,
            ModelError::Internal(message) => Self::Internal(message),
            error => Self::Model(error),
        }
    }
}
