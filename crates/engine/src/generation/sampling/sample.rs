//! Chooses one token from scores, and gives its log-probability.

use crate::generation::sampling::processors::{Processors, Scratch};
use crate::generation::sampling::rng::uniform;
use crate::logits::{self, BLOCK, largest};

/// Draws one token: the inverse of the cumulative distribution in the order of ids, at a number that depends on nothing
/// but (seed, position, sample). `None`: every token is banned.
pub fn sample(scores: &[f32], seed: u64, position: u64, sample: u32, scratch: &mut Scratch) -> Option<u32> {
    let max = logits::max(scores);
    if max == f32::NEG_INFINITY {
        return None;
    }
    let total = logits::exponentials(scores, max, &mut scratch.weights, &mut scratch.sums);
    let mut left = uniform(seed, position, sample) * total;
    // Whole blocks first, then inside one. Rounding may leave a crumb after the last token; it goes to the last
    // possible one.
    let mut fallback = None;
    for (sum, (index, block)) in scratch.sums.iter().zip(scratch.weights.chunks(BLOCK).enumerate()) {
        if left >= *sum && index + 1 < scratch.sums.len() {
            left -= sum;
            continue;
        }
        for (offset, weight) in block.iter().enumerate() {
            if *weight > 0.0 {
                fallback = Some((index * BLOCK + offset) as u32);
                if left < f64::from(*weight) {
                    return fallback;
                }
                left -= f64::from(*weight);
            }
        }
    }
    fallback.or_else(|| scratch.weights.iter().rposition(|weight| *weight > 0.0).map(|id| id as u32))
}

/// Chooses the next token after `tokens`, of which the first `prompt` are the prompt. Overwrites `logits`.
pub fn choose(
    processors: &Processors,
    logits: &mut [f32],
    tokens: &[u32],
    prompt: usize,
    (seed, which): (u64, u32),
    scratch: &mut Scratch,
) -> Option<u32> {
    processors.adjust(logits, tokens, prompt, scratch);
    if processors.is_greedy() {
        return logits::argmax(logits).filter(|id| logits[*id as usize] > f32::NEG_INFINITY);
    }
    processors.warp(logits, scratch);
    sample(logits, seed, tokens.len() as u64, which, scratch)
}

/// Log-softmax of the raw logits, where it is asked for.
pub(crate) struct Logprobs {
    log_sum: f64,
    /// Best first: (id, logprob).
    pub top: Vec<(u32, f32)>,
}

impl Logprobs {
    /// Reads the logits before [`choose`] overwrites them.
    pub fn of(logits: &[f32], top: usize) -> Self {
        let log_sum = logits::log_sum_exp(logits);
        let top =
            largest(logits, top).iter().map(|entry| (entry.id, relative(entry.score, log_sum))).collect();
        Self { log_sum, top }
    }

    pub fn at(&self, logit: f32) -> f32 {
        relative(logit, self.log_sum)
    }
}

fn relative(logit: f32, log_sum: f64) -> f32 {
    (f64::from(logit) - log_sum) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frequencies_follow_the_distribution() {
        let scores: Vec<f32> = [0.1f32, 0.0, 0.4, 0.5].iter().map(|p| p.ln()).collect();
        let mut counts = [0usize; 4];
        let mut scratch = Scratch::default();
        for position in 0..20_000 {
            counts[sample(&scores, 1, position, 0, &mut scratch).unwrap() as usize] += 1;
        }
        for (count, p) in counts.iter().zip([0.1, 0.0, 0.4, 0.5]) {
            assert!((*count as f64 / 20_000.0 - p).abs() < 0.01, "{counts:?}");
        }
    }

    #[test]
    fn draws_from_any_block_and_never_a_banned_token() {
        let mut scores = vec![f32::NEG_INFINITY; 5 * BLOCK + 3];
        let alive = [7, BLOCK + 1, 4 * BLOCK, 4 * BLOCK + 255];
        alive.iter().for_each(|id| scores[*id] = 1.0);
        let mut scratch = Scratch::default();
        let mut seen = std::collections::BTreeSet::new();
        for position in 0..200 {
            seen.insert(sample(&scores, 3, position, 0, &mut scratch).unwrap() as usize);
        }
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), alive);
        assert_eq!(sample(&[f32::NEG_INFINITY; 9], 3, 0, 0, &mut scratch), None);
    }

    #[test]
    fn logprobs_are_log_softmax() {
        let logits = [1.0f32, 3.0, 2.0];
        let log_sum = logits.iter().map(|x| f64::from(*x).exp()).sum::<f64>().ln();
        let logprobs = Logprobs::of(&logits, 2);
        assert!((f64::from(logprobs.at(1.0)) - (1.0 - log_sum)).abs() < 1e-6);
        assert_eq!(logprobs.top.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [1, 2]);
    }
}
