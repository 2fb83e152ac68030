//! The readable models on Candle, with gradients: a file for each architecture, and `encoder.rs` for what the encoders
//! share; `backend.rs` puts them behind the engine's contract, on the CPU,
//! for comparison.

pub mod backend;
pub mod bert;
pub mod distilbert;
pub mod electra;
pub mod encoder;
pub mod gpt2;
pub mod layers;
pub mod mpnet;
pub mod roberta;
