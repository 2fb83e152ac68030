//! The readable models on Candle, with gradients; `backend.rs` puts them behind the engine's contract, on the CPU,
//! for comparison.

pub mod backend;
pub mod bert;
pub mod gpt2;
pub mod layers;
