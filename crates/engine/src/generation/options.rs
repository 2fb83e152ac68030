//! The options of a generation, their defaults, and the combinations that are refused.

use std::time::Duration;

use candlewick_models::CausalInfo;

use crate::error::{EngineError, Result};
use crate::generation::batch::Priority;
use crate::generation::speculative::Speculation;
use crate::runtime::cancel::CancelToken;
use crate::runtime::codec::Codec;

#[derive(Debug, Clone, PartialEq)]
pub enum Prompt {
    Text(String),
    Ids(Vec<u32>),
}

/// When a beam search may end before `max_new_tokens` (transformers' `early_stopping`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EarlyStopping {
    /// When no running beam is likely to beat the worst finished one.
    #[default]
    False,
    /// As soon as `num_beams` hypotheses are finished.
    True,
    /// When no running beam can beat it at any length.
    Never,
}

/// What to do with a prompt that does not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Truncate {
    /// `CONTEXT_OVERFLOW`.
    #[default]
    None,
    /// Keep the prompt's end.
    Left,
}

#[derive(Debug, Clone)]
pub struct GenerateOptions {
    /// `None`: `wished_new_tokens`, `wished_length`, or 256; as many as fit in the model's positions.
    pub max_new_tokens: Option<usize>,
    /// The default from the model's files instead of 256. Unlike `max_new_tokens` it is reduced where the model has
    /// too few positions.
    pub wished_new_tokens: Option<usize>,
    /// The same, with the prompt counted (transformers' `max_length`). A prompt that has so many tokens by itself is
    /// followed by as many as without the wish.
    pub wished_length: Option<usize>,
    /// Before this many tokens nothing ends a sequence: end tokens are banned, stop strings are ignored.
    pub min_new_tokens: usize,
    /// 0 = greedy: the likeliest token, always.
    pub temperature: f32,
    /// 0 = off.
    pub top_k: usize,
    /// 1 = off.
    pub top_p: f32,
    /// 0 = off. Tokens less likely than `min_p` × the likeliest are dropped.
    pub min_p: f32,
    /// 1 = off; over prompt and continuation.
    pub repetition_penalty: f32,
    /// 0 = off; over the continuation.
    pub presence_penalty: f32,
    /// 0 = off; over the continuation.
    pub frequency_penalty: f32,
    /// 0 = off; over prompt and continuation.
    pub no_repeat_ngram_size: usize,
    /// Added to the logits; minus infinity bans a token.
    pub logit_bias: Vec<(u32, f32)>,
    /// Words that are not generated, in each spelling that `spellings` gives them.
    pub bad_words: Vec<String>,
    /// Sequences of tokens that are not completed. One that is an end token alone has no effect.
    pub bad_word_ids: Vec<Vec<u32>>,
    /// Tokens that are not generated.
    pub suppress_tokens: Vec<u32>,
    /// Tokens with which no continuation begins.
    pub begin_suppress_tokens: Vec<u32>,
    /// A sequence ends before the first of these in its text, in which special tokens have their names; nor does one of
    /// them come about where these are left out.
    pub stop: Vec<String>,
    /// A sequence ends at these as it does at the model's own end tokens.
    pub stop_token_ids: Vec<u32>,
    /// Go on after the model's own end tokens.
    pub ignore_eos: bool,
    /// `None`: from the operating system; the result says which.
    pub seed: Option<u64>,
    /// How many of the likeliest tokens to report beside each token's own logprob (0..=20). All are log-softmax of the
    /// model's raw logits, before any option of this list had its effect.
    pub logprobs: Option<usize>,
    /// Samples per prompt. They share the prompt's prefill.
    pub n: usize,
    pub num_beams: usize,
    /// How many of the beams to return.
    pub num_return_sequences: usize,
    /// Finished beams are ranked by sum of logprobs / length ^ `length_penalty`.
    pub length_penalty: f32,
    pub early_stopping: EarlyStopping,
    pub truncate: Truncate,
    /// One of the model's adapters, by name; `None`: the model as it is.
    pub adapter: Option<String>,
    /// Whose turns these are: all requests of a client share the turns of one. `None`: a client of its own.
    pub client: Option<String>,
    pub priority: Priority,
    /// From the call on; then the request ends with `DEADLINE_EXCEEDED`.
    pub deadline: Option<Duration>,
    /// Beginnings of prompts are shared within a scope only, so that nobody can find out by the time it takes what
    /// somebody in another scope has asked.
    pub scope: Option<String>,
    /// Tokens that exist already, of each sequence of the result in its order: the generation goes on as if it had just
    /// made them. They are in the result, and not in the stream; their logprobs are not known. Empty: it begins.
    pub continue_from: Vec<Vec<u32>>,
    pub speculation: Speculation,
    /// Cancelled, it ends the stream and its result with `ABORTED`. To keep what there is, use `TokenStream::cancel`.
    pub cancel: CancelToken,
}

impl Default for GenerateOptions {
    fn default() -> Self {
        Self {
            max_new_tokens: None,
            wished_new_tokens: None,
            wished_length: None,
            min_new_tokens: 0,
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            no_repeat_ngram_size: 0,
            logit_bias: Vec::new(),
            bad_words: Vec::new(),
            bad_word_ids: Vec::new(),
            suppress_tokens: Vec::new(),
            begin_suppress_tokens: Vec::new(),
            stop: Vec::new(),
            stop_token_ids: Vec::new(),
            ignore_eos: false,
            seed: None,
            logprobs: None,
            n: 1,
            num_beams: 1,
            num_return_sequences: 1,
            length_penalty: 1.0,
            early_stopping: EarlyStopping::False,
            truncate: Truncate::None,
            adapter: None,
            client: None,
            priority: Priority::Interactive,
            deadline: None,
            scope: None,
            continue_from: Vec::new(),
            speculation: Speculation::Lookup,
            cancel: CancelToken::new(),
        }
    }
}

/// Continuations of one prompt that may run side by side: each holds a cache of the whole context.
pub const MAX_SEQUENCES_PER_PROMPT: usize = 64;
pub const MAX_LOGPROBS: usize = 20;
pub const MAX_STOPS: usize = 64;
/// Bytes of a stop string, all of which each token compares, and of a bad word: 1,024 characters.
const MAX_TEXT_LENGTH: usize = 4096;
pub const MAX_STOP_TOKENS: usize = 1024;
pub const MAX_BAD_WORDS: usize = 10_000;
/// Tokens of a bad word.
const MAX_BAD_WORD_LENGTH: usize = 1024;
pub const MAX_SUPPRESSED: usize = 100_000;
const DEFAULT_NEW_TOKENS: usize = 256;
/// A larger bias has no further effect, and divided by a small temperature it overflows f32.
const MAX_BIAS: f32 = 1e6;
/// Below this f32 logits divided by the temperature lose all meaning; 0 is what such a caller wants.
const MIN_TEMPERATURE: f32 = 1e-6;

impl GenerateOptions {
    /// Refuses values out of range, and options that would have no effect.
    pub(crate) fn validate(&self, info: &CausalInfo, codec: Option<&Codec>) -> Result<()> {
        let refuse = |option, reason: &str| Err(EngineError::option(option, reason));
        let number = |option, value: f32, range: std::ops::RangeInclusive<f32>| match value {
            x if x.is_finite() && range.contains(&x) => Ok(()),
            x if *range.end() == f32::MAX => {
                refuse(option, &format!("expected a finite number of at least {}, got {x}", range.start()))
            }
            x => {
                refuse(option, &format!("expected a number in {}..={}, got {x}", range.start(), range.end()))
            }
        };
        let count = |option, value: usize, range: std::ops::RangeInclusive<usize>| match range
            .contains(&value)
        {
            true => Ok(()),
            false if *range.end() == usize::MAX => {
                refuse(option, &format!("expected at least {}, got {value}", range.start()))
            }
            false => refuse(option, &format!("expected {} to {}, got {value}", range.start(), range.end())),
        };
        count("maxNewTokens", self.max_new_tokens.unwrap_or(1), 1..=usize::MAX)?;
        if self.min_new_tokens > self.max_new_tokens.unwrap_or(usize::MAX) {
            return refuse("minNewTokens", "is more than maxNewTokens");
        }
        number("temperature", self.temperature, 0.0..=f32::MAX)?;
        if self.temperature > 0.0 && self.temperature < MIN_TEMPERATURE {
            return refuse("temperature", "expected 0 (greedy) or at least 0.000001");
        }
        number("topP", self.top_p, 0.0..=1.0)?;
        number("minP", self.min_p, 0.0..=1.0)?;
        number("repetitionPenalty", self.repetition_penalty, f32::MIN_POSITIVE..=f32::MAX)?;
        number("presencePenalty", self.presence_penalty, -100.0..=100.0)?;
        number("frequencyPenalty", self.frequency_penalty, -100.0..=100.0)?;
        // length ^ 10 is the last power of ten that f32 holds for every context.
        number("lengthPenalty", self.length_penalty, -10.0..=10.0)?;
        count("n", self.n, 1..=MAX_SEQUENCES_PER_PROMPT)?;
        count("numBeams", self.num_beams, 1..=MAX_SEQUENCES_PER_PROMPT)?;
        count("numReturnSequences", self.num_return_sequences, 1..=MAX_SEQUENCES_PER_PROMPT)?;
        count("logprobs", self.logprobs.unwrap_or(0), 0..=MAX_LOGPROBS)?;

        for (id, bias) in &self.logit_bias {
            if *id as usize >= info.vocab_size {
                return refuse("logitBias", &format!("token {id} is not in the vocabulary"));
            }
            if *bias != f32::NEG_INFINITY {
                number("logitBias", *bias, -MAX_BIAS..=MAX_BIAS)?;
            }
        }
        let mut existing = self.continue_from.iter().flatten();
        if let Some(id) = existing.find(|id| **id as usize >= info.vocab_size) {
            return refuse("continueFrom", &format!("token {id} is not in the vocabulary"));
        }
        let unknown = |ids: &[u32]| ids.iter().copied().find(|id| *id as usize >= info.vocab_size);
        let unknown = [
            ("stopTokenIds", unknown(&self.stop_token_ids)),
            ("badWords", self.bad_word_ids.iter().find_map(|ids| unknown(ids))),
            ("suppressTokens", unknown(&self.suppress_tokens)),
            ("beginSuppressTokens", unknown(&self.begin_suppress_tokens)),
        ];
        if let Some((option, Some(id))) = unknown.into_iter().find(|(_, id)| id.is_some()) {
            return refuse(option, &format!("token {id} is not in the vocabulary"));
        }
        count("stop", self.stop.len(), 0..=MAX_STOPS)?;
        count("stopTokenIds", self.stop_token_ids.len(), 0..=MAX_STOP_TOKENS)?;
        count("badWords", self.bad_words.len() + self.bad_word_ids.len(), 0..=MAX_BAD_WORDS)?;
        count("suppressTokens", self.suppress_tokens.len(), 0..=MAX_SUPPRESSED)?;
        count("beginSuppressTokens", self.begin_suppress_tokens.len(), 0..=MAX_SUPPRESSED)?;
        for stop in &self.stop {
            self.validate_stop(stop, codec)?;
        }
        let words = self.bad_words.iter().map(|word| (word.len(), MAX_TEXT_LENGTH, "bytes"));
        let ids = self.bad_word_ids.iter().map(|word| (word.len(), MAX_BAD_WORD_LENGTH, "tokens"));
        for (length, most, what) in words.chain(ids) {
            if length == 0 {
                return refuse("badWords", "an empty word is everywhere");
            }
            if length > most {
                return refuse("badWords", &format!("a word has at most {most} {what}"));
            }
        }
        if !self.bad_words.is_empty() && codec.is_none() {
            return Err(EngineError::TokenizerMissing);
        }
        if self.deadline.is_some_and(|deadline| deadline.is_zero()) {
            return refuse("deadline", "has passed");
        }
        adapter_index(self.adapter.as_deref(), info)?;
        self.validate_beams()
    }

    /// Refuses a stop string that no text of this vocabulary holds.
    fn validate_stop(&self, stop: &str, codec: Option<&Codec>) -> Result<()> {
        let refuse = |reason: String| Err(EngineError::option("stop", reason));
        if stop.is_empty() {
            return refuse("an empty string is found everywhere".into());
        }
        if stop.len() > MAX_TEXT_LENGTH {
            return refuse(format!("a string of {} bytes; at most {MAX_TEXT_LENGTH}", stop.len()));
        }
        let Some(codec) = codec else { return Err(EngineError::TokenizerMissing) };
        match codec.lacks(stop) {
            Some(character) => {
                let shown: String = stop.chars().take(40).collect();
                refuse(format!("{shown:?} is never found: no token of the vocabulary has {character:?}"))
            }
            None => Ok(()),
        }
    }

    /// The ids at which a sequence ends: those that were asked for, and the model's own.
    pub(crate) fn end_ids(&self, info: &CausalInfo) -> Vec<u32> {
        let model_ends = if self.ignore_eos { &[][..] } else { &info.eos_token_ids };
        let mut end_ids: Vec<u32> = self.stop_token_ids.iter().chain(model_ends).copied().collect();
        end_ids.retain(|id| (*id as usize) < info.vocab_size);
        end_ids.sort_unstable();
        end_ids.dedup();
        end_ids
    }

    /// Whether `continue_from` is empty, or of as many sequences as `prompts` prompts give.
    pub fn check_continued(&self, prompts: usize) -> Result<()> {
        let (found, expected) = (self.continue_from.len(), prompts * self.n);
        if found == 0 || found == expected && self.num_beams == 1 {
            return Ok(());
        }
        let reason = match self.num_beams {
            1 => format!("{found} sequences for {prompts} prompts of {} samples", self.n),
            _ => "beam search cannot be continued".into(),
        };
        Err(EngineError::option("continueFrom", reason))
    }

    fn validate_beams(&self) -> Result<()> {
        let refuse = |option, reason: &str| Err(EngineError::option(option, reason));
        if self.num_return_sequences > self.num_beams {
            let reason = "is more than numBeams; for several samples of one prompt use n";
            return refuse("numReturnSequences", reason);
        }
        if self.num_beams > 1 {
            let reason = "beam search does not sample";
            if matches!(self.speculation, Speculation::Draft(_)) {
                return refuse("speculation", "nothing is guessed in a beam search");
            }
            if self.n > 1 {
                return refuse("n", "beam search returns numReturnSequences");
            }
            if self.temperature != 0.0 && self.temperature != 1.0 {
                return refuse("temperature", reason);
            }
            for (option, set) in
                [("topK", self.top_k != 0), ("topP", self.top_p != 1.0), ("minP", self.min_p != 0.0)]
            {
                if set {
                    return refuse(option, reason);
                }
            }
        } else {
            let reason = "has no effect without numBeams";
            if self.length_penalty != 1.0 {
                return refuse("lengthPenalty", reason);
            }
            if self.early_stopping != EarlyStopping::False {
                return refuse("earlyStopping", reason);
            }
        }
        Ok(())
    }

    /// How much of a prompt is kept (from its end) and how many tokens may follow it.
    pub fn room(&self, prompt: usize, n_positions: usize) -> Result<(usize, usize)> {
        let overflow =
            |requested| Err(EngineError::ContextOverflow { prompt, requested, limit: n_positions });
        let half = (n_positions / 2).max(1);
        let by_length =
            self.wished_length.and_then(|length| length.checked_sub(prompt)).filter(|rest| *rest > 0);
        let wish = self.wished_new_tokens.or(by_length).unwrap_or(DEFAULT_NEW_TOKENS.min(half));
        let default = wish.min(n_positions - 1).max(1).max(self.min_new_tokens);
        let requested = self.max_new_tokens.unwrap_or(default);
        if requested >= n_positions {
            return overflow(requested);
        }
        let free = n_positions.saturating_sub(prompt);
        match (self.truncate, self.max_new_tokens) {
            _ if requested <= free => Ok((prompt, requested)),
            // Cut for a length that was not asked for, a prompt keeps at least half of the positions.
            (Truncate::Left, None) => {
                let requested = requested.min(half).max(self.min_new_tokens);
                Ok((n_positions - requested, requested))
            }
            (Truncate::Left, Some(_)) => Ok((n_positions - requested, requested)),
            (Truncate::None, None) if free >= self.min_new_tokens.max(1) => Ok((prompt, free)),
            (Truncate::None, None) => overflow(self.min_new_tokens.max(1)),
            (Truncate::None, Some(_)) => overflow(requested),
        }
    }
}

/// Which of the model's adapters `name` is; `None`: none.
pub(crate) fn adapter_index(name: Option<&str>, info: &CausalInfo) -> Result<Option<usize>> {
    let Some(name) = name else { return Ok(None) };
    match info.adapters.iter().position(|known| known == name) {
        Some(index) => Ok(Some(index)),
        None if info.adapters.is_empty() => {
            Err(EngineError::option("adapter", "the model was loaded without adapters"))
        }
        None => {
            let known = info.adapters.join(", ");
            Err(EngineError::option("adapter", format!("{name:?} is none of the model's: {known}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wished_length_gives_way_to_the_positions() {
        let with = |new: Option<usize>, length: Option<usize>, truncate| GenerateOptions {
            wished_new_tokens: new,
            wished_length: length,
            truncate,
            ..GenerateOptions::default()
        };
        let room = |new, length, truncate, prompt| with(new, length, truncate).room(prompt, 100).ok();
        assert_eq!(room(Some(80), None, Truncate::None, 10), Some((10, 80)));
        assert_eq!(room(Some(80), None, Truncate::None, 30), Some((30, 70)));
        assert_eq!(room(Some(800), None, Truncate::None, 10), Some((10, 90)));
        assert_eq!(room(Some(80), None, Truncate::Left, 300), Some((50, 50)));
        // `max_length` counts the prompt; if the prompt is longer, the default is ignored.
        assert_eq!(room(None, Some(40), Truncate::None, 10), Some((10, 30)));
        assert_eq!(room(None, Some(40), Truncate::None, 40), Some((40, 50)));
        // As in transformers, `max_new_tokens` comes before `max_length`.
        assert_eq!(room(Some(5), Some(40), Truncate::None, 10), Some((10, 5)));
        assert_eq!(room(None, None, Truncate::None, 10), Some((10, 50)));
        assert_eq!(room(Some(5), None, Truncate::None, 100), None);
    }
}
