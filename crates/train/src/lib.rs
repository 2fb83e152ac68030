//! Fine-tuning, training from scratch and evaluation, on the CPU kernels.
//!
//! - `data/`: rows of a file become examples; the order of batches. `metrics/`: what predictions are worth.

pub mod data;
mod error;
pub mod metrics;
pub mod tokenizer;

pub use error::{Result, TrainError};
