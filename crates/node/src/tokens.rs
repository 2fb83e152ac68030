//! Generated tokens and the result of a generation, as `src/types.ts` describes them.

use candlewick_engine as engine;
use napi_derive::napi;

#[napi(object, object_from_js = false)]
pub struct Token {
    pub id: u32,
    pub text: String,
    pub index: u32,
    pub sequence: u32,
    pub logprob: Option<f64>,
    pub top_logprobs: Option<Vec<TokenLogprob>>,
}

#[napi(object, object_from_js = false)]
pub struct TokenLogprob {
    pub id: u32,
    pub text: String,
    pub logprob: f64,
}

#[napi(object, object_from_js = false)]
pub struct GeneratedSequence {
    pub prompt: u32,
    pub text: String,
    pub tokens: Vec<Token>,
    #[napi(ts_type = "'stop' | 'length' | 'aborted'")]
    pub finish_reason: String,
    pub stop_sequence: Option<String>,
    pub stop_token_id: Option<u32>,
    pub score: Option<f64>,
}

#[napi(object, object_from_js = false)]
pub struct GenerationResult {
    pub sequences: Vec<GeneratedSequence>,
    pub usage: Usage,
    pub timings: Timings,
    pub seed: f64,
}

#[napi(object, object_from_js = false)]
pub struct Usage {
    pub prompt_tokens: u32,
    pub completion_tokens: u32,
    pub total_tokens: u32,
    pub cached_tokens: u32,
    pub drafted_tokens: u32,
    pub accepted_tokens: u32,
}

#[napi(object, object_from_js = false)]
pub struct Timings {
    pub queued_ms: f64,
    pub prefill_ms: f64,
    pub decode_ms: f64,
    pub first_token_ms: f64,
    pub prefill_tokens_per_second: f64,
    pub decode_tokens_per_second: f64,
}

impl From<engine::TokenEvent> for Token {
    fn from(token: engine::TokenEvent) -> Self {
        let top =
            |(id, text, logprob): (u32, String, f32)| TokenLogprob { id, text, logprob: logprob.into() };
        Self {
            id: token.id,
            text: token.text,
            index: token.index,
            sequence: token.sequence,
            logprob: token.logprob.map(f64::from),
            top_logprobs: token.top_logprobs.map(|tokens| tokens.into_iter().map(top).collect()),
        }
    }
}

impl From<engine::SequenceResult> for GeneratedSequence {
    fn from(sequence: engine::SequenceResult) -> Self {
        Self {
            prompt: sequence.prompt as u32,
            text: sequence.text,
            tokens: sequence.tokens.into_iter().map(Token::from).collect(),
            finish_reason: sequence.finish_reason.as_str().to_string(),
            stop_sequence: sequence.stop_sequence,
            stop_token_id: sequence.stop_token_id,
            score: sequence.score.map(f64::from),
        }
    }
}

impl From<engine::GenerationResult> for GenerationResult {
    fn from(result: engine::GenerationResult) -> Self {
        let engine::Usage {
            prompt_tokens,
            completion_tokens,
            cached_tokens,
            drafted_tokens,
            accepted_tokens,
        } = result.usage;
        let timings = result.timings;
        Self {
            sequences: result.sequences.into_iter().map(GeneratedSequence::from).collect(),
            usage: Usage {
                prompt_tokens: prompt_tokens as u32,
                completion_tokens: completion_tokens as u32,
                total_tokens: (prompt_tokens + completion_tokens) as u32,
                cached_tokens: cached_tokens as u32,
                drafted_tokens: drafted_tokens as u32,
                accepted_tokens: accepted_tokens as u32,
            },
            timings: Timings {
                queued_ms: timings.queued_ms,
                prefill_ms: timings.prefill_ms,
                decode_ms: timings.decode_ms,
                first_token_ms: timings.first_token_ms,
                prefill_tokens_per_second: timings.prefill_tokens_per_second,
                decode_tokens_per_second: timings.decode_tokens_per_second,
            },
            seed: result.seed as f64,
        }
    }
}
