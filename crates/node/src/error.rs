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
}

impl From<EngineError> for Failure {
    fn from(error: EngineError) -> Self {
        Self { code: error.code(), message: error.to_string() }
    }
}

impl From<TrainError> for Failure {
    fn from(error: TrainError) -> Self {
        Self { code: error.code(), message: error.to_string() }
    }
}
