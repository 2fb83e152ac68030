//! From options to a trained model.
//!
//! - `options.rs`: what a user may ask. `event.rs`: what a run says.
//! - `opening.rs`: the model's folder as a run finds it. `network.rs`: its model with gradients, and its files again,
//!   `model_files.rs` those beside the weights. `lora.rs`: adapters in PEFT's format; `merge.rs`: into a model on the
//!   disk.
//! - `optimizer.rs`: AdamW and the learning rate. `muon.rs`: the other optimiser. `tensors.rs`, `checkpoint.rs`: what
//!   is on the disk, and when it counts.
//! - `run.rs`: the loop, which measures through `predict.rs`; `session.rs`: the loop on a thread of its own. `log.rs`:
//!   what a report draws.

mod checkpoint;
mod event;
mod log;
mod lora;
mod merge;
mod model_files;
mod muon;
mod network;
mod opening;
mod optimizer;
mod options;
mod predict;
mod run;
mod session;
mod tensors;

pub use event::{Event, Finish, Skipped, TrainObserver};
pub use merge::{MergeOptions, Merged, merge_adapter};
pub use network::Network;
pub use optimizer::Optimizer;
pub use options::{FinetuneOptions, LoraOptions, Schedule};
pub use run::finetune;
pub use session::{Ready, Session};
