//! What an encoder reads, and what every backend checks of its input before an id indexes an embedding.

use crate::contract::info::EncoderInfo;
use crate::{ModelError, Result};

/// One text: ids and their token types, both (T), without padding.
#[derive(Debug, Clone, Default)]
pub struct EncoderInput {
    pub ids: Vec<u32>,
    pub type_ids: Vec<u32>,
    /// Tokens whose masked-LM logits are wanted, in order; empty: all of them.
    pub logits_at: Vec<u32>,
}

/// At least one token, all of them in the vocabulary.
pub(crate) fn check_tokens(ids: &[u32], vocab_size: usize) -> Result<()> {
    if ids.is_empty() {
        return Err(ModelError::Input("no tokens".into()));
    }
    match ids.iter().find(|&&id| id as usize >= vocab_size) {
        Some(id) => Err(ModelError::Input(format!("token {id} is outside a vocabulary of {vocab_size}"))),
        None => Ok(()),
    }
}

/// Of each text: tokens, their types and the positions that logits are wanted of.
pub(crate) fn check_batch(batch: &[EncoderInput], info: &EncoderInfo) -> Result<()> {
    batch.iter().try_for_each(|input| check_input(input, info))
}

fn check_input(input: &EncoderInput, info: &EncoderInfo) -> Result<()> {
    check_tokens(&input.ids, info.vocab_size)?;
    // A model without token types takes those of a model that has one.
    let (t, types) = (input.ids.len(), info.type_vocab_size.max(1));
    if input.type_ids.len() != t || input.type_ids.iter().any(|&id| id as usize >= types) {
        return Err(ModelError::Input(format!("token types must be {t} numbers below {types}")));
    }
    let at = &input.logits_at;
    if !at.is_sorted_by(|a, b| a < b) || at.last().is_some_and(|&last| last as usize >= t) {
        return Err(ModelError::Input(format!(
            "logits are wanted of tokens that are not ascending below {t}"
        )));
    }
    if t > info.max_positions {
        return Err(ModelError::Input(format!("{t} tokens, the model has {} positions", info.max_positions)));
    }
    Ok(())
}
