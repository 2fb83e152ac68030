//! Random bits as a function of (key, index): a mask can be made again for the backward pass, or after a restart.

use crate::types::LANES;

/// One key from several numbers (a seed, a step, a place in the model): SplitMix64 over each in turn.
pub fn key(parts: &[u64]) -> u64 {
    parts.iter().fold(0x9e37_79b9_7f4a_7c15, |state, part| split_mix(state ^ split_mix(*part)))
}

fn split_mix(x: u64) -> u64 {
    let mut z = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// 32 bits for an index: two rounds of a multiply-xorshift hash (C. Wellons' `lowbias32`), half of the key before each.
#[inline(always)]
pub fn bits(key: u64, index: u32) -> u32 {
    low_bias(low_bias(index ^ key as u32).wrapping_add((key >> 32) as u32))
}

#[inline(always)]
fn low_bias(mut h: u32) -> u32 {
    h = (h ^ (h >> 16)).wrapping_mul(0x7feb_352d);
    h = (h ^ (h >> 15)).wrapping_mul(0x846c_a68b);
    h ^ (h >> 16)
}

/// Uniform in [0, 1), 24 bits.
pub fn uniform(key: u64, index: u32) -> f32 {
    (bits(key, index) >> 8) as f32 * (1.0 / (1 << 24) as f32)
}

/// Normal with mean 0 and deviation 1 (Box–Muller, in f64).
pub fn normal(key: u64, index: u32) -> f32 {
    let u = |half: u32| (f64::from(bits(key ^ u64::from(half), index)) + 0.5) / 4_294_967_296.0;
    ((-2.0 * u(1).ln()).sqrt() * (std::f64::consts::TAU * u(2)).cos()) as f32
}

/// Drops values with probability `p` and scales the others by 1 / (1 - p).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Dropout {
    key: u64,
    /// Values whose bits are below are dropped.
    threshold: u32,
    scale: f32,
}

impl Dropout {
    /// `None` for p = 0. `p` must be below 1.
    pub fn new(p: f32, key: u64) -> Option<Self> {
        assert!((0.0..1.0).contains(&p), "dropout is a probability below 1");
        let threshold = (f64::from(p) * 4_294_967_296.0) as u32;
        (p > 0.0).then_some(Self { key, threshold, scale: 1.0 / (1.0 - p) })
    }

    /// The mask of a part of its own (a row of an attention matrix).
    #[inline(always)]
    pub(crate) fn part(self, part: u64) -> Self {
        Self { key: split_mix(self.key ^ part), ..self }
    }

    /// Factors for 16 values from `index` on: 0 or 1 / (1 - p).
    #[inline(always)]
    pub(crate) fn factors(self, index: u32) -> [f32; LANES] {
        let mut factors = [0.0; LANES];
        for (lane, factor) in factors.iter_mut().enumerate() {
            let keep = bits(self.key, index.wrapping_add(lane as u32)) >= self.threshold;
            *factor = if keep { self.scale } else { 0.0 };
        }
        factors
    }
}
