//! Training a tokenizer, on a thread of its own.

use candlewick_train::tokenizer::{TokenizerOptions, train_tokenizer as train};
use napi_derive::napi;

use crate::answer::Answer;
use crate::error::Failure;
use crate::mailbox::{Cancel, Mailbox};
use crate::watch::Watch;

/// `options`: `TokenizerOptions` as JSON. Answers with a `TrainedTokenizer` as JSON; reports progress, in bytes read,
/// before.
#[napi]
pub fn train_tokenizer(mailbox: &Mailbox, id: u32, options: String, cancel: &Cancel, progress: bool) {
    let watch = Watch::new(mailbox, id, cancel, progress);
    mailbox.work(id, cancel, move || {
        let internal = |error: serde_json::Error| Failure::new("INTERNAL", error.to_string());
        let options: TokenizerOptions = serde_json::from_str(&options).map_err(internal)?;
        let trained = train(&options, &watch)?;
        serde_json::to_string(&trained).map(Answer::plain).map_err(internal)
    });
}
