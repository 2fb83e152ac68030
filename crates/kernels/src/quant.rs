//! Blocks of 32 values with one scale: GGUF's `Q8_0` and `Q4_0` for weights, and the int8 form of the input.

use half::f16;

/// Values per block along K.
pub const BLOCK: usize = 32;
/// Bytes of one GGUF block: an f16 scale and 32 int8.
pub const Q8_0_BYTES: usize = 34;
/// Bytes of one GGUF block: an f16 scale and 32 nibbles; byte i holds value i (low) and value i + 16 (high).
pub const Q4_0_BYTES: usize = 18;

/// As ggml quantises to Q8_0: d = max|x| / 127, rounded half away from zero, so both agree on the same checkpoint.
pub(crate) fn quantize_q8_0(x: &[f32; BLOCK]) -> (f16, [i8; BLOCK]) {
    let amax = x.iter().fold(0f32, |max, v| max.max(v.abs()));
    let d = amax / 127.0;
    let inverse = if d > 0.0 { 1.0 / d } else { 0.0 };
    (f16::from_f32(d), x.map(|v| (v * inverse).round() as i8))
}

/// As ggml quantises to Q4_0: d = (the value of largest magnitude) / -8, stored as q + 8 in 0..16.
pub(crate) fn quantize_q4_0(x: &[f32; BLOCK]) -> (f16, [u8; BLOCK]) {
    let extreme = x.iter().fold(0f32, |max, v| if v.abs() > max.abs() { *v } else { max });
    let d = extreme / -8.0;
    let inverse = if d != 0.0 { 1.0 / d } else { 0.0 };
    (f16::from_f32(d), x.map(|v| ((v * inverse + 8.5) as u8).min(15)))
}

/// The input's block: scale, 32 int8 in [-127, 127] rounded half to even, and their sum.
///
/// A block whose largest magnitude is below 1e-30 counts as zeros (its inverse scale would overflow); one that holds an
/// infinity or a NaN has a NaN scale, so that every output it reaches is NaN.
pub(crate) fn quantize_input(x: &[f32; BLOCK]) -> (f32, [i8; BLOCK], i32) {
    // Bits of |x| sort like |x|, with the NaNs at the top.
    let amax = f32::from_bits(x.iter().fold(0, |max, v| max.max(v.to_bits() & 0x7fff_ffff)));
    if amax < INPUT_TINY {
        return (0.0, [0; BLOCK], 0);
    }
    if !amax.is_finite() {
        return (f32::NAN, [0; BLOCK], 0);
    }
    let inverse = 127.0 / amax;
    let q = x.map(|v| (v * inverse).round_ties_even() as i8);
    (amax / 127.0, q, q.iter().map(|v| i32::from(*v)).sum())
}

pub(crate) const INPUT_TINY: f32 = 1e-30;
