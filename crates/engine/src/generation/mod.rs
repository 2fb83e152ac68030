//! Prompts to token streams.
//!
//! A generation goes `handle.rs` → text thread (ids) → `scheduler.rs`, the thread that owns the model → `stream.rs`, a
//! bounded queue → whoever calls `next`. On the model's thread `request.rs` is one call, `group.rs` one prompt of it,
//! `sequence.rs` one continuation; `plan.rs` is what is decided before it runs. `work.rs` says who takes part in a
//! step: `batch.rs` divides its tokens, `guess.rs` guesses some with `speculative/`, `kv/` finds the memory. What
//! happens to a token's logits is in `sampling/`, how ids become text in `detokenize.rs` and `stop.rs`. What exists
//! already is scored by `score.rs`.

pub mod batch;
mod detokenize;
mod group;
mod guess;
pub mod handle;
mod kv;
pub mod options;
mod plan;
mod request;
pub mod result;
pub mod sampling;
mod scheduler;
pub mod score;
mod sequence;
pub mod speculative;
mod stop;
pub mod stream;
mod work;
