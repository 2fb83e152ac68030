//! Token ids with their offsets in the text, and long texts as several windows that overlap.

use tokenizers::Encoding;
use tokenizers::models::ModelWrapper;
use tokenizers::tokenizer::Decoder;

use crate::text::encoding::{Cut, cut_pair, guarded, invalid};
use crate::text::trimming::untrimmed;
use crate::{Result, Tokenizer};

/// A text, or a part of it, with special tokens; each list is (T).
#[derive(Debug, Clone, Default)]
pub struct Window {
    pub ids: Vec<u32>,
    pub type_ids: Vec<u32>,
    /// Start and end of each token in its text, in UTF-16 code units, which index a JavaScript string.
    pub offsets: Vec<(u32, u32)>,
    /// Which of the two texts a token is from; `None`: a special token.
    pub texts: Vec<Option<u8>>,
    /// Which word of its text.
    pub words: Vec<Option<u32>>,
    /// Whether the token continues the word of the token before it, by the rule of transformers' entity pipeline.
    pub continues: Vec<bool>,
}

impl Tokenizer {
    /// A text or a pair with offsets, as one window or, with a stride, as many as it takes.
    pub fn windows(&self, text: &str, pair: Option<&str>, cut: &Cut) -> Result<Vec<Window>> {
        guarded(|| {
            let encoding = cut_pair(self.inner(), self.cut_left(), text, pair, cut, |text| {
                let encoding = self.inner().encode(text, false).map_err(invalid)?;
                Ok(untrimmed(self.inner(), encoding))
            })?;
            let texts = [text, pair.unwrap_or_default()].map(Positions::new);
            let several = if cut.stride.is_some() { encoding.get_overflowing().as_slice() } else { &[] };
            Ok(std::iter::once(&encoding).chain(several).map(|part| self.window(part, &texts)).collect())
        })
    }

    fn window(&self, encoding: &Encoding, texts: &[Positions; 2]) -> Window {
        let length = encoding.get_ids().len();
        let mut window = Window {
            ids: encoding.get_ids().to_vec(),
            type_ids: self.type_ids(encoding),
            words: encoding.get_word_ids().to_vec(),
            offsets: Vec::with_capacity(length),
            texts: Vec::with_capacity(length),
            continues: Vec::with_capacity(length),
        };
        let sequences = encoding.get_sequence_ids();
        let special = encoding.get_special_tokens_mask();
        for at in 0..length {
            let text = sequences[at].filter(|_| special[at] == 0).filter(|&text| text < 2);
            let (start, end) = if text.is_some() { encoding.get_offsets()[at] } else { (0, 0) };
            let positions = &texts[text.unwrap_or(0)];
            window.offsets.push(positions.utf16(start, end));
            window.texts.push(text.map(|text| text as u8));
            window.continues.push(text.is_some() && self.continues(encoding, at, positions));
        }
        window
    }

    /// transformers' rule: a WordPiece token of which more (or less) is written than it stands for, `##`, goes on with
    /// a word; without a mark for that, one with no space before it.
    fn continues(&self, encoding: &Encoding, at: usize, text: &Positions) -> bool {
        let (start, end) = encoding.get_offsets()[at];
        if self.named_unknown().is_some_and(|unknown| encoding.get_tokens()[at] == unknown) {
            return false;
        }
        match self.inner().get_model() {
            ModelWrapper::WordPiece(model) if !model.continuing_subword_prefix.is_empty() => {
                let written = text.text.get(start..end).map(|slice| slice.chars().count());
                written != Some(encoding.get_tokens()[at].chars().count())
            }
            _ => {
                let before = text.text.get(..start).and_then(|text| text.chars().next_back());
                let first = text.text.get(start..).and_then(|text| text.chars().next());
                start > 0 && before != Some(' ') && first != Some(' ')
            }
        }
    }

    /// The token that stands for what the vocabulary lacks; a byte-level vocabulary lacks nothing.
    pub fn unknown_token(&self) -> Option<&str> {
        match self.inner().get_model() {
            ModelWrapper::WordPiece(model) => Some(&model.unk_token),
            ModelWrapper::WordLevel(model) => Some(&model.unk_token),
            ModelWrapper::BPE(model) => model.unk_token.as_deref(),
            ModelWrapper::Unigram(_) => self.named_token("unk_token"),
        }
    }

    /// What the files call the unknown token, whether the vocabulary needs one or not: transformers' `unk_token`.
    pub fn named_unknown(&self) -> Option<&str> {
        self.named_token("unk_token").or_else(|| self.unknown_token())
    }

    /// The text of tokens by name: `["new", "##ly"]` → `"newly"`.
    pub fn join(&self, tokens: Vec<String>) -> Result<String> {
        guarded(|| match self.inner().get_decoder() {
            Some(decoder) => decoder.decode(tokens).map_err(invalid),
            None => Ok(tokens.join(" ")),
        })
    }
}

/// A text, and where its bytes are in UTF-16.
struct Positions<'a> {
    text: &'a str,
    /// By byte, one past the end included; empty: ASCII, where both are the same. Inside a character: its start.
    units: Vec<u32>,
}

impl<'a> Positions<'a> {
    fn new(text: &'a str) -> Self {
        if text.is_ascii() {
            return Self { text, units: Vec::new() };
        }
        let mut units = Vec::with_capacity(text.len() + 1);
        let mut at = 0;
        for c in text.chars() {
            units.extend(std::iter::repeat_n(at, c.len_utf8()));
            at += c.len_utf16() as u32;
        }
        units.push(at);
        Self { text, units }
    }

    fn utf16(&self, start: usize, mut end: usize) -> (u32, u32) {
        if self.units.is_empty() {
            return (start as u32, end as u32);
        }
        // A token that ends inside a character has all of it.
        while end < self.text.len() && !self.text.is_char_boundary(end) {
            end += 1;
        }
        (self.units[start], self.units[end])
    }
}
