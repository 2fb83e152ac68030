//! The napi binding: convert, call, convert back.
//!
//! - `mailbox.rs`: how an answer from the engine's threads becomes a settled promise.
//! - `generator.rs`, `encoder.rs` (its tasks in `tasks.rs`), `vectors.rs`, `finetune.rs`: the classes that TypeScript
//!   holds.
//! - `evaluation.rs`: a loaded model as `train` evaluates it; `tokenizer.rs`: training a tokenizer; `adapter.rs`:
//!   merging one.
//! - `convert.rs`: what goes in; `answer.rs`, `info.rs`, `tokens.rs`, `packed.rs`, `stats.rs`: what comes out;
//!   `names.rs`: names   of enumerations; `error.rs`: what is thrown.

mod adapter;
mod answer;
mod convert;
mod encoder;
mod error;
mod evaluation;
mod finetune;
mod generator;
mod info;
mod mailbox;
mod names;
mod packed;
mod stats;
mod tasks;
mod tokenizer;
mod tokens;
mod vectors;
mod watch;
