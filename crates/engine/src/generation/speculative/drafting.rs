//! Guesses for another model's sequences, on the thread of the model that guesses.

use std::collections::HashSet;
use std::sync::atomic::Ordering;

use candlewick_models::{CausalBackend, Step};

use super::draft::{DraftItem, DraftJob, Drafted};
use crate::error::Result;
use crate::generation::kv::guests::Past;
use crate::generation::kv::memory::Memory;

/// Tokens of a pass, while the model reads what it has not seen of the sequences.
const MOST: usize = 256;

/// A job on its way. It is done pass by pass, so that the model's own requests go on between.
pub(crate) struct Drafting {
    job: DraftJob,
    drafted: Drafted,
    pasts: Vec<Past>,
    /// Tokens of each sequence that are not guessed.
    known: Vec<usize>,
    /// Sequences that have ended meanwhile.
    forgotten: HashSet<u64>,
}

impl Drafting {
    pub fn begin(mut job: DraftJob, memory: &mut Memory) -> Self {
        let items = std::mem::take(&mut job.items);
        let past = |item: &DraftItem| memory.guests.take(item.sequence, memory.block).over(&item.tokens);
        let pasts = items.iter().map(past).collect();
        let known = items.iter().map(|item| item.tokens.len()).collect();
        let drafted = Drafted { items, passes: 0, tokens: 0 };
        Self { job, drafted, pasts, known, forgotten: HashSet::new() }
    }

    pub fn forget(&mut self, sequence: u64) {
        self.forgotten.insert(sequence);
    }

    /// One pass for all sequences that want more; `false`: none does, or none can, because the model has no memory or
    /// no position left. What was guessed before an error is as good as any.
    pub fn pass(
        &mut self,
        model: &mut dyn CausalBackend,
        memory: &mut Memory,
        stop: &dyn Fn() -> bool,
    ) -> Result<bool> {
        let positions = model.info().n_positions;
        let gone = self.job.abandoned.load(Ordering::Acquire);
        let mut copies = Vec::new();
        // Which items take part, with how many tokens, and whether these are their last.
        let mut parts: Vec<(usize, usize, bool)> = Vec::new();
        let mut left = MOST;
        for (index, (item, past)) in self.drafted.items.iter().zip(&mut self.pasts).enumerate() {
            let unseen = item.tokens.len() - past.table.len();
            let wants = item.tokens.len() - self.known[index] < item.most
                && item.tokens.len() <= positions
                && !(gone && unseen == 1);
            let count = unseen.min(left);
            let end = past.table.len() + count;
            if wants && count > 0 && past.table.prepare(end, || memory.take_for_guess(), &mut copies) {
                left -= count;
                parts.push((index, count, count == unseen));
            }
        }
        if parts.is_empty() {
            return Ok(false);
        }
        let step = |(index, count, last): &(usize, usize, bool)| {
            let table = &self.pasts[*index].table;
            let start = table.len();
            let tokens = &self.drafted.items[*index].tokens[start..start + count];
            Step { tokens, start, blocks: table.ids(), adapter: None, logits: usize::from(*last) }
        };
        let steps: Vec<Step<'_>> = parts.iter().map(step).collect();
        model.copy_blocks(&copies)?;
        let mut logits = model.forward(&steps, stop)?;
        self.drafted.passes += 1;
        let mut row = 0;
        for (index, count, last) in parts {
            self.drafted.tokens += count;
            let (item, table) = (&mut self.drafted.items[index], &mut self.pasts[index].table);
            table.set_len(table.len() + count);
            if last {
                let DraftItem { choose, tokens, most, .. } = item;
                match choose(logits.row(row)?, tokens) {
                    Some(id) => tokens.push(id),
                    None => *most = 0,
                }
                row += 1;
            }
        }
        Ok(true)
    }

    /// Keeps what was computed for the next guess, and answers.
    pub fn finish(self, memory: &mut Memory) {
        let Self { job, mut drafted, pasts, known, forgotten } = self;
        for (item, past) in drafted.items.iter().zip(pasts) {
            if !forgotten.contains(&item.sequence) {
                memory.guests.put(item.sequence, past, &item.tokens);
            }
        }
        if job.abandoned.load(Ordering::Acquire) {
            // Nobody reads an answer, which would hold what the request holds.
            drafted.items.clear();
        }
        drafted.items.iter_mut().zip(known).for_each(|(item, known)| drop(item.tokens.drain(..known)));
        let _ = job.answer.send(drafted);
    }
}
