//! A native error reaches JavaScript as an `Error` with the engine's stable code as its `code`.

use candlewick_engine::EngineError;

/// `napi::Error` whose status is one of our codes.
pub type Error = napi::Error<&'static str>;
pub type Result<T> = std::result::Result<T, Error>;

pub fn thrown(error: EngineError) -> Error {
    Error::new(error.code(), error.to_string())
}
