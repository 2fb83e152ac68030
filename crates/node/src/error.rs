//! A native error reaches JavaScript as an `Error` with its layer's stable code as its `code`.

use candlewick_engine::EngineError;
use candlewick_train::TrainError;

/// `napi::Error` whose status is one of our codes.
pub type Error = napi::Error<&'static str>;
pub type Result<T> = std::result::Result<T, Error>;

pub fn thrown(error: EngineError) -> Error {
    Error::new(error.code(), error.to_string())
}

/// The error of a call that answers later.
pub struct Failure {
    pub code: &'static str,
    pub message: String,
    /// When it may be tried again, if waiting helps.
    pub retry_after_ms: Option<f64>,
    /// The input that is at fault, of those of the native call; the message does not say which.
    pub index: Option<u32>,
}

impl Failure {
    pub fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), retry_after_ms: None, index: None }
    }
}

impl From<EngineError> for Failure {
    fn from(error: EngineError) -> Self {
        let plain = Self::new(error.code(), error.to_string());
        match error {
            EngineError::QueueFull { retry_after_ms, .. } => {
                Self { retry_after_ms: Some(retry_after_ms as f64), ..plain }
            }
            EngineError::Input { index, error } => Self { index: Some(index as u32), ..Self::from(*error) },
            _ => plain,
        }
    }
}

impl From<TrainError> for Failure {
    fn from(error: TrainError) -> Self {
        Self::new(error.code(), error.to_string())
    }
}
