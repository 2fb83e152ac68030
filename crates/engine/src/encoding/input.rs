//! What an encoder may read: how long a text may be, what is cut, which ids there are.

use candlewick_models::{Cut, EncoderInfo, EncoderInput, ModelError, Truncation, Window};

use crate::error::{EngineError, Result};
use crate::runtime::cancel::CancelToken;
use crate::runtime::codec::{Codec, need, read_each};

/// What an encoder reads.
#[derive(Debug, Clone)]
pub enum EncoderText {
    Single(String),
    /// A question and its context, a query and a passage.
    Pair(String, String),
    /// Ids with their special tokens. Empty `type_ids` stand for zeros.
    Ids(EncoderInput),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EncodeOptions {
    /// Tokens, special ones included; `None`: as many as the model has positions.
    pub max_length: Option<usize>,
    /// Cut longer texts on the right; else they are a `CONTEXT_OVERFLOW`.
    pub truncate: bool,
    /// Which text of a pair is cut.
    pub truncation: Truncation,
}

impl Default for EncodeOptions {
    fn default() -> Self {
        Self { max_length: None, truncate: true, truncation: Truncation::Longest }
    }
}

/// A text's tokens by name, with where they stand.
pub struct Tokenised {
    pub window: Window,
    pub tokens: Vec<String>,
}

/// What an input may be for this model.
pub(crate) struct InputLimits {
    max_length: usize,
    truncate: bool,
    truncation: Truncation,
    max_positions: usize,
    vocab_size: usize,
    type_vocab_size: usize,
}

impl InputLimits {
    pub fn of(info: &EncoderInfo, options: EncodeOptions) -> Self {
        Self {
            max_length: options.max_length.unwrap_or(info.max_positions),
            truncate: options.truncate,
            truncation: options.truncation,
            max_positions: info.max_positions,
            vocab_size: info.vocab_size,
            // A model without token types takes zeros.
            type_vocab_size: info.type_vocab_size.max(1),
        }
    }

    pub fn inputs(
        &self,
        codec: Option<&Codec>,
        texts: Vec<EncoderText>,
        cancel: &CancelToken,
    ) -> Result<Vec<EncoderInput>> {
        self.check()?;
        read_each(texts, cancel, |text| self.input(codec, text))
    }

    pub fn tokens(
        &self,
        codec: Option<&Codec>,
        texts: Vec<EncoderText>,
        cancel: &CancelToken,
    ) -> Result<Vec<Tokenised>> {
        self.check()?;
        let (codec, cut) = (need(codec)?, self.cut(None));
        read_each(texts, cancel, |text| {
            let windows = match text {
                EncoderText::Single(text) => codec.text.windows(&text, None, &cut)?,
                EncoderText::Pair(text, pair) => codec.text.windows(&text, Some(&pair), &cut)?,
                EncoderText::Ids(_) => {
                    return Err(EngineError::option("returnTokens", "needs text, not ids"));
                }
            };
            let window = windows.into_iter().next().unwrap_or_default();
            let tokens =
                window.ids.iter().map(|id| codec.text.id_to_token(*id).unwrap_or_default()).collect();
            Ok(Tokenised { window, tokens })
        })
    }

    /// Whether there can be texts of such a length.
    pub fn check(&self) -> Result<()> {
        if self.max_length == 0 || self.max_length > self.max_positions {
            let reason = format!("expected 1 to {}, got {}", self.max_positions, self.max_length);
            return Err(EngineError::option("maxLength", reason));
        }
        Ok(())
    }

    pub fn cut(&self, stride: Option<usize>) -> Cut {
        let max_length = self.truncate.then_some(self.max_length);
        Cut { max_length, truncation: self.truncation, stride }
    }

    fn input(&self, codec: Option<&Codec>, text: EncoderText) -> Result<EncoderInput> {
        let cut = self.cut(None);
        let input = match text {
            EncoderText::Single(text) => need(codec)?.text.encode_pair(&text, None, &cut)?,
            EncoderText::Pair(text, pair) => need(codec)?.text.encode_pair(&text, Some(&pair), &cut)?,
            EncoderText::Ids(input) => input,
        };
        self.accept(input)
    }

    /// The input, if the model can read it.
    pub fn accept(&self, mut input: EncoderInput) -> Result<EncoderInput> {
        let length = input.ids.len();
        if length == 0 {
            return Err(EngineError::PromptEmpty);
        }
        if length > self.max_length {
            return Err(EngineError::ContextOverflow {
                prompt: length,
                requested: 0,
                limit: self.max_length,
            });
        }
        if input.type_ids.is_empty() {
            input.type_ids = vec![0; length];
        }
        let refuse = |message: String| Err(EngineError::Model(ModelError::Input(message)));
        if input.type_ids.len() != length {
            return refuse(format!("{} token types for {length} ids", input.type_ids.len()));
        }
        if let Some(id) = input.ids.iter().find(|id| **id as usize >= self.vocab_size) {
            return refuse(format!("token {id} is not in the vocabulary"));
        }
        if let Some(id) = input.type_ids.iter().find(|id| **id as usize >= self.type_vocab_size) {
            return refuse(format!("the model has no token type {id}"));
        }
        Ok(input)
    }
}
