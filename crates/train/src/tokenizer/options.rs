//! What kind of tokenizer is trained, on what, and the tokens that each kind has.

use std::path::PathBuf;

use serde::Deserialize;

use crate::data::DataOptions;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// GPT-2's: any text, no unknown tokens.
    ByteLevelBpe,
    /// BERT's.
    Wordpiece,
    /// WordPiece whose pieces are characters: what Chinese BERTs have.
    Characters,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TokenizerOptions {
    pub kind: Kind,
    pub data: Vec<PathBuf>,
    pub output: PathBuf,
    pub vocabulary_size: usize,
    /// A pair is merged, a character kept, if there are so many of it.
    #[serde(default = "once")]
    pub min_frequency: u64,
    /// WordPiece alone: lower case, without accents.
    #[serde(default)]
    pub lowercase: bool,
    /// WordPiece alone: characters that are kept, the most frequent ones.
    pub alphabet: Option<usize>,
    /// Added to the model's own special tokens.
    #[serde(default)]
    pub special_tokens: Vec<String>,
    #[serde(default)]
    pub options: DataOptions,
}

fn once() -> u64 {
    2
}

pub(super) const END_OF_TEXT: &str = "<|endoftext|>";
pub(super) const BERT_TOKENS: [&str; 5] = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];
