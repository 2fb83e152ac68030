//! What attention adds to a score by the head and by how far the key is from its query, and its gradient. All rows of a
//! head share one list of numbers, so a row's are a slice of it.

use crate::simd::Simd;
use crate::types::LANES;

/// Numbers by head and distance.
#[derive(Debug, Clone, Copy)]
pub struct Bias<'a> {
    /// [heads, 2 · reach + 1]: of a key `reach` positions before its query, …, of one `reach` positions after it.
    pub values: &'a [f32],
    /// At least the longest sequence less one.
    pub reach: usize,
}

impl<'a> Bias<'a> {
    /// Distances of a head.
    pub fn distances(&self) -> usize {
        2 * self.reach + 1
    }

    /// Where the numbers of query `row` begin, in a list of one head: key j's is j further.
    pub(super) fn start(&self, row: usize) -> usize {
        self.reach - row
    }

    /// Of the keys 0 … `keys` − 1 for query `row`.
    pub(super) fn row(&self, head: usize, row: usize, keys: usize) -> &'a [f32] {
        &self.values[head * self.distances() + self.start(row)..][..keys]
    }
}

/// x ← scale · x + bias, both of one row.
#[inline(always)]
pub(super) fn add_bias<S: Simd>(s: S, scale: f32, bias: &[f32], x: &mut [f32]) {
    let scale = s.splat(scale);
    for (x, bias) in x.chunks_mut(LANES).zip(bias.chunks(LANES)) {
        let n = x.len();
        // SAFETY: two chunks of n elements.
        unsafe {
            let score = s.fma(s.load_head(x.as_ptr(), n, 0.0), scale, s.load_head(bias.as_ptr(), n, 0.0));
            s.store_head(x.as_mut_ptr(), n, score);
        }
    }
}

/// ds ← scale · ds, the gradient of a row's scores, which is added to `dbias` before that, where it is wanted.
#[inline(always)]
pub(super) fn take_bias_gradient<S: Simd>(s: S, scale: f32, ds: &mut [f32], dbias: Option<&mut [f32]>) {
    if let Some(dbias) = dbias {
        for (ds, dbias) in ds.chunks(LANES).zip(dbias.chunks_mut(LANES)) {
            let n = ds.len();
            // SAFETY: two chunks of n elements.
            unsafe {
                let sum = s.add(s.load_head(dbias.as_ptr(), n, 0.0), s.load_head(ds.as_ptr(), n, 0.0));
                s.store_head(dbias.as_mut_ptr(), n, sum);
            }
        }
    }
    let scale = s.splat(scale);
    for ds in ds.chunks_mut(LANES) {
        let n = ds.len();
        // SAFETY: the chunk's own elements.
        unsafe { s.store_head(ds.as_mut_ptr(), n, s.mul(s.load_head(ds.as_ptr(), n, 0.0), scale)) }
    }
}
