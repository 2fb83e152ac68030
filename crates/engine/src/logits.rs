//! Passes over a vocabulary of scores. A token's budget here is a fraction of a millisecond for 50,000 entries, so: no
//! sort of the whole, few passes, loops that vectorise. Every sum runs in one fixed order.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

use candlewick_models::ModelError;

use crate::error::Result;

/// Entries per partial sum: short enough that f32 lanes lose nothing that matters, long enough to be few.
pub(crate) const BLOCK: usize = 256;
const LANES: usize = 8;

pub(crate) fn max(scores: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let mut chunks = scores.chunks_exact(LANES);
    for chunk in &mut chunks {
        for (lane, score) in lanes.iter_mut().zip(chunk) {
            *lane = if *score > *lane { *score } else { *lane };
        }
    }
    lanes.iter().chain(chunks.remainder()).copied().fold(f32::NEG_INFINITY, f32::max)
}

/// # Errors
/// `NOT_FINITE`, where [`is_broken`].
pub(crate) fn check(scores: &[f32]) -> Result<()> {
    match is_broken(scores) {
        true => Err(ModelError::NotFinite("the model's logits".into()).into()),
        false => Ok(()),
    }
}

/// Whether any is NaN or plus infinity: a model that overflowed. Minus infinity is a legal score.
fn is_broken(scores: &[f32]) -> bool {
    // Folded per block, without an early exit inside, so that it vectorises.
    let broken = |x: &f32| u32::from(x.is_nan() | (*x == f32::INFINITY));
    scores.chunks(BLOCK).any(|chunk| chunk.iter().map(broken).fold(0, |a, b| a | b) != 0)
}

/// e^x for x ≤ 0, within 2 units in the last place; 0 below -87. Cephes' polynomial, without branches.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    const MAGIC: f32 = 12_582_912.0; // 1.5 × 2^23: adding it rounds to an integer in the low bits
    let clamped = if x > -87.0 { x } else { -87.0 };
    let shifted = clamped * std::f32::consts::LOG2_E + MAGIC;
    let n = shifted - MAGIC;
    let r = clamped - n * 0.693_359_4 - n * -2.121_944_4e-4;
    let p = 1.987_569_1e-4;
    let p = p * r + 1.398_199_9e-3;
    let p = p * r + 8.333_452e-3;
    let p = p * r + 4.166_579_6e-2;
    let p = p * r + 1.666_666_5e-1;
    let p = p * r + 0.5;
    let y = p * r * r + r + 1.0;
    let scale = f32::from_bits(shifted.to_bits().wrapping_sub(MAGIC.to_bits()).wrapping_add(127) << 23);
    if x > -87.0 { y * scale } else { 0.0 }
}

/// Writes e^(score - max) to `weights`, and the sum of each block to `sums`. Returns the total.
pub(crate) fn exponentials(scores: &[f32], max: f32, weights: &mut Vec<f32>, sums: &mut Vec<f64>) -> f64 {
    weights.clear();
    weights.extend(scores.iter().map(|score| exp(score - max)));
    sums.clear();
    sums.extend(weights.chunks(BLOCK).map(sum));
    sums.iter().sum()
}

/// The sum of one block, in lanes.
pub(crate) fn sum(block: &[f32]) -> f64 {
    let mut lanes = [0f32; LANES];
    let mut chunks = block.chunks_exact(LANES);
    for chunk in &mut chunks {
        for (lane, x) in lanes.iter_mut().zip(chunk) {
            *lane += x;
        }
    }
    lanes.iter().chain(chunks.remainder()).map(|x| f64::from(*x)).sum()
}

/// ln Σ e^score.
pub(crate) fn log_sum_exp(scores: &[f32]) -> f64 {
    let max = max(scores);
    let mut block = [0f32; BLOCK];
    let mut total = 0f64;
    for chunk in scores.chunks(BLOCK) {
        for (weight, score) in block.iter_mut().zip(chunk) {
            *weight = exp(score - max);
        }
        total += sum(&block[..chunk.len()]);
    }
    f64::from(max) + total.ln()
}

/// The first of the largest.
pub(crate) fn argmax(scores: &[f32]) -> Option<u32> {
    let max = max(scores);
    scores.iter().position(|score| *score == max).map(|at| at as u32)
}

/// An entry; the greater one is better: higher score, then lower id.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Entry {
    pub score: f32,
    pub id: u32,
}

impl Eq for Entry {}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> Ordering {
        self.score.total_cmp(&other.score).then(other.id.cmp(&self.id))
    }
}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The `k` best entries, best first. About V comparisons and k·ln(V/k) heap steps.
pub(crate) fn largest(scores: &[f32], k: usize) -> Vec<Entry> {
    let k = k.min(scores.len());
    let entry = |(id, score): (usize, &f32)| Entry { score: *score, id: id as u32 };
    let mut heap: BinaryHeap<Reverse<Entry>> =
        scores.iter().enumerate().take(k).map(|x| Reverse(entry(x))).collect();
    let Some(Reverse(worst)) = heap.peek() else { return Vec::new() };
    let mut bar = worst.score;
    let mut first = k;
    for chunk in scores[k..].chunks(2 * LANES) {
        // One test for the whole chunk: nearly all chunks hold nothing above the bar.
        if chunk.iter().fold(false, |any, score| any | (*score > bar)) {
            for (offset, score) in chunk.iter().enumerate() {
                if *score > bar {
                    heap.pop();
                    heap.push(Reverse(Entry { score: *score, id: (first + offset) as u32 }));
                    bar = heap.peek().map_or(bar, |worst| worst.0.score);
                }
            }
        }
        first += chunk.len();
    }
    heap.into_sorted_vec().into_iter().map(|Reverse(entry)| entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generation::sampling::rng::uniform;

    fn noise(n: u64, step: f32) -> Vec<f32> {
        (0..n).map(|i| ((uniform(1, i, 9) as f32 * 20.0 - 10.0) / step).round() * step).collect()
    }

    #[test]
    fn exp_is_exact_to_two_ulps() {
        let worst = (0..200_000)
            .map(|i| {
                let x = -(i as f32) * 87.0 / 200_000.0;
                let exact = f64::from(x).exp();
                (f64::from(exp(x)) - exact).abs() / exact
            })
            .fold(0.0, f64::max);
        assert!(worst < 2.4e-7, "{worst}");
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(-1000.0), 0.0);
    }

    #[test]
    fn largest_agrees_with_a_sort_ties_by_id() {
        for (n, step) in [(1, 1.0), (17, 1.0), (1000, 0.5), (5000, 1e-4)] {
            let scores = noise(n, step);
            let mut sorted: Vec<Entry> =
                scores.iter().enumerate().map(|(id, score)| Entry { score: *score, id: id as u32 }).collect();
            sorted.sort_by(|a, b| b.cmp(a));
            for k in [1, 2, 16, 50, 999, 10_000] {
                assert_eq!(largest(&scores, k), sorted[..k.min(sorted.len())], "{n} {k}");
            }
        }
        assert!(largest(&[], 3).is_empty() && largest(&[1.0], 0).is_empty());
    }

    #[test]
    fn sums_agree_with_f64() {
        let scores = noise(50_257, 1e-4);
        let exact = scores.iter().map(|x| f64::from(*x).exp()).sum::<f64>().ln();
        assert!((log_sum_exp(&scores) - exact).abs() < 1e-6);
        let (mut weights, mut sums) = (Vec::new(), Vec::new());
        let total = exponentials(&scores, max(&scores), &mut weights, &mut sums);
        assert!((total.ln() + f64::from(max(&scores)) - exact).abs() < 1e-6);
    }

    #[test]
    fn broken_is_nan_or_plus_infinity() {
        let mut scores = noise(777, 0.1);
        scores[3] = f32::NEG_INFINITY;
        assert!(!is_broken(&scores));
        for bad in [f32::NAN, -f32::NAN, f32::INFINITY] {
            scores[776] = bad;
            assert!(is_broken(&scores), "{bad}");
        }
    }
}
