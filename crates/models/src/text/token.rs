//! A token beside the vocabulary, as the files of a tokenizer give it.

use serde_json::Value;
use tokenizers::AddedToken;

use crate::{ModelError, Result};

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Token {
    pub content: String,
    pub single_word: bool,
    pub lstrip: bool,
    pub rstrip: bool,
    /// `None`: special tokens are found in a text as it is given, others in the normalised one.
    pub normalized: Option<bool>,
    pub special: bool,
}

impl Token {
    pub fn special(content: &str) -> Self {
        let content = content.to_string();
        Self { content, single_word: false, lstrip: false, rstrip: false, normalized: None, special: true }
    }

    /// An object with `content`; `place` for messages.
    pub fn read(value: &Value, place: &str) -> Result<Self> {
        let invalid = |problem: &str| ModelError::Tokenizer(format!("{place}: {problem}"));
        let content = value["content"].as_str().ok_or_else(|| invalid("a token without content"))?;
        let flag = |name: &str| match &value[name] {
            Value::Null => Ok(None),
            Value::Bool(flag) => Ok(Some(*flag)),
            _ => Err(invalid(&format!("{name} of {content:?} is neither true nor false"))),
        };
        Ok(Self {
            content: content.to_string(),
            single_word: flag("single_word")?.unwrap_or(false),
            lstrip: flag("lstrip")?.unwrap_or(false),
            rstrip: flag("rstrip")?.unwrap_or(false),
            normalized: flag("normalized")?,
            special: flag("special")?.unwrap_or(false),
        })
    }

    pub fn added(&self) -> AddedToken {
        let token = AddedToken::from(self.content.clone(), self.special)
            .single_word(self.single_word)
            .lstrip(self.lstrip)
            .rstrip(self.rstrip);
        match self.normalized {
            Some(normalized) => token.normalized(normalized),
            None => token,
        }
    }
}
