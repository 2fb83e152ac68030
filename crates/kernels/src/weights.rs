//! A weight matrix, packed once at load into the order in which the products read it.
//!
//! The matrix is [N, K]: N outputs, K inputs. Sixteen outputs make a *panel*; inside a panel K runs sequentially and the 16
//! outputs are the vector lanes, so one row of input and many are reduced in the same order. N is padded with zeros.
//!
//! | type | one panel |
//! |---|---|
//! | f32, f16 | K × [16 lanes] |
//! | q8_0 | pairs of blocks: 2 × [16 f16 scales], then 2 × (8 groups × [16 lanes × 4 values of K]) as value + 128 |
//! | q4_0 | the same, 2 × (4 × [16 lanes × 4 bytes]): byte i of a GGUF block, value i low and value i + 16 high |
//!
//! Pairs, so that every 64-byte load is aligned. Groups of 4, because int8 dot products take 4 at a time.

use crate::arena::Bytes;
use crate::buffer::{SharedMut, view, view_mut};
use crate::error::expect_len;
use crate::quant::{BLOCK, Q4_0_BYTES, Q8_0_BYTES, quantize_q4_0, quantize_q8_0};
use crate::{KernelError, Pool};
use half::f16;
use std::fmt;
use std::str::FromStr;

/// Outputs per panel: the lanes of one AVX-512 register, two of AVX2, four of NEON.
pub(crate) const LANES: usize = 16;
/// Bytes of the scales of a pair of blocks.
pub(crate) const PAIR_SCALES: usize = 2 * LANES * size_of::<f16>();
/// Bytes of the quants of one block of one panel.
pub(crate) const Q8_BLOCK: usize = BLOCK * LANES;
/// As above, two values to a byte.
pub(crate) const Q4_BLOCK: usize = BLOCK * LANES / 2;

/// How a weight is stored. The input, the sums and the output are always f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WeightType {
    F32,
    F16,
    /// int8 with an f16 scale per 32 along K: 8.5 bits a weight.
    Q8_0,
    /// int4 with an f16 scale per 32 along K: 4.5 bits a weight.
    Q4_0,
}

impl WeightType {
    pub const ALL: [WeightType; 4] = [WeightType::F32, WeightType::F16, WeightType::Q8_0, WeightType::Q4_0];

    fn name(self) -> &'static str {
        match self {
            WeightType::F32 => "f32",
            WeightType::F16 => "f16",
            WeightType::Q8_0 => "q8_0",
            WeightType::Q4_0 => "q4_0",
        }
    }

    /// Whether K comes in blocks of 32.
    pub fn is_block_quantized(self) -> bool {
        matches!(self, WeightType::Q8_0 | WeightType::Q4_0)
    }

    /// Bytes of one panel of K inputs.
    pub(crate) fn panel_bytes(self, k: usize) -> usize {
        let pairs = k.div_ceil(2 * BLOCK);
        match self {
            WeightType::F32 => k * LANES * 4,
            WeightType::F16 => k * LANES * 2,
            WeightType::Q8_0 => pairs * (PAIR_SCALES + 2 * Q8_BLOCK),
            WeightType::Q4_0 => pairs * (PAIR_SCALES + 2 * Q4_BLOCK),
        }
    }
}

impl fmt::Display for WeightType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for WeightType {
    type Err = KernelError;
    fn from_str(name: &str) -> Result<Self, KernelError> {
        WeightType::ALL
            .into_iter()
            .find(|t| t.name() == name)
            .ok_or_else(|| KernelError::UnknownName { what: "weight type", name: name.to_owned() })
    }
}

/// The order of the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Layout {
    /// [out, in]: `nn.Linear`, embeddings, every GGUF matrix.
    OutIn,
    /// [in, out]: GPT-2's `Conv1D`.
    InOut,
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
    /// Packs `src`, N × K values in `layout`. The quantised types need K % 32 == 0 ([`KernelError::BlockSize`] otherwise: pad
    /// K with zeros, which changes no sum, or keep that matrix in f16).
    pub fn pack(
        pool: &Pool,
        weight_type: WeightType,
        layout: Layout,
        n: usize,
        k: usize,
        src: &[f32],
    ) -> Result<Self, KernelError> {
        expect_len("weight", n * k, src.len())?;
        Self::pack_with(pool, weight_type, n, k, |row, col| match layout {
            Layout::OutIn => src[row * k + col],
            Layout::InOut => src[col * n + row],
        })
    }

    /// As [`pack`](Self::pack), from f16; to [`WeightType::F16`] it is lossless.
    pub fn pack_from_f16(
        pool: &Pool,
        weight_type: WeightType,
        layout: Layout,
        n: usize,
        k: usize,
        src: &[f16],
    ) -> Result<Self, KernelError> {
        expect_len("weight", n * k, src.len())?;
        Self::pack_with(pool, weight_type, n, k, |row, col| match layout {
            Layout::OutIn => src[row * k + col].to_f32(),
            Layout::InOut => src[col * n + row].to_f32(),
        })
    }

    /// Re-orders GGUF `Q8_0` rows ([N, K / 32] blocks of 34 bytes) without touching a value.
    pub fn pack_q8_0(pool: &Pool, n: usize, k: usize, blocks: &[u8]) -> Result<Self, KernelError> {
        Self::pack_blocks(pool, WeightType::Q8_0, Q8_0_BYTES, n, k, blocks, |panel, lane, block, bytes| {
            let q: [i8; BLOCK] = std::array::from_fn(|i| bytes[2 + i] as i8);
            put_q8(panel, lane, block, f16::from_le_bytes([bytes[0], bytes[1]]), &q);
        })
    }

    /// Re-orders GGUF `Q4_0` rows ([N, K / 32] blocks of 18 bytes) without touching a value.
    pub fn pack_q4_0(pool: &Pool, n: usize, k: usize, blocks: &[u8]) -> Result<Self, KernelError> {
        Self::pack_blocks(pool, WeightType::Q4_0, Q4_0_BYTES, n, k, blocks, |panel, lane, block, bytes| {
            let q: [u8; BLOCK] =
                std::array::from_fn(|i| if i < 16 { bytes[2 + i] & 15 } else { bytes[2 + i - 16] >> 4 });
            put_q4(panel, lane, block, f16::from_le_bytes([bytes[0], bytes[1]]), &q);
        })
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
            WeightType::Q8_0 | WeightType::Q4_0 => {
                for (block, values) in out.chunks_exact_mut(BLOCK).enumerate() {
                    let (scale, q) = self.block(row, block);
                    values.iter_mut().zip(q).for_each(|(o, q)| *o = q as f32 * scale);
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

    fn pack_with(
        pool: &Pool,
        weight_type: WeightType,
        n: usize,
        k: usize,
        at: impl Fn(usize, usize) -> f32 + Sync,
    ) -> Result<Self, KernelError> {
        Self::fill_panels(pool, weight_type, n, k, |panel, first| {
            let rows = first..n.min(first + LANES);
            match weight_type {
                WeightType::F32 => {
                    let panel = view_mut::<f32>(panel);
                    for (col, lanes) in panel.chunks_exact_mut(LANES).enumerate() {
                        lanes.iter_mut().zip(rows.clone()).for_each(|(w, row)| *w = at(row, col));
                    }
                }
                WeightType::F16 => {
                    let panel = view_mut::<f16>(panel);
                    for (col, lanes) in panel.chunks_exact_mut(LANES).enumerate() {
                        lanes
                            .iter_mut()
                            .zip(rows.clone())
                            .for_each(|(w, row)| *w = f16::from_f32(at(row, col)));
                    }
                }
                WeightType::Q8_0 | WeightType::Q4_0 => {
                    for block in 0..k / BLOCK {
                        for row in rows.clone() {
                            let values = std::array::from_fn(|i| at(row, block * BLOCK + i));
                            if weight_type == WeightType::Q8_0 {
                                let (scale, q) = quantize_q8_0(&values);
                                put_q8(panel, row - first, block, scale, &q);
                            } else {
                                let (scale, q) = quantize_q4_0(&values);
                                put_q4(panel, row - first, block, scale, &q);
                            }
                        }
                    }
                }
            }
        })
    }

    fn pack_blocks(
        pool: &Pool,
        weight_type: WeightType,
        block_bytes: usize,
        n: usize,
        k: usize,
        blocks: &[u8],
        put: impl Fn(&mut [u8], usize, usize, &[u8]) + Sync,
    ) -> Result<Self, KernelError> {
        let per_row = k / BLOCK;
        expect_len("weight blocks (bytes)", n * per_row * block_bytes, blocks.len())?;
        Self::fill_panels(pool, weight_type, n, k, |panel, first| {
            for row in first..n.min(first + LANES) {
                let row_blocks =
                    blocks[row * per_row * block_bytes..].chunks_exact(block_bytes).take(per_row);
                row_blocks.enumerate().for_each(|(block, bytes)| put(panel, row - first, block, bytes));
            }
        })
    }

    /// Allocates and lets `fill(panel, its first row)` write every panel.
    fn fill_panels(
        pool: &Pool,
        weight_type: WeightType,
        n: usize,
        k: usize,
        fill: impl Fn(&mut [u8], usize) + Sync,
    ) -> Result<Self, KernelError> {
        if weight_type.is_block_quantized() && !k.is_multiple_of(BLOCK) {
            return Err(KernelError::BlockSize { weight_type, k });
        }
        let bytes = weight_type.panel_bytes(k);
        let mut data = pool.arena().zeroed(n.div_ceil(LANES) * bytes);
        let shared = SharedMut(data.as_mut_ptr());
        pool.run(n.div_ceil(LANES), |panel| {
            let _whole = &shared;
            // SAFETY: task `panel` is the only one that touches this panel, which lies inside `data`.
            fill(unsafe { shared.slice(panel * bytes, bytes) }, panel * LANES);
        });
        Ok(Self { n, k, weight_type, data: data.freeze() })
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

fn put_q8(panel: &mut [u8], lane: usize, block: usize, scale: f16, q: &[i8; BLOCK]) {
    let (scale_at, quants_at) = block_offsets(Q8_BLOCK, block);
    view_mut::<f16>(&mut panel[scale_at..][..2 * LANES])[lane] = scale;
    for (i, q) in q.iter().enumerate() {
        panel[quants_at + q8_index(lane, i)] = (i16::from(*q) + 128) as u8;
    }
}

fn put_q4(panel: &mut [u8], lane: usize, block: usize, scale: f16, q: &[u8; BLOCK]) {
    let (scale_at, quants_at) = block_offsets(Q4_BLOCK, block);
    view_mut::<f16>(&mut panel[scale_at..][..2 * LANES])[lane] = scale;
    for i in 0..16 {
        panel[quants_at + q8_index(lane, i)] = q[i] | q[i + 16] << 4;
    }
}
