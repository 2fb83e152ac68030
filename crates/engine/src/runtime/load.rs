//! A request to load a model, and its progress.

use candlewick_models::{LoadObserver, LoadOptions, LoadProgress};

use crate::runtime::admission::Limits;
use crate::runtime::cancel::CancelToken;

pub struct LoadRequest {
    /// A folder or a `.gguf` file.
    pub source: String,
    pub options: LoadOptions,
    /// Of a GPT-2's queue and steps.
    pub limits: Limits,
    /// Asked between tensors; the load then fails with `ABORTED`.
    pub cancel: CancelToken,
    /// Called on the model's thread.
    pub progress: Option<Box<dyn Fn(LoadProgress) + Send>>,
}

impl LoadRequest {
    pub fn new(source: impl Into<String>) -> Self {
        Self {
            source: source.into(),
            options: LoadOptions::default(),
            limits: Limits::default(),
            cancel: CancelToken::new(),
            progress: None,
        }
    }
}

impl LoadObserver for LoadRequest {
    fn progress(&self, progress: LoadProgress) {
        if let Some(report) = &self.progress {
            report(progress);
        }
    }

    fn stop(&self) -> bool {
        self.cancel.is_cancelled()
    }
}
