//! AArch64 NEON, with or without the int8 dot product: 16 lanes are four registers of the 32.
//!
//! Three instructions have no stable intrinsic yet and are written in assembly: FCVTL, SDOT and PRFM.

use super::operations::{Kernel, Simd};
use crate::types::LANES;
use half::f16;
use std::arch::aarch64::*;
use std::arch::asm;
use std::array::from_fn;

#[derive(Clone, Copy)]
pub(crate) struct Neon<const DOTPROD: bool>(());

/// The machine must have NEON, and the dot product where the parameter says so.
pub(super) fn launch<K: Kernel, const DOTPROD: bool>(kernel: K) -> K::Output {
    #[target_feature(enable = "neon")]
    fn inner<K: Kernel>(kernel: K) -> K::Output {
        kernel.run(Neon::<false>(()))
    }
    #[target_feature(enable = "neon,dotprod")]
    fn inner_dotprod<K: Kernel>(kernel: K) -> K::Output {
        kernel.run(Neon::<true>(()))
    }
    // SAFETY: `Isa::launch` is called for instruction sets that were detected.
    unsafe { if DOTPROD { inner_dotprod(kernel) } else { inner(kernel) } }
}

/// Methods that are one intrinsic per quarter.
macro_rules! quarters {
    ($($name:ident($($arg:ident: $from:ident),*) -> $to:ident = $intrinsic:expr;)*) => {$(
        #[inline(always)]
        fn $name(self, $($arg: Self::$from),*) -> Self::$to {
            // SAFETY: a `Neon` exists only where the instruction set was detected.
            from_fn(|i| unsafe { $intrinsic($($arg[i]),*) })
        }
    )*};
}

impl<const DOTPROD: bool> Neon<DOTPROD> {
    /// acc + Σ w[i] x[i] over the four bytes of each lane, both signed. Exact without the dot product too: a pair of
    /// products fits i16, for x is not below -127 (2 · 128 · 127 < 2¹⁵).
    #[inline(always)]
    fn dot(self, acc: int32x4_t, w: int8x16_t, x: int8x16_t) -> int32x4_t {
        // SAFETY: a `Neon` exists only where the instruction set was detected, and so does the parameter.
        unsafe {
            if DOTPROD {
                sdot(acc, w, x)
            } else {
                let low = vmull_s8(vget_low_s8(w), vget_low_s8(x));
                vpadalq_s16(acc, vpaddq_s16(low, vmull_high_s8(w, x)))
            }
        }
    }
}

/// As an intrinsic would be: a function of its own, which is inlined where the instruction set is enabled.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn sdot(mut acc: int32x4_t, w: int8x16_t, x: int8x16_t) -> int32x4_t {
    // SAFETY: the instruction touches registers only.
    unsafe {
        asm!(
            "sdot {acc:v}.4s, {w:v}.16b, {x:v}.16b",
            acc = inout(vreg) acc, w = in(vreg) w, x = in(vreg) x,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    acc
}

/// Both halves of `halves` to f32.
#[inline(always)]
fn widen(halves: uint16x8_t) -> (float32x4_t, float32x4_t) {
    let (low, high);
    // SAFETY: FCVTL is part of every AArch64 with NEON; it touches registers only.
    unsafe {
        asm!(
            "fcvtl {low:v}.4s, {halves:v}.4h",
            "fcvtl2 {high:v}.4s, {halves:v}.8h",
            low = out(vreg) low, high = lateout(vreg) high, halves = in(vreg) halves,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    (low, high)
}

impl<const DOTPROD: bool> Simd for Neon<DOTPROD> {
    type F = [float32x4_t; 4];
    type I = [int32x4_t; 4];
    type B = [uint8x16_t; 4];
    type N = [int32x4_t; 4];

    const FLOAT_TILE: (usize, usize) = (6, 1);
    const QUANT_TILE: (usize, usize) = if DOTPROD { (4, 1) } else { (2, 1) };
    const PAIR_PANELS: usize = 2;
    const ATTENTION_TILES: usize = 1;
    const BYTES_OFFSET: i32 = 0;

    quarters! {
        add(a: F, b: F) -> F = vaddq_f32;
        sub(a: F, b: F) -> F = vsubq_f32;
        mul(a: F, b: F) -> F = vmulq_f32;
        div(a: F, b: F) -> F = vdivq_f32;
        add_i(a: I, b: I) -> I = vaddq_s32;
        sub_i(a: I, b: I) -> I = vsubq_s32;
        max_i(a: I, b: I) -> I = vmaxq_s32;
        and_i(a: I, b: I) -> I = vandq_s32;
        half_i(a: I) -> I = vshrq_n_s32::<1>;
        shl23_i(a: I) -> I = vshlq_n_s32::<23>;
        to_f(a: I) -> F = vcvtq_f32_s32;
        bits(a: F) -> I = vreinterpretq_s32_f32;
        floats(a: I) -> F = vreinterpretq_f32_s32;
    }

    #[inline(always)]
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        // SAFETY: a `Neon` exists only where the instruction set was detected.
        from_fn(|i| unsafe { vfmaq_f32(c[i], a[i], b[i]) })
    }
    #[inline(always)]
    fn splat(self, x: f32) -> Self::F {
        // SAFETY: as above.
        unsafe { [vdupq_n_f32(x); 4] }
    }
    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> Self::F {
        // SAFETY: as above; 16 elements, promised by the caller.
        from_fn(|i| unsafe { vld1q_f32(p.add(4 * i)) })
    }
    #[inline(always)]
    unsafe fn load_f16(self, p: *const f16) -> Self::F {
        // SAFETY: as above; 16 elements, promised by the caller.
        let (low, high) = unsafe { (vld1q_u16(p.cast()), vld1q_u16(p.add(8).cast())) };
        let ((a, b), (c, d)) = (widen(low), widen(high));
        [a, b, c, d]
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32, x: Self::F) {
        for (i, x) in x.into_iter().enumerate() {
            // SAFETY: as above; 16 elements, promised by the caller.
            unsafe { vst1q_f32(p.add(4 * i), x) }
        }
    }
    #[inline(always)]
    fn select_lt(self, a: Self::F, b: Self::F, x: Self::F, y: Self::F) -> Self::F {
        // SAFETY: as above.
        from_fn(|i| unsafe { vbslq_f32(vcltq_f32(a[i], b[i]), x[i], y[i]) })
    }

    #[inline(always)]
    fn splat_i(self, x: i32) -> Self::I {
        // SAFETY: as above.
        unsafe { [vdupq_n_s32(x); 4] }
    }
    #[inline(always)]
    fn lanes_i(self, a: Self::I) -> [i32; LANES] {
        let mut lanes = [0; LANES];
        for (a, lanes) in a.into_iter().zip(lanes.chunks_exact_mut(4)) {
            // SAFETY: as above; a chunk has four elements.
            unsafe { vst1q_s32(lanes.as_mut_ptr(), a) }
        }
        lanes
    }
    #[inline(always)]
    fn low_bytes(self, a: Self::I) -> [i8; LANES] {
        let mut bytes = [0; LANES];
        // SAFETY: as above; the array has 16 bytes.
        unsafe {
            let low = vcombine_s16(vmovn_s32(a[0]), vmovn_s32(a[1]));
            let high = vcombine_s16(vmovn_s32(a[2]), vmovn_s32(a[3]));
            vst1q_s8(bytes.as_mut_ptr(), vcombine_s8(vmovn_s16(low), vmovn_s16(high)));
        }
        bytes
    }

    #[inline(always)]
    unsafe fn load_bytes(self, p: *const u8) -> Self::B {
        // SAFETY: as above; 64 bytes, promised by the caller.
        from_fn(|i| unsafe { vld1q_u8(p.add(16 * i)) })
    }
    #[inline(always)]
    unsafe fn splat_bytes(self, p: *const i8) -> Self::B {
        // SAFETY: as above; 4 bytes, promised by the caller.
        unsafe { [vreinterpretq_u8_s32(vdupq_n_s32(p.cast::<i32>().read_unaligned())); 4] }
    }
    #[inline(always)]
    fn nibbles(self, a: Self::B) -> (Self::B, Self::B) {
        // SAFETY: as above.
        unsafe { (from_fn(|i| vandq_u8(a[i], vdupq_n_u8(15))), from_fn(|i| vshrq_n_u8::<4>(a[i]))) }
    }
    /// The weights' offset of 128 goes with the top bit.
    #[inline(always)]
    fn dot_bytes(self, acc: Self::I, w: Self::B, x: Self::B) -> Self::I {
        // SAFETY: as above.
        let w: Self::B = from_fn(|i| unsafe { veorq_u8(w[i], vdupq_n_u8(128)) });
        self.dot_nibbles(acc, w, x)
    }
    #[inline(always)]
    fn dot_nibbles(self, acc: Self::N, w: Self::B, x: Self::B) -> Self::N {
        // SAFETY: as above.
        from_fn(|i| unsafe { self.dot(acc[i], vreinterpretq_s8_u8(w[i]), vreinterpretq_s8_u8(x[i])) })
    }
    #[inline(always)]
    fn no_nibbles(self) -> Self::N {
        self.splat_i(0)
    }
    #[inline(always)]
    fn sum_nibbles(self, acc: Self::N) -> Self::I {
        acc
    }

    #[inline(always)]
    fn pairs(self, a: Self::B) -> (Self::F, Self::F) {
        // SAFETY: as above.
        unsafe {
            let words = a.map(|a| vreinterpretq_u32_u8(a));
            (
                words.map(|w| vreinterpretq_f32_u32(vshlq_n_u32::<16>(w))),
                words.map(|w| vreinterpretq_f32_u32(vandq_u32(w, vdupq_n_u32(0xffff_0000)))),
            )
        }
    }
    #[inline(always)]
    fn first(self, a: Self::B) -> Self::B {
        // SAFETY: as above.
        a.map(|a| unsafe { vandq_u8(a, vreinterpretq_u8_u32(vdupq_n_u32(0xffff))) })
    }
    #[inline(always)]
    fn prefetch(self, p: *const u8) {
        // SAFETY: a prefetch touches nothing that the program can observe, whatever the address.
        unsafe { asm!("prfm pldl1keep, [{p}]", p = in(reg) p, options(readonly, nostack, preserves_flags)) }
    }
}
