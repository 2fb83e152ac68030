//! Which sequence has which blocks of the backend's memory for keys and values.
//!
//! `allocator.rs` knows which blocks are free, `table.rs` is a sequence's list of blocks, `prefix.rs` finds blocks that
//! an earlier sequence with the same beginning has computed, `guests.rs` keeps what only serves for guesses.
//! `memory.rs` is all of them together.

pub(super) mod allocator;
pub(super) mod guests;
pub(super) mod memory;
pub(super) mod prefix;
pub(super) mod table;
#[cfg(test)]
mod tests;
