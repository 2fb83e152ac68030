//! One vector compared with many: what a search reads from end to end. Rows lie one behind the other; in f32, in bytes
//! (padded to whole lines), or as bits.

use crate::Pool;
use crate::simd::{Kernel, Simd, math};
use crate::types::LANES;

/// 64 bytes on a cache line of their own: what rows of bytes are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C, align(64))]
pub struct Line(pub [u8; 64]);

/// What is summed over two vectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compare {
    /// Σ x y.
    Products,
    /// Σ (x - y)².
    Squares,
    /// Σ |x - y|.
    Distances,
}

/// Lines whose products are summed in 32 bits: 2¹⁶ · 255 · 127 < 2³¹.
const EXACT_LINES: usize = 1 << 10;
/// Rows that are summed side by side.
const ROWS: usize = 4;

/// out[r] = `compare` over `query` (W) and row r of `rows` (R, W).
///
/// # Panics
/// If `rows` is not as long as `query` times `out`.
pub fn compare_rows(pool: &Pool, compare: Compare, query: &[f32], rows: &[f32], out: &mut [f32]) {
    assert_eq!(rows.len(), query.len() * out.len(), "rows are [out, query]");
    match compare {
        Compare::Products => pool.isa().launch(Floats::<0> { query, rows, out }),
        Compare::Squares => pool.isa().launch(Floats::<1> { query, rows, out }),
        Compare::Distances => pool.isa().launch(Floats::<2> { query, rows, out }),
    }
}

/// out[r] = Σ x w over `query`, signed bytes in [-127, 127], and row r of `rows`, bytes of which 128 is 0; exact, then
/// rounded to f32.
///
/// # Panics
/// If `rows` is not as long as `query` times `out`.
pub fn dot_byte_rows(pool: &Pool, query: &[Line], rows: &[Line], out: &mut [f32]) {
    assert_eq!(rows.len(), query.len() * out.len(), "rows are [out, query]");
    pool.isa().launch(Bytes { query, rows, out });
}

/// out[r] = `compare` over `query` (W) and row r of `rows` times scales[r]; rows are bytes as in [`dot_byte_rows`].
///
/// # Panics
/// If `rows` is not as many lines as `query` fills, for each of `out` and `scales`.
pub fn compare_byte_rows(
    pool: &Pool,
    compare: Compare,
    query: &[f32],
    rows: &[Line],
    scales: &[f32],
    out: &mut [f32],
) {
    let lines = query.len().div_ceil(size_of::<Line>());
    assert!(scales.len() == out.len() && rows.len() == lines * out.len(), "rows are [out, query]");
    let mut row = vec![0.0; query.len()];
    for (r, out) in out.iter_mut().enumerate() {
        let bytes = rows[r * lines..][..lines].as_flattened_bytes();
        row.iter_mut().zip(bytes).for_each(|(x, byte)| *x = (f32::from(*byte) - 128.0) * scales[r]);
        compare_rows(pool, compare, query, &row, std::slice::from_mut(out));
    }
}

/// out[r] = the bits in which `query` and row r of `rows` differ.
///
/// # Panics
/// If `rows` is not as long as `query` times `out`.
pub fn differing_bits(query: &[u64], rows: &[u64], out: &mut [u32]) {
    assert_eq!(rows.len(), query.len() * out.len(), "rows are [out, query]");
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("popcnt") {
        #[target_feature(enable = "popcnt")]
        fn inner(query: &[u64], rows: &[u64], out: &mut [u32]) {
            count(query, rows, out);
        }
        // SAFETY: the instruction was detected.
        return unsafe { inner(query, rows, out) };
    }
    count(query, rows, out);
}

#[inline(always)]
fn count(query: &[u64], rows: &[u64], out: &mut [u32]) {
    for (row, out) in rows.chunks_exact(query.len()).zip(out) {
        *out = row.iter().zip(query).map(|(a, b)| (a ^ b).count_ones()).sum();
    }
}

/// A slice of lines as its bytes.
pub trait LineBytes {
    fn as_flattened_bytes(&self) -> &[u8];
    fn as_flattened_bytes_mut(&mut self) -> &mut [u8];
}

impl LineBytes for [Line] {
    fn as_flattened_bytes(&self) -> &[u8] {
        // SAFETY: a line is 64 bytes without padding, and any byte is a value.
        unsafe { std::slice::from_raw_parts(self.as_ptr().cast(), size_of_val(self)) }
    }

    fn as_flattened_bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(self.as_mut_ptr().cast(), size_of_val(self)) }
    }
}

/// `COMPARE` as in [`compare_rows`].
struct Floats<'a, const COMPARE: u8> {
    query: &'a [f32],
    rows: &'a [f32],
    out: &'a mut [f32],
}

impl<const COMPARE: u8> Kernel for Floats<'_, COMPARE> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let width = self.query.len();
        if width == 0 {
            return self.out.fill(0.0);
        }
        let whole = self.out.len() / ROWS * ROWS;
        for first in (0..whole).step_by(ROWS) {
            sums::<S, COMPARE, ROWS>(s, self.query, &self.rows[first * width..], &mut self.out[first..]);
        }
        for row in whole..self.out.len() {
            sums::<S, COMPARE, 1>(s, self.query, &self.rows[row * width..], &mut self.out[row..]);
        }
    }
}

/// N rows from the start of `rows`: value i goes to lane i % 16, and the lanes are folded.
#[inline(always)]
fn sums<S: Simd, const COMPARE: u8, const N: usize>(s: S, query: &[f32], rows: &[f32], out: &mut [f32]) {
    let width = query.len();
    assert!(rows.len() >= N * width && out.len() >= N);
    let mut sums = [s.zero(); N];
    for at in (0..width).step_by(LANES) {
        let n = LANES.min(width - at);
        for (row, sum) in sums.iter_mut().enumerate() {
            // SAFETY: at + n is at most `width`, the length of the query and of each row. Lanes that are not there
            // are 0 in both, so they add 0.
            let (x, y) = unsafe {
                (
                    s.load_head(query.as_ptr().add(at), n, 0.0),
                    s.load_head(rows.as_ptr().add(row * width + at), n, 0.0),
                )
            };
            *sum = match COMPARE {
                0 => s.fma(x, y, *sum),
                1 => {
                    let apart = s.sub(x, y);
                    s.fma(apart, apart, *sum)
                }
                _ => {
                    let apart = s.sub(x, y);
                    s.add(*sum, s.floats(s.and_i(s.bits(apart), s.splat_i(i32::MAX))))
                }
            };
        }
    }
    for (row, sum) in sums.into_iter().enumerate() {
        out[row] = math::fold(s, sum);
    }
}

struct Bytes<'a> {
    query: &'a [Line],
    rows: &'a [Line],
    out: &'a mut [f32],
}

impl Kernel for Bytes<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let lines = self.query.len();
        if lines <= EXACT_LINES {
            // Σ x w for bytes of which 0 is 0, less what `dot_bytes` has left in w.
            let total: i32 =
                self.query.as_flattened_bytes().iter().map(|byte| i32::from(byte.cast_signed())).sum();
            let left = total * S::BYTES_OFFSET;
            let whole = self.out.len() / ROWS * ROWS;
            for first in (0..whole).step_by(ROWS) {
                let sums = byte_sums::<S, ROWS>(s, self.query, &self.rows[first * lines..], lines);
                for (row, sum) in sums.into_iter().enumerate() {
                    self.out[first + row] = (sum - left) as f32;
                }
            }
            for row in whole..self.out.len() {
                let [sum] = byte_sums::<S, 1>(s, self.query, &self.rows[row * lines..], lines);
                self.out[row] = (sum - left) as f32;
            }
            return;
        }
        for (row, out) in self.rows.chunks_exact(lines).zip(self.out) {
            let mut sum = 0i64;
            for (query, row) in self.query.chunks(EXACT_LINES).zip(row.chunks(EXACT_LINES)) {
                let total: i32 =
                    query.as_flattened_bytes().iter().map(|byte| i32::from(byte.cast_signed())).sum();
                let [part] = byte_sums::<S, 1>(s, query, row, query.len());
                sum += i64::from(part) - i64::from(total) * i64::from(S::BYTES_OFFSET);
            }
            *out = sum as f32;
        }
    }
}

/// N rows of `lines` from the start of `rows`.
#[inline(always)]
fn byte_sums<S: Simd, const N: usize>(s: S, query: &[Line], rows: &[Line], lines: usize) -> [i32; N] {
    assert!(rows.len() >= N * lines && query.len() == lines);
    let (query, rows) = (query.as_ptr().cast::<u8>(), rows.as_ptr().cast::<u8>());
    let mut sums = [s.splat_i(0); N];
    for line in 0..lines {
        // SAFETY: line is below `lines`, and there are N rows of as many.
        unsafe {
            let x = s.load_bytes(query.add(line * size_of::<Line>()));
            for (row, sum) in sums.iter_mut().enumerate() {
                let w = s.load_bytes(rows.add((row * lines + line) * size_of::<Line>()));
                *sum = s.dot_bytes(*sum, w, x);
            }
        }
    }
    let mut totals = [0; N];
    for (total, sum) in totals.iter_mut().zip(sums) {
        *total = s.total_i(sum);
    }
    totals
}
