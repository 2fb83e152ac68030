//! A model's files: where they are, what they say, and the tensors in them.
//!
//! `folder.rs` finds them, `checkpoint.rs` reads safetensors and `pytorch_model.bin` (checked by `pickle.rs`),
//! `gguf.rs` GGUF files; `weights.rs` is a checkpoint with an adapter over it (`adapter.rs`, merged by `delta.rs`).
//! `usage.rs` reads how a BERT's texts are to be read, `foreign.rs` says what a folder is that is no model of ours.
//! `reading.rs` reads files safely, `values.rs` and `floats.rs` are the types of tensors.

pub mod adapter;
pub mod checkpoint;
pub mod delta;
pub mod floats;
pub mod folder;
pub mod foreign;
pub mod gguf;
pub mod pickle;
pub mod reading;
pub mod usage;
pub mod values;
pub mod weights;
