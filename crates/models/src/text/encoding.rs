//! From texts to tokens with the `tokenizers` crate, as tokenizer.rs and windows.rs both need it: a pair, cut to a
//! length, and panics that become errors.

use std::panic::{AssertUnwindSafe, catch_unwind};

use tokenizers::utils::truncation::{
    TruncationDirection, TruncationParams, TruncationStrategy, truncate_encodings,
};
use tokenizers::{Encoding, PostProcessor};

use crate::{ModelError, Result};

/// Runs a piece of the `tokenizers` crate, whose parts panic on some files that they have read: an error like any other
/// here.
pub(crate) fn guarded<T>(run: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        let said = panic.downcast_ref::<String>().map_or("", String::as_str);
        // Oniguruma gives up after ten million steps, and its binding panics.
        Err(invalid(if said.contains("-limit-in-match") {
            "a regular expression of the tokenizer's files finds no end on this text"
        } else {
            "the tokenizer's file is damaged"
        }))
    })
}

pub(crate) fn invalid(error: impl std::fmt::Display) -> ModelError {
    ModelError::Tokenizer(error.to_string())
}

/// Which of a pair's texts is cut.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Truncation {
    /// The longer one first.
    #[default]
    Longest,
    First,
    Second,
}

/// How long a text may be, and what becomes of the rest.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cut {
    /// Tokens, special ones included; `None`: nothing is cut.
    pub max_length: Option<usize>,
    pub truncation: Truncation,
    /// For windows: how many tokens each repeats of the one before it. `None`: one window, the rest is dropped.
    pub stride: Option<usize>,
}

impl From<Option<usize>> for Cut {
    fn from(max_length: Option<usize>) -> Self {
        Self { max_length, ..Self::default() }
    }
}

/// A text or a pair, tokenised by `encode`, cut (`cut_left`: on the left), and with its special tokens. An empty second
/// text is a text, as for transformers in a list of pairs.
pub(crate) fn cut_pair(
    tokenizer: &tokenizers::Tokenizer,
    cut_left: bool,
    text: &str,
    pair: Option<&str>,
    cut: &Cut,
    encode: impl Fn(&str) -> Result<Encoding>,
) -> Result<Encoding> {
    let (first, second) = (encode(text)?, pair.map(encode).transpose()?);
    cut_encodings(tokenizer, cut_left, first, second, cut)
}

/// The same of what was tokenised already.
pub(crate) fn cut_encodings(
    tokenizer: &tokenizers::Tokenizer,
    cut_left: bool,
    mut first: Encoding,
    mut second: Option<Encoding>,
    cut: &Cut,
) -> Result<Encoding> {
    if let Some(second) = &mut second {
        // Of the windows behind the first nothing else would say whose tokens they have.
        second.set_type_ids(vec![1; second.get_ids().len()]);
    }
    if let Some(max_length) = cut.max_length {
        let added = tokenizer.get_post_processor().map_or(0, |p| p.added_tokens(second.is_some()));
        let room = max_length.checked_sub(added).ok_or_else(|| {
            ModelError::Input(format!(
                "a maximum of {max_length} tokens leaves no room for {added} special ones"
            ))
        })?;
        let lengths = (first.get_ids().len(), second.as_ref().map_or(0, |second| second.get_ids().len()));
        let params = TruncationParams {
            max_length: room,
            stride: cut.stride.unwrap_or(0),
            strategy: match cut.truncation {
                Truncation::Longest => TruncationStrategy::LongestFirst,
                Truncation::First => TruncationStrategy::OnlyFirst,
                Truncation::Second => TruncationStrategy::OnlySecond,
            },
            direction: if cut_left { TruncationDirection::Left } else { TruncationDirection::Right },
        };
        if can_cut(cut, room, lengths)? {
            (first, second) = truncate_encodings(first, second, &params).map_err(invalid)?;
        }
    }
    tokenizer.post_process(first, second, true).map_err(invalid)
}

/// Whether the text that is to be cut is long enough for it; if not, nothing is cut, as in transformers, and the caller
/// finds that the result is too long.
fn can_cut(cut: &Cut, room: usize, (first, second): (usize, usize)) -> Result<bool> {
    let kept = match cut.truncation {
        Truncation::Longest => 0,
        Truncation::First => second,
        Truncation::Second => first,
    };
    let left = room.saturating_sub(kept);
    if first + second <= room {
        return Ok(true);
    }
    if let Some(stride) = cut.stride
        && stride >= left
    {
        return Err(ModelError::Input(format!(
            "windows of {left} tokens cannot overlap by {stride}: a longer maxLength, a shorter stride or question"
        )));
    }
    Ok(left > 0)
}
