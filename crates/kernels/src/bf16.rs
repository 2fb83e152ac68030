//! bf16: the upper half of an f32.
//!
//! VDPBF16PS adds two products to a sum, each fused, and takes subnormal values for zero, in its inputs and after each
//! addition. Rounding small inputs to zero makes that equal to two ordinary fused multiply-adds: an input of 2⁻⁵⁶ or
//! more is a multiple of 2⁻⁶³ (8 bits of significand), so a product is one of 2⁻¹²⁶, and so is every sum, rounded or
//! not. No sum is subnormal, and every instruction set can give the same bits.

use half::bf16;

/// The bits of 2⁻⁵⁶ (1.4e-17).
pub(crate) const TINY: u32 = (127 - 56) << 23;
pub(crate) const INFINITE: u32 = 0x7f80_0000;

/// To the nearest bf16, halves to even; magnitudes below 2⁻⁵⁶ become 0. NaNs stay NaNs.
#[inline(always)]
pub(crate) fn to_bf16(x: f32) -> bf16 {
    // Without a branch, so that it vectorises.
    let bits = x.to_bits();
    let magnitude = bits & 0x7fff_ffff;
    let nearest = (bits.wrapping_add(0x7fff + (bits >> 16 & 1))) >> 16;
    let number = if magnitude < TINY { 0 } else { nearest };
    let quiet = bits >> 16 | 0x40;
    bf16::from_bits(if magnitude > INFINITE { quiet } else { number } as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_as_half_does_but_for_what_is_tiny() {
        let mut state = 1u32;
        for _ in 0..1_000_000 {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            for bits in
                [state, state & 0xffff_0000, state & 0xffff_0000 | 0x8000, state & 0xffff_0000 | 0x8001]
            {
                let x = f32::from_bits(bits);
                let expected = if x.abs() < 2f32.powi(-56) { bf16::ZERO } else { bf16::from_f32(x) };
                let got = to_bf16(x);
                assert!(
                    got.to_bits() == expected.to_bits() || got.is_nan() && x.is_nan(),
                    "{x:e} gave {got}"
                );
            }
        }
        assert_eq!(to_bf16(2f32.powi(-56)).to_f32(), 2f32.powi(-56));
        assert_eq!(to_bf16(f32::NEG_INFINITY), bf16::NEG_INFINITY);
    }
}
