//! The answer to one call: sent exactly once, even if the thread that should send it panics.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::error::{EngineError, Result};

/// Called exactly once and never while a lock is held: mostly on one of the model's threads, but on the caller's own,
/// before the call returns, when the answer is already there. It should hand the value on and return; it must not
/// block.
pub type Done<T> = Box<dyn FnOnce(Result<T>) + Send>;

/// Dropped without an answer it says why: the model was closed, or the thread that worked on it panicked.
pub(crate) struct Reply<T>(Option<Done<T>>);

impl<T> Reply<T> {
    pub fn new(done: Done<T>) -> Self {
        Self(Some(done))
    }

    pub fn send(mut self, value: Result<T>) {
        self.call(value);
    }

    fn call(&mut self, value: Result<T>) {
        if let Some(done) = self.0.take() {
            // A panic in a caller's closure must not take the model's thread, and other people's requests, with it.
            let _ = catch_unwind(AssertUnwindSafe(|| done(value)));
        }
    }
}

impl<T> Drop for Reply<T> {
    fn drop(&mut self) {
        if self.0.is_some() {
            let panicked = std::thread::panicking();
            self.call(Err(if panicked {
                EngineError::Internal("the thread that worked on this panicked".into())
            } else {
                EngineError::Closed
            }));
        }
    }
}
