//! int8 in blocks of 128 along K, for weights and inputs alike, each block turned by a Hadamard matrix first.
//!
//! A product over K does not change if both its sides are turned: x · w = (H x) · (H w) / 128, for H Hᵀ = 128 I.
//! Turned, a block's values are sums of all its values with signs, so none stands out, and an outlier (BERT's norms
//! have columns ten times as large as the rest) no longer takes the others' precision. It needs no calibration data;
//! the idea is QuaRot's (Ashkboos et al. 2024), in blocks. K is padded with zeros to whole blocks.
//!
//! A block has one scale in f32 per output, or per row of the input. Its sum is exact in i32, and in f32 too:
//! 128 · 127 · 127 < 2²⁴.

use crate::blocks::{largest, scale_of};
use crate::types::{INT8_BLOCK, LANES};

/// H x, by strides from 64 down to 1: each pair of values that far apart becomes its sum and its difference.
pub(crate) fn turn(x: &mut [f32; INT8_BLOCK]) {
    for_each_pair(|i, j| (x[i], x[j]) = (x[i] + x[j], x[i] - x[j]));
}

/// The places of each pair, in the order in which [`turn`] takes them.
#[inline(always)]
pub(crate) fn for_each_pair(mut take: impl FnMut(usize, usize)) {
    let mut stride = INT8_BLOCK / 2;
    while stride > 0 {
        for first in (0..INT8_BLOCK).step_by(2 * stride) {
            for i in first..first + stride {
                take(i, i + stride);
            }
        }
        stride /= 2;
    }
}

/// The input's block: scale, and turned values in [-127, 127], rounded half to even.
pub(crate) fn quantize_input(mut x: [f32; INT8_BLOCK]) -> (f32, [i8; INT8_BLOCK]) {
    turn(&mut x);
    let (scale, factor) = scale_of(largest(&x));
    (scale, x.map(|x| (x * factor).round_ties_even() as i8))
}

/// A turned block of the weights, 16 outputs side by side. The scales have the 1/128 of the inverse in them.
#[inline(always)]
pub(crate) fn quantize_weights(x: &[[f32; LANES]; INT8_BLOCK]) -> ([f32; LANES], [[i32; LANES]; INT8_BLOCK]) {
    let mut most = [0u32; LANES];
    for x in x {
        most.iter_mut().zip(x).for_each(|(most, x)| *most = (*most).max(x.to_bits() & 0x7fff_ffff));
    }
    let scales = most.map(scale_of);
    let mut quants = [[0; LANES]; INT8_BLOCK];
    for (q, x) in quants.iter_mut().zip(x) {
        q.iter_mut().zip(x).zip(&scales).for_each(|((q, x), (_, f))| *q = (x * f).round_ties_even() as i32);
    }
    (scales.map(|(scale, _)| scale / INT8_BLOCK as f32), quants)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turning_twice_is_128_times() {
        let before: [f32; INT8_BLOCK] = std::array::from_fn(|i| (i * i % 31) as f32 - 15.0);
        let mut x = before;
        turn(&mut x);
        turn(&mut x);
        assert_eq!(x, before.map(|x| 128.0 * x));
    }

    /// One value that is 50 times the others costs the others nothing.
    #[test]
    fn an_outlier_keeps_the_others_precision() {
        let mut x: [f32; INT8_BLOCK] = std::array::from_fn(|i| ((i * 37 % 101) as f32 / 50.0 - 1.0).sin());
        x[77] = 50.0;
        let (scale, quants) = quantize_input(x);
        let mut back = quants.map(f32::from);
        turn(&mut back);
        let worst = x.iter().zip(back).map(|(x, b)| (x - b * scale / 128.0).abs()).fold(0.0, f32::max);
        assert!(worst < 0.06, "{worst}; plain int8 would round to multiples of {}", 50.0 / 127.0);
    }
}
