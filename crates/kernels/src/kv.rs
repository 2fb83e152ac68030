//! Keys and values of one sequence, for every layer, allocated once for `capacity` positions.
//!
//! Per layer and head: keys in tiles of 16 positions, [tiles][D][16], so that the lanes are keys and D is sequential;
//! values [positions][D padded to 16], so that the lanes are D and positions are sequential. Untouched pages cost no
//! memory.

use crate::KernelError;
use crate::buffer::Buffer;
use crate::error::by_name;
use crate::types::LANES;
use half::f16;
use std::fmt;
use std::str::FromStr;

/// How keys and values are stored; attention computes in f32 either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum KvType {
    #[default]
    F32,
    /// Half the memory and half the reading at long contexts.
    F16,
}

impl fmt::Display for KvType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            KvType::F32 => "f32",
            KvType::F16 => "f16",
        })
    }
}

impl FromStr for KvType {
    type Err = KernelError;
    fn from_str(name: &str) -> Result<Self, KernelError> {
        by_name("KV type", [KvType::F32, KvType::F16], name)
    }
}

/// The shape of a [`KvCache`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct KvShape {
    pub layers: usize,
    pub heads: usize,
    pub head_dim: usize,
    /// Positions it can hold.
    pub capacity: usize,
    pub kv_type: KvType,
}

impl KvShape {
    pub(crate) fn padded_dim(&self) -> usize {
        self.head_dim.next_multiple_of(LANES)
    }

    pub(crate) fn padded_capacity(&self) -> usize {
        self.capacity.next_multiple_of(LANES)
    }

    /// Elements of the keys, and of the values, of one head of one layer.
    pub(crate) fn key_stride(&self) -> usize {
        self.padded_capacity() * self.head_dim
    }

    pub(crate) fn value_stride(&self) -> usize {
        self.padded_capacity() * self.padded_dim()
    }

    fn element_bytes(&self) -> usize {
        match self.kv_type {
            KvType::F32 => 4,
            KvType::F16 => 2,
        }
    }
}

#[derive(Clone)]
pub(crate) enum Store {
    F32 { keys: Buffer<f32>, values: Buffer<f32> },
    F16 { keys: Buffer<f16>, values: Buffer<f16> },
}

/// Keys and values of one sequence. Never reallocates: a token more than `capacity` is an error, not a copy.
#[derive(Clone)]
pub struct KvCache {
    shape: KvShape,
    /// Positions in each layer. In the middle of a forward pass the first layers are ahead of the last.
    lens: Vec<usize>,
    store: Store,
}

impl KvCache {
    pub fn new(shape: KvShape) -> Self {
        let keys = shape.layers * shape.heads * shape.key_stride();
        let values = shape.layers * shape.heads * shape.value_stride();
        let store = match shape.kv_type {
            KvType::F32 => Store::F32 { keys: Buffer::zeroed(keys), values: Buffer::zeroed(values) },
            KvType::F16 => Store::F16 { keys: Buffer::zeroed(keys), values: Buffer::zeroed(values) },
        };
        Self { shape, lens: vec![0; shape.layers], store }
    }

    pub fn shape(&self) -> &KvShape {
        &self.shape
    }

    /// Positions that every layer holds.
    pub fn len(&self) -> usize {
        self.lens.iter().copied().min().unwrap_or(0)
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Positions that layer `layer` holds.
    pub fn layer_len(&self, layer: usize) -> usize {
        self.lens[layer]
    }

    pub fn capacity(&self) -> usize {
        self.shape.capacity
    }

    /// Bytes reserved (touched or not).
    pub fn bytes(&self) -> usize {
        let per_head = self.shape.key_stride() + self.shape.value_stride();
        self.shape.layers * self.shape.heads * per_head * self.shape.element_bytes()
    }

    /// Appends `rows` positions to layer `layer`. Row t of k is `k[t * stride..][..heads * head_dim]`, and so for v:
    /// both can be read straight out of a fused qkv buffer (`&qkv[H*D..]`, `&qkv[2*H*D..]`, stride 3*H*D).
    pub fn append(
        &mut self,
        layer: usize,
        k: &[f32],
        v: &[f32],
        stride: usize,
        rows: usize,
    ) -> Result<(), KernelError> {
        let shape = self.shape;
        let width = shape.heads * shape.head_dim;
        self.check_layer(layer)?;
        let start = self.lens[layer];
        if start + rows > shape.capacity {
            return Err(KernelError::Capacity { capacity: shape.capacity, requested: start + rows });
        }
        if rows == 0 {
            return Ok(());
        }
        let needed = (rows - 1) * stride + width;
        for (what, got) in [("keys", k.len()), ("values", v.len())] {
            if got < needed {
                return Err(KernelError::Shape { what, expected: needed, got });
            }
        }
        match &mut self.store {
            Store::F32 { keys, values } => {
                write(&shape, layer, start, k, v, stride, rows, keys, values, |x| x)
            }
            Store::F16 { keys, values } => {
                write(&shape, layer, start, k, v, stride, rows, keys, values, f16::from_f32)
            }
        }
        self.lens[layer] = start + rows;
        Ok(())
    }

    /// Forgets every position from `len` on, in every layer: also the way back from a forward pass that was cut short.
    pub fn truncate(&mut self, len: usize) {
        self.lens.iter_mut().for_each(|l| *l = len.min(*l));
    }

    /// A cache of the same shape that holds the first `len` positions.
    pub fn clone_prefix(&self, len: usize) -> Result<Self, KernelError> {
        let mut copy = Self::new(self.shape);
        copy.copy_prefix(self, len)?;
        Ok(copy)
    }

    /// Takes over the first `len` positions of `other`, in place: beams swap places without allocating. The capacities
    /// may differ, as long as `len` fits.
    pub fn copy_prefix(&mut self, other: &Self, len: usize) -> Result<(), KernelError> {
        if (KvShape { capacity: 0, ..self.shape }) != (KvShape { capacity: 0, ..other.shape }) {
            return Err(KernelError::CacheMismatch);
        }
        let limit = other.len().min(self.shape.capacity);
        if len > limit {
            return Err(KernelError::OutOfRange { what: "prefix length", limit, got: len });
        }
        let shapes = (&self.shape, &other.shape);
        match (&mut self.store, &other.store) {
            (Store::F32 { keys, values }, Store::F32 { keys: k, values: v }) => {
                copy_heads(shapes, len, keys, k, values, v);
            }
            (Store::F16 { keys, values }, Store::F16 { keys: k, values: v }) => {
                copy_heads(shapes, len, keys, k, values, v);
            }
            _ => unreachable!("equal shapes have equal types"),
        }
        self.lens.fill(len);
        Ok(())
    }

    pub(crate) fn check_layer(&self, layer: usize) -> Result<(), KernelError> {
        if layer < self.shape.layers {
            Ok(())
        } else {
            Err(KernelError::OutOfRange { what: "layer", limit: self.shape.layers, got: layer })
        }
    }

    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    /// Offsets of the keys and values of one head of one layer.
    pub(crate) fn offsets(&self, layer: usize, head: usize) -> (usize, usize) {
        let index = layer * self.shape.heads + head;
        (index * self.shape.key_stride(), index * self.shape.value_stride())
    }
}

#[allow(clippy::too_many_arguments)] // one loop for two element types
fn write<T: Copy>(
    shape: &KvShape,
    layer: usize,
    start: usize,
    k: &[f32],
    v: &[f32],
    stride: usize,
    rows: usize,
    keys: &mut [T],
    values: &mut [T],
    convert: impl Fn(f32) -> T,
) {
    let d = shape.head_dim;
    for head in 0..shape.heads {
        let index = layer * shape.heads + head;
        let keys = &mut keys[index * shape.key_stride()..][..shape.key_stride()];
        let values = &mut values[index * shape.value_stride()..][..shape.value_stride()];
        for row in 0..rows {
            let position = start + row;
            let source = row * stride + head * d;
            let tile = &mut keys[position / LANES * LANES * d..][..LANES * d];
            for (x, lanes) in k[source..][..d].iter().zip(tile.chunks_exact_mut(LANES)) {
                lanes[position % LANES] = convert(*x);
            }
            let value = &mut values[position * shape.padded_dim()..][..d];
            value.iter_mut().zip(&v[source..][..d]).for_each(|(o, x)| *o = convert(*x));
        }
    }
}

/// `shapes`: of the copy and of the original.
fn copy_heads<T: Copy>(
    (to, from): (&KvShape, &KvShape),
    len: usize,
    keys: &mut [T],
    k: &[T],
    values: &mut [T],
    v: &[T],
) {
    let key_len = len.next_multiple_of(LANES) * to.head_dim;
    let value_len = len * to.padded_dim();
    for index in 0..to.layers * to.heads {
        keys[index * to.key_stride()..][..key_len]
            .copy_from_slice(&k[index * from.key_stride()..][..key_len]);
        values[index * to.value_stride()..][..value_len]
            .copy_from_slice(&v[index * from.value_stride()..][..value_len]);
    }
}

impl fmt::Debug for KvCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KvCache({} of {:?})", self.len(), self.shape)
    }
}
