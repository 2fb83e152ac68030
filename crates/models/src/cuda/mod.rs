//! GPT-2 and BERT on NVIDIA GPUs: our kernels (`crates/models/cuda`), over buffers that are allocated
//! once. `gpu.rs` is the device, its buffers and launches; `linear.rs` a product; `layers.rs` what
//! both models have; `gpt2.rs` and `bert.rs` the models.

pub(crate) mod bert;
pub(crate) mod gpt2;
pub(crate) mod gpu;
mod layers;
mod linear;
