//! What generations and encoders have in common: a model's threads from load to close, answers to callers, cancelling,
//! text to ids and back, how
//! much may wait, how long a step may be, and what is shown of it to those who serve.

pub mod admission;
pub mod cancel;
pub mod codec;
pub mod lifecycle;
pub mod load;
pub mod pace;
pub mod reply;
pub mod stats;
