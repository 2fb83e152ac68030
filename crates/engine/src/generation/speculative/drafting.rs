//! Guesses for another model's sequences, on the thread of the model that guesses.

use std::sync::atomic::Ordering;

use candlewick_models::{CausalBackend, Step};

use super::draft::{DraftItem, DraftJob, Drafted};
use crate::error::Result;
use crate::generation::kv::guests::Past;
use crate::generation::kv::memory::Memory;

/// Tokens of a pass, while the model reads what it has not seen of the sequences.
const MOST: usize = 256;

/// Reads what is new of each sequence and guesses on. What cannot be guessed, because the model has no memory or no
/// position left, because it closes or fails, stays without a guess.
pub(crate) fn draft(
    model: &mut dyn CausalBackend,
    memory: &mut Memory,
    job: DraftJob,
    stop: &dyn Fn() -> bool,
) {
    let DraftJob { items, answer, abandoned } = job;
    let mut drafted = Drafted { items, passes: 0, tokens: 0 };
    let mut pasts: Vec<Past> = Vec::new();
    for item in &drafted.items {
        let past = memory.guests.take(item.sequence, item.parent, memory.block);
        pasts.push(past.over(&item.tokens));
    }
    let gone = || abandoned.load(Ordering::Acquire);
    let known: Vec<usize> = drafted.items.iter().map(|item| item.tokens.len()).collect();
    while let Ok(true) = pass(model, memory, &mut drafted, &known, &mut pasts, &gone, stop) {}
    for (item, past) in drafted.items.iter().zip(pasts) {
        memory.guests.put(item.sequence, past, &item.tokens);
    }
    drafted.items.iter_mut().zip(known).for_each(|(item, known)| drop(item.tokens.drain(..known)));
    let _ = answer.send(drafted);
}

/// One pass for all sequences that want more; `false`: none does. An error ends the guessing, and what was guessed by
/// then is as good as any.
fn pass(
    model: &mut dyn CausalBackend,
    memory: &mut Memory,
    drafted: &mut Drafted,
    known: &[usize],
    pasts: &mut [Past],
    gone: &dyn Fn() -> bool,
    stop: &dyn Fn() -> bool,
) -> Result<bool> {
    let positions = model.info().n_positions;
    let mut copies = Vec::new();
    // Which items take part, with how many tokens, and whether these are their last.
    let mut parts: Vec<(usize, usize, bool)> = Vec::new();
    let mut left = MOST;
    for (index, (item, past)) in drafted.items.iter().zip(&mut *pasts).enumerate() {
        let wants = item.tokens.len() - known[index] < item.most
            && item.tokens.len() <= positions
            && !(gone() && past.table.len() + 1 >= item.tokens.len());
        let unseen = item.tokens.len() - past.table.len();
        let count = unseen.min(left);
        let end = past.table.len() + count;
        if wants && count > 0 && past.table.prepare(end, || memory.take(), &mut copies) {
            left -= count;
            parts.push((index, count, count == unseen));
        }
    }
    if parts.is_empty() {
        return Ok(false);
    }
    let steps: Vec<Step<'_>> = parts
        .iter()
        .map(|(index, count, last)| {
            let (item, table) = (&drafted.items[*index], &pasts[*index].table);
            let start = table.len();
            let tokens = &item.tokens[start..start + count];
            Step { tokens, start, blocks: table.ids(), adapter: None, logits: usize::from(*last) }
        })
        .collect();
    model.copy_blocks(&copies)?;
    let mut logits = model.forward(&steps, stop)?;
    drafted.passes += 1;
    let mut row = 0;
    for (index, count, last) in parts {
        drafted.tokens += count;
        let (item, table) = (&mut drafted.items[index], &mut pasts[index].table);
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
