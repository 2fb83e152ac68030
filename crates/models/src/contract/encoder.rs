//! What the engine sees of an encoder: texts in, outputs out. A batch has no padding, and a text's outputs do not
//! depend on what else is in it.

use std::sync::Arc;

use crate::contract::info::EncoderInfo;
use crate::contract::input::EncoderInput;
use crate::contract::pooling::PooledWant;
use crate::{ModelError, Result};

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
    /// The first of the hidden states (0: the embeddings') that is not finite, where the backend looked.
    pub broken_state: Option<usize>,
}

impl EncoderOutput {
    /// # Errors
    /// `NotFinite`, which names the first state or output that holds NaN or infinity.
    pub fn check_finite(&self) -> Result<()> {
        let refuse = |what: String| Err(ModelError::NotFinite(what));
        if let Some(state) = self.broken_state {
            return refuse(match state {
                0 => "the embeddings".to_string(),
                layer => format!("the outputs of layer {} of the encoder", layer - 1),
            });
        }
        let outputs = [
            ("the states", &self.last_hidden_state),
            ("the pooled outputs", &self.pooled),
            ("the vectors", &self.embedding),
            ("the head's logits", &self.logits),
        ];
        let states = self.hidden_states.iter().map(|state| ("the hidden states", state));
        match states.chain(outputs).find(|(_, values)| !all_finite(values)) {
            Some((what, _)) => refuse(what.to_string()),
            None => Ok(()),
        }
    }
}

fn all_finite(values: &[f32]) -> bool {
    // Without an early exit inside a chunk, so that it vectorises.
    values
        .chunks(1024)
        .all(|chunk| chunk.iter().map(|x| u32::from(!x.is_finite())).fold(0, |a, b| a | b) == 0)
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
