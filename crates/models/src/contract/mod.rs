//! What the engine sees of a model, and every backend provides. Neither Candle nor the kernels are in here.

pub mod causal;
pub mod dtype;
pub mod encoder;
pub mod info;
pub mod input;
pub mod load;
pub mod pooling;
pub mod projection;
