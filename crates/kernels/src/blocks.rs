//! Blocks of 32 values with one scale: GGUF's `Q8_0` and `Q4_0` for weights, and the int8 form of the input.

use crate::types::{BLOCK, LANES};

/// Bytes of one GGUF block: an f16 scale and 32 int8.
pub const Q8_0_BYTES: usize = 34;
/// Bytes of one GGUF block: an f16 scale and 32 nibbles; byte i holds value i (low) and value i + 16 (high).
pub const Q4_0_BYTES: usize = 18;

/// As ggml quantises to Q8_0, for 16 outputs side by side, so both agree on the same checkpoint: d = max|x| / 127,
/// rounded half away from zero. Scales (to be stored as f16) and values in [-127, 127].
#[inline(always)]
pub(crate) fn quantize_q8_0(x: &[[f32; LANES]; BLOCK]) -> ([f32; LANES], [[i32; LANES]; BLOCK]) {
    let mut most = [0f32; LANES];
    for x in x {
        most = std::array::from_fn(|l| if x[l].abs() > most[l] { x[l].abs() } else { most[l] });
    }
    let d = most.map(|most| most / 127.0);
    let inverse = d.map(|d| if d > 0.0 { 1.0 / d } else { 0.0 });
    let mut quants = [[0; LANES]; BLOCK];
    for (q, x) in quants.iter_mut().zip(x) {
        *q = std::array::from_fn(|l| (x[l] * inverse[l]).round() as i32);
    }
    (d, quants)
}

/// As ggml quantises to Q4_0: d = (the value of largest magnitude, the first of equals) / -8, stored as q + 8 in 0..16.
#[inline(always)]
pub(crate) fn quantize_q4_0(x: &[[f32; LANES]; BLOCK]) -> ([f32; LANES], [[i32; LANES]; BLOCK]) {
    let mut extreme = [0f32; LANES];
    for x in x {
        extreme = std::array::from_fn(|l| if x[l].abs() > extreme[l].abs() { x[l] } else { extreme[l] });
    }
    let d = extreme.map(|extreme| extreme / -8.0);
    let inverse = d.map(|d| if d != 0.0 { 1.0 / d } else { 0.0 });
    let mut quants = [[0; LANES]; BLOCK];
    for (q, x) in quants.iter_mut().zip(x) {
        *q = std::array::from_fn(|l| ((x[l] * inverse[l] + 8.5) as i32).clamp(0, 15));
    }
    (d, quants)
}

/// The input's block: scale, 32 int8 in [-127, 127] rounded half to even, and their sum.
///
/// A block whose largest magnitude is below 1e-30 counts as zeros (its inverse scale would overflow); one that holds an
/// infinity or a NaN has a NaN scale, so that every output it reaches is NaN.
pub(crate) fn quantize_input(x: &[f32; BLOCK]) -> (f32, [i8; BLOCK], i32) {
    let (scale, factor) = scale_of(largest(x));
    let q = x.map(|v| (v * factor).round_ties_even() as i8);
    (scale, q, q.iter().map(|v| i32::from(*v)).sum())
}

const INPUT_TINY: f32 = 1e-30;

/// The bits of the largest magnitude: they sort like magnitudes, with the NaNs at the top.
#[inline(always)]
pub(crate) fn largest(x: &[f32]) -> u32 {
    x.iter().fold(0, |most, x| most.max(x.to_bits() & 0x7fff_ffff))
}

/// Scale and factor of int8 for what has these bits as its largest magnitude: value = scale * round(value * factor).
/// Too small to divide by counts as zero; infinities and NaNs give a NaN scale, and so a NaN wherever it is used. The
/// factor is 0 for both, and then all values are 0.
#[inline(always)]
pub(crate) fn scale_of(magnitude: u32) -> (f32, f32) {
    let most = f32::from_bits(magnitude);
    if most < INPUT_TINY {
        (0.0, 0.0)
    } else if most.is_finite() {
        (most / 127.0, 127.0 / most)
    } else {
        (f32::NAN, 0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// ggml's `quantize_row_q8_0_ref` and `quantize_row_q4_0_ref`, one block.
    fn q8_0(x: &[f32; BLOCK]) -> (f32, [i32; BLOCK]) {
        let most = x.iter().fold(0f32, |most, v| most.max(v.abs()));
        let d = most / 127.0;
        let inverse = if d == 0.0 { 0.0 } else { 1.0 / d };
        (d, x.map(|v| i32::from((v * inverse).round() as i8)))
    }

    fn q4_0(x: &[f32; BLOCK]) -> (f32, [i32; BLOCK]) {
        let (mut most, mut extreme) = (0f32, 0f32);
        for v in x {
            if most < v.abs() {
                (most, extreme) = (v.abs(), *v);
            }
        }
        let d = extreme / -8.0;
        let inverse = if d == 0.0 { 0.0 } else { 1.0 / d };
        (d, x.map(|v| i32::from(((v * inverse + 8.5) as i8).min(15))))
    }

    #[test]
    fn outputs_side_by_side_are_quantised_as_ggml_quantises_one() {
        let mut state = 1u32;
        let mut random = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        };
        for case in 0..200 {
            let mut block = [[0f32; LANES]; BLOCK];
            for (i, lanes) in block.iter_mut().enumerate() {
                *lanes = std::array::from_fn(|lane| match (case + lane) % 5 {
                    0 => random() * 1e-3,
                    1 => (random() * 8.0).round() / 2.0, // ties in rounding and in magnitude
                    2 if i % 7 != 3 => 0.0,
                    3 => 0.0,
                    _ => random() * 30.0,
                });
            }
            let (q8, q4) = (quantize_q8_0(&block), quantize_q4_0(&block));
            for lane in 0..LANES {
                let one = block.map(|lanes| lanes[lane]);
                assert_eq!((q8.0[lane], q8.1.map(|q| q[lane])), q8_0(&one), "q8_0 of {one:?}");
                assert_eq!((q4.0[lane], q4.1.map(|q| q[lane])), q4_0(&one), "q4_0 of {one:?}");
            }
        }
    }
}
