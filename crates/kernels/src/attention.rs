//! Attention over a batch of sequences of different lengths, without padding.
//!
//! A task is one head of one sequence. Its rows are taken a few at a time: scores for tiles of 16 keys (the lanes are
//! keys, D is sequential), the softmax over what the row sees, then the values (the lanes are D, keys ascend). A key
//! that a row does not see never enters its sums, so a row gives the same bits in whatever chunk of its sequence it
//! comes.

use crate::attention_job::{AttentionJob, KvSource};
use crate::buffer::{Plain, SharedMut};
use crate::kv::{Blocks, KV_BLOCK, Store};
use crate::rows::{exponentials, row_max};
use crate::simd::{Element, Kernel, Simd};
use crate::types::LANES;
use crate::{KernelError, Pool, Scratch};

/// Rows whose scores are held at once.
const ROWS: usize = 4;
/// Tiles of keys, and lanes of D, that one row or several rows take at once.
const TILES: usize = 4;

/// out = softmax(q · kᵀ * scale) · v, per job, row and head.
///
/// A row's bits depend on its query and on the keys and values it sees: not on how its sequence was cut into calls, on
/// the other jobs, or on the threads.
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
    // Per thread: the scores, the sums of V, and for rows of a batch their keys and values in the layout of the cache.
    let dim = head_dim.next_multiple_of(LANES);
    let keys = jobs.iter().map(|job| job.kv.len()).max().unwrap_or(0).next_multiple_of(LANES * TILES);
    let own = |job: &AttentionJob| matches!(job.kv, KvSource::Rows { .. });
    let copies = if jobs.iter().any(own) { keys * (head_dim + dim) } else { 0 };
    let per_thread = ROWS * (keys + dim) + copies;
    let work = SharedMut(scratch.attention.at_least(pool.threads() * per_thread).as_mut_ptr());
    let outs: Vec<_> = jobs.iter_mut().map(|job| SharedMut(job.out.as_mut_ptr())).collect();
    let jobs = &*jobs;
    pool.run_shares(jobs.len() * heads, |worker, claims| {
        claims.for_each(|task| {
            let (job, head) = (task / heads, task % heads);
            // SAFETY: no two tasks with the same worker run at once, and each worker has its own part.
            let work = unsafe { work.slice(worker * per_thread, per_thread) };
            let (scores, work) = work.split_at_mut(ROWS * keys);
            let (sums, copies) = work.split_at_mut(ROWS * dim);
            let out = outs[job].0.wrapping_add(head * head_dim);
            let head = Head {
                job: &jobs[job],
                head,
                width: heads * head_dim,
                head_dim,
                scale,
                causal,
                scores,
                keys,
                sums,
                copies,
                out,
            };
            pool.isa().launch(head);
        })
    });
    Ok(())
}

/// One head of one sequence.
struct Head<'a> {
    job: &'a AttentionJob<'a>,
    head: usize,
    /// heads * head_dim
    width: usize,
    head_dim: usize,
    scale: f32,
    causal: bool,
    /// [ROWS, keys]
    scores: &'a mut [f32],
    keys: usize,
    /// [ROWS, D padded]
    sums: &'a mut [f32],
    copies: &'a mut [f32],
    /// This head's part of row 0.
    out: *mut f32,
}

impl Kernel for Head<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        let dim = self.head_dim.next_multiple_of(LANES);
        match self.job.kv {
            KvSource::Blocks { pool, layer, blocks, .. } => {
                let at = pool.shape().offset(layer, self.head);
                let keys = pool.shape().keys();
                match pool.store() {
                    Store::F32(store) => self.rows(s, KV_BLOCK, dim, |i| part(store, blocks[i], at, keys)),
                    Store::F16(store) => self.rows(s, KV_BLOCK, dim, |i| part(store, blocks[i], at, keys)),
                }
            }
            KvSource::Rows { k, v, stride, len } => {
                let at = self.head * self.head_dim;
                let (key_tiles, values) = std::mem::take(&mut self.copies)
                    .split_at_mut(len.next_multiple_of(LANES) * self.head_dim);
                transpose(&k[at..], stride, len, self.head_dim, key_tiles);
                let all = len.next_multiple_of(LANES).max(LANES);
                if self.head_dim == dim {
                    self.rows(s, all, stride, |_| (&*key_tiles, &v[at..]));
                } else {
                    for (row, value) in values.chunks_exact_mut(dim).take(len).enumerate() {
                        value[..self.head_dim].copy_from_slice(&v[at + row * stride..][..self.head_dim]);
                        value[self.head_dim..].fill(0.0);
                    }
                    self.rows(s, all, dim, |_| (&*key_tiles, &*values));
                }
            }
        }
    }
}

/// Keys and values of a head in block `id`: its keys begin at `at`, and are `keys` elements.
#[inline(always)]
fn part<T: Plain>(store: &Blocks<T>, id: u32, at: usize, keys: usize) -> (&[T], &[T]) {
    // Checked before the call; an empty slice would fail the assertions below.
    let block = store[id as usize].as_deref().unwrap_or_default();
    block[at..].split_at(keys)
}

/// Rows into tiles [len / 16][D][16].
fn transpose(k: &[f32], stride: usize, len: usize, head_dim: usize, tiles: &mut [f32]) {
    for row in 0..len {
        let tile = &mut tiles[row / LANES * LANES * head_dim..][..LANES * head_dim];
        for (x, lanes) in k[row * stride..][..head_dim].iter().zip(tile.chunks_exact_mut(LANES)) {
            lanes[row % LANES] = *x;
        }
    }
}

impl Head<'_> {
    /// Part i of the keys and values has positions i * `span` to (i + 1) * `span` - 1: keys in tiles, values in rows
    /// `value_stride` apart, D padded to whole lanes (what is in the padding is not used).
    #[inline(always)]
    fn rows<'a, S: Simd, T: Element>(
        &mut self,
        s: S,
        span: usize,
        value_stride: usize,
        part: impl Fn(usize) -> (&'a [T], &'a [T]),
    ) {
        let (rows, dim) = (self.job.rows, self.head_dim.next_multiple_of(LANES));
        let mut row = 0;
        while row < rows {
            let count = if rows - row >= ROWS { ROWS } else { 1 };
            // A causal row sees one key more than the row before it.
            let (visible, step) =
                if self.causal { (self.job.start + row + 1, 1) } else { (self.job.kv.len(), 0) };
            let sees = |r: usize| visible + r * step;
            let (fewest, most) = (sees(0), sees(count - 1));
            // The bounds that the kernels below rely on.
            assert!(most <= self.keys && span.is_multiple_of(LANES));
            let job = self.job;
            let q = &job.q[row * job.q_stride + self.head * self.head_dim..];
            assert!(q.len() >= (count - 1) * job.q_stride + self.head_dim);

            let parts = most.div_ceil(span);
            for index in 0..parts {
                let (keys, values) = part(index);
                let count_here = span.min(most - index * span);
                assert!(keys.len() >= count_here.next_multiple_of(LANES) * self.head_dim);
                assert!(values.len() >= (count_here - 1) * value_stride + dim);
                let (q, at) = (q.as_ptr(), index * span);
                // SAFETY: the asserts above; scores are [ROWS, keys] and sums are [ROWS, dim].
                unsafe {
                    if count == ROWS {
                        self.scores::<S, T, ROWS>(s, q, keys.as_ptr(), at, count_here);
                    } else {
                        self.scores::<S, T, 1>(s, q, keys.as_ptr(), at, count_here);
                    }
                }
            }
            let mut totals = [0.0; ROWS];
            for (r, total) in totals.iter_mut().take(count).enumerate() {
                let scores = &mut self.scores[r * self.keys..][..sees(r)];
                *total = exponentials(s, scores, row_max(s, scores), true);
            }
            self.sums.fill(0.0);
            for index in 0..parts {
                let values = part(index).1.as_ptr();
                let at = index * span;
                // Of the keys of this part those that a row sees.
                let here = |seen: usize| seen.clamp(at, at + span) - at;
                // SAFETY: as above.
                unsafe {
                    if count == ROWS {
                        self.values::<S, T, ROWS>(s, values, value_stride, at, 0, 0, here(fewest));
                        for r in 1..ROWS {
                            self.values::<S, T, 1>(
                                s,
                                values,
                                value_stride,
                                at,
                                r,
                                here(fewest),
                                here(sees(r)),
                            );
                        }
                    } else {
                        self.values::<S, T, 1>(s, values, value_stride, at, 0, 0, here(most));
                    }
                }
            }
            for (r, total) in totals.iter().take(count).enumerate() {
                let factor = s.splat(1.0 / total);
                for at in (0..self.head_dim).step_by(LANES) {
                    // SAFETY: row + r < rows; this head's D outputs of a row belong to this task alone.
                    unsafe {
                        let y = s.mul(s.load(self.sums.as_ptr().add(r * dim + at)), factor);
                        let out = self.out.add((row + r) * self.width + at);
                        s.store_head(out, LANES.min(self.head_dim - at), y);
                    }
                }
            }
            row += count;
        }
    }

    /// Whether the registers hold `R` rows × `TILES`.
    const fn fits<S: Simd, const R: usize>() -> bool {
        R == 1 || S::ATTENTION_TILES == TILES
    }

    /// scores[r][at + j] = scale * Σ q[r][d] k[j][d] for j in 0..count, d ascending.
    ///
    /// # Safety
    /// q has R rows; keys has ceil(count / 16) tiles, and scores R rows of as many lanes from the multiple of 16 `at`
    /// on.
    #[inline(always)]
    unsafe fn scores<S: Simd, T: Element, const R: usize>(
        &mut self,
        s: S,
        q: *const f32,
        keys: *const T,
        at: usize,
        count: usize,
    ) {
        let tiles = count.div_ceil(LANES);
        let mut tile = 0;
        // SAFETY: tiles are taken four at a time while there are four, then one at a time.
        unsafe {
            while Self::fits::<S, R>() && tile + TILES <= tiles {
                self.score_tiles::<S, T, R, TILES>(s, q, keys, at, tile);
                tile += TILES;
            }
            while tile < tiles {
                self.score_tiles::<S, T, R, 1>(s, q, keys, at, tile);
                tile += 1;
            }
        }
    }

    /// # Safety
    /// As `scores`, with tiles `tile..tile + P`.
    #[inline(always)]
    unsafe fn score_tiles<S: Simd, T: Element, const R: usize, const P: usize>(
        &mut self,
        s: S,
        q: *const f32,
        keys: *const T,
        at: usize,
        tile: usize,
    ) {
        let mut acc = [[s.zero(); P]; R];
        for d in 0..self.head_dim {
            let mut k = [s.zero(); P];
            for (p, k) in k.iter_mut().enumerate() {
                // SAFETY: d < D in tile + p.
                *k = unsafe { T::load(s, keys.add(((tile + p) * self.head_dim + d) * LANES)) };
            }
            for (r, acc) in acc.iter_mut().enumerate() {
                // SAFETY: d < D in row r.
                let q = s.splat(unsafe { *q.add(r * self.job.q_stride + d) });
                for (acc, k) in acc.iter_mut().zip(k) {
                    *acc = s.fma(q, k, *acc);
                }
            }
        }
        let scale = s.splat(self.scale);
        for (r, acc) in acc.iter().enumerate() {
            for (p, acc) in acc.iter().enumerate() {
                // SAFETY: row r < ROWS has `keys` scores, which tile + p is among.
                unsafe {
                    let to = self.scores.as_mut_ptr().add(r * self.keys + at + (tile + p) * LANES);
                    s.store(to, s.mul(*acc, scale));
                }
            }
        }
    }

    /// sums[r][d] += Σ scores[r][at + j] v[j][d] for j in from..to, ascending, for R rows from `first` on.
    ///
    /// # Safety
    /// values has `to` rows of D padded to whole lanes; scores and sums have rows first..first + R.
    #[inline(always)]
    #[allow(clippy::too_many_arguments)] // one loop's bounds
    unsafe fn values<S: Simd, T: Element, const R: usize>(
        &mut self,
        s: S,
        values: *const T,
        stride: usize,
        at: usize,
        first: usize,
        from: usize,
        to: usize,
    ) {
        let lanes = self.head_dim.div_ceil(LANES);
        let mut lane = 0;
        // SAFETY: lanes of D are taken four at a time while there are four, then one at a time.
        unsafe {
            while Self::fits::<S, R>() && lane + TILES <= lanes {
                self.value_lanes::<S, T, R, TILES>(s, values, stride, at, first, from, to, lane);
                lane += TILES;
            }
            while lane < lanes {
                self.value_lanes::<S, T, R, 1>(s, values, stride, at, first, from, to, lane);
                lane += 1;
            }
        }
    }

    /// # Safety
    /// As `values`, with lanes `lane..lane + P` of D.
    #[inline(always)]
    #[allow(clippy::too_many_arguments)] // one loop's bounds
    unsafe fn value_lanes<S: Simd, T: Element, const R: usize, const P: usize>(
        &mut self,
        s: S,
        values: *const T,
        stride: usize,
        at: usize,
        first: usize,
        from: usize,
        to: usize,
        lane: usize,
    ) {
        let dim = self.head_dim.next_multiple_of(LANES);
        let mut acc = [[s.zero(); P]; R];
        let sums = self.sums.as_mut_ptr().wrapping_add(first * dim + lane * LANES);
        for (r, acc) in acc.iter_mut().enumerate() {
            for (p, acc) in acc.iter_mut().enumerate() {
                // SAFETY: inside row first + r of sums.
                *acc = unsafe { s.load(sums.add(r * dim + p * LANES)) };
            }
        }
        let scores = self.scores.as_ptr().wrapping_add(first * self.keys + at);
        for j in from..to {
            let mut v = [s.zero(); P];
            for (p, v) in v.iter_mut().enumerate() {
                // SAFETY: j < to, and the lanes are inside the padded D.
                *v = unsafe { T::load(s, values.add(j * stride + (lane + p) * LANES)) };
            }
            for (r, acc) in acc.iter_mut().enumerate() {
                // SAFETY: inside row first + r of scores.
                let weight = s.splat(unsafe { *scores.add(r * self.keys + j) });
                for (acc, v) in acc.iter_mut().zip(v) {
                    *acc = s.fma(weight, v, *acc);
                }
            }
        }
        for (r, acc) in acc.iter().enumerate() {
            for (p, acc) in acc.iter().enumerate() {
                // SAFETY: as above.
                unsafe { s.store(sums.add(r * dim + p * LANES), *acc) }
            }
        }
    }
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
        KvSource::Blocks { pool, layer, blocks, len } => {
            pool.check_written(layer, blocks, len)?;
            if (pool.shape().heads, pool.shape().head_dim) != (heads, head_dim) {
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
