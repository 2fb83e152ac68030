//! A sequence: its tokens, the blocks that hold their keys and values, and what was generated of it.

use crate::error::Result;
use crate::generation::detokenize::Detokenizer;
use crate::generation::kv::prefix::{Prefixes, Published, Realm};
use crate::generation::kv::table::Table;
use crate::generation::plan::{Ended, Plan};
use crate::generation::result::{FinishReason, TokenEvent};
use crate::generation::sampling::sample::Logprobs;
use crate::generation::speculative::Speculator;

pub(crate) struct Sequence {
    /// What is known, then `draft` tokens that are guessed.
    pub tokens: Vec<u32>,
    pub draft: usize,
    pub table: Table,
    /// Tokens of it in the step that is being made.
    pub scheduled: usize,
    /// The first of its rows of logits in that step: of its last known token, then of the draft's.
    pub row: Option<usize>,
    /// It gave up its blocks, and goes on when there are enough for all its tokens.
    pub paused: bool,
    pub was_paused: bool,
    /// Which of the prompt's samples it is: part of the random number's address.
    pub lane: u32,
    pub growth: Growth,
    pub end: Option<FinishReason>,
    /// Guesses its tokens; `None`: nobody does.
    pub speculator: Option<Speculator>,
    published: Published,
    /// The tree's version when nothing in it was of use, and the positions that were computed by then.
    found_nothing: Option<(u64, usize)>,
}

impl Sequence {
    pub fn new(tokens: Vec<u32>, block: usize, growth: Growth) -> Self {
        Self {
            tokens,
            draft: 0,
            table: Table::new(block),
            scheduled: 0,
            row: None,
            paused: false,
            was_paused: false,
            lane: 0,
            growth,
            end: None,
            speculator: None,
            published: Published::default(),
            found_nothing: None,
        }
    }

    /// Another continuation of the same tokens.
    pub fn fork(&self, lane: u32) -> Self {
        Self {
            tokens: self.tokens.clone(),
            draft: 0,
            table: self.table.fork(),
            scheduled: 0,
            row: None,
            paused: false,
            was_paused: self.was_paused,
            lane,
            growth: self.growth.clone(),
            end: None,
            speculator: self.speculator.clone(),
            published: self.published,
            found_nothing: None,
        }
    }

    /// Tokens that are not guessed.
    pub fn known(&self) -> usize {
        self.tokens.len() - self.draft
    }

    /// Tokens that the model has not seen.
    pub fn unseen(&self) -> usize {
        self.tokens.len() - self.table.len()
    }

    /// Its next tokens are guessed to be these.
    pub fn guessed(&mut self, guess: Vec<u32>) {
        self.draft = guess.len();
        self.tokens.extend(guess);
    }

    /// Takes part in the step with `tokens` tokens; a draft that does not fit is cut.
    pub fn schedule(&mut self, tokens: usize) {
        let end = self.table.len() + tokens;
        if self.draft > 0 {
            let known = self.known();
            self.tokens.truncate(end.max(known));
            self.draft = self.tokens.len() - known;
        }
        self.scheduled = tokens;
    }

    /// Rows of logits that it wants of the step: of its last known token, and of the guessed ones after it.
    pub fn wanted(&self) -> usize {
        let is_last = self.table.len() + self.scheduled == self.tokens.len();
        if self.scheduled > 0 && is_last { 1 + self.draft } else { 0 }
    }

    /// Takes over what somebody has computed of its next tokens, and returns how many tokens that are. The last known
    /// token is never among them, because its logits are needed.
    pub fn share(&mut self, prefixes: &mut Prefixes, realm: &Realm) -> usize {
        let (size, from) = (self.table.size(), self.table.len());
        if from != self.published.blocks * size
            || from >= self.known()
            || self.found_nothing == Some((prefixes.version(), from))
        {
            return 0;
        }
        let chunks = self.tokens[from..self.known() - 1].chunks_exact(size);
        let mut shared = Vec::new();
        for chunk in chunks {
            let Some((at, block)) = prefixes.next(realm, self.published.at, chunk) else { break };
            self.published.at = Some(at);
            shared.push(block);
        }
        self.published.blocks += shared.len();
        let tokens = shared.len() * size;
        if tokens > 0 {
            self.table.share(shared);
        }
        let rest = &self.tokens[from + tokens..self.known() - 1];
        // A smaller part is computed faster than it is found and copied.
        match prefixes.beginning(realm, self.published.at, rest, size / 4) {
            Some((count, block)) => {
                self.table.share_part(block, count);
                tokens + count
            }
            None => {
                self.found_nothing = Some((prefixes.version(), self.table.len()));
                tokens
            }
        }
    }

    /// Offers the block in which it ended. It is not written to any more.
    pub fn publish_end(&mut self, prefixes: &mut Prefixes, realm: &Realm) {
        self.publish(prefixes, realm);
        let (size, len) = (self.table.size(), self.table.len().min(self.known()));
        let Published { blocks, at } = self.published;
        let from = blocks * size;
        if from + size / 4 <= len && len < from + size {
            prefixes.insert(realm, at, &self.tokens[from..len], self.table.block(blocks));
        }
    }

    /// Offers the blocks that have become whole to others.
    pub fn publish(&mut self, prefixes: &mut Prefixes, realm: &Realm) {
        let computed = self.table.len().min(self.known());
        self.published.offer(prefixes, realm, &self.tokens[..computed], &mut self.table);
    }

    /// Gives up its blocks. All that was computed is computed again later; nothing that was drawn is drawn again.
    pub fn pause(&mut self) {
        self.drop_draft();
        self.table.clear();
        self.published = Published::default();
        (self.scheduled, self.row) = (0, None);
        (self.paused, self.was_paused) = (true, true);
    }

    pub fn drop_draft(&mut self) {
        self.tokens.truncate(self.known());
        self.draft = 0;
    }
}

/// The generated part of a sequence: text, tokens, stop string.
#[derive(Clone)]
pub(crate) struct Growth {
    text: Detokenizer,
    pub tokens: Vec<TokenEvent>,
    stop: Option<usize>,
}

impl Growth {
    pub fn new(text: Detokenizer) -> Self {
        Self { text, tokens: Vec::new(), stop: None }
    }

    /// Adds a token; says whether and why the sequence ends with it.
    pub fn add(
        &mut self,
        id: u32,
        sequence: u32,
        logprob: Option<(f32, &Logprobs)>,
        plan: &Plan,
        max_new_tokens: usize,
    ) -> Result<Option<FinishReason>> {
        let count = self.tokens.len() + 1;
        let may_stop = count >= plan.options.min_new_tokens;
        let ends = plan.end_ids.contains(&id);
        let piece = match ends {
            true => self.text.push_hidden(id, may_stop)?,
            false => self.text.push(id, may_stop)?,
        };
        let mut text = piece.text;
        self.stop = piece.stop;
        let mut end = match ends || piece.stop.is_some() {
            true => Some(FinishReason::Stop),
            false => (count >= max_new_tokens).then_some(FinishReason::Length),
        };
        if end.is_some() && self.stop.is_none() {
            let rest = self.text.finish(may_stop)?;
            text += &rest.text;
            self.stop = rest.stop;
            end = rest.stop.map(|_| FinishReason::Stop).or(end);
        }
        let show = |id: u32| plan.codec.as_ref().map(|codec| codec.show(id)).unwrap_or_default();
        let top = |scores: &Logprobs| scores.top.iter().map(|(id, p)| (*id, show(*id), *p)).collect();
        self.tokens.push(TokenEvent {
            sequence,
            index: count as u32 - 1,
            id,
            text,
            logprob: logprob.map(|(logprob, _)| logprob),
            top_logprobs: logprob.map(|(_, scores)| top(scores)),
        });
        Ok(end)
    }

    /// Its part of the result. Takes the tokens.
    pub fn ended(&mut self, sequence: u32, reason: FinishReason, score: Option<f32>) -> Ended {
        let (mut tokens, stop) = (std::mem::take(&mut self.tokens), self.stop);
        tokens.iter_mut().for_each(|token| token.sequence = sequence);
        Ended { sequence, tokens, reason, stop, score }
    }
}
