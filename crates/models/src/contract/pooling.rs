//! From token vectors to one vector of a text, as sentence-transformers makes it.

use crate::contract::projection::normalize;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PoolingMode {
    Cls,
    Max,
    Mean,
    /// The sum over √T.
    MeanSqrtLength,
    /// Token i weighs i + 1.
    WeightedMean,
    Last,
}

/// From token vectors to one vector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pooling {
    /// Several are concatenated.
    pub modes: Vec<PoolingMode>,
    /// Whether a prompt's tokens count.
    pub include_prompt: bool,
}

impl Default for Pooling {
    fn default() -> Self {
        Self { modes: vec![PoolingMode::Mean], include_prompt: true }
    }
}

/// A vector that is wanted of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PooledWant {
    /// Several are concatenated.
    pub modes: Vec<PoolingMode>,
    /// Whether it is scaled to length 1.
    pub normalize: bool,
    /// The first tokens, which do not count; of a text with no more tokens, all do.
    pub skipped: usize,
}

impl PooledWant {
    /// `states` (T, H), T = `tokens` → (H) for each mode, one after the other.
    pub fn apply(&self, states: &[f32], tokens: usize) -> Vec<f32> {
        let h = states.len() / tokens;
        let skipped = if self.skipped < tokens { self.skipped } else { 0 };
        let rows = || states.chunks_exact(h).enumerate().skip(skipped);
        let count = (tokens - skipped) as f32;
        let mut vector = Vec::with_capacity(h * self.modes.len());
        for mode in &self.modes {
            let sum = |weight: fn(usize) -> f32| {
                let mut sum = vec![0.0; h];
                for (index, row) in rows() {
                    let weight = weight(index);
                    sum.iter_mut().zip(row).for_each(|(sum, x)| *sum += weight * x);
                }
                sum
            };
            let over = |mut sum: Vec<f32>, divisor: f32| {
                sum.iter_mut().for_each(|x| *x /= divisor);
                sum
            };
            vector.extend(match mode {
                PoolingMode::Cls => states[skipped * h..][..h].to_vec(),
                PoolingMode::Last => states[(tokens - 1) * h..].to_vec(),
                PoolingMode::Mean => over(sum(|_| 1.0), count),
                PoolingMode::MeanSqrtLength => over(sum(|_| 1.0), count.sqrt()),
                PoolingMode::WeightedMean => {
                    let weights = rows().map(|(index, _)| index as f32 + 1.0).sum();
                    over(sum(|index| index as f32 + 1.0), weights)
                }
                PoolingMode::Max => {
                    let mut most = vec![f32::NEG_INFINITY; h];
                    for (_, row) in rows() {
                        most.iter_mut().zip(row).for_each(|(most, x)| *most = most.max(*x));
                    }
                    most
                }
            });
        }
        self.scale(&mut vector);
        vector
    }

    /// Scales the vector to length 1, if that is wanted.
    pub fn scale(&self, vector: &mut [f32]) {
        if self.normalize {
            normalize(vector);
        }
    }
}
