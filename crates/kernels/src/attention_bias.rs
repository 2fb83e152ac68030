//! What attention adds to its scores in models whose positions act there (MPNet's, T5's): a number that depends on the
//! head and on how far the key is from the query.

use crate::types::LANES;

/// For each head a row with a number for each distance, so that the numbers of a query's keys lie one after the other.
#[derive(Debug, Clone, PartialEq)]
pub struct DistanceBias {
    /// [heads, 2 * span - 1, padded by whole lanes]: from the farthest key before a query to the farthest after it.
    values: Vec<f32>,
    heads: usize,
    span: usize,
}

impl DistanceBias {
    /// For sequences of at most `span` positions. `value(head, ahead)`: of a key that lies `ahead` positions after its
    /// query, or before it where that is negative.
    pub fn new(heads: usize, span: usize, value: impl Fn(usize, isize) -> f32) -> Self {
        let span = span.max(1);
        let farthest = span as isize - 1;
        let mut values = Vec::with_capacity(heads * Self::stride(span));
        for head in 0..heads {
            values.extend((-farthest..=farthest).map(|ahead| value(head, ahead)));
            values.resize(values.len() + LANES, 0.0);
        }
        Self { values, heads, span }
    }

    fn stride(span: usize) -> usize {
        2 * span - 1 + LANES
    }

    pub fn heads(&self) -> usize {
        self.heads
    }

    /// Positions that a sequence may have.
    pub fn span(&self) -> usize {
        self.span
    }

    /// Of the query at `position`: the numbers of keys 0, 1, …, as many as `span`, and a line of lanes more to read.
    pub fn of(&self, head: usize, position: usize) -> &[f32] {
        let stride = Self::stride(self.span);
        &self.values[head * stride..][..stride][self.span - 1 - position..]
    }
}
