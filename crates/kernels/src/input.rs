//! What a product makes of its input before it begins: beside quantised weights int8 in blocks of 32
//! (`blocks::quantize_input` is the definition), beside bf16 weights bf16 ([`crate::bf16`]).

use crate::blocks::INPUT_TINY;
use crate::buffer::LINE;
use crate::simd::Simd;
use crate::tile::QuantRows;
use crate::types::{BLOCK, LANES, Pair};
use half::bf16;

/// Where the quantised input of one product lies; the rows of a block of rows are interleaved as [`QuantRows`] says,
/// and the blocks follow each other.
#[derive(Clone, Copy)]
pub(crate) struct QuantInput {
    k: usize,
    quants: *mut i8,
    scales: *mut f32,
    sums: *mut i32,
}

impl QuantInput {
    /// Bytes for M × K values, to whole cache lines.
    pub fn bytes(m: usize, k: usize) -> usize {
        m * k.next_multiple_of(LINE) + 2 * (m * k / BLOCK * size_of::<f32>()).next_multiple_of(LINE)
    }

    /// In `bytes(m, k)` bytes at `at`, which is aligned to a cache line.
    pub fn new(at: *mut u8, m: usize, k: usize) -> Self {
        let scales = at.wrapping_add(m * k.next_multiple_of(LINE));
        let sums = scales.wrapping_add((m * k / BLOCK * size_of::<f32>()).next_multiple_of(LINE));
        Self { k, quants: at.cast(), scales: scales.cast(), sums: sums.cast() }
    }

    /// The block of rows that starts with row `first`.
    pub fn rows(&self, first: usize) -> QuantRows {
        QuantRows {
            quants: self.quants.wrapping_add(first * self.k),
            scales: self.scales.wrapping_add(first * (self.k / BLOCK)),
            sums: self.sums.wrapping_add(first * (self.k / BLOCK)),
        }
    }

    /// Quantises a block of rows: `x` is [rows, K], the first of them row `first`. `nibbles`: for q4_0 weights.
    ///
    /// # Safety
    /// The rows are inside the memory that this was made for, and nobody else touches them meanwhile.
    #[inline(always)]
    pub unsafe fn quantize<S: Simd>(&self, s: S, x: &[f32], first: usize, rows: usize, nibbles: bool) {
        let per_row = self.k / BLOCK;
        // What the dot products leave in the weights, and each sum takes back.
        let offset = if nibbles { 8 } else { S::BYTES_OFFSET };
        // SAFETY: promised by the caller.
        let (quants, scales, sums) = unsafe {
            (
                std::slice::from_raw_parts_mut(self.quants.add(first * self.k), rows * self.k),
                std::slice::from_raw_parts_mut(self.scales.add(first * per_row), rows * per_row),
                std::slice::from_raw_parts_mut(self.sums.add(first * per_row), rows * per_row),
            )
        };
        for (row, x) in x.chunks_exact(self.k.max(1)).enumerate() {
            for (block, x) in x.chunks_exact(BLOCK).enumerate() {
                let (scale, values, sum) = quantize(s, x.try_into().expect("32 values"));
                scales[block * rows + row] = scale;
                sums[block * rows + row] = -sum * offset;
                let groups = &mut quants[block * BLOCK * rows..][..BLOCK * rows];
                if rows == 1 {
                    groups.copy_from_slice(&values);
                } else {
                    for (group, values) in values.chunks_exact(4).enumerate() {
                        groups[(group * rows + row) * 4..][..4].copy_from_slice(values);
                    }
                }
            }
        }
    }
}

/// Where the bf16 input of one product lies: [M][ceil(K / 2)] pairs, an odd K with a zero.
#[derive(Clone, Copy)]
pub(crate) struct PairInput {
    k: usize,
    pairs: *mut Pair,
}

impl PairInput {
    pub fn bytes(m: usize, k: usize) -> usize {
        m * k.div_ceil(2) * size_of::<Pair>()
    }

    /// In `bytes(m, k)` bytes at `at`, which is aligned to a cache line.
    pub fn new(at: *mut u8, k: usize) -> Self {
        Self { k, pairs: at.cast() }
    }

    /// The rows from row `first` on.
    pub fn rows(&self, first: usize) -> *const Pair {
        self.pairs.wrapping_add(first * self.k.div_ceil(2)).cast_const()
    }

    /// Rounds `x`, [rows, K], the first of them row `first`.
    ///
    /// # Safety
    /// The rows are inside the memory that this was made for, and nobody else touches them meanwhile.
    #[inline(always)]
    pub unsafe fn round<S: Simd>(&self, s: S, x: &[f32], first: usize) {
        // Without a padded end rows follow each other.
        let row = if self.k.is_multiple_of(2) { x.len() } else { self.k };
        let mut to = self.rows(first).cast_mut().cast::<bf16>();
        for x in x.chunks_exact(row.max(1)) {
            for (chunk, x) in x.chunks(LANES).enumerate() {
                // SAFETY: the chunk's own elements are read; as many are written of this row.
                unsafe {
                    let rounded = s.bf16(s.load_head(x.as_ptr(), x.len(), 0.0));
                    let to = to.add(chunk * LANES);
                    if x.len() == LANES {
                        to.cast::<[bf16; LANES]>().write(rounded);
                    } else {
                        std::ptr::copy_nonoverlapping(rounded.as_ptr(), to, x.len().next_multiple_of(2));
                    }
                }
            }
            to = to.wrapping_add(row.next_multiple_of(2));
        }
    }
}

#[inline(always)]
fn quantize<S: Simd>(s: S, x: &[f32; BLOCK]) -> (f32, [i8; BLOCK], i32) {
    // SAFETY: 32 values are two loads of 16.
    let (a, b) = unsafe { (s.load(x.as_ptr()), s.load(x.as_ptr().add(LANES))) };
    let magnitude = s.splat_i(0x7fff_ffff);
    let most = s.max_i(s.and_i(s.bits(a), magnitude), s.and_i(s.bits(b), magnitude));
    let most = s.lanes_i(most).into_iter().fold(0, i32::max);
    let amax = f32::from_bits(most as u32);
    if amax < INPUT_TINY {
        return (0.0, [0; BLOCK], 0);
    }
    if !amax.is_finite() {
        return (f32::NAN, [0; BLOCK], 0);
    }
    let inverse = s.splat(127.0 / amax);
    let (a, b) = (round(s, s.mul(a, inverse)), round(s, s.mul(b, inverse)));
    let sum = s.lanes_i(s.add_i(a, b)).into_iter().sum();
    let (low, high) = (s.low_bytes(a), s.low_bytes(b));
    (amax / 127.0, std::array::from_fn(|i| if i < LANES { low[i] } else { high[i - LANES] }), sum)
}

/// To the nearest integer, halves to even: adding 1.5 * 2^23 leaves it in the low bits.
#[inline(always)]
fn round<S: Simd>(s: S, x: S::F) -> S::I {
    let magic = s.splat(12_582_912.0);
    s.sub_i(s.bits(s.add(x, magic)), s.bits(magic))
}
