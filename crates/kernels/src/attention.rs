//! Attention over a batch of sequences of different lengths, without padding.

use crate::{KernelError, KvCache, Pool, Scratch, reference};

/// Where keys and values come from.
#[derive(Debug, Clone, Copy)]
pub enum KvSource<'a> {
    /// A sequence's cache: the positions that layer `layer` holds by now, those of this call's rows included.
    Cache { cache: &'a KvCache, layer: usize },
    /// This batch's own rows: key j is `k[j * stride..][..heads * head_dim]`, and so for v.
    Rows { k: &'a [f32], v: &'a [f32], stride: usize, len: usize },
}

impl KvSource<'_> {
    /// Keys.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        match self {
            KvSource::Cache { cache, layer } => cache.layer_len(*layer),
            KvSource::Rows { len, .. } => *len,
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

/// out = softmax(q · kᵀ * scale) · v, per job, row and head.
///
/// A row's bits depend on its query and on the keys and values it sees: not on how its sequence was cut into calls, on the
/// other jobs, or on the threads.
pub fn attention(
    pool: &Pool,
    jobs: &mut [AttentionJob],
    heads: usize,
    head_dim: usize,
    scale: f32,
    causal: bool,
    scratch: &mut Scratch,
) -> Result<(), KernelError> {
    for job in jobs.iter() {
        check(job, heads, head_dim, causal)?;
    }
    let _ = (pool, scratch);
    jobs.iter_mut().for_each(|job| reference::attention(job, heads, head_dim, scale, causal));
    Ok(())
}

fn check(job: &AttentionJob, heads: usize, head_dim: usize, causal: bool) -> Result<(), KernelError> {
    let width = heads * head_dim;
    crate::error::expect_len("attention output", job.rows * width, job.out.len())?;
    let reach = |rows: usize, stride: usize| if rows == 0 { 0 } else { (rows - 1) * stride + width };
    let at_least = |what, expected, got| {
        if got < expected { Err(KernelError::Shape { what, expected, got }) } else { Ok(()) }
    };
    at_least("queries", reach(job.rows, job.q_stride), job.q.len())?;
    match job.kv {
        KvSource::Rows { k, v, stride, len } => {
            at_least("keys", reach(len, stride), k.len())?;
            at_least("values", reach(len, stride), v.len())?;
        }
        KvSource::Cache { cache, layer } => {
            cache.check_layer(layer)?;
            if (cache.shape().heads, cache.shape().head_dim) != (heads, head_dim) {
                return Err(KernelError::CacheMismatch);
            }
        }
    }
    let keys = job.kv.len();
    let needed = if causal { job.start + job.rows } else { usize::from(job.rows > 0) };
    if keys < needed {
        return Err(KernelError::OutOfRange { what: "position", limit: keys, got: needed });
    }
    Ok(())
}
