//! Keys and values of many sequences, in blocks of 64 positions. A sequence is a list of blocks; which sequence has
//! which block, and how many positions of it count, is the caller's business.
//!
//! Per block, layer and head: keys in tiles of 16 positions, [4 tiles][D][16], so that the lanes are keys and D is
//! sequential; then values [64 positions][D padded to 16], so that the lanes are D and positions are sequential. In
//! bf16 an element is a pair: of D in keys, of positions in values. A block's memory is allocated when it is first
//! written, and kept.

use crate::bf16::to_bf16;
use crate::buffer::{Buffer, Plain};
use crate::error::by_name;
use crate::simd::Element;
use crate::types::{LANES, Pair};
use crate::{KernelError, Pool};
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use std::fmt;
use std::str::FromStr;

/// Positions of a block: the four tiles of keys that attention takes at once, so that its order over the keys is the
/// same as over one long row of tiles.
pub const KV_BLOCK: usize = 4 * LANES;

/// How keys and values are stored. Sums are f32 in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum KvType {
    #[default]
    F32,
    /// Half the memory and half the reading at long contexts.
    F16,
    /// As much, and attention's two products take bf16 of queries and of the softmax's numerators.
    Bf16,
}

impl KvType {
    pub const ALL: [KvType; 3] = [KvType::F32, KvType::F16, KvType::Bf16];

    /// Values that an element holds.
    pub(crate) fn depth(self) -> usize {
        match self {
            KvType::F32 => f32::DEPTH,
            KvType::F16 => f16::DEPTH,
            KvType::Bf16 => Pair::DEPTH,
        }
    }

    /// Bytes of an element.
    fn element_bytes(self) -> usize {
        match self {
            KvType::F32 => size_of::<f32>(),
            KvType::F16 => size_of::<f16>(),
            KvType::Bf16 => size_of::<Pair>(),
        }
    }
}

impl fmt::Display for KvType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            KvType::F32 => "f32",
            KvType::F16 => "f16",
            KvType::Bf16 => "bf16",
        })
    }
}

impl FromStr for KvType {
    type Err = KernelError;
    fn from_str(name: &str) -> Result<Self, KernelError> {
        by_name("KV type", KvType::ALL, name)
    }
}

/// The shape of a [`KvPool`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct KvShape {
    pub layers: usize,
    pub heads: usize,
    pub head_dim: usize,
    pub kv_type: KvType,
}

impl KvShape {
    pub(crate) fn padded_dim(&self) -> usize {
        self.head_dim.next_multiple_of(LANES)
    }

    /// Elements of the keys of one head in one layer of a block.
    pub(crate) fn keys(&self) -> usize {
        KV_BLOCK * self.head_dim.div_ceil(self.kv_type.depth())
    }

    /// Elements of the values of one head in one layer of a block.
    pub(crate) fn values(&self) -> usize {
        KV_BLOCK / self.kv_type.depth() * self.padded_dim()
    }

    /// Where in a block the keys of a head begin; its values follow them.
    pub(crate) fn offset(&self, layer: usize, head: usize) -> usize {
        (layer * self.heads + head) * (self.keys() + self.values())
    }

    /// Bytes of a block: keys and values of 64 positions in all layers.
    pub fn block_bytes(&self) -> usize {
        self.offset(self.layers, 0) * self.kv_type.element_bytes()
    }
}

/// Blocks by id; `None`: never written.
pub(crate) type Blocks<T> = Vec<Option<Buffer<T>>>;

pub(crate) enum Store {
    F32(Blocks<f32>),
    F16(Blocks<f16>),
    Bf16(Blocks<Pair>),
}

/// Positions of one sequence on their way into its blocks.
#[derive(Debug, Clone, Copy)]
pub struct KvWrite<'a> {
    pub blocks: &'a [u32],
    /// Position of row 0.
    pub start: usize,
    pub rows: usize,
    /// Row t is `k[t * stride..][..heads * head_dim]`, and so for v: both can be read straight out of a fused qkv
    /// buffer (`&qkv[H*D..]`, `&qkv[2*H*D..]`, stride 3*H*D).
    pub k: &'a [f32],
    pub v: &'a [f32],
    pub stride: usize,
}

/// Memory for keys and values: a number of blocks of one shape.
pub struct KvPool {
    shape: KvShape,
    store: Store,
}

impl KvPool {
    /// `blocks` blocks, none of which takes memory before it is written.
    pub fn new(shape: KvShape, blocks: usize) -> Self {
        let store = match shape.kv_type {
            KvType::F32 => Store::F32(none(blocks)),
            KvType::F16 => Store::F16(none(blocks)),
            KvType::Bf16 => Store::Bf16(none(blocks)),
        };
        Self { shape, store }
    }

    pub fn shape(&self) -> &KvShape {
        &self.shape
    }

    pub fn blocks(&self) -> usize {
        match &self.store {
            Store::F32(blocks) => blocks.len(),
            Store::F16(blocks) => blocks.len(),
            Store::Bf16(blocks) => blocks.len(),
        }
    }

    /// Writes positions of layer `layer`, of each of several sequences. A thread takes a head of all of them.
    pub fn write(&mut self, pool: &Pool, layer: usize, writes: &[KvWrite]) -> Result<(), KernelError> {
        let shape = self.shape;
        for write in writes {
            self.check(layer, write.blocks, write.start + write.rows)?;
            let needed = write.rows.saturating_sub(1) * write.stride + shape.heads * shape.head_dim;
            for (what, got) in [("keys", write.k.len()), ("values", write.v.len())] {
                if write.rows > 0 && got < needed {
                    return Err(KernelError::Shape { what, expected: needed, got });
                }
            }
        }
        match &mut self.store {
            Store::F32(store) => write_heads(pool, &shape, layer, writes, store),
            Store::F16(store) => write_heads(pool, &shape, layer, writes, store),
            Store::Bf16(store) => write_heads(pool, &shape, layer, writes, store),
        }
        Ok(())
    }

    /// Makes block `to` equal to block `from`.
    pub fn copy_block(&mut self, from: u32, to: u32) -> Result<(), KernelError> {
        self.check(0, &[from, to], 2 * KV_BLOCK)?;
        let (from, to) = (from as usize, to as usize);
        match &mut self.store {
            Store::F32(store) => copy(store, from, to, &self.shape),
            Store::F16(store) => copy(store, from, to, &self.shape),
            Store::Bf16(store) => copy(store, from, to, &self.shape),
        }
        Ok(())
    }

    /// Whether there are this layer and these blocks, and `len` positions fit in them.
    pub(crate) fn check(&self, layer: usize, blocks: &[u32], len: usize) -> Result<(), KernelError> {
        if layer >= self.shape.layers {
            return Err(KernelError::OutOfRange { what: "layer", limit: self.shape.layers, got: layer });
        }
        let capacity = blocks.len() * KV_BLOCK;
        if len > capacity {
            return Err(KernelError::Capacity { capacity, requested: len });
        }
        let limit = self.blocks();
        match blocks.iter().find(|id| **id as usize >= limit) {
            Some(id) => Err(KernelError::OutOfRange { what: "block", limit, got: *id as usize }),
            None => Ok(()),
        }
    }

    /// As [`check`](Self::check), to read: all of them have been written.
    pub(crate) fn check_written(&self, layer: usize, blocks: &[u32], len: usize) -> Result<(), KernelError> {
        self.check(layer, blocks, len)?;
        let used = &blocks[..len.div_ceil(KV_BLOCK)];
        let written = |id: u32| match &self.store {
            Store::F32(store) => store[id as usize].is_some(),
            Store::F16(store) => store[id as usize].is_some(),
            Store::Bf16(store) => store[id as usize].is_some(),
        };
        match used.iter().position(|id| !written(*id)) {
            Some(at) => Err(KernelError::OutOfRange { what: "position", limit: at * KV_BLOCK, got: len }),
            None => Ok(()),
        }
    }

    pub(crate) fn store(&self) -> &Store {
        &self.store
    }
}

fn none<T: Plain>(blocks: usize) -> Blocks<T> {
    (0..blocks).map(|_| None).collect()
}

fn copy<T: Plain>(store: &mut Blocks<T>, from: usize, to: usize, shape: &KvShape) {
    let Some(source) = store[from].take() else { return };
    let target = store[to].get_or_insert_with(|| Buffer::zeroed(shape.offset(shape.layers, 0)));
    target.copy_from_slice(&source);
    store[from] = Some(source);
}

/// Up to so many rows the caller writes by itself: waking a helper takes longer.
const FEW: usize = 2;

fn write_heads<T: Place>(
    pool: &Pool,
    shape: &KvShape,
    layer: usize,
    writes: &[KvWrite],
    store: &mut Blocks<T>,
) {
    for write in writes.iter().filter(|write| write.rows > 0) {
        for id in &write.blocks[write.start / KV_BLOCK..(write.start + write.rows).div_ceil(KV_BLOCK)] {
            store[*id as usize].get_or_insert_with(|| Buffer::zeroed(shape.offset(shape.layers, 0)));
        }
    }
    let store = &*store;
    let head = |head: usize| {
        for write in writes {
            for row in 0..write.rows {
                let position = write.start + row;
                let Some(block) = &store[write.blocks[position / KV_BLOCK] as usize] else { continue };
                // SAFETY: the part of a head lies inside the block, and this task alone writes it.
                let part = unsafe {
                    let at = block.raw().add(shape.offset(layer, head));
                    std::slice::from_raw_parts_mut(at, shape.keys() + shape.values())
                };
                write.row(shape, head, row, position % KV_BLOCK, part);
            }
        }
    };
    if writes.iter().map(|write| write.rows).sum::<usize>() <= FEW {
        (0..shape.heads).for_each(head);
    } else {
        pool.run(shape.heads, head);
    }
}

impl KvWrite<'_> {
    /// One row of one head, whose keys and values in the block are `part`.
    fn row<T: Place>(&self, shape: &KvShape, head: usize, row: usize, position: usize, part: &mut [T]) {
        let d = shape.head_dim;
        let source = row * self.stride + head * d;
        let (keys, values) = part.split_at_mut(shape.keys());
        let tile = shape.keys() / (KV_BLOCK / LANES);
        let lane = position % LANES;
        let mut some = [T::default(); LANES];
        let tiles = keys[position / LANES * tile..][..tile].chunks_mut(LANES * LANES);
        for (from, to) in self.k[source..][..d].chunks(LANES * T::DEPTH).zip(tiles) {
            let some = &mut some[..from.len().div_ceil(T::DEPTH)];
            T::convert(from, some);
            for (x, lanes) in some.iter().zip(to.chunks_exact_mut(LANES)) {
                lanes[lane] = *x;
            }
        }
        let (at, which) = (position / T::DEPTH, position % T::DEPTH);
        T::value(&self.v[source..][..d], &mut values[at * shape.padded_dim()..][..d], which);
    }
}

/// How a position's values become elements.
trait Place: Element + Default {
    /// Neighbours, DEPTH of them an element, the last one filled up with 0.
    fn convert(values: &[f32], to: &mut [Self]);

    /// A value to the `which`-th of DEPTH positions of a row of elements.
    fn value(value: &[f32], row: &mut [Self], _which: usize) {
        Self::convert(value, row);
    }
}

impl Place for f32 {
    fn convert(values: &[f32], to: &mut [f32]) {
        to.copy_from_slice(values);
    }
}

impl Place for f16 {
    fn convert(values: &[f32], to: &mut [f16]) {
        to.convert_from_f32_slice(values);
    }
}

impl Place for Pair {
    fn convert(values: &[f32], to: &mut [Pair]) {
        for (values, pair) in values.chunks(Pair::DEPTH).zip(to) {
            *pair = [to_bf16(values[0]), to_bf16(values.get(1).copied().unwrap_or_default())];
        }
    }

    /// The first of a pair makes the second 0: attention multiplies both, and what another sequence left there may be
    /// no number.
    fn value(value: &[f32], row: &mut [Pair], which: usize) {
        for (pair, x) in row.iter_mut().zip(value) {
            match which {
                0 => *pair = [to_bf16(*x), bf16::ZERO],
                _ => pair[1] = to_bf16(*x),
            }
        }
    }
}

impl fmt::Debug for KvPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KvPool({} blocks of {:?})", self.blocks(), self.shape)
    }
}
