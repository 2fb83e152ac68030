//! The functions of `math.rs`, 16 at a time: the same operations in the same order.

use super::operations::Simd;
use crate::math::{erf, exp as exp_, gelu_new as gelu_new_, tanh as tanh_};
use crate::{Activation, math};

#[inline(always)]
pub(crate) fn exp<S: Simd>(s: S, x: S::F) -> S::F {
    let magic = s.splat(exp_::MAGIC);
    let t = s.fma(x, s.splat(std::f32::consts::LOG2_E), magic);
    let n = s.sub_i(s.bits(t), s.bits(magic));
    let nf = s.sub(t, magic);
    let r = s.fma(nf, s.splat(-exp_::LN2_HI), x);
    let r = s.fma(nf, s.splat(-exp_::LN2_LO), r);
    let p = polynomial(s, &exp_::P, r);
    let y = s.add(s.fma(p, s.mul(r, r), r), s.splat(1.0));
    let half = s.half_i(n);
    let y = s.mul(s.mul(y, power_of_two(s, half)), power_of_two(s, s.sub_i(n, half)));
    let y = s.select_lt(x, s.splat(exp_::LOW), s.zero(), y);
    s.select_lt(s.splat(exp_::HIGH), x, s.splat(f32::INFINITY), y)
}

#[inline(always)]
fn power_of_two<S: Simd>(s: S, n: S::I) -> S::F {
    s.floats(s.shl23_i(s.add_i(n, s.splat_i(127))))
}

#[inline(always)]
fn polynomial<S: Simd, const C: usize>(s: S, coefficients: &[f32; C], x: S::F) -> S::F {
    let mut p = s.splat(coefficients[0]);
    for c in &coefficients[1..] {
        p = s.fma(p, x, s.splat(*c));
    }
    p
}

/// x P(x²) / Q(x²) with x clamped.
#[inline(always)]
pub(crate) fn odd_rational<S: Simd, const C: usize, const D: usize>(
    s: S,
    bound: f32,
    p: &[f32; C],
    q: &[f32; D],
    x: S::F,
) -> S::F {
    let (low, high) = (s.splat(-bound), s.splat(bound));
    let x = s.select_lt(x, low, low, x);
    let x = s.select_lt(high, x, high, x);
    let x2 = s.mul(x, x);
    s.div(s.mul(x, polynomial(s, p, x2)), polynomial(s, q, x2))
}

/// Not inlined into every use by hand: one copy per kernel is enough, the activation is known outside the loop.
#[inline(always)]
pub(crate) fn activate<S: Simd>(s: S, activation: Activation, x: S::F) -> S::F {
    match activation {
        Activation::GeluNew => {
            let cubic = s.mul(s.mul(s.splat(gelu_new_::CUBIC), x), x);
            let u = s.fma(cubic, x, s.mul(s.splat(gelu_new_::LINEAR), x));
            s.div(x, s.add(s.splat(1.0), exp(s, u)))
        }
        Activation::Gelu => {
            let half = s.mul(s.splat(0.5), x);
            let scaled = s.mul(x, s.splat(std::f32::consts::FRAC_1_SQRT_2));
            s.fma(half, odd_rational(s, erf::BOUND, &erf::P, &erf::Q, scaled), half)
        }
        Activation::Relu => s.select_lt(s.zero(), x, x, s.zero()),
        Activation::Silu => s.div(x, s.add(s.splat(1.0), exp(s, s.sub(s.zero(), x)))),
        Activation::Tanh => odd_rational(s, tanh_::BOUND, &tanh_::P, &tanh_::Q, x),
    }
}

/// The sum of the lanes, in the order that the reference folds them.
#[inline(always)]
pub(crate) fn fold<S: Simd>(s: S, x: S::F) -> f32 {
    math::fold(s.lanes(x))
}
