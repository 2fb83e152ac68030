//! What a product makes of its input before it begins: beside quantised weights int8 in blocks of 32
//! (`blocks::quantize_input` is the definition), beside int8 weights int8 in turned blocks of 128 ([`crate::int8`]),
//! beside bf16 weights bf16 ([`crate::bf16`]).

use crate::attention_rows::head;
use crate::blocks::scale_of;
use crate::buffer::LINE;
use crate::operand::Input;
use crate::simd::Simd;
use crate::tile::{Int8Rows, QuantRows};
use crate::types::{BLOCK, INT8_BLOCK, LANES, Pair};
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

/// Where the int8 input of one product lies, row after row.
#[derive(Clone, Copy)]
pub(crate) struct Int8Input {
    k: usize,
    blocks: usize,
    quants: *mut i8,
    scales: *mut f32,
    sums: *mut i32,
}

impl Int8Input {
    /// Bytes for M × K values, to whole cache lines.
    pub fn bytes(m: usize, k: usize) -> usize {
        let blocks = m * k.div_ceil(INT8_BLOCK);
        blocks * INT8_BLOCK + 2 * (blocks * size_of::<f32>()).next_multiple_of(LINE)
    }

    /// In `bytes(m, k)` bytes at `at`, which is aligned to a cache line.
    pub fn new(at: *mut u8, m: usize, k: usize) -> Self {
        let blocks = k.div_ceil(INT8_BLOCK);
        let scales = at.wrapping_add(m * blocks * INT8_BLOCK);
        let sums = scales.wrapping_add((m * blocks * size_of::<f32>()).next_multiple_of(LINE));
        Self { k, blocks, quants: at.cast(), scales: scales.cast(), sums: sums.cast() }
    }

    /// The rows from row `first` on.
    pub fn rows(&self, first: usize) -> Int8Rows {
        Int8Rows {
            quants: self.quants.wrapping_add(first * self.blocks * INT8_BLOCK),
            scales: self.scales.wrapping_add(first * self.blocks),
            sums: self.sums.wrapping_add(first * self.blocks),
        }
    }

    /// Quantises `x`, [rows, K], the first of them row `first`.
    ///
    /// # Safety
    /// The rows are inside the memory that this was made for, and nobody else touches them meanwhile.
    #[inline(always)]
    pub unsafe fn quantize<S: Simd>(&self, s: S, x: Input, first: usize) {
        let (k, rows) = (self.k, self.rows(first));
        for row in 0..x.len() / k.max(1) {
            for block in 0..self.blocks {
                let (at, to) = (block * INT8_BLOCK, row * self.blocks + block);
                let len = INT8_BLOCK.min(k - at);
                // SAFETY: `len` values of this row are read; the rest is promised by the caller.
                unsafe {
                    let values = load_block(s, x.part(row * k + at, len));
                    let quants = rows.quants.cast_mut().add(to * INT8_BLOCK);
                    let (scale, sum) = quantize_turned(s, values, quants);
                    *rows.scales.cast_mut().add(to) = scale;
                    *rows.sums.cast_mut().add(to) = -sum * S::BYTES_OFFSET;
                }
            }
        }
    }
}

/// Registers of an int8 block.
const REGISTERS: usize = INT8_BLOCK / LANES;

/// At most 128 values, then zeros.
#[inline(always)]
fn load_block<S: Simd>(s: S, x: Input) -> [S::F; REGISTERS] {
    let mut values = [s.zero(); REGISTERS];
    let len = x.len();
    for (i, values) in values.iter_mut().enumerate() {
        let at = i * LANES;
        // SAFETY: 16 values from `at` on are there, or as many as are left.
        unsafe {
            *values = match x {
                Input::F32(x) if len == INT8_BLOCK => s.load(x.as_ptr().add(at)),
                Input::Bf16(x) if len == INT8_BLOCK => s.load_bf16(x.as_ptr().add(at)),
                Input::F32(x) => match x.get(at..) {
                    Some(x) => s.load_head(x.as_ptr(), x.len().min(LANES), 0.0),
                    None => s.zero(),
                },
                Input::Bf16(x) => {
                    let some: [bf16; LANES] = head(x.get(at..).unwrap_or_default());
                    s.load_bf16(some.as_ptr())
                }
            };
        }
    }
    values
}

/// `int8::quantize_input`: the 128 values go to `to`, the scale and the values' sum are returned.
///
/// # Safety
/// 128 values can be written at `to`.
#[inline(always)]
unsafe fn quantize_turned<S: Simd>(s: S, mut x: [S::F; REGISTERS], to: *mut i8) -> (f32, i32) {
    for stride in [4, 2, 1] {
        for i in 0..REGISTERS {
            if i & stride == 0 {
                let (a, b) = (x[i], x[i + stride]);
                (x[i], x[i + stride]) = (s.add(a, b), s.sub(a, b));
            }
        }
    }
    let magnitude = s.splat_i(0x7fff_ffff);
    let mut most = s.splat_i(0);
    for x in &mut x {
        *x = s.butterfly::<1>(s.butterfly::<2>(s.butterfly::<4>(s.butterfly::<8>(*x))));
        most = s.max_i(most, s.and_i(s.bits(*x), magnitude));
    }
    let (scale, factor) = scale_of(s.most_i(most) as u32);
    if factor == 0.0 {
        // SAFETY: promised by the caller.
        unsafe { to.write_bytes(0, INT8_BLOCK) };
        return (scale, 0);
    }
    let factor = s.splat(factor);
    let mut sum = s.splat_i(0);
    for (i, x) in x.iter().enumerate() {
        let rounded = round(s, s.mul(*x, factor));
        sum = s.add_i(sum, rounded);
        // SAFETY: promised by the caller.
        unsafe { to.add(i * LANES).cast::<[i8; LANES]>().write_unaligned(s.low_bytes(rounded)) };
    }
    (scale, s.total_i(sum))
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
    let (scale, factor) = scale_of(s.most_i(most) as u32);
    if factor == 0.0 {
        return (scale, [0; BLOCK], 0);
    }
    let factor = s.splat(factor);
    let (a, b) = (round(s, s.mul(a, factor)), round(s, s.mul(b, factor)));
    let sum = s.total_i(s.add_i(a, b));
    let (low, high) = (s.low_bytes(a), s.low_bytes(b));
    (scale, std::array::from_fn(|i| if i < LANES { low[i] } else { high[i - LANES] }), sum)
}

/// To the nearest integer, halves to even: adding 1.5 * 2^23 leaves it in the low bits.
#[inline(always)]
fn round<S: Simd>(s: S, x: S::F) -> S::I {
    let magic = s.splat(12_582_912.0);
    s.sub_i(s.bits(s.add(x, magic)), s.bits(magic))
}
