//! What a model is doing, for those who serve: snapshots that its thread leaves after each step.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use crate::runtime::admission::Queue;

/// Seconds over which a speed is averaged.
const MEMORY: f64 = 5.0;

/// The steps of a model.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct StepStats {
    /// Steps so far.
    pub count: u64,
    /// Computed in the last seconds of steps, prompts included.
    pub tokens_per_second: f64,
    /// Computed since the load, prompts included.
    pub total_tokens: u64,
    /// Milliseconds of all steps since the load.
    pub total_ms: f64,
    /// Sequences (of an encoder: inputs) that took part, summed over all steps since the load.
    pub total_sequences: u64,
    /// Of the last step.
    pub tokens: usize,
    /// Of the last step.
    pub ms: f64,
    /// Since the end of the last step, or the load.
    pub seconds_since: f64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct GeneratorStats {
    /// Sequences that run.
    pub running: usize,
    /// Prompts that have not started, and sequences that were paused for want of memory.
    pub waiting: usize,
    /// Tokens of prompts that have not started.
    pub queued_tokens: usize,
    /// Blocks of memory for keys and values.
    pub blocks: usize,
    /// Blocks that nothing is in.
    pub free_blocks: usize,
    /// Blocks that prompts to come may share, those of running sequences among them. What nobody uses is given up when
    /// memory is needed.
    pub prefix_blocks: usize,
    /// Positions of a block.
    pub block_positions: usize,
    /// Bytes of a block.
    pub block_bytes: usize,
    /// Tokens of the prompts that started so far.
    pub prompt_tokens: u64,
    /// Those that were taken from earlier sequences with the same beginning.
    pub cached_tokens: u64,
    /// Tokens that were guessed so far, and those of them that were right.
    pub drafted_tokens: u64,
    pub accepted_tokens: u64,
    /// Sequences paused for want of memory so far.
    pub pauses: u64,
    pub steps: StepStats,
}

#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct EncoderStats {
    /// Calls that run.
    pub running: usize,
    /// Their texts that have not run.
    pub waiting: usize,
    /// Tokens of texts that have not run.
    pub queued_tokens: usize,
    pub steps: StepStats,
}

/// Written by the model's thread, read by anyone.
pub(crate) struct Board<S> {
    shown: Mutex<Shown<S>>,
    queue: Arc<Queue>,
}

struct Shown<S> {
    stats: S,
    steps: StepStats,
    last: Instant,
}

impl<S: Copy + Default> Board<S> {
    pub fn new(queue: Arc<Queue>) -> Self {
        let shown = Shown { stats: S::default(), steps: StepStats::default(), last: Instant::now() };
        Self { shown: Mutex::new(shown), queue }
    }

    /// What is shown, tokens that wait, and the steps.
    fn snapshot(&self) -> (S, usize, StepStats) {
        let shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        let seconds_since = shown.last.elapsed().as_secs_f64();
        (shown.stats, self.queue.tokens(), StepStats { seconds_since, ..shown.steps })
    }

    /// Changes what is shown.
    pub fn update(&self, change: impl FnOnce(&mut S)) {
        change(&mut self.shown.lock().unwrap_or_else(PoisonError::into_inner).stats);
    }

    /// Shows a step of `tokens` tokens of `sequences` that took `seconds`.
    pub fn step(&self, tokens: usize, sequences: usize, seconds: f64) {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        let steps = &mut shown.steps;
        let speed = tokens as f64 / seconds.max(1e-9);
        let weight = if steps.count == 0 { 1.0 } else { 1.0 - (-seconds / MEMORY).exp() };
        steps.tokens_per_second += weight * (speed - steps.tokens_per_second);
        steps.count += 1;
        steps.total_tokens += tokens as u64;
        steps.total_ms += seconds * 1e3;
        steps.total_sequences += sequences as u64;
        (steps.tokens, steps.ms) = (tokens, seconds * 1e3);
        self.queue.set_speed(steps.tokens_per_second);
        shown.last = Instant::now();
    }
}

impl Board<GeneratorStats> {
    pub fn read(&self) -> GeneratorStats {
        let (stats, queued_tokens, steps) = self.snapshot();
        GeneratorStats { queued_tokens, steps, ..stats }
    }
}

impl Board<EncoderStats> {
    pub fn read(&self) -> EncoderStats {
        let (stats, queued_tokens, steps) = self.snapshot();
        EncoderStats { queued_tokens, steps, ..stats }
    }
}
