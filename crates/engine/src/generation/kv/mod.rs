//! Which sequence has which blocks of the backend's memory for keys and values.
//!
//! `allocator.rs` knows which blocks are free, `table.rs` is a sequence's list of blocks, `prefix.rs` finds blocks that
//! an earlier sequence with the same beginning has computed, `memory.rs` is the three together.

pub(super) mod allocator;
pub(super) mod memory;
pub(super) mod prefix;
pub(super) mod table;
#[cfg(test)]
mod tests;
