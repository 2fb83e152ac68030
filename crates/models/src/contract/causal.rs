//! What the engine sees of a causal language model: it extends sequences, whose keys and values are in blocks of its
//! memory. Which sequence has which blocks, and how long it is, the engine knows; a backend keeps nothing of a
//! sequence.

use std::any::Any;

use crate::contract::info::CausalInfo;
use crate::{ModelError, Result};

/// A block of a backend's memory for keys and values.
pub type BlockId = u32;

/// A backend's memory for keys and values: blocks 0 to `blocks` - 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KvSpec {
    /// Positions of a block.
    pub positions: usize,
    pub blocks: usize,
    /// Of a block, in all layers.
    pub bytes: usize,
}

/// One sequence's part of a forward pass.
#[derive(Debug, Clone, Copy)]
pub struct Step<'a> {
    /// (T ≥ 1): the tokens at positions `start` to `start + T - 1`.
    pub tokens: &'a [u32],
    /// The positions before it are in the blocks.
    pub start: usize,
    /// The sequence's blocks in order, for `start + T` positions at least. No other step of the pass may have one that
    /// this one writes to.
    pub blocks: &'a [BlockId],
    /// Of `CausalInfo::adapters`.
    pub adapter: Option<usize>,
    /// Logits are wanted of the last so many tokens.
    pub logits: usize,
}

pub trait CausalBackend: Send {
    fn info(&self) -> &CausalInfo;

    fn kv(&self) -> KvSpec;

    /// Makes the second block of each pair equal to the first, pair by pair.
    fn copy_blocks(&mut self, pairs: &[(BlockId, BlockId)]) -> Result<()>;

    /// Runs the steps as one pass. A row's logits do not depend on what else is in the pass. `stop` is asked before
    /// each layer; if it says `true` the pass ends with [`ModelError::Stopped`], and so does every other error: what
    /// was written lies at positions from `start` on, which the caller counts as not computed.
    fn forward<'a>(
        &'a mut self,
        steps: &[Step<'_>],
        stop: &dyn Fn() -> bool,
    ) -> Result<Box<dyn StepLogits + 'a>>;

    /// While the guard lives the model's helper threads spin for work instead of sleeping. Held while a request runs.
    fn active(&self) -> Box<dyn Any> {
        Box::new(())
    }
}

/// The logits of a pass: a row (V) for each token that wanted one, in the order of the steps.
pub trait StepLogits {
    fn rows(&self) -> usize;

    /// Row `index`, to be read and overwritten.
    fn row(&mut self, index: usize) -> Result<&mut [f32]>;

    /// The likeliest token of row `index`, the first of several, where the backend knows it without sending the row;
    /// `None`: it does not, or the row's logits are not numbers.
    fn best(&mut self, _index: usize) -> Result<Option<u32>> {
        Ok(None)
    }

    /// The likeliest token of each row, the first of several.
    fn argmax(&mut self) -> Result<Vec<u32>> {
        let known: Option<Vec<u32>> = (0..self.rows()).map(|row| self.best(row)).collect::<Result<_>>()?;
        match known {
            Some(ids) => Ok(ids),
            None => Ok(self.top(1)?.into_iter().map(|row| row[0].0).collect()),
        }
    }

    /// The `k` likeliest tokens of each row with their logits, the likeliest first, the first of several equal ones
    /// first.
    fn top(&mut self, k: usize) -> Result<Vec<Vec<(u32, f32)>>> {
        let by_logit = |a: &(u32, f32), b: &(u32, f32)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
        let mut best = Vec::with_capacity(self.rows());
        for index in 0..self.rows() {
            let row = self.row(index)?;
            let mut order: Vec<(u32, f32)> = (0..).zip(row.iter().copied()).collect();
            if k < order.len() {
                order.select_nth_unstable_by(k, by_logit);
                order.truncate(k);
            }
            order.sort_unstable_by(by_logit);
            best.push(order);
        }
        Ok(best)
    }
}

/// Logits in memory.
pub struct LogitRows<'a> {
    values: &'a mut [f32],
    vocab_size: usize,
}

impl<'a> LogitRows<'a> {
    /// `values`: (rows, V).
    pub fn new(values: &'a mut [f32], vocab_size: usize) -> Self {
        Self { values, vocab_size }
    }
}

impl StepLogits for LogitRows<'_> {
    fn rows(&self) -> usize {
        self.values.len() / self.vocab_size
    }

    fn row(&mut self, index: usize) -> Result<&mut [f32]> {
        let (rows, width) = (self.rows(), self.vocab_size);
        match self.values.chunks_exact_mut(width).nth(index) {
            Some(row) => Ok(row),
            None => Err(ModelError::Internal(format!("row {index} of {rows}"))),
        }
    }
}

/// What every backend checks of a pass before an id indexes an embedding, or a position a block.
pub(crate) fn check_steps(steps: &[Step<'_>], info: &CausalInfo, spec: &KvSpec) -> Result<()> {
    steps.iter().try_for_each(|step| check_step(step, info, spec))
}

fn check_step(step: &Step<'_>, info: &CausalInfo, spec: &KvSpec) -> Result<()> {
    crate::contract::input::check_tokens(step.tokens, info.vocab_size)?;
    let (t, end) = (step.tokens.len(), step.start + step.tokens.len());
    let room = info.n_positions.min(step.blocks.len() * spec.positions);
    if end > room {
        return Err(ModelError::Input(format!("{end} positions in {room}")));
    }
    if let Some(id) = step.blocks.iter().find(|id| **id as usize >= spec.blocks) {
        return Err(ModelError::Internal(format!("block {id} of {}", spec.blocks)));
    }
    if step.adapter.is_some_and(|adapter| adapter >= info.adapters.len()) {
        return Err(ModelError::Input(format!(
            "the model has no adapter {}",
            step.adapter.unwrap_or_default()
        )));
    }
    match step.logits > t {
        true => Err(ModelError::Internal(format!("logits of {} of {t} tokens", step.logits))),
        false => Ok(()),
    }
}
