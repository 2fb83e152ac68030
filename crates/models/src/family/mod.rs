//! BERT's family: encoders that differ in names, positions, token types and heads, not in their layers.
//!
//! `architecture.rs` is what a description holds, and each model has one: `bert.rs`, `distilbert.rs`, `roberta.rs`
//! (XLM-RoBERTa and CamemBERT too), `electra.rs`, `mpnet.rs`. `config.rs` reads config.json by it, `heads.rs` finds a
//! checkpoint's head and its labels, `relative.rs` what MPNet's attention adds.
//! `known.rs` lists them, `mismatch.rs` finds weights of another model than the configuration names.

pub mod activation;
pub mod architecture;
pub mod bert;
pub mod config;
pub mod distilbert;
pub mod electra;
pub mod heads;
pub mod known;
pub mod mismatch;
pub mod mpnet;
pub mod relative;
pub mod roberta;

pub use architecture::{Architecture, MaskedLmHead, Positions, SequenceHead};
pub use config::Config;
pub use heads::{head_of, labels_of};
