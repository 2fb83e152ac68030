//! GPT-2, BERT and its family with gradients, on the kernels: hand-written forward and backward passes over packed
//! sequences.
//!
//! `params.rs` holds the weights; `linear.rs` and `block.rs` are what all models are made of; `gpt2.rs` and `bert.rs`
//! (with `heads.rs` and, for MPNet, `relative.rs`) mirror the checkpoints. `crates/models` has the same models on
//! Candle's autograd, and PyTorch's numbers to compare with.

mod batch;
mod bert;
mod block;
mod contrast;
mod cpu;
mod gpt2;
mod heads;
mod linear;
mod load;
mod lora;
mod loss;
mod params;
mod predict;
mod relative;
mod stack;

pub use batch::{Batch, Pass};
pub use bert::{Bert, BertDropouts};
pub use cpu::Cpu;
pub use gpt2::{Classes, Dropouts, Gpt2};
pub use heads::HeadKind;
pub use linear::{Linear, Lora};
pub use load::Source;
pub use lora::{LoraShape, attach, attach_given, merge};
pub use loss::Outcome;
pub use params::{Id, Param, Params};
pub use stack::Stack;
