//! Keys and values of sequences that this model only guesses for. Whoever needs their blocks gets them: what is lost
//! is computed again with the next guess.

use std::collections::HashMap;

use super::table::Table;

#[derive(Default)]
pub(crate) struct Guests {
    pasts: HashMap<u64, Past>,
    /// Counts uses.
    clock: u64,
}

/// What is computed of one sequence.
pub(crate) struct Past {
    /// Tokens whose keys and values the table has.
    tokens: Vec<u32>,
    pub table: Table,
    used: u64,
}

impl Past {
    /// The same past as far as it is one of `tokens`, but for the last of these, whose logits are needed.
    pub fn over(mut self, tokens: &[u32]) -> Self {
        let common = self.tokens.iter().zip(tokens).take_while(|(a, b)| a == b).count();
        self.table.set_len(common.min(self.table.len()).min(tokens.len() - 1));
        self
    }
}

impl Guests {
    /// The past of `sequence`, of which nobody else can have the blocks until [`put`](Self::put). `block`: positions a
    /// block.
    pub fn take(&mut self, sequence: u64, block: usize) -> Past {
        let past = self.pasts.remove(&sequence);
        past.unwrap_or_else(|| Past { tokens: Vec::new(), table: Table::new(block), used: 0 })
    }

    /// Keeps the past of `sequence`, which is that of the first of `tokens`.
    pub fn put(&mut self, sequence: u64, mut past: Past, tokens: &[u32]) {
        self.clock += 1;
        past.used = self.clock;
        past.tokens.clear();
        past.tokens.extend(&tokens[..past.table.len()]);
        self.pasts.insert(sequence, past);
    }

    pub fn forget(&mut self, sequence: u64) {
        self.pasts.remove(&sequence);
    }

    /// Gives up the past that was used least recently; `false`: there is none.
    pub fn evict(&mut self) -> bool {
        let oldest = self.pasts.iter().min_by_key(|(_, past)| past.used).map(|(sequence, _)| *sequence);
        oldest.is_some_and(|sequence| self.pasts.remove(&sequence).is_some())
    }

    /// Blocks that [`evict`](Self::evict) can free.
    pub fn blocks(&self) -> usize {
        self.pasts.values().map(|past| past.table.ids().len()).sum()
    }
}
