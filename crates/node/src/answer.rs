//! The answer to an asynchronous call, on its way to JavaScript. It is made on the engine's threads and converted on
//! the JavaScript thread, when the mailbox is emptied; large arrays are handed over, not copied.

use napi::bindgen_prelude::{ToNapiValue, TypeName};
use napi::{Result, ValueType, sys};

/// A value, and how it becomes JavaScript's.
pub struct Answer(Box<dyn FnOnce(sys::napi_env) -> Result<sys::napi_value> + Send>);

impl Answer {
    /// The value that `make` makes on the JavaScript thread.
    pub fn new<J: ToNapiValue>(make: impl FnOnce() -> J + Send + 'static) -> Self {
        // SAFETY: `Answer::to_napi_value` is called on the JavaScript thread of `env`.
        Self(Box::new(move |env| unsafe { ToNapiValue::to_napi_value(env, make()) }))
    }

    /// `value` as it is.
    pub fn plain(value: impl ToNapiValue + Send + 'static) -> Self {
        Self::new(|| value)
    }

    /// `value` as a `J`, such as a class or an object with columns.
    pub fn of<J: ToNapiValue>(value: impl Into<J> + Send + 'static) -> Self {
        Self::new(|| value.into())
    }
}

impl ToNapiValue for Answer {
    unsafe fn to_napi_value(env: sys::napi_env, answer: Self) -> Result<sys::napi_value> {
        (answer.0)(env)
    }
}

impl TypeName for Answer {
    fn type_name() -> &'static str {
        "unknown"
    }

    fn value_type() -> ValueType {
        ValueType::Unknown
    }
}

pub fn counts(counts: Vec<usize>) -> Answer {
    Answer::plain(counts.into_iter().map(|count| count as u32).collect::<Vec<_>>())
}
