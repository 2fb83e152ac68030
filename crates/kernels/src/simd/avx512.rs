//! AVX-512 F + BW + DQ + VL, with or without VNNI: 16 lanes are one register.

use super::operations::{Kernel, Simd};
use crate::types::LANES;
use half::f16;
use std::arch::x86_64::*;

#[derive(Clone, Copy)]
pub(crate) struct Avx512<const VNNI: bool>(());

/// The machine must have AVX-512 F, BW, DQ and VL, and VNNI where the parameter says so.
pub(super) fn launch<K: Kernel, const VNNI: bool>(kernel: K) -> K::Output {
    #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")]
    fn inner<K: Kernel>(kernel: K) -> K::Output {
        kernel.run(Avx512::<false>(()))
    }
    #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    fn inner_vnni<K: Kernel>(kernel: K) -> K::Output {
        kernel.run(Avx512::<true>(()))
    }
    // SAFETY: `Isa::launch` is called for instruction sets that were detected.
    unsafe { if VNNI { inner_vnni(kernel) } else { inner(kernel) } }
}

/// Methods that are one intrinsic.
macro_rules! whole {
    ($($name:ident($($arg:ident: $from:ident),*) -> $to:ident = $intrinsic:expr;)*) => {$(
        #[inline(always)]
        fn $name(self, $($arg: Self::$from),*) -> Self::$to {
            // SAFETY: an `Avx512` exists only where the instruction set was detected.
            unsafe { $intrinsic($($arg),*) }
        }
    )*};
}

impl<const VNNI: bool> Simd for Avx512<VNNI> {
    type F = __m512;
    type I = __m512i;
    type B = __m512i;
    /// 16 × i32 with VNNI, 32 × i16 without.
    type N = __m512i;

    const FLOAT_TILE: (usize, usize) = (8, 3);
    const QUANT_TILE: (usize, usize) = if VNNI { (6, 2) } else { (4, 2) };
    const BYTES_OFFSET: i32 = 128;

    whole! {
        add(a: F, b: F) -> F = _mm512_add_ps;
        sub(a: F, b: F) -> F = _mm512_sub_ps;
        mul(a: F, b: F) -> F = _mm512_mul_ps;
        div(a: F, b: F) -> F = _mm512_div_ps;
        fma(a: F, b: F, c: F) -> F = _mm512_fmadd_ps;
        add_i(a: I, b: I) -> I = _mm512_add_epi32;
        sub_i(a: I, b: I) -> I = _mm512_sub_epi32;
        max_i(a: I, b: I) -> I = _mm512_max_epi32;
        and_i(a: I, b: I) -> I = _mm512_and_si512;
        half_i(a: I) -> I = _mm512_srai_epi32::<1>;
        shl23_i(a: I) -> I = _mm512_slli_epi32::<23>;
        to_f(a: I) -> F = _mm512_cvtepi32_ps;
        bits(a: F) -> I = _mm512_castps_si512;
        floats(a: I) -> F = _mm512_castsi512_ps;
    }

    #[inline(always)]
    fn splat(self, x: f32) -> Self::F {
        // SAFETY: an `Avx512` exists only where the instruction set was detected.
        unsafe { _mm512_set1_ps(x) }
    }
    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> Self::F {
        // SAFETY: as above; 16 elements, promised by the caller.
        unsafe { _mm512_loadu_ps(p) }
    }
    #[inline(always)]
    unsafe fn load_f16(self, p: *const f16) -> Self::F {
        // SAFETY: as above; 16 elements, promised by the caller.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(p.cast())) }
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32, x: Self::F) {
        // SAFETY: as above; 16 elements, promised by the caller.
        unsafe { _mm512_storeu_ps(p, x) }
    }
    #[inline(always)]
    fn select_lt(self, a: Self::F, b: Self::F, x: Self::F, y: Self::F) -> Self::F {
        // SAFETY: as above.
        unsafe { _mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, b), y, x) }
    }
    #[inline(always)]
    unsafe fn load_head(self, p: *const f32, n: usize, fill: f32) -> Self::F {
        // SAFETY: as above; lanes from n on are not read.
        unsafe { _mm512_mask_loadu_ps(_mm512_set1_ps(fill), mask(n), p) }
    }
    #[inline(always)]
    unsafe fn store_head(self, p: *mut f32, n: usize, x: Self::F) {
        // SAFETY: as above; lanes from n on are not written.
        unsafe { _mm512_mask_storeu_ps(p, mask(n), x) }
    }
    #[inline(always)]
    fn splat_i(self, x: i32) -> Self::I {
        // SAFETY: as above.
        unsafe { _mm512_set1_epi32(x) }
    }
    #[inline(always)]
    fn lanes_i(self, a: Self::I) -> [i32; LANES] {
        let mut lanes = [0; LANES];
        // SAFETY: as above; the array has 16 elements.
        unsafe { _mm512_storeu_si512(lanes.as_mut_ptr().cast(), a) }
        lanes
    }
    #[inline(always)]
    fn low_bytes(self, a: Self::I) -> [i8; LANES] {
        let mut bytes = [0; LANES];
        // SAFETY: as above; the array has 16 bytes.
        unsafe { _mm_storeu_si128(bytes.as_mut_ptr().cast(), _mm512_cvtepi32_epi8(a)) }
        bytes
    }

    #[inline(always)]
    unsafe fn load_bytes(self, p: *const u8) -> Self::B {
        // SAFETY: as above; 64 bytes, promised by the caller.
        unsafe { _mm512_loadu_si512(p.cast()) }
    }
    #[inline(always)]
    unsafe fn splat_bytes(self, p: *const i8) -> Self::B {
        // SAFETY: as above; 4 bytes, promised by the caller.
        unsafe { _mm512_set1_epi32(p.cast::<i32>().read_unaligned()) }
    }
    #[inline(always)]
    fn nibbles(self, a: Self::B) -> (Self::B, Self::B) {
        // SAFETY: as above.
        unsafe {
            let low = _mm512_set1_epi8(15);
            (_mm512_and_si512(a, low), _mm512_and_si512(_mm512_srli_epi16::<4>(a), low))
        }
    }
    #[inline(always)]
    fn dot_bytes(self, acc: Self::I, w: Self::B, x: Self::B) -> Self::I {
        // SAFETY: as above; VNNI is true only where it was detected.
        unsafe {
            if VNNI {
                return _mm512_dpbusd_epi32(acc, w, x);
            }
            // `maddubs` would saturate (255 * 127 * 2), so even and odd bytes are widened to i16.
            let x_even = _mm512_srai_epi16::<8>(_mm512_slli_epi16::<8>(x));
            let x_odd = _mm512_srai_epi16::<8>(x);
            let evens = _mm512_madd_epi16(_mm512_and_si512(w, _mm512_set1_epi16(255)), x_even);
            let odds = _mm512_madd_epi16(_mm512_srli_epi16::<8>(w), x_odd);
            _mm512_add_epi32(_mm512_add_epi32(acc, evens), odds)
        }
    }
    /// Without VNNI exact in i16: 8 * 2 * 15 * 127 < 32768.
    #[inline(always)]
    fn dot_nibbles(self, acc: Self::N, w: Self::B, x: Self::B) -> Self::N {
        // SAFETY: as above.
        unsafe {
            if VNNI {
                _mm512_dpbusd_epi32(acc, w, x)
            } else {
                _mm512_add_epi16(acc, _mm512_maddubs_epi16(w, x))
            }
        }
    }
    #[inline(always)]
    fn no_nibbles(self) -> Self::N {
        self.splat_i(0)
    }
    #[inline(always)]
    fn prefetch(self, p: *const u8) {
        // SAFETY: a prefetch touches nothing that the program can observe, whatever the address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(p.cast()) }
    }
    #[inline(always)]
    fn sum_nibbles(self, acc: Self::N) -> Self::I {
        // SAFETY: as above.
        if VNNI { acc } else { unsafe { _mm512_madd_epi16(acc, _mm512_set1_epi16(1)) } }
    }
}

/// The first `n <= 16` lanes.
#[inline(always)]
fn mask(n: usize) -> __mmask16 {
    ((1u32 << n) - 1) as __mmask16
}
