//! Caches of finished sequences, reused for prompts with the same beginning: the next turn of a dialogue, another
//! question under the same instructions. Exact, because a position's keys and values do not depend on the pass that
//! computed them.

use std::collections::VecDeque;

use candlewick_models::{Cache, CausalInfo};

/// More entries would rarely be hit, but every lookup would search them.
const ENTRIES: usize = 4;
/// Memory for them; about 1,800 positions of a 124M GPT-2.
const BYTES: usize = 128 << 20;
/// A shorter prefix is computed faster than it is found and copied.
const SHORTEST: usize = 16;

pub(crate) struct Prefixes {
    /// Newest last. `tokens` are as many as are in the cache.
    entries: VecDeque<(Vec<u32>, Box<dyn Cache>)>,
    /// Positions that fit in [`BYTES`].
    limit: usize,
}

impl Prefixes {
    pub fn new(info: &CausalInfo) -> Self {
        let position = 2 * size_of::<f32>() * info.n_layer * info.n_embd;
        Self { entries: VecDeque::new(), limit: BYTES / position.max(1) }
    }

    /// The cache with this adapter that begins most like `tokens` and how much of it they share; the last of `tokens`
    /// is never counted, because its logits are needed.
    pub fn longest(&self, tokens: &[u32], adapter: Option<usize>) -> Option<(usize, &dyn Cache)> {
        let shared = |known: &[u32]| known.iter().zip(tokens).take_while(|(a, b)| a == b).count();
        let most = tokens.len().saturating_sub(1);
        let entries = self.entries.iter().filter(|(_, cache)| cache.adapter() == adapter);
        let entries = entries.map(|(known, cache)| (shared(known).min(most), known.len(), cache));
        // A copy takes the whole entry along, so a long one must be worth it.
        let worth = entries.filter(|(shared, length, _)| *shared >= SHORTEST && shared * 8 >= *length);
        worth.max_by_key(|(shared, ..)| *shared).map(|(shared, _, cache)| (shared, cache.as_ref()))
    }

    pub fn keep(&mut self, mut tokens: Vec<u32>, cache: Box<dyn Cache>) {
        tokens.truncate(cache.len());
        if tokens.len() < SHORTEST || cache.capacity() > self.limit {
            return;
        }
        let adapter = cache.adapter();
        self.entries.retain(|(known, cache)| cache.adapter() != adapter || !tokens.starts_with(known));
        self.entries.push_back((tokens, cache));
        let size = |entries: &VecDeque<(Vec<u32>, Box<dyn Cache>)>| {
            entries.iter().map(|(_, cache)| cache.capacity()).sum::<usize>()
        };
        while self.entries.len() > ENTRIES || size(&self.entries) > self.limit {
            self.entries.pop_front();
        }
    }

    /// Forgets everything: after a panic no cache that the model wrote is trusted.
    pub fn clear(&mut self) {
        self.entries.clear();
    }
}
