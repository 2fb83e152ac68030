//! From a checkpoint's values to panels, a part of a matrix at a time, so that loading needs no second copy of it.
//!
//! Every source and every weight type meet in a block of 32 inputs × 16 outputs in f32. Quantising works on the 16
//! outputs side by side; [`crate::blocks`] says what a block becomes.

use crate::arena::Region;
use crate::bf16::to_bf16;
use crate::blocks::{Q4_0_BYTES, Q8_0_BYTES, largest, quantize_q4_0, quantize_q8_0};
use crate::buffer::{SharedMut, bytes_of, view_mut};
use crate::error::expect_len;
use crate::int8::{for_each_pair, quantize_weights};
use crate::simd::{Kernel, Simd};
use crate::types::{
    BLOCK, INT8_BLOCK, INT8_BLOCK_BYTES, LANES, Layout, Pair, Q4_BLOCK, Q8_BLOCK, WeightType,
};
use crate::weights::{PackedMatrix, block_offsets};
use crate::{KernelError, Pool};
use half::f16;
use half::slice::HalfFloatSliceExt;
use std::sync::atomic::{AtomicBool, Ordering};

#[cfg(target_endian = "big")]
compile_error!("weights are little-endian in files and in panels");

/// What a checkpoint's little-endian bytes hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SourceType {
    F32,
    F16,
    BF16,
    /// GGUF's blocks of 32 values along K: an f16 scale, then 32 signed bytes.
    Q8_0,
    /// GGUF's blocks of 32 values along K: an f16 scale, then 32 nibbles around 8, the first 16 low.
    Q4_0,
}

impl SourceType {
    /// Bytes of a row of `k` values. The quantised types need K % 32 == 0.
    pub fn row_bytes(self, k: usize) -> usize {
        match self {
            SourceType::F32 => 4 * k,
            SourceType::F16 | SourceType::BF16 => 2 * k,
            SourceType::Q8_0 => k / BLOCK * Q8_0_BYTES,
            SourceType::Q4_0 => k / BLOCK * Q4_0_BYTES,
        }
    }

    fn is_block_quantized(self) -> bool {
        matches!(self, SourceType::Q8_0 | SourceType::Q4_0)
    }
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
}

/// A matrix that is being packed. What is not given is zero.
pub struct Packing<'a> {
    pool: &'a Pool,
    weight_type: WeightType,
    n: usize,
    k: usize,
    region: Region,
    finite: AtomicBool,
}

impl<'a> Packing<'a> {
    /// N × K, allocated. The quantised types need K % 32 == 0 ([`KernelError::BlockSize`] otherwise: pad K with zeros,
    /// which changes no sum, or keep that matrix in f16).
    pub fn new(
        pool: &'a Pool,
        weight_type: WeightType,
        n: usize,
        k: usize,
    ) -> Result<Packing<'a>, KernelError> {
        if weight_type.is_block_quantized() && !k.is_multiple_of(BLOCK) {
            return Err(KernelError::BlockSize { weight_type, k });
        }
        let region = pool.arena().zeroed(n.div_ceil(LANES) * weight_type.panel_bytes(k));
        Ok(Self { pool, weight_type, n, k, region, finite: AtomicBool::new(true) })
    }

    /// Outputs `first..first + rows` from `[rows, K]`. `first` is a multiple of 16, and `rows` too unless they are the
    /// last. GGUF's blocks keep every value where the types are the same.
    pub fn rows(
        &mut self,
        first: usize,
        rows: usize,
        source: SourceType,
        bytes: &[u8],
    ) -> Result<(), KernelError> {
        assert!(first.is_multiple_of(LANES) && first + rows <= self.n, "rows {first}.. of {}", self.n);
        assert!(rows.is_multiple_of(LANES) || first + rows == self.n, "{rows} rows in the middle");
        if source.is_block_quantized() && !self.k.is_multiple_of(BLOCK) {
            return Err(KernelError::BlockSize { weight_type: self.weight_type, k: self.k });
        }
        let row_bytes = source.row_bytes(self.k);
        expect_len("weight (bytes)", rows * row_bytes, bytes.len())?;
        let from = Source { layout: Layout::OutIn, source, bytes, stride: row_bytes };
        self.panels(from, first / LANES, rows);
        Ok(())
    }

    /// All outputs from `[K, N]` in f32, f16 or bf16: GPT-2's `Conv1D`.
    pub fn columns(&mut self, source: SourceType, bytes: &[u8]) -> Result<(), KernelError> {
        assert!(!source.is_block_quantized(), "GGUF's blocks lie along K");
        expect_len("weight (bytes)", source.row_bytes(self.n * self.k), bytes.len())?;
        let from = Source { layout: Layout::InOut, source, bytes, stride: source.row_bytes(self.n) };
        self.panels(from, 0, self.n);
        Ok(())
    }

    /// Whether all values so far are numbers, and none too large for the type.
    pub fn is_finite(&self) -> bool {
        self.finite.load(Ordering::Relaxed)
    }

    pub fn finish(self) -> PackedMatrix {
        PackedMatrix::from_parts(self.n, self.k, self.weight_type, self.region.freeze())
    }

    fn panels(&mut self, source: Source, first: usize, rows: usize) {
        let (k, weight_type) = (self.k, self.weight_type);
        let bytes = weight_type.panel_bytes(k);
        let shared = SharedMut(self.region.as_mut_ptr());
        let finite = &self.finite;
        self.pool.run(rows.div_ceil(LANES), |panel| {
            let _whole = &shared;
            // SAFETY: task `panel` is the only one that touches this panel, which lies inside the region.
            let out = unsafe { shared.slice((first + panel) * bytes, bytes) };
            let lanes = LANES.min(rows - panel * LANES);
            self.pool.isa().launch(Panel {
                source,
                first: panel * LANES,
                lanes,
                k,
                weight_type,
                out,
                finite,
            });
        });
    }
}

#[derive(Clone, Copy)]
struct Source<'a> {
    layout: Layout,
    source: SourceType,
    bytes: &'a [u8],
    /// Bytes from a row to the next.
    stride: usize,
}

/// 32 inputs of 16 outputs.
type Block = [[f32; LANES]; BLOCK];

struct Panel<'a> {
    source: Source<'a>,
    /// The panel's first output in the source, and how many it has there.
    first: usize,
    lanes: usize,
    k: usize,
    weight_type: WeightType,
    out: &'a mut [u8],
    /// Becomes false with a value that is no number, or too large.
    finite: &'a AtomicBool,
}

impl Kernel for Panel<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (finite, beyond) = (self.finite, self.weight_type.beyond());
        let most = if self.weight_type == WeightType::Int8 { self.int8(s) } else { self.blocks(s) };
        if most >= beyond.to_bits() {
            finite.store(false, Ordering::Relaxed);
        }
    }
}

impl Panel<'_> {
    /// Packs in blocks of 32; returns the bits of the largest magnitude.
    #[inline(always)]
    fn blocks<S: Simd>(self, s: S) -> u32 {
        let same = match self.weight_type {
            WeightType::Q8_0 => self.source.source == SourceType::Q8_0,
            WeightType::Q4_0 => self.source.source == SourceType::Q4_0,
            _ => false,
        };
        let mut most = 0;
        let mut block = [[0.0; LANES]; BLOCK];
        for at in (0..self.k).step_by(BLOCK) {
            let len = BLOCK.min(self.k - at);
            if same {
                most = most.max(self.source.repack(self.first, self.lanes, at / BLOCK, self.out));
                continue;
            }
            self.source.block(s, self.first, self.lanes, at, len, &mut block);
            most = most.max(largest(block.as_flattened()));
            put(self.weight_type, &block, at, len, self.out);
        }
        most
    }

    /// As `blocks`, for int8: in turned blocks of 128.
    #[inline(always)]
    fn int8<S: Simd>(self, s: S) -> u32 {
        let mut most = 0;
        for (index, out) in self.out.chunks_exact_mut(INT8_BLOCK_BYTES).enumerate() {
            let mut wide = [[0.0; LANES]; INT8_BLOCK];
            let first = index * INT8_BLOCK;
            for (at, block) in (first..self.k).step_by(BLOCK).zip(wide.as_chunks_mut::<BLOCK>().0) {
                self.source.block(s, self.first, self.lanes, at, BLOCK.min(self.k - at), block);
            }
            most = most.max(largest(wide.as_flattened()));
            for_each_pair(|i, j| {
                // SAFETY: 16 values in each of two places of the block.
                unsafe {
                    let (a, b) = (s.load(wide[i].as_ptr()), s.load(wide[j].as_ptr()));
                    s.store(wide[i].as_mut_ptr(), s.add(a, b));
                    s.store(wide[j].as_mut_ptr(), s.sub(a, b));
                }
            });
            put_int8(&wide, out);
        }
        most
    }
}

impl Source<'_> {
    /// Inputs at..at + len of the outputs from `first` on.
    #[inline(always)]
    fn block<S: Simd>(self, s: S, first: usize, lanes: usize, at: usize, len: usize, block: &mut Block) {
        match self.layout {
            Layout::OutIn => self.rows(s, first, lanes, at, len, block),
            Layout::InOut => self.columns(s, first, lanes, at, len, block),
        }
    }

    /// From rows.
    #[inline(always)]
    fn rows<S: Simd>(self, s: S, first: usize, lanes: usize, at: usize, len: usize, block: &mut Block) {
        let mut values = [0.0; BLOCK];
        for lane in 0..lanes {
            let row = &self.bytes[(first + lane) * self.stride..][..self.stride];
            match self.source {
                SourceType::F32 | SourceType::F16 | SourceType::BF16 => {
                    let size = self.source.row_bytes(1);
                    floats(s, self.source, &row[at * size..][..len * size], &mut values);
                }
                SourceType::Q8_0 => {
                    let bytes = &row[at / BLOCK * Q8_0_BYTES..][..Q8_0_BYTES];
                    let scale = f16::from_le_bytes([bytes[0], bytes[1]]).to_f32();
                    values.iter_mut().zip(&bytes[2..]).for_each(|(v, q)| *v = scale * f32::from(*q as i8));
                }
                SourceType::Q4_0 => {
                    let bytes = &row[at / BLOCK * Q4_0_BYTES..][..Q4_0_BYTES];
                    let scale = f16::from_le_bytes([bytes[0], bytes[1]]).to_f32();
                    let (low, high) = values.split_at_mut(BLOCK / 2);
                    for ((low, high), q) in low.iter_mut().zip(high).zip(&bytes[2..]) {
                        *low = scale * (f32::from(q & 15) - 8.0);
                        *high = scale * (f32::from(q >> 4) - 8.0);
                    }
                }
            }
            for (value, lanes) in values.iter().zip(block.iter_mut()) {
                lanes[lane] = *value;
            }
        }
    }

    /// The same from columns.
    #[inline(always)]
    fn columns<S: Simd>(self, s: S, first: usize, lanes: usize, at: usize, len: usize, block: &mut Block) {
        let size = self.source.row_bytes(1);
        for (i, out) in block.iter_mut().enumerate().take(len) {
            let row = &self.bytes[(at + i) * self.stride..][..self.stride];
            floats(s, self.source, &row[first * size..][..lanes * size], out);
        }
    }

    /// A GGUF block of each output, its values untouched. Returns the bits of the largest scale.
    fn repack(self, first: usize, lanes: usize, block: usize, panel: &mut [u8]) -> u32 {
        let mut most = 0;
        let is_q8 = self.source == SourceType::Q8_0;
        let (from_bytes, to_bytes) = if is_q8 { (Q8_0_BYTES, Q8_BLOCK) } else { (Q4_0_BYTES, Q4_BLOCK) };
        let (scale_at, quants_at) = block_offsets(to_bytes, block);
        for lane in 0..lanes {
            let bytes = &self.bytes[(first + lane) * self.stride + block * from_bytes..][..from_bytes];
            panel[scale_at + 2 * lane..][..2].copy_from_slice(&bytes[..2]);
            let scale = f16::from_le_bytes([bytes[0], bytes[1]]).to_f32();
            most = most.max(scale.to_bits() & 0x7fff_ffff);
            for (i, q) in bytes[2..].iter().enumerate() {
                let at = quants_at + i / 4 * (4 * LANES) + lane * 4 + i % 4;
                panel[at] = if is_q8 { q.wrapping_add(128) } else { *q };
            }
        }
        most
    }
}

/// Decodes what `bytes` hold of 16 or 32 values.
#[inline(always)]
fn floats<S: Simd, const N: usize>(s: S, source: SourceType, bytes: &[u8], out: &mut [f32; N]) {
    const { assert!(N.is_multiple_of(LANES)) };
    let size = source.row_bytes(1);
    if bytes.len() == N * size && source != SourceType::BF16 {
        for at in (0..N).step_by(LANES) {
            // SAFETY: 16 values from `at` on are inside both; loads need no alignment.
            unsafe {
                let from = bytes.as_ptr().add(at * size);
                let lanes =
                    if source == SourceType::F32 { s.load(from.cast()) } else { s.load_f16(from.cast()) };
                s.store(out.as_mut_ptr().add(at), lanes);
            }
        }
        return;
    }
    match source {
        SourceType::F32 => {
            for (o, b) in out.iter_mut().zip(bytes.as_chunks::<4>().0) {
                *o = f32::from_le_bytes(*b);
            }
        }
        SourceType::F16 => {
            for (o, b) in out.iter_mut().zip(bytes.as_chunks::<2>().0) {
                *o = f16::from_le_bytes(*b).to_f32();
            }
        }
        _ => {
            for (o, b) in out.iter_mut().zip(bytes.as_chunks::<2>().0) {
                *o = f32::from_bits(u32::from(u16::from_le_bytes(*b)) << 16);
            }
        }
    }
}

/// Writes a block to its place in a panel.
#[inline(always)]
fn put(weight_type: WeightType, block: &Block, at: usize, len: usize, panel: &mut [u8]) {
    match weight_type {
        WeightType::F32 => view_mut::<f32>(panel)[at * LANES..][..len * LANES]
            .copy_from_slice(&block.as_flattened()[..len * LANES]),
        WeightType::F16 => view_mut::<f16>(panel)[at * LANES..][..len * LANES]
            .convert_from_f32_slice(&block.as_flattened()[..len * LANES]),
        WeightType::Bf16 => {
            let pairs = &mut view_mut::<Pair>(panel)[at / 2 * LANES..][..len.div_ceil(2) * LANES];
            for (pairs, values) in pairs.chunks_exact_mut(LANES).zip(block[..len].chunks(2)) {
                let [first, second] = [values[0], values.get(1).copied().unwrap_or_default()];
                for (pair, (a, b)) in pairs.iter_mut().zip(first.into_iter().zip(second)) {
                    *pair = [to_bf16(a), to_bf16(b)];
                }
            }
        }
        WeightType::Q8_0 => {
            let (scales_at, quants_at) = block_offsets(Q8_BLOCK, at / BLOCK);
            let (scales, quants) = quantize_q8_0(block);
            view_mut::<f16>(&mut panel[scales_at..][..2 * LANES]).convert_from_f32_slice(&scales);
            put_bytes(&quants, &mut panel[quants_at..][..Q8_BLOCK]);
        }
        WeightType::Q4_0 => {
            let (scales_at, quants_at) = block_offsets(Q4_BLOCK, at / BLOCK);
            let (scales, quants) = quantize_q4_0(block);
            view_mut::<f16>(&mut panel[scales_at..][..2 * LANES]).convert_from_f32_slice(&scales);
            let words = view_mut::<i32>(&mut panel[quants_at..][..Q4_BLOCK]).as_chunks_mut::<LANES>().0;
            let (low, high) = quants.split_at(BLOCK / 2);
            let groups = low.as_chunks::<4>().0.iter().zip(high.as_chunks::<4>().0);
            for (words, (low, high)) in words.iter_mut().zip(groups) {
                let byte = |i: usize, lane: usize| (low[i][lane] | high[i][lane] << 4) << (8 * i);
                *words = std::array::from_fn(|l| byte(0, l) | byte(1, l) | byte(2, l) | byte(3, l));
            }
        }
        WeightType::Int8 => unreachable!("blocks of 128"),
    }
}

/// Writes a turned block of 128 to its place in a panel.
#[inline(always)]
fn put_int8(block: &[[f32; LANES]; INT8_BLOCK], out: &mut [u8]) {
    let (scales, quants) = quantize_weights(block);
    let (scales_at, quants_at) = out.split_at_mut(LANES * size_of::<f32>());
    view_mut::<f32>(scales_at).copy_from_slice(&scales);
    put_bytes(&quants, quants_at);
}

/// Groups of four values of each output, as value + 128.
#[inline(always)]
fn put_bytes(quants: &[[i32; LANES]], out: &mut [u8]) {
    let words = view_mut::<i32>(out).as_chunks_mut::<LANES>().0;
    for (words, q) in words.iter_mut().zip(quants.as_chunks::<4>().0) {
        let byte = |i: usize, lane: usize| (q[i][lane] + 128) << (8 * i);
        *words = std::array::from_fn(|l| byte(0, l) | byte(1, l) | byte(2, l) | byte(3, l));
    }
}
