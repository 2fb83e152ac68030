//! The results of a generation: tokens, sequences, usage, timings.

/// One token as it is streamed. The texts of a sequence's tokens, joined, are the sequence's text; a token's own text
/// may be empty (a special token, the first bytes of a character, the beginning of what may be a stop string) or hold
/// what earlier tokens held back.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenEvent {
    /// Which continuation: prompt × n + sample (beams: prompt × numReturnSequences + rank).
    pub sequence: u32,
    /// Position among the sequence's generated tokens.
    pub index: u32,
    pub id: u32,
    pub text: String,
    /// Natural logarithm of the token's probability under the raw model, if `logprobs` was asked for.
    pub logprob: Option<f32>,
    /// The likeliest tokens at this place, best first: (id, text, logprob).
    pub top_logprobs: Option<Vec<(u32, String, f32)>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FinishReason {
    /// An end token or a stop string. An end token is the last of `tokens`, its text is not in `text`.
    Stop,
    /// `max_new_tokens`, or all that the model's positions allow.
    Length,
    /// The stream was cancelled by its reader.
    Aborted,
}

impl FinishReason {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
            Self::Aborted => "aborted",
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct SequenceResult {
    /// Index of the prompt it continues.
    pub prompt: usize,
    pub text: String,
    pub tokens: Vec<TokenEvent>,
    pub finish_reason: FinishReason,
    /// The stop string that ended it; it is not in `text`.
    pub stop_sequence: Option<String>,
    /// The one of `stop_token_ids` that ended it: the last of `tokens`.
    pub stop_token_id: Option<u32>,
    /// Beam search: sum of logprobs / length ^ `length_penalty`.
    pub score: Option<f32>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Each prompt once, whatever `n`; after truncation.
    pub prompt_tokens: usize,
    /// All that was generated, end tokens included. Beam search: those of the returned sequences.
    pub completion_tokens: usize,
    /// Of the prompt tokens those taken from an earlier request's cache.
    pub cached_tokens: usize,
    /// Tokens that were guessed, and those of them that were right: each saved a pass.
    pub drafted_tokens: usize,
    pub accepted_tokens: usize,
}

/// Milliseconds. `prefill_ms` and `decode_ms` are the time of the forward passes that the request took part in,
/// sampling included, time shared with other requests in full; pauses for a slow reader are in neither.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Timings {
    /// From the call to the first forward pass, tokenising included.
    pub queued_ms: f64,
    pub prefill_ms: f64,
    pub decode_ms: f64,
    /// From the call to the first token.
    pub first_token_ms: f64,
    /// Prompt tokens computed (not cached ones) per second of prefill.
    pub prefill_tokens_per_second: f64,
    /// Tokens after each sequence's first (that one comes from the prefill) per second of decoding.
    pub decode_tokens_per_second: f64,
}

#[derive(Debug, Clone, PartialEq)]
pub struct GenerationResult {
    /// By prompt, then by sample or rank.
    pub sequences: Vec<SequenceResult>,
    pub usage: Usage,
    pub timings: Timings,
    pub seed: u64,
}
