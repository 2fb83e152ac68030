//! What the loop trains on.

use crate::Result;

/// A label that losses ignore, as in PyTorch.
pub const IGNORED: i32 = -100;

#[derive(Debug, Clone, PartialEq)]
pub enum Target {
    /// A label per token of the input, about that token, -100 = none: causal and masked language modelling, token
    /// classification. The causal loss compares label t + 1 with the logits at t.
    Tokens(Vec<i32>),
    Class(u32),
    /// Several labels, a 0 or 1 for each class; or the one value of a regression.
    Scores(Vec<f32>),
    /// First and last token of the answer; (0, 0): it is not in this window.
    Span {
        start: u32,
        end: u32,
    },
    None,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Example {
    /// (T)
    pub input_ids: Vec<u32>,
    /// (T), or empty: all 0.
    pub token_type_ids: Vec<u32>,
    pub target: Target,
    /// The text whose embedding should be near this one's.
    pub pair: Option<Box<Example>>,
}

pub trait Examples: Send {
    fn len(&self) -> usize;
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    fn get(&mut self, index: usize) -> Result<Example>;
    /// Length in a unit of the data set, bytes or tokens: for comparing examples only.
    fn length_hint(&mut self, index: usize) -> Result<usize>;
    /// What is drawn anew for each epoch, a mask, is a function of it.
    fn set_epoch(&mut self, _epoch: u64) {}
}
