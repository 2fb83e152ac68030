//! A model's blocks: free, held by sequences, or kept for sequences to come and for guesses.

use candlewick_models::KvSpec;

use super::allocator::{Allocator, Block};
use super::guests::Guests;
use super::prefix::Prefixes;

pub(crate) struct Memory {
    allocator: Allocator,
    pub prefixes: Prefixes,
    pub guests: Guests,
    /// Positions a block.
    pub block: usize,
}

impl Memory {
    pub fn new(spec: KvSpec) -> Self {
        Self {
            allocator: Allocator::new(spec.blocks),
            prefixes: Prefixes::default(),
            guests: Guests::default(),
            block: spec.positions,
        }
    }

    /// A free block, or else one of a past that only serves for guesses, or else of a prefix that nobody uses. `None`:
    /// sequences hold them all.
    pub fn take(&mut self) -> Option<Block> {
        loop {
            if let Some(block) = self.allocator.take() {
                return Some(block);
            }
            if !self.guests.evict() && !self.prefixes.evict() {
                return None;
            }
        }
    }

    /// A block for a guess, which takes nothing from anybody but other guesses.
    pub fn take_for_guess(&mut self) -> Option<Block> {
        loop {
            if let Some(block) = self.allocator.take() {
                return Some(block);
            }
            if !self.guests.evict() {
                return None;
            }
        }
    }

    /// Blocks that [`take`](Self::take) could give.
    pub fn available(&self) -> usize {
        self.allocator.free() + self.prefixes.idle() + self.guests.blocks()
    }

    /// Blocks that nothing is in.
    pub fn free(&self) -> usize {
        self.allocator.free()
    }
}
