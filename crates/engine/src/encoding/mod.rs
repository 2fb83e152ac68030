//! Texts to vectors, labels and spans: what BERT is used for.
//!
//! A call goes `handle.rs` → text thread (`input.rs`: what fits) → `thread.rs`, which owns the model; what the tasks of
//! `tasks/` make of the outputs goes back over the text thread.

pub mod handle;
pub mod input;
pub mod tasks;
pub mod thread;
