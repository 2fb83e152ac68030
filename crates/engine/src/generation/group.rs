//! The sequences that continue one prompt, as `n` samples or as beams.

use candlewick_models::StepLogits;

use crate::error::{EngineError, Result};
use crate::generation::detokenize::Detokenizer;
use crate::generation::plan::{Ended, Plan};
use crate::generation::result::{FinishReason, TokenEvent};
use crate::generation::sampling::beam::{BeamSearch, Finished};
use crate::generation::sampling::processors::Scratch;
use crate::generation::sampling::sample::{Logprobs, choose};
use crate::generation::sequence::{Growth, Sequence};
use crate::generation::speculative::Speculator;
use crate::logits;

/// The output of a group's step.
#[derive(Default)]
pub(crate) struct Output {
    pub events: Vec<TokenEvent>,
    pub ended: Vec<Ended>,
    /// Sequences that have ended, whose last blocks later prompts can share.
    pub retired: Vec<Sequence>,
    /// Tokens that were guessed, and those of them that were right.
    pub drafted: usize,
    pub accepted: usize,
}

/// A prompt that has not started.
pub(crate) struct Prompt {
    /// Which of the request's it is.
    pub index: usize,
    pub tokens: Vec<u32>,
    /// Tokens that may follow.
    pub max_new_tokens: usize,
    /// Of each sample what exists already; empty: nothing.
    pub existing: Vec<Vec<u32>>,
}

pub(crate) struct SequenceGroup {
    pub sequences: Vec<Sequence>,
    /// Counts groups in the order of their start: the youngest is the first to be paused.
    pub serial: u64,
    /// The prompt's logits were there: from here on the samples are sequences of their own.
    pub started: bool,
    /// Number of the first of its sequences in the result.
    base: u32,
    /// Results of this group.
    width: usize,
    pub prompt: usize,
    /// Tokens that may follow the prompt.
    max_new_tokens: usize,
    beams: Option<BeamSearch<Growth>>,
}

impl SequenceGroup {
    /// `block`: positions of a block of keys and values.
    pub fn new(plan: &Plan, prompt: Prompt, block: usize, serial: u64) -> Result<Self> {
        let Prompt { index, tokens, max_new_tokens, existing } = prompt;
        let text = Detokenizer::new(plan.codec.as_ref(), plan.stops.clone(), &tokens);
        let growth = Growth::new(text);
        let beams =
            plan.is_beam_search().then(|| BeamSearch::new(plan.beams(max_new_tokens), growth.clone()));
        let prompt = tokens.len();
        let (width, base) = (plan.width(), (index * plan.width()) as u32);
        let mut first = Sequence::new(tokens, block, growth);
        if beams.is_none() {
            first.speculator = Speculator::new(&plan.options.speculation);
        }
        let mut group = Self {
            sequences: vec![first],
            serial,
            started: false,
            base,
            width,
            prompt,
            max_new_tokens,
            beams,
        };
        group.go_on(plan, existing)?;
        Ok(group)
    }

    /// What exists already becomes part of the samples, as if they had just made it.
    fn go_on(&mut self, plan: &Plan, existing: Vec<Vec<u32>>) -> Result<()> {
        if existing.iter().all(Vec::is_empty) {
            return Ok(());
        }
        self.started = true;
        self.fork(existing.len());
        for (sequence, ids) in self.sequences.iter_mut().zip(existing) {
            for (at, id) in ids.iter().enumerate() {
                if sequence.end.is_some() {
                    let reason = format!("{} tokens after the end of a sequence", ids.len() - at);
                    return Err(EngineError::option("continueFrom", reason));
                }
                sequence.end =
                    sequence.growth.add(*id, self.base + sequence.lane, None, plan, self.max_new_tokens)?;
            }
            sequence.tokens.extend(ids);
        }
        Ok(())
    }

    /// Samples of the first sequence, which are sequences of their own from here on.
    fn fork(&mut self, count: usize) {
        for lane in 1..count as u32 {
            let mut sequence = self.sequences[0].fork(lane);
            sequence.row = self.sequences[0].row;
            self.sequences.push(sequence);
        }
    }

    /// Takes the sequences that have ended.
    pub fn ended(&mut self, output: &mut Output) {
        let base = self.base;
        for mut sequence in self.sequences.extract_if(.., |sequence| sequence.end.is_some()) {
            let Sequence { growth, lane, end, .. } = &mut sequence;
            let ended = end.map(|reason| growth.ended(base + *lane, reason, None));
            output.ended.extend(ended);
            output.retired.push(sequence);
        }
    }

    /// Tokens that may be guessed of a sequence: the last of its tokens has none after it.
    pub fn guesses(&self, sequence: &Sequence) -> usize {
        self.max_new_tokens.saturating_sub(sequence.growth.tokens.len() + 1)
    }

    pub fn is_over(&self) -> bool {
        self.sequences.is_empty()
    }

    /// Whether its sequences step together: the beams of a search.
    pub fn is_together(&self) -> bool {
        self.beams.is_some() && self.sequences.len() > 1
    }

    /// Beams that were paused catch up one after the other, all but the last token, so that each finds in the tree of
    /// prefixes what it shares with those before it. `None`: all of them have.
    pub fn behind(&self) -> Option<usize> {
        self.sequences.iter().position(|sequence| sequence.unseen() > 1)
    }

    /// Takes the logits of a step.
    pub fn advance(
        &mut self,
        plan: &Plan,
        logits: &mut dyn StepLogits,
        scratch: &mut Scratch,
        output: &mut Output,
    ) -> Result<()> {
        if self.sequences.iter().all(|sequence| sequence.row.is_none()) {
            return Ok(());
        }
        if self.beams.is_some() {
            self.started = true;
            return self.advance_beams(plan, logits, scratch, output);
        }
        if !self.started {
            self.started = true;
            self.fork(plan.options.n);
        }
        self.advance_samples(plan, logits, scratch, output)
    }

    fn advance_samples(
        &mut self,
        plan: &Plan,
        logits: &mut dyn StepLogits,
        scratch: &mut Scratch,
        output: &mut Output,
    ) -> Result<()> {
        for index in 0..self.sequences.len() {
            let Some(first) = self.sequences[index].row.take() else { continue };
            // Choosing overwrites the logits, which the next sample of a prompt that has just been read needs too.
            let again = self.sequences.get(index + 1).is_some_and(|next| next.row == Some(first));
            let sequence = &mut self.sequences[index];
            let draft = sequence.tokens.split_off(sequence.known());
            sequence.draft = 0;
            let mut accepted = 0;
            for row in 0..=draft.len() {
                let Sequence { tokens, lane, growth, table, end, .. } = sequence;
                table.set_len(tokens.len());
                let likeliest = plan.options.logprobs.is_none()
                    && plan.processors.takes_likeliest(tokens.len(), self.prompt);
                let best = if likeliest { logits.best(first + row)? } else { None };
                let (id, logprob) = match best {
                    Some(id) => (id, None),
                    None => {
                        let mut copy;
                        let mut scores = logits.row(first + row)?;
                        logits::check(scores)?;
                        if again {
                            copy = scores.to_vec();
                            scores = &mut copy;
                        }
                        draw(plan, scores, tokens, self.prompt, *lane, scratch)?
                    }
                };
                let logprob = logprob.as_ref().map(|(logprob, all)| (*logprob, all));
                *end = growth.add(id, self.base + *lane, logprob, plan, self.max_new_tokens)?;
                tokens.push(id);
                output.events.extend(growth.tokens.last().cloned());
                let right = draft.get(row) == Some(&id);
                accepted += usize::from(right);
                if end.is_some() || !right {
                    break;
                }
            }
            if let Some(speculator) = &mut sequence.speculator {
                speculator.learn(draft.len(), accepted);
            }
            output.drafted += draft.len();
            output.accepted += accepted;
        }
        self.ended(output);
        Ok(())
    }

    fn advance_beams(
        &mut self,
        plan: &Plan,
        logits: &mut dyn StepLogits,
        scratch: &mut Scratch,
        output: &mut Output,
    ) -> Result<()> {
        let Some(search) = &mut self.beams else { return Ok(()) };
        let (mut raw, mut logprobs, mut processed) = (Vec::new(), Vec::new(), Vec::new());
        for sequence in &mut self.sequences {
            let Some(row) = sequence.row.take() else {
                return Err(EngineError::Internal("a beam without logits".into()));
            };
            let scores = logits.row(row)?;
            logits::check(scores)?;
            let all = Logprobs::of(scores, plan.options.logprobs.unwrap_or(0));
            let mut row: Vec<f32> = scores.iter().map(|logit| all.at(*logit)).collect();
            plan.processors.adjust(&mut row, &sequence.tokens, self.prompt, scratch);
            raw.push(scores.to_vec());
            logprobs.push(all);
            processed.push(row);
        }
        let rows: Vec<&[f32]> = processed.iter().map(Vec::as_slice).collect();
        let parents = search.advance(&rows, |growth: &Growth, parent, id| {
            let scores = &logprobs[parent];
            let logprob = scores.at(raw[parent][id as usize]);
            let logprob = plan.options.logprobs.map(|_| (logprob, scores));
            let mut growth = growth.clone();
            let end = growth.add(id, 0, logprob, plan, self.max_new_tokens)?;
            Ok::<_, EngineError>((growth, end))
        })?;
        if search.is_done() {
            output.retired.append(&mut self.sequences);
            let found = self.hypotheses(|reason| reason);
            if found.is_empty() {
                return Err(banned(plan));
            }
            for ended in found {
                output.events.extend(ended.tokens.iter().cloned());
                output.ended.push(ended);
            }
            return Ok(());
        }
        // The sequences become those of the new beams, which share their parents' blocks.
        let ids = search.running().iter().filter_map(|beam| beam.payload.tokens.last()).map(|token| token.id);
        let child = |(parent, id): (usize, u32)| {
            let mut child = self.sequences[parent].fork(0);
            child.tokens.push(id);
            child
        };
        self.sequences = parents.into_iter().zip(ids).map(child).collect();
        Ok(())
    }

    /// The beam search's results, best first.
    fn hypotheses(&mut self, reason: impl Fn(FinishReason) -> FinishReason) -> Vec<Ended> {
        let best = self.beams.take().map(BeamSearch::into_hypotheses).unwrap_or_default().into_iter();
        let number = |(rank, mut found): (usize, Finished<Growth>)| {
            found.payload.ended(self.base + rank as u32, reason(found.reason), Some(found.score))
        };
        best.take(self.width).enumerate().map(number).collect()
    }

    /// The results so far, when the request is stopped.
    pub fn cut_short(mut self) -> Vec<Ended> {
        if self.beams.is_some() {
            return self.hypotheses(|_| FinishReason::Aborted);
        }
        let base = self.base;
        let cut = |s: &mut Sequence| s.growth.ended(base + s.lane, FinishReason::Aborted, None);
        self.sequences.iter_mut().map(cut).collect()
    }
}

fn banned(plan: &Plan) -> EngineError {
    EngineError::option(plan.processors.banning(), "every token is banned")
}

/// The token after `tokens`, and what was asked of log-probabilities. Overwrites `scores`.
fn draw(
    plan: &Plan,
    scores: &mut [f32],
    tokens: &[u32],
    prompt: usize,
    lane: u32,
    scratch: &mut Scratch,
) -> Result<(u32, Option<(f32, Logprobs)>)> {
    let logprobs = plan.options.logprobs.map(|top| Logprobs::of(scores, top));
    // The raw logits are needed after the choice only where it may differ from them.
    let raw = logprobs.is_some().then(|| scores.to_vec());
    let id = choose(&plan.processors, scores, tokens, prompt, (plan.seed, lane), scratch)
        .ok_or_else(|| banned(plan))?;
    Ok((id, logprobs.zip(raw).map(|(all, raw)| (all.at(raw[id as usize]), all))))
}
