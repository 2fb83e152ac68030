//! What a call of attention is given: each sequence's queries, and where its keys and values are.

use crate::{DistanceBias, Input, KvPool, KvType, Output};

/// Where keys and values come from.
#[derive(Debug, Clone, Copy)]
pub enum KvSource<'a> {
    /// The first `len` positions of the sequence that has these blocks, those of this call's rows included.
    Blocks { pool: &'a KvPool, layer: usize, blocks: &'a [u32], len: usize },
    /// This batch's own rows: key j is `k[j * k_stride..][..heads * head_dim]`, and so for v. In bf16 both products
    /// take bf16 of queries and of the softmax's numerators too; heads have an even size then.
    Rows { k: Input<'a>, k_stride: usize, v: Input<'a>, v_stride: usize, len: usize },
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
            KvSource::Rows { k, .. } => matches!(k, Input::Bf16(_)),
        }
    }
}

/// One sequence's share of a call.
#[derive(Debug)]
pub struct AttentionJob<'a> {
    /// Row t is `q[t * q_stride..][..heads * head_dim]`: straight out of a fused qkv buffer with stride 3 * H * D.
    pub q: Input<'a>,
    pub q_stride: usize,
    pub rows: usize,
    /// Absolute position of row 0. A causal row at position p sees keys 0..=p.
    pub start: usize,
    pub kv: KvSource<'a>,
    /// Added to the scores after they are scaled; rows' positions count from `start`, keys' from 0.
    pub bias: Option<&'a DistanceBias>,
    /// [rows, heads * head_dim]
    pub out: Output<'a>,
}
