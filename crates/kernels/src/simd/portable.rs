//! Arrays of 16, for machines without anything better; the compiler vectorises what it can.

use super::operations::Simd;
use crate::types::LANES;
use half::f16;
use std::array::from_fn;

#[derive(Clone, Copy)]
pub(crate) struct Portable;

/// f16 to f32 without a branch, so that it vectorises where `f16::to_f32` does not. Exact: scaling by 2^112 moves the
/// exponent from one bias to the other, subnormals included.
#[inline(always)]
fn widen(halves: [u16; LANES]) -> [f32; LANES] {
    const INFINITE: u32 = 0x1f << 23;
    const SCALE: f32 = f32::from_bits((127 + 112) << 23);
    halves.map(|half| {
        let (sign, magnitude) = (u32::from(half & 0x8000) << 16, u32::from(half & 0x7fff) << 13);
        let finite = (f32::from_bits(magnitude) * SCALE).to_bits();
        let bits = if magnitude < INFINITE { finite } else { magnitude | 0x7f80_0000 };
        f32::from_bits(sign | bits)
    })
}

impl Simd for Portable {
    type F = [f32; LANES];
    type I = [i32; LANES];
    type B = [[u8; 4]; LANES];
    type N = [i32; LANES];

    // AArch64 has 32 registers of 4 lanes.
    const FLOAT_TILE: (usize, usize) = if cfg!(target_arch = "aarch64") { (6, 1) } else { (2, 1) };
    const QUANT_TILE: (usize, usize) = (2, 1);
    const BYTES_OFFSET: i32 = 128;

    #[inline(always)]
    fn splat(self, x: f32) -> Self::F {
        [x; LANES]
    }
    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> Self::F {
        // SAFETY: promised by the caller.
        unsafe { p.cast::<Self::F>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn load_f16(self, p: *const f16) -> Self::F {
        // SAFETY: promised by the caller.
        widen(unsafe { p.cast::<[u16; LANES]>().read_unaligned() })
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32, x: Self::F) {
        // SAFETY: promised by the caller.
        unsafe { p.cast::<Self::F>().write_unaligned(x) }
    }

    #[inline(always)]
    fn add(self, a: Self::F, b: Self::F) -> Self::F {
        from_fn(|i| a[i] + b[i])
    }
    #[inline(always)]
    fn sub(self, a: Self::F, b: Self::F) -> Self::F {
        from_fn(|i| a[i] - b[i])
    }
    #[inline(always)]
    fn mul(self, a: Self::F, b: Self::F) -> Self::F {
        from_fn(|i| a[i] * b[i])
    }
    #[inline(always)]
    fn div(self, a: Self::F, b: Self::F) -> Self::F {
        from_fn(|i| a[i] / b[i])
    }
    #[inline(always)]
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        from_fn(|i| a[i].mul_add(b[i], c[i]))
    }
    #[inline(always)]
    fn select_lt(self, a: Self::F, b: Self::F, x: Self::F, y: Self::F) -> Self::F {
        from_fn(|i| if a[i] < b[i] { x[i] } else { y[i] })
    }

    #[inline(always)]
    fn splat_i(self, x: i32) -> Self::I {
        [x; LANES]
    }
    #[inline(always)]
    fn add_i(self, a: Self::I, b: Self::I) -> Self::I {
        from_fn(|i| a[i].wrapping_add(b[i]))
    }
    #[inline(always)]
    fn sub_i(self, a: Self::I, b: Self::I) -> Self::I {
        from_fn(|i| a[i].wrapping_sub(b[i]))
    }
    #[inline(always)]
    fn max_i(self, a: Self::I, b: Self::I) -> Self::I {
        from_fn(|i| a[i].max(b[i]))
    }
    #[inline(always)]
    fn and_i(self, a: Self::I, b: Self::I) -> Self::I {
        from_fn(|i| a[i] & b[i])
    }
    #[inline(always)]
    fn half_i(self, a: Self::I) -> Self::I {
        a.map(|a| a >> 1)
    }
    #[inline(always)]
    fn shl23_i(self, a: Self::I) -> Self::I {
        a.map(|a| a << 23)
    }
    #[inline(always)]
    fn to_f(self, a: Self::I) -> Self::F {
        a.map(|a| a as f32)
    }
    #[inline(always)]
    fn bits(self, a: Self::F) -> Self::I {
        a.map(|a| a.to_bits() as i32)
    }
    #[inline(always)]
    fn floats(self, a: Self::I) -> Self::F {
        a.map(|a| f32::from_bits(a as u32))
    }
    #[inline(always)]
    fn lanes_i(self, a: Self::I) -> [i32; LANES] {
        a
    }
    #[inline(always)]
    fn low_bytes(self, a: Self::I) -> [i8; LANES] {
        a.map(|a| a as i8)
    }

    #[inline(always)]
    unsafe fn load_bytes(self, p: *const u8) -> Self::B {
        // SAFETY: promised by the caller; bytes have no alignment.
        unsafe { p.cast::<Self::B>().read() }
    }
    #[inline(always)]
    unsafe fn splat_bytes(self, p: *const i8) -> Self::B {
        // SAFETY: promised by the caller; bytes have no alignment.
        [unsafe { p.cast::<[u8; 4]>().read() }; LANES]
    }
    #[inline(always)]
    fn nibbles(self, a: Self::B) -> (Self::B, Self::B) {
        (a.map(|a| a.map(|a| a & 15)), a.map(|a| a.map(|a| a >> 4)))
    }
    #[inline(always)]
    fn dot_bytes(self, acc: Self::I, w: Self::B, x: Self::B) -> Self::I {
        from_fn(|i| (0..4).fold(acc[i], |acc, j| acc + i32::from(w[i][j]) * i32::from(x[i][j] as i8)))
    }
    #[inline(always)]
    fn dot_nibbles(self, acc: Self::N, w: Self::B, x: Self::B) -> Self::N {
        self.dot_bytes(acc, w, x)
    }
    #[inline(always)]
    fn no_nibbles(self) -> Self::N {
        [0; LANES]
    }
    #[inline(always)]
    fn pairs(self, a: Self::B) -> (Self::F, Self::F) {
        let words = a.map(u32::from_le_bytes);
        (words.map(|w| f32::from_bits(w << 16)), words.map(|w| f32::from_bits(w & 0xffff_0000)))
    }
    #[inline(always)]
    fn first(self, a: Self::B) -> Self::B {
        a.map(|a| [a[0], a[1], 0, 0])
    }
    #[inline(always)]
    fn prefetch(self, _: *const u8) {}
    #[inline(always)]
    fn sum_nibbles(self, acc: Self::N) -> Self::I {
        acc
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_half_widens_exactly() {
        for first in (0..=u16::MAX).step_by(LANES) {
            let halves: [u16; LANES] = from_fn(|i| first + i as u16);
            for (half, wide) in halves.into_iter().zip(widen(halves)) {
                let expected = f16::from_bits(half).to_f32();
                assert!(
                    wide.to_bits() == expected.to_bits() || (wide.is_nan() && expected.is_nan()),
                    "{half:#x}"
                );
            }
        }
    }
}
