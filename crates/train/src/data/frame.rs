//! The special tokens that a tokenizer puts around a text: `[CLS]` and `[SEP]` for a BERT.

use candlewick_models::Tokenizer;

use crate::{Result, TrainError};

#[derive(Debug, Clone)]
pub(super) struct Frame {
    before: Vec<u32>,
    after: Vec<u32>,
}

impl Frame {
    pub fn of(tokenizer: &Tokenizer) -> Result<Self> {
        // Any text works whose tokens can be found in the output.
        let (plain, framed) = (tokenizer.encode("a", false)?, tokenizer.encode("a", true)?);
        let at = framed.windows(plain.len().max(1)).position(|window| window == plain);
        let at = at.ok_or_else(|| TrainError::Internal("the tokenizer's frame cannot be found".into()))?;
        Ok(Self { before: framed[..at].to_vec(), after: framed[at + plain.len()..].to_vec() })
    }

    pub fn len(&self) -> usize {
        self.before.len() + self.after.len()
    }

    /// `inside` with what goes around it; `outside` is the label of the special tokens.
    pub fn around<T: Clone>(&self, inside: Vec<T>, special: impl Fn(u32) -> T) -> Vec<T> {
        let map = |ids: &[u32]| ids.iter().map(|id| special(*id)).collect::<Vec<_>>();
        [map(&self.before), inside, map(&self.after)].concat()
    }
}
