//! What a model's thread is doing, as `src/stats.ts` describes it.

use candlewick_engine as engine;
use napi_derive::napi;

#[napi(object, object_from_js = false)]
pub struct GeneratorStats {
    pub running: u32,
    pub waiting: u32,
    pub queued_tokens: f64,
    pub blocks: u32,
    pub free_blocks: u32,
    pub prefix_blocks: u32,
    pub block_positions: u32,
    pub block_bytes: f64,
    pub prompt_tokens: f64,
    pub cached_tokens: f64,
    pub drafted_tokens: f64,
    pub accepted_tokens: f64,
    pub pauses: f64,
    pub steps: StepStats,
}

#[napi(object, object_from_js = false)]
pub struct EncoderStats {
    pub running: u32,
    pub waiting: u32,
    pub queued_tokens: f64,
    pub steps: StepStats,
}

#[napi(object, object_from_js = false)]
pub struct StepStats {
    pub count: f64,
    pub tokens_per_second: f64,
    pub total_tokens: f64,
    pub total_ms: f64,
    pub total_sequences: f64,
    pub last_tokens: u32,
    pub last_ms: f64,
    pub seconds_since_last: f64,
}

impl From<engine::GeneratorStats> for GeneratorStats {
    fn from(stats: engine::GeneratorStats) -> Self {
        Self {
            running: stats.running as u32,
            waiting: stats.waiting as u32,
            queued_tokens: stats.queued_tokens as f64,
            blocks: stats.blocks as u32,
            free_blocks: stats.free_blocks as u32,
            prefix_blocks: stats.prefix_blocks as u32,
            block_positions: stats.block_positions as u32,
            block_bytes: stats.block_bytes as f64,
            prompt_tokens: stats.prompt_tokens as f64,
            cached_tokens: stats.cached_tokens as f64,
            drafted_tokens: stats.drafted_tokens as f64,
            accepted_tokens: stats.accepted_tokens as f64,
            pauses: stats.pauses as f64,
            steps: stats.steps.into(),
        }
    }
}

impl From<engine::EncoderStats> for EncoderStats {
    fn from(stats: engine::EncoderStats) -> Self {
        Self {
            running: stats.running as u32,
            waiting: stats.waiting as u32,
            queued_tokens: stats.queued_tokens as f64,
            steps: stats.steps.into(),
        }
    }
}

impl From<engine::StepStats> for StepStats {
    fn from(steps: engine::StepStats) -> Self {
        Self {
            count: steps.count as f64,
            tokens_per_second: steps.tokens_per_second,
            total_tokens: steps.total_tokens as f64,
            total_ms: steps.total_ms,
            total_sequences: steps.total_sequences as f64,
            last_tokens: steps.tokens as u32,
            last_ms: steps.ms,
            seconds_since_last: steps.seconds_since,
        }
    }
}
