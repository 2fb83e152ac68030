//! Fine-tuning, training from scratch and evaluation, on the CPU kernels.
//!
//! - `data/`: rows of a file become examples; the order of batches. `tokenizer/`: a tokenizer out of texts.
//! - `model/`: GPT-2 and BERT with gradients. `trainer/`: a run from its options to a trained model.
//! - `evaluate/`: a model measured on a data set. `metrics/`: what predictions are worth.

pub mod data;
mod error;
pub mod evaluate;
pub mod metrics;
pub mod model;
mod observer;
pub mod tokenizer;
pub mod trainer;
mod unknown;

pub use error::{Result, TrainError};
pub use observer::Observer;
