//! Byte-level tokenizers leave the space before a word out of its offsets (`trim_offsets`), in the post-processor. A
//! text is encoded, cut, and then gets its special tokens, and the `tokenizers` crate runs the post-processor in the
//! first step and in the last: twice, a token would lose its first letter.

use ahash::AHashMap;
use tokenizers::{Encoding, PostProcessorWrapper};

/// Whether the tokenizer's post-processor trims.
fn trims(processor: &PostProcessorWrapper) -> bool {
    match processor {
        PostProcessorWrapper::Roberta(roberta) => roberta.trim_offsets,
        PostProcessorWrapper::ByteLevel(bytes) => bytes.trim_offsets,
        PostProcessorWrapper::Sequence(all) => all.as_ref().iter().any(trims),
        _ => false,
    }
}

/// A text's encoding as it was before the post-processor trimmed it: what that trims is what a token's name says.
pub(crate) fn untrimmed(tokenizer: &tokenizers::Tokenizer, encoding: Encoding) -> Encoding {
    if !tokenizer.get_post_processor().is_some_and(trims) {
        return encoding;
    }
    let space = |c: &char| *c == 'Ġ' || c.is_whitespace();
    let offsets = encoding.get_tokens().iter().zip(encoding.get_offsets()).map(|(token, (start, end))| {
        let before = token.chars().take_while(space).count();
        let after = token.chars().rev().take_while(space).count();
        (start.saturating_sub(before), end + after)
    });
    Encoding::new(
        encoding.get_ids().to_vec(),
        encoding.get_type_ids().to_vec(),
        encoding.get_tokens().to_vec(),
        encoding.get_word_ids().to_vec(),
        offsets.collect(),
        encoding.get_special_tokens_mask().to_vec(),
        encoding.get_attention_mask().to_vec(),
        Vec::new(),
        AHashMap::new(),
    )
}
