//! What the engine sees of an encoder: texts in, outputs out. A batch has no padding, and a text's outputs do not
//! depend on what else is in it.

use std::sync::Arc;

use crate::Result;
use crate::contract::info::EncoderInfo;
use crate::contract::input::EncoderInput;
use crate::contract::pooling::PooledWant;

/// Which of a model's layers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Layers {
    #[default]
    None,
    All,
    Some(Arc<[usize]>),
}

impl Layers {
    pub fn contains(&self, index: usize) -> bool {
        match self {
            Self::None => false,
            Self::All => true,
            Self::Some(chosen) => chosen.contains(&index),
        }
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EncoderWant {
    pub last_hidden_state: bool,
    /// Of the embeddings' output (0) and every layer's (1 ..= `layers`).
    pub hidden_states: Layers,
    /// Of every layer (0 .. `layers`): attention weights.
    pub attentions: Layers,
    pub pooled: bool,
    /// One vector of the token vectors, made where they are.
    pub embedding: Option<PooledWant>,
    /// The head's logits.
    pub logits: bool,
}

#[derive(Debug, Clone, Default)]
pub struct EncoderOutput {
    /// (T, H)
    pub last_hidden_state: Vec<f32>,
    /// (T, H) each, of the layers that were chosen, the first one first.
    pub hidden_states: Vec<Vec<f32>>,
    /// (heads, T, T) each: row i holds the attention weights of token i, which sum to 1.
    pub attentions: Vec<Vec<f32>>,
    /// (H)
    pub pooled: Vec<f32>,
    /// (H) for each mode of what was wanted.
    pub embedding: Vec<f32>,
    /// Sequence classification (C); token classification (T, C); question answering (T, 2); masked LM (T, V), or
    /// (n, V) for the n tokens of `logits_at`.
    pub logits: Vec<f32>,
}

pub trait Encoder: Send {
    fn info(&self) -> &EncoderInfo;

    /// Outputs in the order of `batch`. `stop` is asked before each layer.
    fn forward(
        &mut self,
        batch: &[EncoderInput],
        want: &EncoderWant,
        stop: &dyn Fn() -> bool,
    ) -> Result<Vec<EncoderOutput>>;

    fn active(&self) -> Box<dyn std::any::Any> {
        Box::new(())
    }
}

/// The parts of `values` (Σ lengths, width), a text each.
pub(crate) fn split<'a>(
    values: &'a [f32],
    lengths: &'a [usize],
    width: usize,
) -> impl Iterator<Item = &'a [f32]> {
    let mut rest = values;
    lengths.iter().map(move |&length| {
        let (this, others) = rest.split_at(length * width);
        rest = others;
        this
    })
}
