//! A running prompt: the sequences that continue it, as `n` samples or as beams.

use candlewick_models::Cache;

use crate::beam::BeamSearch;
use crate::detokenize::Detokenizer;
use crate::error::{EngineError, Result};
use crate::logits;
use crate::plan::{Ended, Plan};
use crate::processors::Scratch;
use crate::result::{FinishReason, TokenEvent};
use crate::sample::{Logprobs, choose};

/// A sequence's tokens and their cache.
pub(crate) type Retired = (Vec<u32>, Box<dyn Cache>);

/// A sequence as the model sees it. `tokens[..cache.len()]` are in the cache.
pub(crate) struct Sequence {
    pub tokens: Vec<u32>,
    pub cache: Box<dyn Cache>,
    pub logits: Vec<f32>,
    /// Tokens of it in the step that is being made.
    pub scheduled: usize,
    /// Which of the prompt's samples it is: part of the random number's address.
    lane: u32,
    growth: Growth,
    end: Option<FinishReason>,
}

impl Sequence {
    /// Tokens that the model has not seen.
    pub fn unseen(&self) -> usize {
        self.tokens.len() - self.cache.len()
    }

    fn fork(&self, lane: u32) -> Result<Self> {
        Ok(Self {
            tokens: self.tokens.clone(),
            cache: self.cache.fork(self.cache.capacity())?,
            logits: self.logits.clone(),
            scheduled: 0,
            lane,
            growth: self.growth.clone(),
            end: None,
        })
    }
}

/// The generated part of a sequence: text, tokens, stop string.
#[derive(Clone)]
struct Growth {
    text: Detokenizer,
    tokens: Vec<TokenEvent>,
    stop: Option<usize>,
}

impl Growth {
    /// Adds a token; says whether and why the sequence ends with it.
    fn add(
        &mut self,
        id: u32,
        sequence: u32,
        logprob: Option<(f32, &Logprobs)>,
        plan: &Plan,
        room: usize,
    ) -> Result<Option<FinishReason>> {
        let count = self.tokens.len() + 1;
        let may_stop = count >= plan.options.min_new_tokens;
        let mut end = plan.end_ids.contains(&id).then_some(FinishReason::Stop);
        let mut text = String::new();
        if end.is_none() {
            let piece = self.text.push(id, may_stop)?;
            text = piece.text;
            self.stop = piece.stop;
            end = match piece.stop {
                Some(_) => Some(FinishReason::Stop),
                None => (count >= room).then_some(FinishReason::Length),
            };
        }
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

    fn ended(self, sequence: u32, reason: FinishReason, score: Option<f32>) -> Ended {
        let Self { mut tokens, stop, .. } = self;
        tokens.iter_mut().for_each(|token| token.sequence = sequence);
        Ended { sequence, tokens, reason, stop, score }
    }
}

/// The output of a task's step.
#[derive(Default)]
pub(crate) struct Output {
    pub events: Vec<TokenEvent>,
    pub ended: Vec<Ended>,
    /// Finished sequences with their caches, which later prompts with the same beginning can reuse.
    pub retired: Vec<Retired>,
}

pub(crate) struct Task {
    pub sequences: Vec<Sequence>,
    /// The first token is out: from here on each step is one token per sequence.
    pub started: bool,
    /// Number of the first of its sequences in the result.
    base: u32,
    /// Results of this task.
    width: usize,
    prompt: usize,
    /// Tokens that may follow the prompt.
    room: usize,
    beams: Option<BeamSearch<Growth>>,
}

impl Task {
    /// `cache` may hold a beginning of `tokens` already.
    pub fn new(plan: &Plan, index: usize, tokens: Vec<u32>, cache: Box<dyn Cache>, room: usize) -> Self {
        let text = Detokenizer::new(plan.codec.as_ref(), plan.stops.clone(), &tokens);
        let growth = Growth { text, tokens: Vec::new(), stop: None };
        let beams = plan.is_beam_search().then(|| BeamSearch::new(plan.beams(room), growth.clone()));
        let prompt = tokens.len();
        let logits = Vec::new();
        let sequences = vec![Sequence { tokens, cache, logits, scheduled: 0, lane: 0, growth, end: None }];
        let width = plan.width();
        Self { sequences, started: false, base: (index * width) as u32, width, prompt, room, beams }
    }

    pub fn is_over(&self) -> bool {
        self.sequences.is_empty()
    }

    /// Takes the logits of a step in which every sequence took part.
    pub fn advance(&mut self, plan: &Plan, scratch: &mut Scratch, output: &mut Output) -> Result<()> {
        if self.sequences.iter().any(|sequence| logits::is_broken(&sequence.logits)) {
            return Err(EngineError::Internal("the model's logits are not numbers".into()));
        }
        if self.beams.is_some() {
            self.started = true;
            return self.advance_beams(plan, scratch, output);
        }
        if !self.started {
            self.started = true;
            for lane in 1..plan.options.n as u32 {
                let sequence = self.sequences[0].fork(lane)?;
                self.sequences.push(sequence);
            }
        }
        self.advance_samples(plan, scratch, output)
    }

    fn advance_samples(&mut self, plan: &Plan, scratch: &mut Scratch, output: &mut Output) -> Result<()> {
        for sequence in &mut self.sequences {
            let Sequence { tokens, logits, lane, growth, .. } = sequence;
            let logprobs = plan.options.logprobs.map(|top| Logprobs::of(logits, top));
            // The raw logits are needed after the choice only where it may differ from them.
            let raw = logprobs.is_some().then(|| logits.clone());
            let random = (plan.seed, *lane);
            let id = choose(&plan.processors, logits, tokens, self.prompt, random, scratch)
                .ok_or_else(|| EngineError::option("logitBias", "every token is banned"))?;
            let logprob =
                logprobs.as_ref().zip(raw).map(|(scores, raw)| (scores.at(raw[id as usize]), scores));
            sequence.end = growth.add(id, self.base + *lane, logprob, plan, self.room)?;
            tokens.push(id);
            output.events.extend(growth.tokens.last().cloned());
        }
        let base = self.base;
        let over = self.sequences.extract_if(.., |sequence| sequence.end.is_some());
        for Sequence { tokens, cache, growth, lane, end, .. } in over {
            output.ended.extend(end.map(|reason| growth.ended(base + lane, reason, None)));
            output.retired.push((tokens, cache));
        }
        Ok(())
    }

    fn advance_beams(&mut self, plan: &Plan, scratch: &mut Scratch, output: &mut Output) -> Result<()> {
        let Some(search) = &mut self.beams else { return Ok(()) };
        let logprobs: Vec<_> = self
            .sequences
            .iter()
            .map(|s| Logprobs::of(&s.logits, plan.options.logprobs.unwrap_or(0)))
            .collect();
        let mut processed = Vec::with_capacity(self.sequences.len());
        for (sequence, logprobs) in self.sequences.iter().zip(&logprobs) {
            let mut row: Vec<f32> = sequence.logits.iter().map(|logit| logprobs.at(*logit)).collect();
            plan.processors.adjust(&mut row, &sequence.tokens, self.prompt, scratch);
            processed.push(row);
        }
        let rows: Vec<&[f32]> = processed.iter().map(Vec::as_slice).collect();
        let parents = search.advance(&rows, |growth: &Growth, parent, id| {
            let scores = &logprobs[parent];
            let logprob = scores.at(self.sequences[parent].logits[id as usize]);
            let logprob = plan.options.logprobs.map(|_| (logprob, scores));
            let mut growth = growth.clone();
            let end = growth.add(id, 0, logprob, plan, self.room)?;
            Ok::<_, EngineError>((growth, end))
        })?;
        if search.is_done() {
            let sequences = std::mem::take(&mut self.sequences);
            output.retired.extend(sequences.into_iter().take(1).map(|s| (s.tokens, s.cache)));
            for ended in self.hypotheses(|reason| reason) {
                output.events.extend(ended.tokens.iter().cloned());
                output.ended.push(ended);
            }
            return Ok(());
        }
        let ids = search.running().iter().filter_map(|beam| beam.payload.tokens.last()).map(|token| token.id);
        let next: Vec<(usize, u32)> = parents.into_iter().zip(ids).collect();
        self.follow(&next)
    }

    /// Makes the sequences those of the new beams. The last child of a beam takes its cache, the others copy it.
    fn follow(&mut self, next: &[(usize, u32)]) -> Result<()> {
        let mut old: Vec<Option<Sequence>> =
            std::mem::take(&mut self.sequences).into_iter().map(Some).collect();
        for (at, (parent, id)) in next.iter().enumerate() {
            let last_child = next[at + 1..].iter().all(|(other, _)| other != parent);
            let slot = &mut old[*parent];
            let child =
                if last_child { slot.take() } else { slot.as_ref().map(|s| s.fork(0)).transpose()? };
            let mut child = child.ok_or_else(|| EngineError::Internal("a beam without a parent".into()))?;
            child.tokens.push(*id);
            self.sequences.push(child);
        }
        Ok(())
    }

    /// The beam search's results, best first.
    fn hypotheses(&mut self, reason: impl Fn(FinishReason) -> FinishReason) -> Vec<Ended> {
        let best = self.beams.take().map(BeamSearch::into_hypotheses).unwrap_or_default().into_iter();
        let number = |(rank, found): (usize, crate::beam::Finished<Growth>)| {
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
        let cut = |s: Sequence| s.growth.ended(base + s.lane, FinishReason::Aborted, None);
        self.sequences.into_iter().map(cut).collect()
    }
}
