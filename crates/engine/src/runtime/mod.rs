//! What generations and encoders have in common: a model's threads from load to close, answers to callers, cancelling,
//! text to ids and back, and
//! how much may wait.

pub mod admission;
pub mod cancel;
pub mod codec;
pub mod lifecycle;
pub mod load;
pub mod reply;
