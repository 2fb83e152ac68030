//! The operations that kernels are written with; each instruction set implements them.

use crate::bf16::to_bf16;
use crate::buffer::Plain;
use crate::types::{LANES, Pair};
use half::{bf16, f16};

/// A token that proves that this machine has an instruction set, and the operations on its 16 lanes.
///
/// All of it is `inline(always)`: the caller is a function compiled with the instruction set enabled.
pub(crate) trait Simd: Copy {
    /// 16 × f32.
    type F: Copy;
    /// 16 × i32.
    type I: Copy;
    /// 64 bytes: 16 lanes × 4.
    type B: Copy;
    /// Running sums of [`dot_nibbles`](Simd::dot_nibbles).
    type N: Copy;

    /// Rows × panels of a tile of the f32 and f16 products, and of the quantised ones: what the registers hold.
    const FLOAT_TILE: (usize, usize);
    const QUANT_TILE: (usize, usize);
    /// Rows of a quantised tile of one panel.
    const QUANT_ROWS: usize = if Self::QUANT_TILE.0 >= 6 { 8 } else { Self::QUANT_TILE.0 };
    /// Rows × panels of an int8 tile, whose integer sums alone stay in registers.
    const INT8_TILE: (usize, usize) = Self::QUANT_TILE;
    /// Panels of a float tile of two rows, and tiles of keys (or lanes of D) that attention takes for several rows.
    const PAIR_PANELS: usize = 4;
    const ATTENTION_TILES: usize = 4;
    /// What [`dot_bytes`](Simd::dot_bytes) leaves in the weights: 128 where it takes them as they are stored.
    const BYTES_OFFSET: i32;

    fn splat(self, x: f32) -> Self::F;
    /// # Safety
    /// 16 elements can be read at `p`.
    unsafe fn load(self, p: *const f32) -> Self::F;
    /// # Safety
    /// 16 elements can be read at `p`.
    unsafe fn load_f16(self, p: *const f16) -> Self::F;
    /// # Safety
    /// 16 elements can be read at `p`.
    #[inline(always)]
    unsafe fn load_bf16(self, p: *const bf16) -> Self::F {
        // SAFETY: promised by the caller; the array has 16 elements.
        unsafe {
            let halves = p.cast::<[bf16; LANES]>().read_unaligned();
            let mut lanes = [0.0; LANES];
            for (lane, half) in lanes.iter_mut().zip(halves) {
                *lane = half.to_f32();
            }
            self.load(lanes.as_ptr())
        }
    }
    /// # Safety
    /// 16 elements can be written at `p`.
    unsafe fn store(self, p: *mut f32, x: Self::F);

    fn add(self, a: Self::F, b: Self::F) -> Self::F;
    fn sub(self, a: Self::F, b: Self::F) -> Self::F;
    fn mul(self, a: Self::F, b: Self::F) -> Self::F;
    fn div(self, a: Self::F, b: Self::F) -> Self::F;
    /// a * b + c, rounded once.
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// Per lane: `a < b ? x : y`; false where either is a NaN.
    fn select_lt(self, a: Self::F, b: Self::F, x: Self::F, y: Self::F) -> Self::F;

    fn splat_i(self, x: i32) -> Self::I;
    fn add_i(self, a: Self::I, b: Self::I) -> Self::I;
    fn sub_i(self, a: Self::I, b: Self::I) -> Self::I;
    fn max_i(self, a: Self::I, b: Self::I) -> Self::I;
    fn and_i(self, a: Self::I, b: Self::I) -> Self::I;
    /// a >> 1, keeping the sign.
    fn half_i(self, a: Self::I) -> Self::I;
    /// a << 23.
    fn shl23_i(self, a: Self::I) -> Self::I;
    fn to_f(self, a: Self::I) -> Self::F;
    fn bits(self, a: Self::F) -> Self::I;
    fn floats(self, a: Self::I) -> Self::F;
    fn lanes_i(self, a: Self::I) -> [i32; LANES];
    #[inline(always)]
    fn most_i(self, a: Self::I) -> i32 {
        self.lanes_i(a).into_iter().fold(i32::MIN, i32::max)
    }
    #[inline(always)]
    fn total_i(self, a: Self::I) -> i32 {
        self.lanes_i(a).into_iter().sum()
    }
    /// The low byte of each lane.
    fn low_bytes(self, a: Self::I) -> [i8; LANES];

    /// # Safety
    /// 64 bytes can be read at `p`.
    unsafe fn load_bytes(self, p: *const u8) -> Self::B;
    /// The same 4 bytes in every lane.
    ///
    /// # Safety
    /// 4 bytes can be read at `p`.
    unsafe fn splat_bytes(self, p: *const i8) -> Self::B;
    /// The low and the high nibbles.
    fn nibbles(self, a: Self::B) -> (Self::B, Self::B);
    /// Per lane: acc + Σ (w[i] - 128 + BYTES_OFFSET) x[i] over its 4 bytes, w unsigned, x in [-127, 127]. Exact.
    fn dot_bytes(self, acc: Self::I, w: Self::B, x: Self::B) -> Self::I;
    /// As [`dot_bytes`](Simd::dot_bytes), for a tile that fills the registers.
    #[inline(always)]
    fn dot_bytes_in_place(self, acc: Self::I, w: Self::B, x: Self::B) -> Self::I {
        self.dot_bytes(acc, w, x)
    }
    /// Per lane, as above for w in 0..16: at most 8 times in a row, from `no_nibbles`.
    fn dot_nibbles(self, acc: Self::N, w: Self::B, x: Self::B) -> Self::N;
    fn no_nibbles(self) -> Self::N;
    fn sum_nibbles(self, acc: Self::N) -> Self::I;

    /// The first and the second bf16 of each lane's four bytes, as f32.
    fn pairs(self, a: Self::B) -> (Self::F, Self::F);
    /// Each lane's first bf16, the second 0.
    fn first(self, a: Self::B) -> Self::B;

    /// Of each pair of lanes that are STRIDE (8, 4, 2 or 1) apart: their sum, and the first less the second.
    #[inline(always)]
    fn butterfly<const STRIDE: usize>(self, x: Self::F) -> Self::F {
        let lanes = self.lanes(x);
        let mut out = lanes;
        for i in 0..LANES {
            let other = lanes[i ^ STRIDE];
            out[i] = if i & STRIDE == 0 { lanes[i] + other } else { other - lanes[i] };
        }
        // SAFETY: the array has 16 elements.
        unsafe { self.load(out.as_ptr()) }
    }

    /// Asks for the cache line at `p`.
    fn prefetch(self, p: *const u8);

    /// Row and column change places.
    #[inline(always)]
    fn transpose(self, words: &mut Words) {
        for i in 0..LANES {
            for j in 0..i {
                (words.0[i][j], words.0[j][i]) = (words.0[j][i], words.0[i][j]);
            }
        }
    }

    // What follows is the same everywhere.

    /// acc + w[1] x[1], then + w[0] x[0], of each lane's pair of bf16, rounded after each.
    #[inline(always)]
    fn dot_pairs(self, acc: Self::F, w: Self::B, x: Self::B) -> Self::F {
        let ((w0, w1), (x0, x1)) = (self.pairs(w), self.pairs(x));
        self.fma(w0, x0, self.fma(w1, x1, acc))
    }

    /// By [`to_bf16`].
    #[inline(always)]
    fn bf16(self, x: Self::F) -> [bf16; LANES] {
        self.lanes(x).map(to_bf16)
    }

    /// Pairs of bf16 by [`to_bf16`]: each lane of `first`, in the low half, with that of `second`.
    #[inline(always)]
    fn join_bf16(self, first: Self::F, second: Self::F) -> [u32; LANES] {
        let (low, high) = (self.bf16(first), self.bf16(second));
        let mut words = [0; LANES];
        for i in 0..LANES {
            words[i] = u32::from(low[i].to_bits()) | u32::from(high[i].to_bits()) << 16;
        }
        words
    }

    /// The largest lane; no lane is a NaN.
    #[inline(always)]
    fn most(self, x: Self::F) -> f32 {
        self.lanes(x).into_iter().fold(f32::NEG_INFINITY, |most, x| if most < x { x } else { most })
    }

    #[inline(always)]
    fn zero(self) -> Self::F {
        self.splat(0.0)
    }

    /// The larger; `a` where `b` is a NaN.
    #[inline(always)]
    fn max(self, a: Self::F, b: Self::F) -> Self::F {
        self.select_lt(a, b, b, a)
    }

    #[inline(always)]
    fn lanes(self, a: Self::F) -> [f32; LANES] {
        let mut lanes = [0.0; LANES];
        // SAFETY: the array has 16 elements.
        unsafe { self.store(lanes.as_mut_ptr(), a) }
        lanes
    }

    /// The first `n <= 16` elements at `p`, then `fill`.
    ///
    /// # Safety
    /// `n` elements can be read at `p`.
    #[inline(always)]
    unsafe fn load_head(self, p: *const f32, n: usize, fill: f32) -> Self::F {
        if n == LANES {
            // SAFETY: n = 16 elements can be read.
            return unsafe { self.load(p) };
        }
        let mut lanes = [fill; LANES];
        // SAFETY: n < 16 elements can be read at p, and the array has 16.
        unsafe {
            std::ptr::copy_nonoverlapping(p, lanes.as_mut_ptr(), n);
            self.load(lanes.as_ptr())
        }
    }

    /// The first `n <= 16` lanes.
    ///
    /// # Safety
    /// `n` elements can be written at `p`.
    #[inline(always)]
    unsafe fn store_head(self, p: *mut f32, n: usize, x: Self::F) {
        if n == LANES {
            // SAFETY: n = 16 elements can be written.
            unsafe { self.store(p, x) }
        } else {
            let lanes = self.lanes(x);
            // SAFETY: n < 16 elements can be written at p, and the array has 16.
            unsafe { std::ptr::copy_nonoverlapping(lanes.as_ptr(), p, n) }
        }
    }
}

/// 16 × 16 values of four bytes.
#[repr(align(64))]
pub(crate) struct Words(pub [[u32; LANES]; LANES]);

/// Which lanes a butterfly keeps, and which it takes from their partners.
#[cfg(target_arch = "x86_64")]
pub(super) const fn signs(stride: usize) -> [f32; LANES] {
    let (mut signs, mut i) = ([1.0; LANES], 0);
    while i < LANES {
        if i & stride != 0 {
            signs[i] = -1.0;
        }
        i += 1;
    }
    signs
}

/// A stored element of weights, keys or values, and the inputs that it is multiplied with.
pub(crate) trait Element: Plain {
    /// Values along the sum that one element holds.
    const DEPTH: usize;
    /// As many values of the input.
    type Input: Plain;
    /// 16 elements.
    type Lanes<S: Simd>: Copy;

    /// # Safety
    /// 16 elements can be read at `p`.
    unsafe fn load<S: Simd>(s: S, p: *const Self) -> Self::Lanes<S>;
    /// 16 elements in each of P places, `apart` elements apart.
    ///
    /// # Safety
    /// They can be read.
    #[inline(always)]
    unsafe fn load_each<S: Simd, const P: usize>(s: S, p: *const Self, apart: usize) -> [Self::Lanes<S>; P] {
        // SAFETY: promised by the caller. No closure: one that is not inlined would be compiled for any machine.
        unsafe {
            let mut each = [Self::load(s, p); P];
            for (i, each) in each.iter_mut().enumerate().skip(1) {
                *each = Self::load(s, p.add(i * apart));
            }
            each
        }
    }
    /// # Safety
    /// One input can be read at `p`.
    unsafe fn splat<S: Simd>(s: S, p: *const Self::Input) -> Self::Lanes<S>;
    /// acc + x * w: for more than one value the last is added first.
    fn fma<S: Simd>(s: S, x: Self::Lanes<S>, w: Self::Lanes<S>, acc: S::F) -> S::F;
    /// Each element's first value, the others 0.
    fn first<S: Simd>(s: S, w: Self::Lanes<S>) -> Self::Lanes<S>;
    /// Writes the first `n <= 16` values as inputs.
    ///
    /// # Safety
    /// They can be written at `p`; where DEPTH is not 1, all 16.
    unsafe fn store<S: Simd>(s: S, p: *mut Self::Input, n: usize, x: S::F);
}

/// Elements that are f32 once loaded.
macro_rules! floats {
    ($element:ty, $load:ident) => {
        impl Element for $element {
            const DEPTH: usize = 1;
            type Input = f32;
            type Lanes<S: Simd> = S::F;

            #[inline(always)]
            unsafe fn load<S: Simd>(s: S, p: *const Self) -> S::F {
                // SAFETY: promised by the caller.
                unsafe { s.$load(p) }
            }
            #[inline(always)]
            unsafe fn splat<S: Simd>(s: S, p: *const f32) -> S::F {
                // SAFETY: promised by the caller.
                s.splat(unsafe { *p })
            }
            #[inline(always)]
            fn fma<S: Simd>(s: S, x: S::F, w: S::F, acc: S::F) -> S::F {
                s.fma(x, w, acc)
            }
            #[inline(always)]
            fn first<S: Simd>(_: S, w: S::F) -> S::F {
                w
            }
            #[inline(always)]
            unsafe fn store<S: Simd>(s: S, p: *mut f32, n: usize, x: S::F) {
                // SAFETY: promised by the caller.
                unsafe { s.store_head(p, n, x) }
            }
        }
    };
}
floats!(f32, load);
floats!(f16, load_f16);

impl Element for Pair {
    const DEPTH: usize = 2;
    type Input = Pair;
    type Lanes<S: Simd> = S::B;

    #[inline(always)]
    unsafe fn load<S: Simd>(s: S, p: *const Pair) -> S::B {
        // SAFETY: promised by the caller: 16 elements are 64 bytes.
        unsafe { s.load_bytes(p.cast()) }
    }
    #[inline(always)]
    unsafe fn splat<S: Simd>(s: S, p: *const Pair) -> S::B {
        // SAFETY: promised by the caller: an input is four bytes.
        unsafe { s.splat_bytes(p.cast()) }
    }
    #[inline(always)]
    fn fma<S: Simd>(s: S, x: S::B, w: S::B, acc: S::F) -> S::F {
        s.dot_pairs(acc, w, x)
    }
    #[inline(always)]
    fn first<S: Simd>(s: S, w: S::B) -> S::B {
        s.first(w)
    }
    #[inline(always)]
    unsafe fn store<S: Simd>(s: S, p: *mut Pair, _: usize, x: S::F) {
        // SAFETY: promised by the caller: 16 bf16 are 8 pairs.
        unsafe { p.cast::<[bf16; LANES]>().write(s.bf16(x)) }
    }
}

/// A piece of work that is compiled once per instruction set. `run` must be `inline(always)`.
pub(crate) trait Kernel {
    type Output;
    fn run<S: Simd>(self, simd: S) -> Self::Output;
}
