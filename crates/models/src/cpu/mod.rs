//! The same checkpoints on the packed kernels.

pub mod bert;
pub mod gpt2;
pub mod packed;
