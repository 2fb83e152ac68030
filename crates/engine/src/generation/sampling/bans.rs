//! Sequences of tokens that are never completed: `badWords`, as transformers' `NoBadWordsLogitsProcessor` bans them.

use std::collections::HashMap;

use crate::error::Result;
use crate::runtime::codec::Codec;

/// Banned sequences, by what comes before their last token.
#[derive(Debug, Clone, Default)]
pub struct Bans {
    /// Those of one token: never chosen.
    single: Vec<u32>,
    /// The others, by their last token but one.
    longer: HashMap<u32, Vec<Ban>>,
}

#[derive(Debug, Clone)]
struct Ban {
    before: Box<[u32]>,
    last: u32,
}

impl Bans {
    /// A sequence that is one of `end_ids` alone is left out, as in transformers: what ends a text is no word.
    pub fn new(sequences: &[Vec<u32>], end_ids: &[u32]) -> Self {
        let mut bans = Self::default();
        for sequence in sequences {
            match sequence.as_slice() {
                [] => {}
                [id] if end_ids.contains(id) => {}
                [id] => bans.single.push(*id),
                [before @ .., last] => {
                    let of = bans.longer.entry(before[before.len() - 1]).or_default();
                    of.push(Ban { before: before.into(), last: *last });
                }
            }
        }
        bans
    }

    pub fn is_empty(&self) -> bool {
        self.single.is_empty() && self.longer.is_empty()
    }

    /// Calls `ban` with each token that would complete a banned sequence after `tokens`, the prompt among them.
    pub fn after(&self, tokens: &[u32], mut ban: impl FnMut(u32)) {
        self.single.iter().for_each(|id| ban(*id));
        let longer = tokens.last().and_then(|last| self.longer.get(last)).into_iter().flatten();
        longer.filter(|one| tokens.ends_with(&one.before)).for_each(|one| ban(one.last));
    }
}

/// The tokens of a word as it begins a text and as it follows a space; of one that begins with white space as it is. A
/// spelling with the unknown token is none: the vocabulary cannot write the word so.
pub(crate) fn spellings(codec: &Codec, word: &str) -> Result<Vec<Vec<u32>>> {
    let encode = |text: &str| codec.text.encode(text, false);
    let mut all = vec![encode(word)?];
    if !word.starts_with(char::is_whitespace) {
        let spaced = encode(&format!(" {word}"))?;
        if codec.byte_level && spaced == all[0] {
            // This tokenizer puts a space before each text, but for a line's beginning.
            all.extend(after_a_line(codec, &encode(&format!("\n{word}"))?));
        }
        all.push(spaced);
    }
    let unknown = codec.text.unknown_token().and_then(|token| codec.text.token_to_id(token));
    let is_whole = |ids: &Vec<u32>| !ids.is_empty() && unknown.is_none_or(|unknown| !ids.contains(&unknown));
    let mut spelled: Vec<Vec<u32>> = all.into_iter().filter(is_whole).collect();
    spelled.sort_unstable();
    spelled.dedup();
    Ok(spelled)
}

/// What follows the first line's end, if a token ends with it.
fn after_a_line(codec: &Codec, ids: &[u32]) -> Option<Vec<u32>> {
    let line = ids.iter().position(|id| codec.bytes(*id).ends_with(b"\n"))?;
    Some(ids[line + 1..].to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn banned(bans: &Bans, tokens: &[u32]) -> Vec<u32> {
        let mut ids = Vec::new();
        bans.after(tokens, |id| ids.push(id));
        ids.sort_unstable();
        ids
    }

    #[test]
    fn a_sequence_is_banned_at_its_last_token_alone() {
        let bans = Bans::new(&[vec![7], vec![1, 2, 3], vec![2, 9], vec![0], vec![5, 0], vec![4, 4]], &[0]);
        assert_eq!(banned(&bans, &[]), [7], "an end token by itself is no word");
        assert_eq!(banned(&bans, &[1]), [7]);
        assert_eq!(banned(&bans, &[1, 2]), [3, 7, 9]);
        assert_eq!(banned(&bans, &[2]), [7, 9], "the context is shorter than the sequence");
        assert_eq!(banned(&bans, &[8, 5]), [0, 7], "at the end of a word it is");
        assert_eq!(banned(&bans, &[4, 4, 4]), [4, 7]);
        assert!(Bans::new(&[vec![], vec![0]], &[0]).is_empty());
    }
}
