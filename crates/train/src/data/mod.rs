//! Rows of a table become examples, examples become batches.

mod plan;

pub use plan::Plan;

use crate::Result;

/// What an example's loss is measured against.
#[derive(Debug, Clone, PartialEq)]
pub enum Target {
    /// A label for each input token, -100 where there is none: causal LM (the label at t is held against the logits at t − 1),
    /// completion, token classification, masked LM.
    Tokens(Vec<i32>),
    Class(u32),
    /// Multi-label or regression.
    Scores(Vec<f32>),
    /// Positions of an answer's first and last token; (0, 0) if there is none.
    Span {
        start: u32,
        end: u32,
    },
    None,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Example {
    pub input_ids: Vec<u32>,
    /// Empty: zeros.
    pub token_type_ids: Vec<u32>,
    pub target: Target,
    /// Contrastive training: what this example should be near to.
    pub pair: Option<Box<Example>>,
}

/// A data set, by index.
pub trait Examples: Send {
    fn len(&self) -> usize;
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    fn get(&mut self, index: usize) -> Result<Example>;
    /// Tokens, or something that grows with them.
    fn length_hint(&mut self, index: usize) -> Result<usize>;
}
