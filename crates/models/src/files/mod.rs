//! A model's files: where they are, what they say, and the tensors in them.
//!
//! `folder.rs` finds them. A format is a file: `safetensors.rs`, `pytorch.rs` (checked by `pickle.rs`), `gguf.rs`; each
//! makes the map of `tensors.rs` from name to type, shape and place, of which `checkpoint.rs` finds what a model asks
//! for, under the names of `names.rs`. `weights.rs` is a checkpoint with an adapter over it (`adapter.rs`, merged by
//! `delta.rs`). `usage.rs` reads how a BERT's texts are to be read, `foreign.rs` says what a folder is that is no model
//! of ours. `reading.rs` reads files safely, `values.rs` and `floats.rs` are the types of tensors.

pub mod adapter;
pub mod checkpoint;
pub mod delta;
pub mod floats;
pub mod folder;
pub mod foreign;
pub mod gguf;
pub mod names;
pub mod pickle;
pub mod pytorch;
pub mod reading;
pub mod safetensors;
pub mod tensors;
pub mod usage;
pub mod values;
pub mod weights;
