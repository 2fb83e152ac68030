//! The input of a quantised product, as int8 in blocks of 32 (`quant::quantize_input` is the definition).

use crate::buffer::SharedMut;
use crate::matmul::{QuantInput, RowBlocks};
use crate::quant::{BLOCK, INPUT_TINY};
use crate::simd::{Kernel, Simd};
use crate::weights::LANES;
use crate::{PackedMatrix, Pool, Scratch, WeightType};

/// From this many values on it is worth a second thread.
const PARALLEL: usize = 1 << 15;

/// Quantises x[M, K] into `scratch`, rows interleaved per block of rows.
pub(crate) fn quantize_rows<'a>(
    pool: &Pool,
    x: &[f32],
    blocks: &RowBlocks,
    w: &PackedMatrix,
    scratch: &'a mut Scratch,
) -> QuantInput<'a> {
    let (k, per_row) = (w.k(), w.k() / BLOCK);
    let nibbles = w.weight_type() == WeightType::Q4_0;
    let quants = scratch.quants.at_least(x.len());
    let scales = scratch.scales.at_least(x.len() / BLOCK);
    let sums = scratch.sums.at_least(x.len() / BLOCK);
    let parts =
        (SharedMut(quants.as_mut_ptr()), SharedMut(scales.as_mut_ptr()), SharedMut(sums.as_mut_ptr()));
    let task = |block: usize| {
        let (first, rows) = blocks.get(block);
        let (quants, scales, sums) = &parts;
        // SAFETY: a block of rows has this part of each to itself, and the buffers are M rows long.
        let (quants, scales, sums) = unsafe {
            (
                quants.slice(first * k, rows * k),
                scales.slice(first * per_row, rows * per_row),
                sums.slice(first * per_row, rows * per_row),
            )
        };
        pool.isa().launch(Quantize { x: &x[first * k..][..rows * k], rows, nibbles, quants, scales, sums });
    };
    if x.len() < PARALLEL {
        (0..blocks.count()).for_each(task);
    } else {
        pool.run(blocks.count(), task);
    }
    QuantInput { quants, scales, sums }
}

struct Quantize<'a> {
    x: &'a [f32],
    rows: usize,
    /// For q4_0 weights, whose offset is 8.
    nibbles: bool,
    quants: &'a mut [i8],
    scales: &'a mut [f32],
    sums: &'a mut [i32],
}

impl Kernel for Quantize<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let offset = if self.nibbles { 8 } else { S::BYTES_OFFSET };
        let k = self.x.len() / self.rows;
        for (row, x) in self.x.chunks_exact(k).enumerate() {
            for (block, x) in x.chunks_exact(BLOCK).enumerate() {
                let (scale, values, sum) = quantize(s, x.try_into().expect("32 values"));
                self.scales[block * self.rows + row] = scale;
                self.sums[block * self.rows + row] = -sum * offset;
                let groups = &mut self.quants[block * BLOCK * self.rows..][..BLOCK * self.rows];
                if self.rows == 1 {
                    groups.copy_from_slice(&values);
                } else {
                    for (group, values) in values.chunks_exact(4).enumerate() {
                        groups[(group * self.rows + row) * 4..][..4].copy_from_slice(values);
                    }
                }
            }
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
