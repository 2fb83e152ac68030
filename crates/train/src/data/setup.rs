//! What a data set is opened for.

use candlewick_models::Tokenizer;

use super::task::{DataOptions, Task};
use crate::{Result, TrainError};

/// What a data set is opened for.
pub struct Setup<'a> {
    pub task: Task,
    pub options: &'a DataOptions,
    pub tokenizer: &'a Tokenizer,
    /// Tokens that the model reads at once.
    pub positions: usize,
    /// What ends a text, for a GPT-2.
    pub eos: Option<u32>,
    /// The classes of the checkpoint's head; none if it has no head yet.
    pub checkpoint_labels: &'a [String],
    pub seed: u64,
    /// The data will be trained on: values that a metric accepts and a loss does not are errors.
    pub trains: bool,
    /// Asked between rows; `true` ends the opening with `ABORTED`.
    pub stop: &'a dyn Fn() -> bool,
}

impl Setup<'_> {
    /// Tokens in an example.
    pub(crate) fn length(&self) -> Result<usize> {
        let length = self.options.max_length.unwrap_or(self.positions);
        if length < 4 || length > self.positions {
            let reason = format!("expected 4 to {}, got {length}", self.positions);
            return Err(TrainError::option("maxLength", reason));
        }
        Ok(length)
    }
}
