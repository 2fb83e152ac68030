//! From a token's logits to a token.
//!
//! `processors.rs` is what the options do to scores, `bans.rs` the words among them; `sample.rs` draws one token, with
//! the numbers of `rng.rs`; `beam.rs` searches. Their loops over the vocabulary are in `crate::logits`.

pub mod bans;
pub mod beam;
#[cfg(test)]
mod parity;
pub mod processors;
pub mod rng;
pub mod sample;
