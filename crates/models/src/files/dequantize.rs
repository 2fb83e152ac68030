//! ggml's blocks of quantised values as f32: a function a format, from the bytes of one block to its values.
//!
//! Each does what ggml's reference (`dequantize_row_*` in `ggml-quants.c`) does, operation by operation, so the values
//! are equal to the bit. `d` is a block's scale, `m` its offset, `q` a value's integer. Blocks of 256 values come in
//! parts with scales of their own.
//!
//! Cost: one core makes 2 (Q5_0, IQ4_NL) to 20 GB of f32 a second; quantising them again takes longer.

use half::f16;

/// The levels of IQ4_NL and IQ4_XS: not evenly spaced, denser around zero.
const IQ4: [f32; 16] = [
    -127.0, -104.0, -83.0, -65.0, -49.0, -35.0, -22.0, -10.0, 1.0, 13.0, 25.0, 38.0, 53.0, 69.0, 89.0, 113.0,
];

/// E2M1's values, doubled.
const FP4: [f32; 16] =
    [0.0, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 0.0, -1.0, -2.0, -3.0, -4.0, -6.0, -8.0, -12.0];

fn half_at(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

/// Bytes of two values each: the low halves are the first values of `out`, the high ones the rest.
fn nibbles(bytes: &[u8], out: &mut [f32], value: impl Fn(u8) -> f32) {
    let (low, high) = out.split_at_mut(bytes.len());
    for ((low, high), byte) in low.iter_mut().zip(high).zip(bytes) {
        (*low, *high) = (value(byte & 15), value(byte >> 4));
    }
}

/// d · q + m, q in 0..16.
pub fn q4_1(block: &[u8], out: &mut [f32]) {
    let (d, m) = (half_at(block, 0), half_at(block, 2));
    nibbles(&block[4..20], out, |q| d * f32::from(q) + m);
}

/// Values of five bits: `high` has the fifth bit of each, the first value's lowest.
fn five_bits(high: &[u8], low: &[u8], out: &mut [f32], value: impl Fn(u8) -> f32) {
    let high = u32::from_le_bytes([high[0], high[1], high[2], high[3]]);
    for (i, byte) in low.iter().enumerate() {
        let fifth = |i: usize| ((high >> i) as u8 & 1) << 4;
        out[i] = value(byte & 15 | fifth(i));
        out[i + 16] = value(byte >> 4 | fifth(i + 16));
    }
}

/// d · (q - 16), q in 0..32.
pub fn q5_0(block: &[u8], out: &mut [f32]) {
    let d = half_at(block, 0);
    five_bits(&block[2..6], &block[6..22], out, |q| d * (f32::from(q) - 16.0));
}

/// d · q + m, q in 0..32.
pub fn q5_1(block: &[u8], out: &mut [f32]) {
    let (d, m) = (half_at(block, 0), half_at(block, 2));
    five_bits(&block[4..8], &block[8..24], out, |q| d * f32::from(q) + m);
}

/// d · q, q signed; between them d · Σq, which products use.
pub fn q8_1(block: &[u8], out: &mut [f32]) {
    let d = half_at(block, 0);
    out.iter_mut().zip(&block[4..36]).for_each(|(out, q)| *out = d * f32::from(*q as i8));
}

/// As Q8_0 in blocks of 256 with d in f32; sums of 16 values each follow.
pub fn q8_k(block: &[u8], out: &mut [f32]) {
    let d = f32::from_le_bytes([block[0], block[1], block[2], block[3]]);
    out.iter_mut().zip(&block[4..260]).for_each(|(out, q)| *out = d * f32::from(*q as i8));
}

/// Sixteen parts of 16 values: (d · scale) · q - m · offset, scale and offset in four bits each, q in two.
pub fn q2_k(block: &[u8], out: &mut [f32]) {
    let (scales, quants) = block.split_at(16);
    let (d, m) = (half_at(quants, 64), half_at(quants, 66));
    for (part, out) in out.chunks_exact_mut(16).enumerate() {
        let (d, m) = (d * f32::from(scales[part] & 15), m * f32::from(scales[part] >> 4));
        let (from, shift) = two_bits(part);
        out.iter_mut()
            .zip(&quants[from..from + 16])
            .for_each(|(out, q)| *out = d * f32::from(q >> shift & 3) - m);
    }
}

/// Where values of two bits are that come as four times 32 in 32 bytes: the first byte of a part of 16, and the shift.
fn two_bits(part: usize) -> (usize, usize) {
    (part / 8 * 32 + part % 2 * 16, part % 8 / 2 * 2)
}

/// Sixteen parts of 16 values: (d · (scale - 32)) · q, the scale in six bits, q in two and a third, which is -4 where
/// it is not set.
pub fn q3_k(block: &[u8], out: &mut [f32]) {
    let (high, rest) = block.split_at(32);
    let (quants, rest) = rest.split_at(64);
    let (scales, d) = (&rest[..12], half_at(rest, 12));
    for (part, out) in out.chunks_exact_mut(16).enumerate() {
        let low = scales[part % 8] >> (part / 8 * 4) & 15;
        let scale = low | (scales[8 + part % 4] >> (part / 4 * 2) & 3) << 4;
        let d = d * (f32::from(scale) - 32.0);
        let (from, shift) = two_bits(part);
        // Bit i of byte j of the first 32 belongs to value 32 i + j.
        let third = &high[part % 2 * 16..][..16];
        for ((out, q), third) in out.iter_mut().zip(&quants[from..from + 16]).zip(third) {
            let below = (third >> (part / 2) & 1 ^ 1) << 2;
            *out = d * (f32::from(q >> shift & 3) - f32::from(below));
        }
    }
}

/// Scale and offset of part `part` of eight, six bits each, of Q4_K and Q5_K.
fn scale_and_offset(scales: &[u8], part: usize) -> (f32, f32) {
    let (scale, offset) = if part < 4 {
        (scales[part] & 63, scales[part + 4] & 63)
    } else {
        let low = scales[part + 4];
        (low & 15 | scales[part - 4] >> 6 << 4, low >> 4 | scales[part] >> 6 << 4)
    };
    (f32::from(scale), f32::from(offset))
}

/// Eight parts of 32 values: (d · scale) · q - m · offset, q in four bits.
pub fn q4_k(block: &[u8], out: &mut [f32]) {
    let (d, m, scales) = (half_at(block, 0), half_at(block, 2), &block[4..16]);
    for (part, out) in out.chunks_exact_mut(32).enumerate() {
        let (scale, offset) = scale_and_offset(scales, part);
        let (d, m, shift) = (d * scale, m * offset, part % 2 * 4);
        let quants = &block[16 + part / 2 * 32..][..32];
        out.iter_mut().zip(quants).for_each(|(out, q)| *out = d * f32::from(q >> shift & 15) - m);
    }
}

/// As Q4_K with a fifth bit: bit i of byte j of 32 belongs to value 32 i + j.
pub fn q5_k(block: &[u8], out: &mut [f32]) {
    let (d, m, scales, high) = (half_at(block, 0), half_at(block, 2), &block[4..16], &block[16..48]);
    for (part, out) in out.chunks_exact_mut(32).enumerate() {
        let (scale, offset) = scale_and_offset(scales, part);
        let (d, m, shift) = (d * scale, m * offset, part % 2 * 4);
        let quants = &block[48 + part / 2 * 32..][..32];
        for ((out, q), high) in out.iter_mut().zip(quants).zip(high) {
            *out = d * f32::from(q >> shift & 15 | (high >> part & 1) << 4) - m;
        }
    }
}

/// Sixteen parts of 16 values: (d · scale) · (q - 32), the scale in signed bytes, q in four bits and two.
pub fn q6_k(block: &[u8], out: &mut [f32]) {
    let (low, rest) = block.split_at(128);
    let (high, rest) = rest.split_at(64);
    let (scales, d) = (&rest[..16], half_at(rest, 16));
    for (index, out) in out.chunks_exact_mut(32).enumerate() {
        // Of each 128 values: 64 bytes with two of them 64 apart, and 32 with four of them 32 apart.
        let (half, quarter) = (index / 4, index % 4);
        let low = &low[half * 64 + quarter % 2 * 32..][..32];
        let high = &high[half * 32..][..32];
        let (low_shift, high_shift) = (quarter / 2 * 4, quarter * 2);
        for (part, out) in out.chunks_exact_mut(16).enumerate() {
            let d = d * f32::from(scales[2 * index + part] as i8);
            for ((out, low), high) in out.iter_mut().zip(&low[part * 16..]).zip(&high[part * 16..]) {
                let q = low >> low_shift & 15 | (high >> high_shift & 3) << 4;
                *out = d * (f32::from(q) - 32.0);
            }
        }
    }
}

/// d · level.
pub fn iq4_nl(block: &[u8], out: &mut [f32]) {
    let d = half_at(block, 0);
    nibbles(&block[2..18], out, |q| d * IQ4[usize::from(q)]);
}

/// Eight parts of 32 values: (d · (scale - 32)) · level; of a scale two bits come first, then four.
pub fn iq4_xs(block: &[u8], out: &mut [f32]) {
    let (d, high) = (half_at(block, 0), u16::from_le_bytes([block[2], block[3]]));
    for (part, out) in out.chunks_exact_mut(32).enumerate() {
        let low = block[4 + part / 2] >> (part % 2 * 4) & 15;
        let scale = low | ((high >> (2 * part)) as u8 & 3) << 4;
        let d = d * (f32::from(scale) - 32.0);
        nibbles(&block[8 + part * 16..][..16], out, |q| d * IQ4[usize::from(q)]);
    }
}

/// d · (-1, 0 or 1): five of them in a byte as a fraction of 3⁵, its first digit first; in the last four bytes four.
pub fn tq1_0(block: &[u8], out: &mut [f32]) {
    let d = half_at(block, 52);
    let mut values = out.iter_mut();
    for (bytes, digits) in [(&block[..32], 5), (&block[32..48], 5), (&block[48..52], 4)] {
        let mut power = 1u8;
        for _ in 0..digits {
            for (byte, out) in bytes.iter().zip(&mut values) {
                let digit = (u16::from(byte.wrapping_mul(power)) * 3) >> 8;
                *out = d * (f32::from(digit) - 1.0);
            }
            power = power.wrapping_mul(3);
        }
    }
}

/// d · (q - 1), q in two bits.
pub fn tq2_0(block: &[u8], out: &mut [f32]) {
    let d = half_at(block, 64);
    for (part, out) in out.chunks_exact_mut(16).enumerate() {
        let (from, shift) = two_bits(part);
        out.iter_mut()
            .zip(&block[from..from + 16])
            .for_each(|(out, q)| *out = d * (f32::from(q >> shift & 3) - 1.0));
    }
}

/// E2M1 with a power of two as its scale, of which the byte is the exponent (OCP Microscaling Formats 1.0).
pub fn mxfp4(block: &[u8], out: &mut [f32]) {
    // Half of the scale, for the levels are doubled.
    let d = f32::from_bits(match u32::from(block[0]) {
        exponent @ 0..2 => 0x0020_0000 << exponent,
        exponent => (exponent - 1) << 23,
    });
    nibbles(&block[1..17], out, |q| d * FP4[usize::from(q)]);
}
