//! The scalar definition of every transcendental function, and the order in which lanes are summed. The vector versions
//! do the same operations in the same order, so they give the same bits on every instruction set; the tests hold both
//! to f64.
#![allow(clippy::excessive_precision)] // constants keep the digits they were published with

use crate::types::LANES;

/// Folds 16 lanes: halves onto halves.
#[inline(always)]
pub fn fold(mut lanes: [f32; LANES]) -> f32 {
    for step in [8, 4, 2, 1] {
        for i in 0..step {
            lanes[i] += lanes[i + step];
        }
    }
    lanes[0]
}

/// exp(x): 0 below -87.33, infinity above 88.72. Cephes' polynomial on [-ln2/2, ln2/2]; relative error below 1.2e-7
/// (1 ulp) for normal results.
pub fn exp(x: f32) -> f32 {
    // Adding 1.5 * 2^23 leaves round-half-even(x / ln 2) in the low bits.
    let t = x.mul_add(std::f32::consts::LOG2_E, exp::MAGIC);
    let n = (t.to_bits() as i32).wrapping_sub(exp::MAGIC.to_bits() as i32);
    let nf = t - exp::MAGIC;
    let r = nf.mul_add(-exp::LN2_HI, x);
    let r = nf.mul_add(-exp::LN2_LO, r);
    let mut p = exp::P[0];
    for c in &exp::P[1..] {
        p = p.mul_add(r, *c);
    }
    let y = p.mul_add(r * r, r) + 1.0;
    // 2^n in two steps: n reaches 128, whose power alone is not a float.
    let half = n >> 1;
    let y = y * power_of_two(half) * power_of_two(n.wrapping_sub(half));
    let y = if x < exp::LOW { 0.0 } else { y };
    if exp::HIGH < x { f32::INFINITY } else { y }
}

fn power_of_two(n: i32) -> f32 {
    f32::from_bits((n.wrapping_add(127) as u32) << 23)
}

/// tanh(x): the rational approximation that Eigen uses, clamped at ±7.9; absolute error below 4e-7.
pub fn tanh(x: f32) -> f32 {
    let x = clamp(x, tanh::BOUND);
    let x2 = x * x;
    let mut p = tanh::P[0];
    for c in &tanh::P[1..] {
        p = p.mul_add(x2, *c);
    }
    let mut q = tanh::Q[0];
    for c in &tanh::Q[1..] {
        q = q.mul_add(x2, *c);
    }
    x * p / q
}

/// erf(x): the rational approximation that Eigen uses, clamped at ±4; absolute error below 5e-7.
pub fn erf(x: f32) -> f32 {
    let x = clamp(x, erf::BOUND);
    let x2 = x * x;
    let mut p = erf::P[0];
    for c in &erf::P[1..] {
        p = p.mul_add(x2, *c);
    }
    let mut q = erf::Q[0];
    for c in &erf::Q[1..] {
        q = q.mul_add(x2, *c);
    }
    x * p / q
}

/// x Φ(x): BERT's `gelu`.
pub fn gelu(x: f32) -> f32 {
    let half = 0.5 * x;
    half.mul_add(erf(x * std::f32::consts::FRAC_1_SQRT_2), half)
}

/// GPT-2's `gelu_new`: x/2 (1 + tanh u) = x / (1 + exp(-2u)) with u = √(2/π) (x + 0.044715 x³).
pub fn gelu_new(x: f32) -> f32 {
    let u = (gelu_new::CUBIC * x * x).mul_add(x, gelu_new::LINEAR * x);
    x / (1.0 + exp(u))
}

/// x / (1 + exp(-x)).
pub fn silu(x: f32) -> f32 {
    x / (1.0 + exp(-x))
}

/// A NaN stays one: both comparisons are false.
fn clamp(x: f32, bound: f32) -> f32 {
    let x = if x < -bound { -bound } else { x };
    if bound < x { bound } else { x }
}

pub(crate) mod exp {
    pub const MAGIC: f32 = 12_582_912.0;
    pub const LN2_HI: f32 = 0.693_359_375;
    pub const LN2_LO: f32 = -2.121_944_4e-4;
    pub const LOW: f32 = -87.336_54;
    pub const HIGH: f32 = 88.722_83;
    pub const P: [f32; 6] =
        [1.987_569_1e-4, 1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 5.000_000_1e-1];
}

pub(crate) mod tanh {
    pub const BOUND: f32 = 7.905_311;
    pub const P: [f32; 7] = [
        -2.760_768_5e-16,
        2.000_188e-13,
        -8.604_671_5e-11,
        5.122_297e-8,
        1.485_722_4e-5,
        6.372_619_3e-4,
        4.893_524_6e-3,
    ];
    pub const Q: [f32; 4] = [1.198_258_4e-6, 1.185_347_1e-4, 2.268_434_6e-3, 4.893_525_2e-3];
}

pub(crate) mod erf {
    pub const BOUND: f32 = 4.0;
    pub const P: [f32; 7] = [
        -2.726_142_3e-10,
        2.770_681_4e-8,
        -2.101_023_9e-6,
        -5.692_506_4e-5,
        -7.349_906_3e-4,
        -2.954_6e-3,
        -1.609_603_3e-2,
    ];
    pub const Q: [f32; 5] = [-1.456_607_2e-5, -2.133_740_6e-4, -1.682_827e-3, -7.373_329e-3, -1.426_473_9e-2];
}

pub(crate) mod gelu_new {
    /// -2 √(2/π) and that times 0.044715.
    pub const LINEAR: f32 = -1.595_769_1;
    pub const CUBIC: f32 = -7.135_481_6e-2;
}
