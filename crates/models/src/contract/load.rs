//! How to load a model, and how to follow and stop it.

use std::cell::Cell;

use crate::contract::dtype::Dtype;
use crate::contract::info::Device;
use crate::{ModelError, Result};

/// How to load. What to load is always a path: hub ids become a local folder in `src/hub.ts`, before Rust is called.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// `None`: the checkpoint's own precision, f32 or f16.
    pub dtype: Option<Dtype>,
    pub device: Device,
    /// Model threads, the calling one included; 0 = as many as the machine allows this process.
    pub threads: usize,
    /// LoRA adapters in PEFT's files: name and folder. The packed CPU models only.
    pub adapters: Vec<(String, String)>,
    /// Where what is loaded is an adapter's folder: that of its base. `None`: the path that the adapter gives, absolute
    /// or from its own folder.
    pub base: Option<String>,
    /// Bytes for keys and values of all sequences together; `None`: a quarter of what this process may use, at most
    /// 2 GiB; on a GPU what 64 sequences of all positions need, at most half of its free memory. GPT-2 only.
    pub kv_cache_bytes: Option<u64>,
    /// Run the differentiable Candle model on the CPU too, instead of the packed kernels: slower, for comparison.
    pub reference: bool,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self {
            dtype: None,
            device: Device::Auto,
            threads: 0,
            adapters: Vec::new(),
            base: None,
            kv_cache_bytes: None,
            reference: false,
        }
    }
}

/// Progress of a load: `done` of `total` bytes of weights.
#[derive(Debug, Clone, Copy)]
pub struct LoadProgress {
    pub done: u64,
    pub total: u64,
}

/// The callbacks of a load: progress, and whether to stop.
pub trait LoadObserver {
    fn progress(&self, _progress: LoadProgress) {}
    /// Asked between tensors; `true` ends the load with [`crate::ModelError::Stopped`].
    fn stop(&self) -> bool {
        false
    }
}

/// How far a load has come, for its observer.
pub(crate) struct Reading<'a> {
    observer: &'a dyn LoadObserver,
    total: u64,
    done: Cell<u64>,
}

impl<'a> Reading<'a> {
    /// `total`: bytes of all weights.
    pub fn new(observer: &'a dyn LoadObserver, total: u64) -> Self {
        Self { observer, total, done: Cell::new(0) }
    }

    /// # Errors
    /// `Stopped`, if the observer says so.
    pub fn proceed(&self) -> Result<()> {
        if self.observer.stop() { Err(ModelError::Stopped) } else { Ok(()) }
    }

    pub fn took(&self, bytes: usize) {
        let done = self.done.get() + bytes as u64;
        self.done.set(done);
        self.observer.progress(LoadProgress { done: done.min(self.total), total: self.total });
    }
}

/// An observer that ignores progress and never stops.
impl LoadObserver for () {}
