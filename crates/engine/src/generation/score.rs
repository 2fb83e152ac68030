//! How likely a model finds token sequences that exist: what perplexities are made of. Its sequences take part in the
//! steps of the scheduler with what generations leave of them.

use std::collections::VecDeque;

use candlewick_models::StepLogits;

use crate::error::Result;
use crate::generation::kv::table::Table;
use crate::logits::{check, log_sum_exp, max};
use crate::runtime::cancel::CancelToken;
use crate::runtime::reply::Reply;

/// A token of a sequence, as the model saw it coming from those before.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TokenScore {
    /// Natural logarithm of its probability.
    pub logprob: f32,
    /// No other token was likelier.
    pub best: bool,
}

/// A sequence that is being read.
pub(crate) struct Part {
    /// Which of the call's sequences it is.
    index: usize,
    ids: Vec<u32>,
    pub table: Table,
    /// Of the second token and those that follow.
    scores: Vec<TokenScore>,
    /// Tokens of it in the step that is being made.
    pub scheduled: usize,
    /// The first of its rows of logits in that step.
    pub row: Option<usize>,
    /// It gave up its blocks, and goes on when there are enough for all its tokens.
    pub paused: bool,
}

impl Part {
    /// What the model reads: the last token is not given to it, because nothing comes after it.
    pub fn tokens(&self) -> &[u32] {
        &self.ids[..self.ids.len() - 1]
    }

    /// Tokens that the model has not seen.
    pub fn unseen(&self) -> usize {
        self.tokens().len() - self.table.len()
    }

    /// Of the tokens of the step those whose logits are needed: those that were not scored before a pause.
    pub fn wanted(&self) -> usize {
        (self.table.len() + self.scheduled).saturating_sub(self.scores.len()).min(self.scheduled)
    }

    pub fn pause(&mut self) {
        self.table.clear();
        (self.scheduled, self.row) = (0, None);
        self.paused = true;
    }
}

/// A call on its way to the model's thread: sequences of ids, to be scored from their second token on.
pub(crate) struct ScoreJob {
    /// With whom its turns are shared.
    pub client: u64,
    pub sequences: Vec<Vec<u32>>,
    pub cancel: CancelToken,
    pub reply: Reply<Vec<Vec<TokenScore>>>,
}

/// A call on the model's thread.
pub(crate) struct ScoreRun {
    pub client: u64,
    todo: VecDeque<(usize, Vec<u32>)>,
    pub parts: Vec<Part>,
    scored: Vec<Vec<TokenScore>>,
    pub cancel: CancelToken,
    reply: Reply<Vec<Vec<TokenScore>>>,
}

impl ScoreRun {
    pub fn new(ScoreJob { client, sequences, cancel, reply }: ScoreJob) -> Self {
        let scored = vec![Vec::new(); sequences.len()];
        let todo = sequences.into_iter().enumerate().filter(|(_, ids)| ids.len() > 1).collect();
        Self { client, todo, parts: Vec::new(), scored, cancel, reply }
    }

    pub fn is_complete(&self) -> bool {
        self.todo.is_empty() && self.parts.is_empty()
    }

    /// Begins sequences until the step has at least `tokens` tokens to take of this call. `block`: positions of a block
    /// of keys and values.
    pub fn begin(&mut self, tokens: usize, block: usize) {
        let mut ready: usize = self.parts.iter().map(Part::unseen).sum();
        while ready < tokens {
            let Some((index, ids)) = self.todo.pop_front() else { return };
            let scores = Vec::with_capacity(ids.len() - 1);
            let table = Table::new(block);
            ready += ids.len() - 1;
            self.parts.push(Part { index, ids, table, scores, scheduled: 0, row: None, paused: false });
        }
    }

    /// Takes the logits of a step.
    pub fn advance(&mut self, logits: &mut dyn StepLogits) -> Result<()> {
        for part in &mut self.parts {
            let wanted = part.wanted();
            let end = part.table.len() + std::mem::take(&mut part.scheduled);
            part.table.set_len(end);
            if let Some(first) = part.row.take() {
                for row in 0..wanted {
                    let id = part.ids[part.scores.len() + 1];
                    part.scores.push(score(logits.row(first + row)?, id)?);
                }
            }
        }
        for done in self.parts.extract_if(.., |part| part.unseen() == 0) {
            self.scored[done.index] = done.scores;
        }
        Ok(())
    }

    pub fn finish(self, result: Result<()>) {
        self.reply.send(result.map(|()| self.scored));
    }
}

fn score(logits: &[f32], id: u32) -> Result<TokenScore> {
    check(logits)?;
    let logit = logits[id as usize];
    Ok(TokenScore { logprob: (f64::from(logit) - log_sum_exp(logits)) as f32, best: logit >= max(logits) })
}
