//! A model's files: where they are, what they say, and the tensors in them.
//!
//! `folder.rs` finds them. A format is a file: `safetensors.rs`, `pytorch.rs` (checked by `pickle.rs`), `gguf.rs`
//! (`gguf_metadata.rs`, `ggml_types.rs`, `dequantize.rs`); each makes the map of `tensors.rs` from name to type, shape
//! and place, of which `checkpoint.rs` finds what a model asks for, under the names of `names.rs`. `weights.rs` is a
//! checkpoint with an adapter over it (`adapter.rs`, `adapter_config.rs`; which modules it is over: `targets.rs`, by
//! `python_regex.rs`; whether it fits: `adapter_base.rs`; merged by `delta.rs`).
//! `usage.rs` reads how a BERT's texts are to be read, with sentence-transformers' modules (`modules.rs` lists them,
//! `sentences.rs` reads each), `config.rs` what its classes are called; `foreign.rs` says what a folder is that is no
//! model of ours. `reading.rs` reads files safely, `values.rs` and `floats.rs` are the types of tensors.

pub mod adapter;
pub mod adapter_base;
pub mod adapter_config;
pub mod checkpoint;
pub mod config;
pub mod delta;
pub mod dequantize;
pub mod floats;
pub mod folder;
pub mod foreign;
pub mod ggml_types;
pub mod gguf;
pub mod gguf_metadata;
pub mod modules;
pub mod names;
pub mod pickle;
pub mod python_regex;
pub mod pytorch;
pub mod reading;
pub mod safetensors;
pub mod sentences;
pub mod targets;
pub mod tensors;
pub mod usage;
pub mod values;
pub mod weights;
