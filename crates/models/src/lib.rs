//! BERT and GPT-2: configuration, weights, tokenizer files and forward passes.
//!
//! `model.rs` is what the engine sees. `gpt2.rs` and `bert.rs` are the differentiable Candle models, `gpt2_cpu.rs` and
//! `bert_cpu.rs` the same checkpoints on the packed CPU kernels. `source.rs` finds a model's files, `weights.rs` reads them.

mod error;
mod model;

pub use error::{ModelError, Result};
pub use model::*;
