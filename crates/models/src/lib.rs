//! BERT and GPT-2: configuration, weights, tokenizer files and forward passes.
//!
//! `model.rs` is what the engine sees. `gpt2.rs` and `bert.rs` are the differentiable Candle models, `gpt2_cpu.rs` and
//! `bert_cpu.rs` the same checkpoints on the packed CPU kernels. `source.rs` finds a model's files, `checkpoint.rs`
//! reads them, `adapter.rs` LoRA adapters, which `delta.rs` merges; `usage.rs` reads how a BERT's texts are to be read.
//! `tokenizer.rs` makes ids of texts, `windows.rs` windows with offsets of long ones.

mod adapter;
pub mod bert;
mod bert_cpu;
mod checkpoint;
mod delta;
mod dtype;
mod encoding;
mod error;
mod files;
mod floats;
mod foreign;
mod gguf;
pub mod gpt2;
mod gpt2_cpu;
mod input_checks;
pub mod layers;
mod load;
mod model;
mod on_candle;
mod packed;
mod pickle;
mod source;
mod tokenizer;
mod usage;
mod values;
mod weights;
mod windows;

pub use adapter::{Adapter, LoraWeights};
pub use bert::Bert;
pub use bert_cpu::CpuBert;
pub use dtype::Dtype;
pub use encoding::{Cut, Truncation};
pub use error::{ModelError, Result};
pub use floats::{decode, encode};
pub use gpt2::{Gpt2, Past};
pub use gpt2_cpu::CpuGpt2;
pub use layers::Params;
pub use load::{Loaded, load_causal, load_encoder};
pub use model::*;
pub use on_candle::{CandleBert, CandleGpt2};
pub use source::ModelFolder;
pub use tokenizer::{Encoded, Tokenizer};
pub use usage::{EncoderUsage, Pooling, PoolingMode, Similarity};
pub use values::Values;
pub use weights::{Stored, Weights};
pub use windows::Window;
