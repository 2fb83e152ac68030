//! The same checkpoints on the packed kernels.

pub mod bert;
pub mod gpt2;
mod gpt2_block;
pub mod gpt2_classifier;
pub mod packed;
