//! How likely a model finds token sequences that exist: what perplexities are made of. Runs between the turns of
//! generations, a batch of tokens at a time, so that streams on the same model go on.

use std::collections::VecDeque;

use candlewick_models::{Cache, CausalLm, LogitsOf, SequenceStep};

use crate::cancel::CancelToken;
use crate::error::{EngineError, Result};
use crate::logits::{is_broken, log_sum_exp, max};
use crate::reply::Reply;

/// A token of a sequence, as the model saw it coming from those before.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TokenScore {
    /// Natural logarithm of its probability.
    pub logprob: f32,
    /// No other token was likelier.
    pub best: bool,
}

/// Tokens a forward pass. Each has logits over the vocabulary: 256 × 50,257 × 4 bytes are 51 MB.
const BATCH_TOKENS: usize = 256;

/// A sequence of which the model has read as much as `cache` holds.
struct Part {
    ids: Vec<u32>,
    cache: Box<dyn Cache>,
    scores: Vec<TokenScore>,
}

/// One call: sequences of ids, scored from their second token on.
pub(crate) struct ScoreRun {
    todo: VecDeque<Vec<u32>>,
    /// The sequence that did not fit in a pass.
    part: Option<Part>,
    scored: Vec<Vec<TokenScore>>,
    cancel: CancelToken,
    reply: Reply<Vec<Vec<TokenScore>>>,
}

impl ScoreRun {
    pub fn new(sequences: Vec<Vec<u32>>, cancel: CancelToken, reply: Reply<Vec<Vec<TokenScore>>>) -> Self {
        Self { todo: sequences.into(), part: None, scored: Vec::new(), cancel, reply }
    }

    pub fn is_cancelled(&self) -> bool {
        self.cancel.is_cancelled()
    }

    pub fn is_complete(&self) -> bool {
        self.todo.is_empty() && self.part.is_none()
    }

    pub fn finish(self, result: Result<()>) {
        self.reply.send(result.map(|()| self.scored));
    }

    /// One forward pass: whole sequences while they fit, else a part of one. The last token of a sequence is not given
    /// to the model: nothing comes after it.
    pub fn step(&mut self, model: &mut dyn CausalLm, closing: &dyn Fn() -> bool) -> Result<()> {
        let mut batch: Vec<Part> = Vec::new();
        let mut room = BATCH_TOKENS;
        if let Some(part) = self.part.take() {
            room = 0;
            batch.push(part);
        }
        while let Some(next) = self.todo.front() {
            let tokens = next.len().saturating_sub(1);
            if tokens > room && !batch.is_empty() {
                break;
            }
            room = room.saturating_sub(tokens);
            if let Some(ids) = self.todo.pop_front() {
                let cache = model.new_cache(tokens.max(1))?;
                batch.push(Part { ids, cache, scores: Vec::with_capacity(tokens) });
            }
        }
        let mut logits = vec![Vec::new(); batch.len()];
        let mut steps: Vec<SequenceStep<'_>> = Vec::new();
        for (Part { ids, cache, .. }, logits) in batch.iter_mut().zip(&mut logits) {
            let seen = cache.len();
            let end = ids.len().saturating_sub(1).min(seen + BATCH_TOKENS);
            if seen < end {
                let tokens = &ids[seen..end];
                steps.push(SequenceStep { tokens, cache: cache.as_mut(), want: LogitsOf::All, logits });
            }
        }
        if !steps.is_empty() {
            let cancel = &self.cancel;
            model.forward(&mut steps, &|| closing() || cancel.is_cancelled())?;
        }
        let vocabulary = model.info().vocab_size;
        for (mut part, logits) in batch.into_iter().zip(logits) {
            let known = part.ids.len().min(part.scores.len() + 1);
            for (row, id) in logits.chunks_exact(vocabulary).zip(&part.ids[known..]) {
                part.scores.push(score(row, *id)?);
            }
            if part.scores.len() + 1 < part.ids.len() {
                self.part = Some(part);
            } else {
                self.scored.push(part.scores);
            }
        }
        Ok(())
    }
}

fn score(logits: &[f32], id: u32) -> Result<TokenScore> {
    if is_broken(logits) {
        return Err(EngineError::Internal("the model's logits are not finite".into()));
    }
    let logit = logits[id as usize];
    Ok(TokenScore { logprob: (f64::from(logit) - log_sum_exp(logits)) as f32, best: logit >= max(logits) })
}
