//! A weight matrix, packed once at load into the order in which the products read it.
//!
//! The matrix is [N, K]: N outputs, K inputs. Sixteen outputs make a *panel*; inside a panel K runs sequentially and
//! the 16 outputs are the vector lanes, so one row of input and many are reduced in the same order. N is padded with
//! zeros.
//!
//! | type | one panel |
//! |---|---|
//! | f32, f16 | K × [16 lanes] |
//! | q8_0 | pairs of blocks: 2 × [16 f16 scales], then 2 × (8 groups × [16 lanes × 4 values of K]) as value + 128 |
//! | q4_0 | the same, 2 × (4 × [16 lanes × 4 bytes]): byte i of a GGUF block, value i low and value i + 16 high |
//!
//! Pairs, so that every 64-byte load is aligned. Groups of 4, because int8 dot products take 4 at a time.

use crate::arena::Bytes;
use crate::buffer::{bytes_of, view};
use crate::packing::{Packing, SourceType};
use crate::quant::BLOCK;
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
    /// Packs `src`, N × K values in `layout`; see [`Packing`].
    pub fn pack(
        pool: &Pool,
        weight_type: WeightType,
        layout: Layout,
        n: usize,
        k: usize,
        src: &[f32],
    ) -> Result<Self, KernelError> {
        Self::pack_bytes(pool, weight_type, layout, n, k, SourceType::F32, bytes_of(src))
    }

    /// As [`pack`](Self::pack), from a checkpoint's bytes.
    pub fn pack_bytes(
        pool: &Pool,
        weight_type: WeightType,
        layout: Layout,
        n: usize,
        k: usize,
        source: SourceType,
        bytes: &[u8],
    ) -> Result<Self, KernelError> {
        let mut packing = Packing::new(pool, weight_type, n, k)?;
        match layout {
            Layout::OutIn => packing.rows(0, n, source, bytes)?,
            Layout::InOut => packing.columns(source, bytes)?,
        }
        Ok(packing.finish())
    }

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
