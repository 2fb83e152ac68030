//! AVX2 + FMA + F16C: 16 lanes are two registers.

use super::operations::{Kernel, Simd, signs};
use crate::bf16::{INFINITE, TINY};
use crate::types::LANES;
use half::{bf16, f16};
use std::arch::x86_64::*;
use std::mem::transmute;

#[derive(Clone, Copy)]
pub(crate) struct Avx2(());

/// The machine must have AVX2, FMA and F16C.
pub(super) fn launch<K: Kernel>(kernel: K) -> K::Output {
    #[target_feature(enable = "avx2,fma,f16c")]
    fn inner<K: Kernel>(kernel: K) -> K::Output {
        kernel.run(Avx2(()))
    }
    // SAFETY: `Isa::launch` is called for instruction sets that were detected.
    unsafe { inner(kernel) }
}

/// Methods that are one intrinsic per half.
macro_rules! halves {
    ($($name:ident($($arg:ident: $from:ident),*) -> $to:ident = $intrinsic:expr;)*) => {$(
        #[inline(always)]
        fn $name(self, $($arg: Self::$from),*) -> Self::$to {
            // SAFETY: an `Avx2` exists only where the instruction set was detected.
            unsafe { [$intrinsic($($arg[0]),*), $intrinsic($($arg[1]),*)] }
        }
    )*};
}

impl Simd for Avx2 {
    type F = [__m256; 2];
    type I = [__m256i; 2];
    type B = [__m256i; 2];
    /// 16 × i16 each.
    type N = [__m256i; 2];

    const FLOAT_TILE: (usize, usize) = (6, 1);
    const QUANT_TILE: (usize, usize) = (4, 1);
    const BYTES_OFFSET: i32 = 0;

    halves! {
        add(a: F, b: F) -> F = _mm256_add_ps;
        sub(a: F, b: F) -> F = _mm256_sub_ps;
        mul(a: F, b: F) -> F = _mm256_mul_ps;
        div(a: F, b: F) -> F = _mm256_div_ps;
        fma(a: F, b: F, c: F) -> F = _mm256_fmadd_ps;
        add_i(a: I, b: I) -> I = _mm256_add_epi32;
        sub_i(a: I, b: I) -> I = _mm256_sub_epi32;
        max_i(a: I, b: I) -> I = _mm256_max_epi32;
        and_i(a: I, b: I) -> I = _mm256_and_si256;
        half_i(a: I) -> I = _mm256_srai_epi32::<1>;
        shl23_i(a: I) -> I = _mm256_slli_epi32::<23>;
        to_f(a: I) -> F = _mm256_cvtepi32_ps;
        bits(a: F) -> I = _mm256_castps_si256;
        floats(a: I) -> F = _mm256_castsi256_ps;
    }

    #[inline(always)]
    fn splat(self, x: f32) -> Self::F {
        // SAFETY: an `Avx2` exists only where the instruction set was detected.
        unsafe { [_mm256_set1_ps(x); 2] }
    }
    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> Self::F {
        // SAFETY: as above; 16 elements, promised by the caller.
        unsafe { [_mm256_loadu_ps(p), _mm256_loadu_ps(p.add(8))] }
    }
    #[inline(always)]
    unsafe fn load_f16(self, p: *const f16) -> Self::F {
        // SAFETY: as above; 16 elements, promised by the caller.
        unsafe {
            [_mm256_cvtph_ps(_mm_loadu_si128(p.cast())), _mm256_cvtph_ps(_mm_loadu_si128(p.add(8).cast()))]
        }
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32, x: Self::F) {
        // SAFETY: as above; 16 elements, promised by the caller.
        unsafe {
            _mm256_storeu_ps(p, x[0]);
            _mm256_storeu_ps(p.add(8), x[1]);
        }
    }
    #[inline(always)]
    fn select_lt(self, a: Self::F, b: Self::F, x: Self::F, y: Self::F) -> Self::F {
        // SAFETY: an `Avx2` exists only where the instruction set was detected.
        unsafe {
            [
                _mm256_blendv_ps(y[0], x[0], _mm256_cmp_ps::<_CMP_LT_OQ>(a[0], b[0])),
                _mm256_blendv_ps(y[1], x[1], _mm256_cmp_ps::<_CMP_LT_OQ>(a[1], b[1])),
            ]
        }
    }
    #[inline(always)]
    fn splat_i(self, x: i32) -> Self::I {
        // SAFETY: as above.
        unsafe { [_mm256_set1_epi32(x); 2] }
    }
    #[inline(always)]
    fn lanes_i(self, a: Self::I) -> [i32; LANES] {
        let mut lanes = [0; LANES];
        // SAFETY: as above; the array has 16 elements.
        unsafe {
            _mm256_storeu_si256(lanes.as_mut_ptr().cast(), a[0]);
            _mm256_storeu_si256(lanes.as_mut_ptr().add(8).cast(), a[1]);
        }
        lanes
    }
    #[inline(always)]
    fn butterfly<const STRIDE: usize>(self, x: Self::F) -> Self::F {
        // SAFETY: as above; the signs of half the lanes are 8 elements.
        unsafe {
            if STRIDE == 8 {
                return [_mm256_add_ps(x[0], x[1]), _mm256_sub_ps(x[0], x[1])];
            }
            // A product with ±1 is exact, so this is a sum or a difference.
            let signs = _mm256_loadu_ps(const { &signs(STRIDE) }.as_ptr());
            let mut y = x;
            for x in &mut y {
                let other = match STRIDE {
                    4 => _mm256_permute2f128_ps::<1>(*x, *x),
                    2 => _mm256_permute_ps::<0b01_00_11_10>(*x),
                    _ => _mm256_permute_ps::<0b10_11_00_01>(*x),
                };
                *x = _mm256_fmadd_ps(*x, signs, other);
            }
            y
        }
    }
    #[inline(always)]
    unsafe fn load_bf16(self, p: *const bf16) -> Self::F {
        // SAFETY: as above; 16 elements, promised by the caller.
        unsafe {
            let low = _mm256_cvtepu16_epi32(_mm_loadu_si128(p.cast()));
            let high = _mm256_cvtepu16_epi32(_mm_loadu_si128(p.add(8).cast()));
            self.floats([_mm256_slli_epi32::<16>(low), _mm256_slli_epi32::<16>(high)])
        }
    }
    #[inline(always)]
    fn low_bytes(self, a: Self::I) -> [i8; LANES] {
        let mut bytes = [0; LANES];
        // SAFETY: as above; the array has 16 bytes. Each half of `words` holds 4 of a[0], then 4 of a[1].
        unsafe {
            let low = _mm256_set1_epi32(255);
            let words = _mm256_packus_epi32(_mm256_and_si256(a[0], low), _mm256_and_si256(a[1], low));
            let words = _mm256_permute4x64_epi64::<0b11_01_10_00>(words);
            let packed =
                _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256::<1>(words));
            _mm_storeu_si128(bytes.as_mut_ptr().cast(), packed);
        }
        bytes
    }

    #[inline(always)]
    unsafe fn load_bytes(self, p: *const u8) -> Self::B {
        // SAFETY: as above; 64 bytes, promised by the caller.
        unsafe { [_mm256_loadu_si256(p.cast()), _mm256_loadu_si256(p.add(32).cast())] }
    }
    #[inline(always)]
    unsafe fn splat_bytes(self, p: *const i8) -> Self::B {
        // SAFETY: as above; 4 bytes, promised by the caller.
        unsafe { [_mm256_set1_epi32(p.cast::<i32>().read_unaligned()); 2] }
    }
    #[inline(always)]
    fn nibbles(self, a: Self::B) -> (Self::B, Self::B) {
        // SAFETY: as above.
        unsafe {
            let low = _mm256_set1_epi8(15);
            (
                [_mm256_and_si256(a[0], low), _mm256_and_si256(a[1], low)],
                [
                    _mm256_and_si256(_mm256_srli_epi16::<4>(a[0]), low),
                    _mm256_and_si256(_mm256_srli_epi16::<4>(a[1]), low),
                ],
            )
        }
    }
    /// `maddubs` saturates on 255 * 127 * 2, but not on |w| x sign(w): 128 * 127 * 2 < 32768.
    #[inline(always)]
    fn dot_bytes(self, acc: Self::I, w: Self::B, x: Self::B) -> Self::I {
        // SAFETY: as above.
        unsafe {
            let (top, ones) = (_mm256_set1_epi8(-128), _mm256_set1_epi16(1));
            let (a, b) = (_mm256_xor_si256(w[0], top), _mm256_xor_si256(w[1], top));
            let pairs_a = _mm256_maddubs_epi16(_mm256_abs_epi8(a), _mm256_sign_epi8(x[0], a));
            let pairs_b = _mm256_maddubs_epi16(_mm256_abs_epi8(b), _mm256_sign_epi8(x[1], b));
            [
                _mm256_add_epi32(acc[0], _mm256_madd_epi16(pairs_a, ones)),
                _mm256_add_epi32(acc[1], _mm256_madd_epi16(pairs_b, ones)),
            ]
        }
    }
    /// Exact in i16: 8 * 2 * 15 * 127 < 32768.
    #[inline(always)]
    fn dot_nibbles(self, acc: Self::N, w: Self::B, x: Self::B) -> Self::N {
        // SAFETY: as above.
        unsafe {
            [
                _mm256_add_epi16(acc[0], _mm256_maddubs_epi16(w[0], x[0])),
                _mm256_add_epi16(acc[1], _mm256_maddubs_epi16(w[1], x[1])),
            ]
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
            let high = _mm256_set1_epi32(0xffff_0000_u32 as i32);
            let first = [_mm256_slli_epi32::<16>(a[0]), _mm256_slli_epi32::<16>(a[1])];
            let second = [_mm256_and_si256(a[0], high), _mm256_and_si256(a[1], high)];
            (self.floats(first), self.floats(second))
        }
    }
    #[inline(always)]
    fn bf16(self, x: Self::F) -> [bf16; LANES] {
        let bits = self.bits(x);
        let mut words = [[0u16; 8]; 2];
        // SAFETY: as above; each half of the words has 16 bytes.
        unsafe {
            for (bits, words) in bits.iter().zip(&mut words) {
                let magnitude = _mm256_and_si256(*bits, _mm256_set1_epi32(0x7fff_ffff));
                let tiny = _mm256_cmpgt_epi32(_mm256_set1_epi32(TINY as i32), magnitude);
                let nan = _mm256_cmpgt_epi32(magnitude, _mm256_set1_epi32(INFINITE as i32));
                let odd = _mm256_and_si256(_mm256_srli_epi32::<16>(*bits), _mm256_set1_epi32(1));
                let nearest = _mm256_add_epi32(*bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
                let quiet = _mm256_or_si256(*bits, _mm256_set1_epi32(0x40 << 16));
                let either = _mm256_srli_epi32::<16>(_mm256_blendv_epi8(nearest, quiet, nan));
                let either = _mm256_andnot_si256(tiny, either);
                let high = _mm256_extracti128_si256::<1>(either);
                let packed = _mm_packus_epi32(_mm256_castsi256_si128(either), high);
                _mm_storeu_si128(words.as_mut_ptr().cast(), packed);
            }
            transmute::<[[u16; 8]; 2], [bf16; LANES]>(words)
        }
    }
    #[inline(always)]
    fn first(self, a: Self::B) -> Self::B {
        self.and_i(a, self.splat_i(0xffff))
    }
    #[inline(always)]
    fn prefetch(self, p: *const u8) {
        // SAFETY: a prefetch touches nothing that the program can observe, whatever the address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(p.cast()) }
    }
    #[inline(always)]
    fn sum_nibbles(self, acc: Self::N) -> Self::I {
        // SAFETY: as above.
        unsafe {
            let ones = _mm256_set1_epi16(1);
            [_mm256_madd_epi16(acc[0], ones), _mm256_madd_epi16(acc[1], ones)]
        }
    }
}
