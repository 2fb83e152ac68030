//! What a generator is doing, for those who serve: a snapshot after each step.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use crate::runtime::admission::Queue;

/// Seconds over which a speed is averaged.
const MEMORY: f64 = 5.0;

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
    /// Sequences paused for want of memory so far.
    pub pauses: u64,
    /// Steps so far.
    pub steps: u64,
    /// Tokens computed a second of the last steps, prompts included.
    pub tokens_per_second: f64,
    /// Tokens of the last step.
    pub last_step_tokens: usize,
    pub last_step_ms: f64,
    /// Since the end of the last step, or the load.
    pub seconds_since_step: f64,
}

/// Written by the model's thread, read by anyone.
pub(crate) struct Board {
    shown: Mutex<(GeneratorStats, Instant)>,
    queue: Arc<Queue>,
}

impl Board {
    pub fn new(queue: Arc<Queue>) -> Self {
        Self { shown: Mutex::new((GeneratorStats::default(), Instant::now())), queue }
    }

    pub fn read(&self) -> GeneratorStats {
        let (stats, then) = *self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        let seconds_since_step = then.elapsed().as_secs_f64();
        GeneratorStats { queued_tokens: self.queue.tokens(), seconds_since_step, ..stats }
    }

    /// Changes what is shown.
    pub fn update(&self, change: impl FnOnce(&mut GeneratorStats)) {
        change(&mut self.shown.lock().unwrap_or_else(PoisonError::into_inner).0);
    }

    /// Shows a step of `tokens` tokens that took `seconds`.
    pub fn step(&self, tokens: usize, seconds: f64) {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        let stats = &mut shown.0;
        let speed = tokens as f64 / seconds.max(1e-9);
        let weight = if stats.steps == 0 { 1.0 } else { 1.0 - (-seconds / MEMORY).exp() };
        stats.tokens_per_second += weight * (speed - stats.tokens_per_second);
        stats.steps += 1;
        (stats.last_step_tokens, stats.last_step_ms) = (tokens, seconds * 1e3);
        self.queue.set_speed(stats.tokens_per_second);
        shown.1 = Instant::now();
    }
}
