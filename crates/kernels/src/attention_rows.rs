//! A batch's own keys and values, which no cache holds: from rows into the layout that attention reads.

use crate::buffer::Plain;
use crate::simd::{Element, Simd, Words};
use crate::types::{LANES, Pair};
use half::bf16;

/// Keys or values of one head: `len` rows, `stride` apart.
#[derive(Clone, Copy)]
pub(crate) struct Rows<'a, X> {
    pub x: &'a [X],
    pub stride: usize,
    pub len: usize,
}

/// A value of a row, and what it becomes an element of.
pub(crate) trait Value: Plain + Default {
    type Element: Element<Input = Self::Element>;

    /// 16 elements whose i-th values are those of `rows[i]`.
    fn interleave(rows: [[Self; LANES]; 2]) -> [Self::Element; LANES];
}

impl Value for f32 {
    type Element = f32;

    #[inline(always)]
    fn interleave(rows: [[f32; LANES]; 2]) -> [f32; LANES] {
        rows[0]
    }
}

impl Value for bf16 {
    type Element = Pair;

    #[inline(always)]
    fn interleave(rows: [[bf16; LANES]; 2]) -> [Pair; LANES] {
        let mut all = [[bf16::ZERO; 2]; LANES];
        for (i, pair) in all.iter_mut().enumerate() {
            *pair = [rows[0][i], rows[1][i]];
        }
        all
    }
}

/// The first N values, and 0 where there are fewer. (A copy of a length that is not known is a call.)
#[inline(always)]
pub(crate) fn head<X: Value, const N: usize>(x: &[X]) -> [X; N] {
    match x.first_chunk::<N>() {
        Some(x) => *x,
        None => {
            let mut some = [X::default(); N];
            some[..x.len()].copy_from_slice(x);
            some
        }
    }
}

impl<X: Value> Rows<'_, X> {
    /// Keys into tiles [len / 16][D / DEPTH][16]; D is `head_dim`, a multiple of DEPTH. What is not there is 0.
    #[inline(always)]
    pub fn tiles<S: Simd>(&self, s: S, head_dim: usize, tiles: &mut [X::Element]) {
        const { assert!(size_of::<X::Element>() == size_of::<u32>()) };
        let depth = head_dim / X::Element::DEPTH;
        for (tile, first) in tiles.chunks_exact_mut(depth * LANES).zip((0..self.len).step_by(LANES)) {
            let rows = LANES.min(self.len - first);
            for at in (0..depth).step_by(LANES) {
                let count = LANES.min(depth - at);
                let mut words = Words([[0; LANES]; LANES]);
                for (row, words) in words.0.iter_mut().take(rows).enumerate() {
                    let x = &self.x[(first + row) * self.stride + at * X::Element::DEPTH..];
                    let words = words.as_mut_ptr();
                    // SAFETY: a line of words is 16 f32 or 32 bf16: neighbours in D are an element.
                    unsafe {
                        match X::Element::DEPTH {
                            1 => words.cast::<[X; LANES]>().write_unaligned(head(&x[..count])),
                            _ => words.cast::<[X; 2 * LANES]>().write_unaligned(head(&x[..2 * count])),
                        }
                    }
                }
                s.transpose(&mut words);
                // SAFETY: an element has four bytes, any of which are a value.
                let words = unsafe { &*words.0.as_ptr().cast::<[[X::Element; LANES]; LANES]>() };
                for (to, words) in tile[at * LANES..].chunks_exact_mut(LANES).zip(&words[..count]) {
                    to.copy_from_slice(words);
                }
            }
        }
    }

    /// Values into [len / DEPTH][D padded to 16]; D is `head_dim`. What is not there is 0.
    #[inline(always)]
    pub fn values(&self, head_dim: usize, values: &mut [X::Element]) {
        let dim = head_dim.next_multiple_of(LANES);
        for (to, first) in values.chunks_exact_mut(dim).zip((0..self.len).step_by(X::Element::DEPTH)) {
            for (chunk, to) in to.chunks_exact_mut(LANES).enumerate() {
                let (at, n) = (chunk * LANES, LANES.min(head_dim - chunk * LANES));
                let row = |row: usize| match row < self.len {
                    true => head(&self.x[row * self.stride + at..][..n]),
                    false => [X::default(); LANES],
                };
                let second = if X::Element::DEPTH > 1 { row(first + 1) } else { [X::default(); LANES] };
                to.copy_from_slice(&X::interleave([row(first), second]));
            }
        }
    }
}
