//! What a call of attention is given: each sequence's queries, and where its keys and values are.

use crate::{KvPool, KvType};

/// Where keys and values come from.
#[derive(Debug, Clone, Copy)]
pub enum KvSource<'a> {
    /// The first `len` positions of the sequence that has these blocks, those of this call's rows included.
    Blocks { pool: &'a KvPool, layer: usize, blocks: &'a [u32], len: usize },
    /// This batch's own rows: key j is `k[j * stride..][..heads * head_dim]`, and so for v. With `bf16`, keys, values,
    /// queries and the softmax's numerators are rounded to bf16 for the two products.
    Rows { k: &'a [f32], v: &'a [f32], stride: usize, len: usize, bf16: bool },
}

impl KvSource<'_> {
    /// Keys.
    #[allow(clippy::len_without_is_empty)] // attention over nothing is not a case to ask for
    pub fn len(&self) -> usize {
        match self {
            KvSource::Blocks { len, .. } | KvSource::Rows { len, .. } => *len,
        }
    }

    /// Whether the two products take bf16.
    pub(crate) fn is_bf16(&self) -> bool {
        match self {
            KvSource::Blocks { pool, .. } => pool.shape().kv_type == KvType::Bf16,
            KvSource::Rows { bf16, .. } => *bf16,
        }
    }
}

/// One sequence's share of a call.
#[derive(Debug)]
pub struct AttentionJob<'a> {
    /// Row t is `q[t * q_stride..][..heads * head_dim]`: straight out of a fused qkv buffer with stride 3 * H * D.
    pub q: &'a [f32],
    pub q_stride: usize,
    pub rows: usize,
    /// Absolute position of row 0. A causal row at position p sees keys 0..=p.
    pub start: usize,
    pub kv: KvSource<'a>,
    /// [rows, heads * head_dim]
    pub out: &'a mut [f32],
}
