//! A weight matrix, packed once at load into the order in which the products read it.
//!
//! The matrix is [N, K]: N outputs, K inputs. Sixteen outputs make a *panel*; inside a panel K runs sequentially and
//! the 16 outputs are the vector lanes, so one row of input and many are reduced in the same order. N is padded with
//! zeros.
//!
//! | type | one panel |
//! |---|---|
//! | f32, f16 | K × [16 lanes] |
//! | bf16 | pairs of K: ceil(K / 2) × [16 lanes × 2 values of K], an odd K with a zero |
//! | q8_0 | pairs of blocks: 2 × [16 f16 scales], then 2 × (8 groups × [16 lanes × 4 values of K]) as value + 128 |
//! | q4_0 | the same, 2 × (4 × [16 lanes × 4 bytes]): byte i of a GGUF block, value i low and value i + 16 high |
//! | int8 | blocks of 128, the last with zeros: [16 f32 scales], then 32 groups × [16 lanes × 4 values of K] + 128 |
//!
//! Pairs, so that every 64-byte load is aligned. Groups of 4, because int8 dot products take 4 at a time.

use crate::KernelError;
use crate::arena::Bytes;
use crate::buffer::view;
use crate::error::by_name;
use crate::int8::turn;
use crate::types::{
    BLOCK, INT8_BLOCK, INT8_BLOCK_BYTES, LANES, PAIR_SCALES, Pair, Q4_BLOCK, Q8_BLOCK, WeightType,
};
use half::f16;
use std::fmt;
use std::str::FromStr;

impl FromStr for WeightType {
    type Err = KernelError;
    fn from_str(name: &str) -> Result<Self, KernelError> {
        by_name("weight type", WeightType::ALL, name)
    }
}

/// N outputs × K inputs, packed. Immutable: a clone shares the memory.
#[derive(Clone)]
pub struct PackedMatrix {
    n: usize,
    k: usize,
    weight_type: WeightType,
    /// ceil(N / 16) panels of `weight_type.panel_bytes(k)`.
    data: Bytes,
}

impl PackedMatrix {
    pub(crate) fn from_parts(n: usize, k: usize, weight_type: WeightType, data: Bytes) -> Self {
        Self { n, k, weight_type, data }
    }

    /// Outputs.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Inputs.
    pub fn k(&self) -> usize {
        self.k
    }

    pub fn weight_type(&self) -> WeightType {
        self.weight_type
    }

    /// Bytes in memory, which is what one token reads.
    pub fn bytes(&self) -> usize {
        self.data.len()
    }

    /// Row `row` of [N, K] as f32: a token's embedding, from a head that is tied to it, without a second copy.
    ///
    /// # Panics
    /// If `row >= n()` or `out.len() != k()`.
    pub fn dequantize_row(&self, row: usize, out: &mut [f32]) {
        assert!(row < self.n, "row {row} of {}", self.n);
        assert_eq!(out.len(), self.k, "a row has K values");
        let (panel, lane) = (self.panel(row / LANES), row % LANES);
        match self.weight_type {
            WeightType::F32 => out
                .iter_mut()
                .zip(view::<f32>(panel)[lane..].iter().step_by(LANES))
                .for_each(|(o, w)| *o = *w),
            WeightType::F16 => {
                out.iter_mut()
                    .zip(view::<f16>(panel)[lane..].iter().step_by(LANES))
                    .for_each(|(o, w)| *o = w.to_f32());
            }
            WeightType::Bf16 => {
                let pairs = view::<Pair>(panel)[lane..].iter().step_by(LANES);
                for (o, pair) in out.chunks_mut(2).zip(pairs) {
                    o.iter_mut().zip(pair).for_each(|(o, w)| *o = w.to_f32());
                }
            }
            WeightType::Q8_0 | WeightType::Q4_0 => {
                for (block, values) in out.chunks_exact_mut(BLOCK).enumerate() {
                    let (scale, q) = self.block(row, block);
                    values.iter_mut().zip(q).for_each(|(o, q)| *o = q as f32 * scale);
                }
            }
            WeightType::Int8 => {
                for (block, values) in out.chunks_mut(INT8_BLOCK).enumerate() {
                    let (scale, q) = self.int8_block(row, block);
                    let mut turned = q.map(|q| f32::from(q) * scale);
                    turn(&mut turned);
                    values.copy_from_slice(&turned[..values.len()]);
                }
            }
        }
    }

    pub(crate) fn panels(&self) -> usize {
        self.n.div_ceil(LANES)
    }

    pub(crate) fn panel(&self, panel: usize) -> &[u8] {
        let bytes = self.weight_type.panel_bytes(self.k);
        &self.data[panel * bytes..][..bytes]
    }

    /// Scale and quants of block `block` of row `row`, for the quantised types.
    pub(crate) fn block(&self, row: usize, block: usize) -> (f32, [i32; BLOCK]) {
        let (panel, lane) = (self.panel(row / LANES), row % LANES);
        let is_q8 = self.weight_type == WeightType::Q8_0;
        let (scale_at, quants_at) = block_offsets(if is_q8 { Q8_BLOCK } else { Q4_BLOCK }, block);
        let scale = view::<f16>(&panel[scale_at..][..2 * LANES])[lane].to_f32();
        let quants = &panel[quants_at..];
        let q = std::array::from_fn(|i| {
            if is_q8 {
                i32::from(quants[q8_index(lane, i)]) - 128
            } else {
                let byte = quants[q8_index(lane, i % 16)];
                i32::from(if i < 16 { byte & 15 } else { byte >> 4 }) - 8
            }
        });
        (scale, q)
    }

    /// Scale and turned values of block `block` of row `row`, for int8.
    pub(crate) fn int8_block(&self, row: usize, block: usize) -> (f32, [i8; INT8_BLOCK]) {
        let (panel, lane) = (self.panel(row / LANES), row % LANES);
        let (scales, quants) = panel[block * INT8_BLOCK_BYTES..][..INT8_BLOCK_BYTES].split_at(4 * LANES);
        let q = std::array::from_fn(|i| quants[q8_index(lane, i)].wrapping_sub(128) as i8);
        (view::<f32>(scales)[lane], q)
    }
}

impl fmt::Debug for PackedMatrix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PackedMatrix({} x {}, {})", self.n, self.k, self.weight_type)
    }
}

/// Byte offsets of a block's scales and quants in its panel.
pub(crate) fn block_offsets(block_bytes: usize, block: usize) -> (usize, usize) {
    let pair = block / 2 * (PAIR_SCALES + 2 * block_bytes);
    (pair + block % 2 * PAIR_SCALES / 2, pair + PAIR_SCALES + block % 2 * block_bytes)
}

/// Index of value `i` of `lane` in a block of groups of four.
fn q8_index(lane: usize, i: usize) -> usize {
    i / 4 * (4 * LANES) + lane * 4 + i % 4
}
