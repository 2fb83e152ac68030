//! What is kept of a vector.

use candlewick_kernels::Line;

use crate::Similarity;

/// What a number of a vector is kept as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VectorPrecision {
    F32,
    /// A byte, with one scale for each vector.
    Int8,
    /// A bit: whether it is positive.
    Binary,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VectorShape {
    /// Numbers of a vector.
    pub width: usize,
    pub similarity: Similarity,
    /// What a search reads of every vector.
    pub precision: VectorPrecision,
    /// What scores are computed from; `precision`, except that bits may be rescored with more.
    pub rescore: VectorPrecision,
}

/// Bytes of a block's f32 rows, about: half a core's cache, with the int8 rows beside it.
const BLOCK_BYTES: usize = 4 << 20;

impl VectorShape {
    pub(super) fn has_floats(&self) -> bool {
        self.rescore == VectorPrecision::F32
    }

    /// f32 rows have int8 ones beside them, which a search reads instead (`search.rs`); no bound is known for sums of
    /// absolute differences.
    pub(super) fn has_bytes(&self) -> bool {
        self.rescore == VectorPrecision::Int8 || self.is_bounded() && self.precision == VectorPrecision::F32
    }

    pub(super) fn has_bits(&self) -> bool {
        self.precision == VectorPrecision::Binary
    }

    /// Whether int8 products bound the scores.
    pub(super) fn is_bounded(&self) -> bool {
        self.precision != VectorPrecision::Binary && self.similarity != Similarity::Manhattan
    }

    /// Lines of an int8 row.
    pub(super) fn lines(&self) -> usize {
        self.width.div_ceil(size_of::<Line>())
    }

    /// Words of a row of bits.
    pub(super) fn words(&self) -> usize {
        self.width.div_ceil(64)
    }

    /// Rows of every block but the last.
    pub fn block_rows(&self) -> usize {
        (BLOCK_BYTES / (4 * self.width) / 64 * 64).clamp(64, 1 << 14)
    }

    /// Bytes that are kept of a vector.
    pub fn row_bytes(&self) -> usize {
        let floats = if self.has_floats() { 4 * self.width } else { 0 };
        let bytes = if self.has_bytes() { size_of::<Line>() * self.lines() + 12 } else { 0 };
        let bits = if self.has_bits() { 8 * self.words() } else { 0 };
        floats + bytes + bits
    }
}
