//! An adapter merged into a model on the disk, or taken out of it, on a thread of its own.

use candlewick_train::trainer::{MergeOptions, merge_adapter as merge};
use napi_derive::napi;

use crate::answer::Answer;
use crate::error::Failure;
use crate::mailbox::{Cancel, Mailbox};
use crate::watch::Watch;

/// `options`: `MergeOptions` as JSON. Answers with a `Merged` as JSON; reports progress, in bytes written, before.
#[napi]
pub fn merge_adapter(mailbox: &Mailbox, id: u32, options: String, cancel: &Cancel, progress: bool) {
    let watch = Watch::new(mailbox, id, cancel, progress);
    mailbox.work(id, cancel, move || {
        let internal = |error: serde_json::Error| Failure::new("INTERNAL", error.to_string());
        let options: MergeOptions = serde_json::from_str(&options).map_err(internal)?;
        let merged = merge(&options, &watch)?;
        serde_json::to_string(&merged).map(Answer::plain).map_err(internal)
    });
}
