//! How likely a model finds tokens that exist: log-probabilities of prompts, and what perplexities are made of. Its
//! sequences take part in the steps of the scheduler with what generations leave of them.

use std::collections::VecDeque;

use candlewick_models::{CausalInfo, ModelError, StepLogits};

use crate::error::{EngineError, Result};
use crate::generation::batch::Priority;
use crate::generation::kv::prefix::{Prefixes, Published, Realm};
use crate::generation::kv::table::Table;
use crate::generation::options::{MAX_LOGPROBS, Prompt, adapter_index};
use crate::generation::sampling::sample::Logprobs;
use crate::logits::{check, max};
use crate::runtime::admission::Ticket;
use crate::runtime::cancel::{CancelToken, HookGuard};
use crate::runtime::codec::{Codec, need, read_each};
use crate::runtime::reply::Reply;

/// A token of a sequence, as the model saw it coming from those before.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TokenScore {
    /// Natural logarithm of its probability.
    pub logprob: f32,
    /// No other token was likelier.
    pub best: bool,
}

/// The scores of a sequence.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Scores {
    /// Its tokens.
    pub ids: Vec<u32>,
    /// Of its second token and those that follow: nothing precedes the first.
    pub tokens: Vec<TokenScore>,
    /// For each of these the likeliest tokens at its place, best first, as many for each: (id, logprob).
    pub top: Vec<(u32, f32)>,
}

#[derive(Debug, Clone, Default)]
pub struct ScoreOptions {
    /// How many of the likeliest tokens to report at each place, 0 to [`MAX_LOGPROBS`].
    pub top_logprobs: usize,
    /// One of the model's adapters, by name; `None`: the model as it is.
    pub adapter: Option<String>,
    /// Whose turns these are, as of a generation.
    pub client: Option<String>,
    pub priority: Priority,
    /// Within which prompts to come share what was computed of these sequences, as of a generation.
    pub scope: Option<String>,
    pub cancel: CancelToken,
}

impl ScoreOptions {
    /// Refuses values out of range. Gives what the keys and values that are computed may be shared within.
    pub(crate) fn check(&self, info: &CausalInfo) -> Result<Realm> {
        if self.top_logprobs > MAX_LOGPROBS {
            let reason = format!("expected 0 to {MAX_LOGPROBS}, got {}", self.top_logprobs);
            return Err(EngineError::option("topLogprobs", reason));
        }
        let adapter = adapter_index(self.adapter.as_deref(), info)?;
        Ok(Realm { adapter, scope: self.scope.as_deref().map(Into::into) })
    }
}

/// The ids of each prompt, none longer than the model reads.
pub(crate) fn read_all(
    prompts: Vec<Prompt>,
    codec: Option<&Codec>,
    cancel: &CancelToken,
    n_positions: usize,
    vocab_size: usize,
) -> Result<Vec<Vec<u32>>> {
    let fits = |prompt: usize| match prompt <= n_positions {
        true => Ok(()),
        false => Err(EngineError::ContextOverflow { prompt, requested: 0, limit: n_positions }),
    };
    read_each(prompts, cancel, |prompt| {
        let ids = match prompt {
            Prompt::Text(text) => {
                let codec = need(codec)?;
                fits(codec.least_tokens(&text))?;
                codec.text.encode(&text, true)?
            }
            Prompt::Ids(ids) => ids,
        };
        match ids.iter().find(|id| **id as usize >= vocab_size) {
            _ if ids.is_empty() => Err(EngineError::PromptEmpty),
            Some(id) => Err(unknown_id(*id)),
            None => fits(ids.len()).map(|()| ids),
        }
    })
}

pub(crate) fn unknown_id(id: u32) -> EngineError {
    EngineError::Model(ModelError::Input(format!("token {id} is not in the vocabulary")))
}

/// A sequence that is being read.
pub(crate) struct Part {
    /// Which of the call's sequences it is.
    index: usize,
    /// `tokens` and `top` are of what was read so far.
    scores: Scores,
    pub table: Table,
    published: Published,
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
        &self.scores.ids[..self.scores.ids.len() - 1]
    }

    /// Tokens that the model has not seen.
    pub fn unseen(&self) -> usize {
        self.tokens().len() - self.table.len()
    }

    /// Of the tokens of the step those whose logits are needed: those that were not scored before a pause.
    pub fn wanted(&self) -> usize {
        (self.table.len() + self.scheduled).saturating_sub(self.scores.tokens.len()).min(self.scheduled)
    }

    pub fn pause(&mut self) {
        self.table.clear();
        self.published = Published::default();
        (self.scheduled, self.row) = (0, None);
        self.paused = true;
    }
}

/// A call on its way to the model's thread: sequences of ids, to be scored from their second token on.
pub(crate) struct ScoreJob {
    /// With whom its turns are shared.
    pub client: u64,
    pub priority: Priority,
    pub top_logprobs: usize,
    pub realm: Realm,
    /// Whether later prompts share what was computed.
    pub publishes: bool,
    pub sequences: Vec<Vec<u32>>,
    /// Its place in the queue; `None`: it waits outside of the queue's limits.
    pub ticket: Option<Ticket>,
    pub cancel: CancelToken,
    /// Wakes the model's thread when the call is cancelled: it may be waiting for memory.
    pub _wake: HookGuard,
    pub reply: Reply<Vec<Scores>>,
}

/// A call on the model's thread.
pub(crate) struct ScoreRun {
    pub job: ScoreJob,
    todo: VecDeque<(usize, Scores)>,
    pub parts: Vec<Part>,
    scored: Vec<Scores>,
}

impl ScoreRun {
    pub fn new(mut job: ScoreJob) -> Self {
        let (mut todo, mut scored) = (VecDeque::new(), Vec::new());
        for (index, ids) in std::mem::take(&mut job.sequences).into_iter().enumerate() {
            let is_scored = ids.len() > 1;
            let scores = Scores { ids, ..Scores::default() };
            match is_scored {
                true => {
                    todo.push_back((index, scores));
                    scored.push(Scores::default());
                }
                false => scored.push(scores),
            }
        }
        Self { job, todo, parts: Vec::new(), scored }
    }

    pub fn is_complete(&self) -> bool {
        self.todo.is_empty() && self.parts.is_empty()
    }

    /// Sequences that have not begun.
    pub fn waiting(&self) -> usize {
        self.todo.len()
    }

    /// Begins sequences until the step has at least `tokens` tokens to take of this call. `block`: positions of a block
    /// of keys and values.
    pub fn begin(&mut self, tokens: usize, block: usize) {
        let mut ready: usize = self.parts.iter().map(Part::unseen).sum();
        while ready < tokens {
            let Some((index, mut scores)) = self.todo.pop_front() else { return };
            let count = scores.ids.len() - 1;
            if let Some(ticket) = &mut self.job.ticket {
                ticket.start(scores.ids.len());
                if self.todo.is_empty() {
                    ticket.leave();
                }
            }
            scores.tokens.reserve_exact(count);
            scores.top.reserve_exact(count * self.job.top_logprobs);
            ready += count;
            let (table, published) = (Table::new(block), Published::default());
            self.parts.push(Part { index, scores, table, published, scheduled: 0, row: None, paused: false });
        }
    }

    /// Takes the logits of a step.
    pub fn advance(&mut self, logits: &mut dyn StepLogits, prefixes: &mut Prefixes) -> Result<()> {
        let ScoreJob { top_logprobs, realm, publishes, .. } = &self.job;
        for part in &mut self.parts {
            let wanted = part.wanted();
            let end = part.table.len() + std::mem::take(&mut part.scheduled);
            part.table.set_len(end);
            if let Some(first) = part.row.take() {
                for row in 0..wanted {
                    part.scores.add(logits.row(first + row)?, *top_logprobs)?;
                }
            }
            if *publishes {
                part.published.offer(prefixes, realm, &part.scores.ids[..end], &mut part.table);
            }
        }
        for done in self.parts.extract_if(.., |part| part.unseen() == 0) {
            self.scored[done.index] = done.scores;
        }
        Ok(())
    }

    pub fn finish(self, result: Result<()>) {
        self.job.reply.send(result.map(|()| self.scored));
    }
}

impl Scores {
    /// Scores the next token, of the logits at the place before it.
    fn add(&mut self, logits: &[f32], top: usize) -> Result<()> {
        check(logits)?;
        let logit = logits[self.ids[self.tokens.len() + 1] as usize];
        let all = Logprobs::of(logits, top);
        self.tokens.push(TokenScore { logprob: all.at(logit), best: logit >= max(logits) });
        self.top.extend(all.top);
        Ok(())
    }
}
