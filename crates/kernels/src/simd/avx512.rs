//! AVX-512 F + BW + DQ + VL, with or without VNNI and BF16: 16 lanes are one register.

use super::operations::{Kernel, Simd, Words, signs};
use crate::bf16::{INFINITE, TINY};
use crate::types::LANES;
use half::{bf16, f16};
use std::arch::asm;
use std::arch::x86_64::*;
use std::mem::transmute;

#[derive(Clone, Copy)]
pub(crate) struct Avx512<const VNNI: bool, const BF16: bool>(());

/// The machine must have AVX-512 F, BW, DQ and VL, and VNNI and BF16 where the parameters say so; BF16 without VNNI is
/// no instruction set of ours.
pub(super) fn launch<K: Kernel, const VNNI: bool, const BF16: bool>(kernel: K) -> K::Output {
    const { assert!(VNNI || !BF16) };
    #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")]
    fn inner<K: Kernel>(kernel: K) -> K::Output {
        kernel.run(Avx512::<false, false>(()))
    }
    #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    fn inner_vnni<K: Kernel>(kernel: K) -> K::Output {
        kernel.run(Avx512::<true, false>(()))
    }
    #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16")]
    fn inner_bf16<K: Kernel>(kernel: K) -> K::Output {
        kernel.run(Avx512::<true, true>(()))
    }
    // SAFETY: `Isa::launch` is called for instruction sets that were detected.
    unsafe {
        match (VNNI, BF16) {
            (_, true) => inner_bf16(kernel),
            (true, false) => inner_vnni(kernel),
            (false, false) => inner(kernel),
        }
    }
}

/// An instruction that adds dot products of `w` and `x` to `acc`, as an intrinsic would be. With the intrinsic the
/// compiler gathers the broadcasts of all rows of a tile before the first product, needs more registers than there are,
/// and copies every sum; assembly keeps its place.
macro_rules! in_place {
    ($name:ident, $acc:ty, $features:literal, $instruction:literal) => {
        #[inline]
        #[target_feature(enable = $features)]
        fn $name(mut acc: $acc, w: __m512i, x: __m512i) -> $acc {
            // SAFETY: the instruction touches registers only.
            unsafe {
                asm!(
                    concat!($instruction, " {acc}, {w}, {x}"),
                    acc = inout(zmm_reg) acc, w = in(zmm_reg) w, x = in(zmm_reg) x,
                    options(nomem, nostack, preserves_flags)
                );
            }
            acc
        }
    };
}
in_place!(dpbf16, __m512, "avx512f,avx512bf16", "vdpbf16ps");
in_place!(dpbusd, __m512i, "avx512f,avx512vnni", "vpdpbusd");

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

impl<const VNNI: bool, const BF16: bool> Simd for Avx512<VNNI, BF16> {
    type F = __m512;
    type I = __m512i;
    type B = __m512i;
    /// 16 × i32 with VNNI, 32 × i16 without.
    type N = __m512i;

    const FLOAT_TILE: (usize, usize) = (8, 3);
    const QUANT_TILE: (usize, usize) = if VNNI { (6, 2) } else { (4, 2) };
    const INT8_TILE: (usize, usize) = if VNNI { (8, 3) } else { Self::QUANT_TILE };
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
    unsafe fn load_bf16(self, p: *const bf16) -> Self::F {
        // SAFETY: as above; 16 elements, promised by the caller.
        unsafe {
            let words = _mm512_cvtepu16_epi32(_mm256_loadu_si256(p.cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(words))
        }
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
    fn most_i(self, a: Self::I) -> i32 {
        // SAFETY: as above.
        unsafe { _mm512_reduce_max_epi32(a) }
    }
    #[inline(always)]
    fn most(self, x: Self::F) -> f32 {
        // SAFETY: as above.
        unsafe { _mm512_reduce_max_ps(x) }
    }
    #[inline(always)]
    fn total_i(self, a: Self::I) -> i32 {
        // SAFETY: as above.
        unsafe { _mm512_reduce_add_epi32(a) }
    }
    #[inline(always)]
    fn butterfly<const STRIDE: usize>(self, x: Self::F) -> Self::F {
        // SAFETY: as above; the signs are 16 elements.
        unsafe {
            let other = match STRIDE {
                8 => _mm512_shuffle_f32x4::<0b01_00_11_10>(x, x),
                4 => _mm512_shuffle_f32x4::<0b10_11_00_01>(x, x),
                2 => _mm512_permute_ps::<0b01_00_11_10>(x),
                _ => _mm512_permute_ps::<0b10_11_00_01>(x),
            };
            // A product with ±1 is exact, so this is a sum or a difference.
            _mm512_fmadd_ps(x, _mm512_loadu_ps(const { &signs(STRIDE) }.as_ptr()), other)
        }
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
    #[inline(always)]
    fn dot_bytes_in_place(self, acc: Self::I, w: Self::B, x: Self::B) -> Self::I {
        // SAFETY: as above.
        if VNNI { unsafe { dpbusd(acc, w, x) } } else { self.dot_bytes(acc, w, x) }
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
    fn pairs(self, a: Self::B) -> (Self::F, Self::F) {
        // SAFETY: as above.
        unsafe {
            let second = _mm512_and_si512(a, _mm512_set1_epi32(0xffff_0000_u32 as i32));
            (_mm512_castsi512_ps(_mm512_slli_epi32::<16>(a)), _mm512_castsi512_ps(second))
        }
    }
    #[inline(always)]
    fn first(self, a: Self::B) -> Self::B {
        // SAFETY: as above.
        unsafe { _mm512_and_si512(a, _mm512_set1_epi32(0xffff)) }
    }
    #[inline(always)]
    fn dot_pairs(self, acc: Self::F, w: Self::B, x: Self::B) -> Self::F {
        if BF16 {
            // SAFETY: as above; BF16 is true only where it was detected.
            return unsafe { dpbf16(acc, w, x) };
        }
        let ((w0, w1), (x0, x1)) = (self.pairs(w), self.pairs(x));
        self.fma(w0, x0, self.fma(w1, x1, acc))
    }
    #[inline(always)]
    fn bf16(self, x: Self::F) -> [bf16; LANES] {
        // SAFETY: as above; BF16 is true only where it was detected. The results are 32 bytes, as is the array.
        unsafe {
            let bits = _mm512_castps_si512(x);
            let magnitude = _mm512_and_si512(bits, _mm512_set1_epi32(0x7fff_ffff));
            let not_tiny = _mm512_cmpge_epi32_mask(magnitude, _mm512_set1_epi32(TINY as i32));
            if BF16 {
                return transmute::<__m256bh, [bf16; LANES]>(_mm512_maskz_cvtneps_pbh(not_tiny, x));
            }
            let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
            let nearest = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
            let nan = _mm512_cmpgt_epi32_mask(magnitude, _mm512_set1_epi32(INFINITE as i32));
            let quiet = _mm512_or_si512(bits, _mm512_set1_epi32(0x40 << 16));
            let either = _mm512_srli_epi32::<16>(_mm512_mask_blend_epi32(nan, nearest, quiet));
            transmute::<__m256i, [bf16; LANES]>(_mm512_cvtepi32_epi16(_mm512_maskz_mov_epi32(
                not_tiny, either,
            )))
        }
    }
    #[inline(always)]
    fn join_bf16(self, first: Self::F, second: Self::F) -> [u32; LANES] {
        // SAFETY: as above; the arrays and the results are of one size.
        unsafe {
            let low = _mm512_cvtepu16_epi32(transmute::<[bf16; LANES], __m256i>(self.bf16(first)));
            let high = _mm512_cvtepu16_epi32(transmute::<[bf16; LANES], __m256i>(self.bf16(second)));
            transmute::<__m512i, [u32; LANES]>(_mm512_or_si512(low, _mm512_slli_epi32::<16>(high)))
        }
    }
    /// Four steps, which exchange words, pairs of words, then quarters of registers. No closures: what is not inlined
    /// into a function that has the instruction set becomes a call for every instruction.
    #[inline(always)]
    fn transpose(self, words: &mut Words) {
        // SAFETY: as above; each row of the words is 64 aligned bytes.
        unsafe {
            let mut a = [_mm512_setzero_si512(); LANES];
            for (a, row) in a.iter_mut().zip(&words.0) {
                *a = _mm512_load_si512(row.as_ptr().cast());
            }
            for i in (0..LANES).step_by(2) {
                let (x, y) = (a[i], a[i + 1]);
                (a[i], a[i + 1]) = (_mm512_unpacklo_epi32(x, y), _mm512_unpackhi_epi32(x, y));
            }
            for i in (0..LANES).step_by(4) {
                let [x, y, z, w] = [a[i], a[i + 1], a[i + 2], a[i + 3]];
                (a[i], a[i + 1]) = (_mm512_unpacklo_epi64(x, z), _mm512_unpackhi_epi64(x, z));
                (a[i + 2], a[i + 3]) = (_mm512_unpacklo_epi64(y, w), _mm512_unpackhi_epi64(y, w));
            }
            // Quarter q of a[i] now holds column 4 q + i % 4 of the four rows from i / 4 * 4 on.
            let mut b = [_mm512_setzero_si512(); LANES];
            for i in 0..4 {
                for half in [0, 8] {
                    let (x, y) = (a[half + i], a[half + i + 4]);
                    b[half + i] = _mm512_shuffle_i32x4::<0b10_00_10_00>(x, y);
                    b[half + i + 4] = _mm512_shuffle_i32x4::<0b11_01_11_01>(x, y);
                }
            }
            // And here b[i] columns i and i + 8 of the first eight rows, b[i + 8] of the others.
            for i in 0..8 {
                let (x, y) = (b[i], b[i + 8]);
                let low = _mm512_shuffle_i32x4::<0b10_00_10_00>(x, y);
                let high = _mm512_shuffle_i32x4::<0b11_01_11_01>(x, y);
                _mm512_store_si512(words.0[i].as_mut_ptr().cast(), low);
                _mm512_store_si512(words.0[i + 8].as_mut_ptr().cast(), high);
            }
        }
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
