//! Attention over a batch of sequences of different lengths, without padding.
//!
//! A task is one head of one sequence. Its rows are taken a few at a time: scores for tiles of 16 keys (the lanes are
//! keys, D is sequential), the softmax over what the row sees, then the values (the lanes are D, keys ascend). A key
//! that a row does not see never enters its sums, so a row gives the same bits in whatever chunk of its sequence it
//! comes.

use crate::attention_job::{AttentionJob, KvSource};
use crate::attention_rows::{Rows, Value, head};
use crate::buffer::{Plain, SharedMut, pairs_mut};
use crate::kv::{Blocks, KV_BLOCK, Store};
use crate::operand::Target;
use crate::rows::{exponentials, row_max};
use crate::simd::{Element, Kernel, Simd};
use crate::types::LANES;
use crate::{Input, KernelError, Pool, Scratch};
use half::bf16;
use std::ops::Range;

/// Rows whose scores are held at once.
const ROWS: usize = 4;
/// Tiles of keys, and lanes of D, that one row or several rows take at once.
const TILES: usize = 4;

/// out = softmax(q · kᵀ * scale + bias) · v, per job, row and head.
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
    // Per thread: the scores and what they become as weights of V, the queries, the sums of V, and for rows of a batch
    // their keys and values in the layout of the cache. All values are of four bytes.
    let dim = head_dim.next_multiple_of(LANES);
    let keys = jobs.iter().map(|job| job.kv.len()).max().unwrap_or(0).next_multiple_of(LANES * TILES);
    let own = |job: &AttentionJob| matches!(job.kv, KvSource::Rows { .. });
    let copies = if jobs.iter().any(own) { keys * (head_dim + dim) } else { 0 };
    let per_thread = 2 * ROWS * (keys + dim) + copies;
    let work = SharedMut(scratch.attention.at_least(pool.threads() * per_thread).as_mut_ptr());
    let outs: Vec<_> = jobs.iter_mut().map(|job| Target::of(&mut job.out)).collect();
    let jobs = &*jobs;
    pool.run_apart(jobs.len() * heads, |worker, claims| {
        claims.for_each(|task| {
            let (job, head) = (task / heads, task % heads);
            // SAFETY: no two tasks with the same worker run at once, and each worker has its own part.
            let work = unsafe { work.slice(worker * per_thread, per_thread) };
            let (scores, work) = work.split_at_mut(ROWS * keys);
            let (weights, work) = work.split_at_mut(ROWS * keys);
            let (queries, work) = work.split_at_mut(ROWS * dim);
            let (sums, copies) = work.split_at_mut(ROWS * dim);
            let out = outs[job].from(head * head_dim);
            let head = Head {
                job: &jobs[job],
                head,
                width: heads * head_dim,
                head_dim,
                scale,
                causal,
                scores,
                weights,
                keys,
                queries,
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
    /// Room for inputs of the values: exp(score - the largest), [ROWS, keys / DEPTH].
    weights: &'a mut [f32],
    keys: usize,
    /// Room for inputs of the keys, [ROWS, D padded / DEPTH].
    queries: &'a mut [f32],
    /// [ROWS, D padded]
    sums: &'a mut [f32],
    copies: &'a mut [f32],
    /// This head's part of row 0.
    out: Target,
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
                    Store::Bf16(store) => self.rows(s, KV_BLOCK, dim, |i| part(store, blocks[i], at, keys)),
                }
            }
            KvSource::Rows { k, k_stride, v, v_stride, len } => {
                let copies = std::mem::take(&mut self.copies);
                let at = self.head * self.head_dim;
                match (k.from(at), v.from(at)) {
                    (Input::F32(k), Input::F32(v)) if self.head_dim == dim => {
                        Rows { x: k, stride: k_stride, len }.tiles(s, self.head_dim, copies);
                        let all = len.next_multiple_of(LANES).max(LANES);
                        self.rows(s, all, v_stride, |_| (&*copies, v));
                    }
                    (Input::F32(k), Input::F32(v)) => {
                        let (k, v) =
                            (Rows { x: k, stride: k_stride, len }, Rows { x: v, stride: v_stride, len });
                        self.own_rows(s, k, v, copies);
                    }
                    (Input::Bf16(k), Input::Bf16(v)) => {
                        let (k, v) =
                            (Rows { x: k, stride: k_stride, len }, Rows { x: v, stride: v_stride, len });
                        self.own_rows(s, k, v, pairs_mut(copies));
                    }
                    _ => unreachable!("keys and values of one type, as was checked"),
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

impl Head<'_> {
    /// Over this batch's own keys and values, once they are in the layout of the cache, in `copies`.
    #[inline(always)]
    fn own_rows<S: Simd, X: Value>(&mut self, s: S, k: Rows<X>, v: Rows<X>, copies: &mut [X::Element]) {
        let all = k.len.next_multiple_of(LANES).max(LANES);
        let (keys, values) = copies.split_at_mut(all * self.head_dim.div_ceil(X::Element::DEPTH));
        k.tiles(s, self.head_dim, keys);
        v.values(self.head_dim, values);
        self.rows(s, all, self.head_dim.next_multiple_of(LANES), |_| (&*keys, &*values));
    }

    /// Part i of the keys and values has positions i * `span` to (i + 1) * `span` - 1: keys in tiles, values in rows of
    /// DEPTH positions, `value_stride` apart, D padded to whole lanes (what is in the padding is not used).
    #[inline(always)]
    fn rows<'a, S: Simd, T: Element>(
        &mut self,
        s: S,
        span: usize,
        value_stride: usize,
        part: impl Fn(usize) -> (&'a [T], &'a [T]),
    ) {
        let (rows, dim) = (self.job.rows, self.head_dim.next_multiple_of(LANES));
        let depth = self.head_dim.div_ceil(T::DEPTH);
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
            for r in 0..count {
                let at = (row + r) * self.job.q_stride + self.head * self.head_dim;
                let to = self.queries.as_mut_ptr().cast::<T::Input>().wrapping_add(r * dim / T::DEPTH);
                match self.job.q {
                    Input::F32(q) => {
                        for (chunk, q) in q[at..][..self.head_dim].chunks(LANES).enumerate() {
                            // SAFETY: the chunk's own elements; D padded has room for whole lanes of inputs.
                            unsafe {
                                let q = s.load_head(q.as_ptr(), q.len(), 0.0);
                                T::store(s, to.add(chunk * LANES / T::DEPTH), LANES, q);
                            }
                        }
                    }
                    Input::Bf16(q) => {
                        for (chunk, q) in q[at..][..self.head_dim].chunks(LANES).enumerate() {
                            // SAFETY: D padded has room for whole lanes; D values are D / 2 pairs, as was checked.
                            unsafe { to.cast::<[bf16; LANES]>().add(chunk).write_unaligned(head(q)) };
                        }
                    }
                }
            }

            let parts = most.div_ceil(span);
            for index in 0..parts {
                let (keys, values) = part(index);
                let count_here = span.min(most - index * span);
                assert!(keys.len() >= count_here.next_multiple_of(LANES) * depth);
                assert!(values.len() >= (count_here.div_ceil(T::DEPTH) - 1) * value_stride + dim);
                let at = index * span;
                // SAFETY: the asserts above; scores are [ROWS, keys] and sums are [ROWS, dim].
                unsafe {
                    if count == ROWS {
                        self.scores::<S, T, ROWS>(s, keys.as_ptr(), at, count_here);
                    } else {
                        self.scores::<S, T, 1>(s, keys.as_ptr(), at, count_here);
                    }
                }
            }
            if let Some(bias) = self.job.bias {
                for r in 0..count {
                    let bias = bias.of(self.head, self.job.start + row + r);
                    let scores = &mut self.scores[r * self.keys..][..most.next_multiple_of(LANES)];
                    let lines = scores.chunks_exact_mut(LANES).zip(bias.chunks_exact(LANES));
                    for (scores, bias) in lines {
                        // SAFETY: both are 16 elements.
                        unsafe {
                            let sum = s.add(s.load(scores.as_ptr()), s.load(bias.as_ptr()));
                            s.store(scores.as_mut_ptr(), sum);
                        }
                    }
                }
            }
            let mut totals = [0.0; ROWS];
            for (r, total) in totals.iter_mut().take(count).enumerate() {
                let scores = &self.scores[r * self.keys..][..sees(r)];
                let weights =
                    self.weights.as_mut_ptr().wrapping_add(r * self.keys / T::DEPTH).cast::<T::Input>();
                // SAFETY: a row has room for whole lanes.
                *total = unsafe {
                    exponentials::<S, T>(s, scores.as_ptr(), sees(r), row_max(s, scores), Some(weights))
                };
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
                        let all = here(fewest) / T::DEPTH * T::DEPTH;
                        self.values::<S, T, ROWS>(s, values, value_stride, at, 0, 0..all);
                        for r in 0..ROWS {
                            self.values::<S, T, 1>(s, values, value_stride, at, r, all..here(sees(r)));
                        }
                    } else {
                        self.values::<S, T, 1>(s, values, value_stride, at, 0, 0..here(most));
                    }
                }
            }
            for (r, total) in totals.iter().take(count).enumerate() {
                let factor = s.splat(1.0 / total);
                for at in (0..self.head_dim).step_by(LANES) {
                    // SAFETY: row + r < rows; this head's D outputs of a row belong to this task alone.
                    unsafe {
                        let y = s.mul(s.load(self.sums.as_ptr().add(r * dim + at)), factor);
                        let n = LANES.min(self.head_dim - at);
                        self.out.store(s, (row + r) * self.width + at, n, y);
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
    /// The queries have R rows; keys has ceil(count / 16) tiles, and scores R rows of as many lanes from `at` on, a
    /// multiple of 16.
    #[inline(always)]
    unsafe fn scores<S: Simd, T: Element, const R: usize>(
        &mut self,
        s: S,
        keys: *const T,
        at: usize,
        count: usize,
    ) {
        let tiles = count.div_ceil(LANES);
        let mut tile = 0;
        // SAFETY: tiles are taken four at a time while there are four, then one at a time.
        unsafe {
            while Self::fits::<S, R>() && tile + TILES <= tiles {
                self.score_tiles::<S, T, R, TILES>(s, keys, at, tile);
                tile += TILES;
            }
            while tile < tiles {
                self.score_tiles::<S, T, R, 1>(s, keys, at, tile);
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
        keys: *const T,
        at: usize,
        tile: usize,
    ) {
        let mut acc = [[s.zero(); P]; R];
        let depth = self.head_dim.div_ceil(T::DEPTH);
        let (queries, stride) =
            (self.queries.as_ptr().cast::<T::Input>(), self.head_dim.next_multiple_of(LANES));
        for d in 0..depth {
            // SAFETY: element d of D in tile + p.
            let k = unsafe { T::load_each::<S, P>(s, keys.add((tile * depth + d) * LANES), depth * LANES) };
            for (r, acc) in acc.iter_mut().enumerate() {
                // SAFETY: element d of D in row r.
                let q = unsafe { T::splat(s, queries.add(r * stride / T::DEPTH + d)) };
                for (acc, k) in acc.iter_mut().zip(k) {
                    *acc = T::fma(s, q, k, *acc);
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

    /// sums[r][d] += Σ weights[r][at + j] v[j][d] for the keys j in `keys`, ascending, for R rows from `first` on.
    ///
    /// # Safety
    /// `keys` starts at a whole element; values has as many rows as hold its end, of D padded to whole lanes; weights
    /// and sums have rows first..first + R.
    #[inline(always)]
    unsafe fn values<S: Simd, T: Element, const R: usize>(
        &mut self,
        s: S,
        values: *const T,
        stride: usize,
        at: usize,
        first: usize,
        keys: Range<usize>,
    ) {
        if keys.is_empty() {
            return;
        }
        let lanes = self.head_dim.div_ceil(LANES);
        let mut lane = 0;
        // SAFETY: lanes of D are taken four at a time while there are four, then one at a time.
        unsafe {
            while Self::fits::<S, R>() && lane + TILES <= lanes {
                self.value_lanes::<S, T, R, TILES>(s, values, stride, at, first, keys.clone(), lane);
                lane += TILES;
            }
            // Heads of 32 have two lanes.
            while Self::fits::<S, R>() && lane + 2 <= lanes {
                self.value_lanes::<S, T, R, 2>(s, values, stride, at, first, keys.clone(), lane);
                lane += 2;
            }
            while lane < lanes {
                self.value_lanes::<S, T, R, 1>(s, values, stride, at, first, keys.clone(), lane);
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
        keys: Range<usize>,
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
        let weights =
            self.weights.as_ptr().cast::<T::Input>().wrapping_add((first * self.keys + at) / T::DEPTH);
        let whole = keys.end / T::DEPTH;
        for j in keys.start / T::DEPTH..keys.end.div_ceil(T::DEPTH) {
            // SAFETY: the element is there, and the lanes are inside the padded D.
            let mut v = unsafe { T::load_each::<S, P>(s, values.add(j * stride + lane * LANES), LANES) };
            if j == whole {
                // An element that holds a key which is not seen is taken without it.
                for v in &mut v {
                    *v = T::first(s, *v);
                }
            }
            for (r, acc) in acc.iter_mut().enumerate() {
                // SAFETY: inside row first + r of weights.
                let weight = unsafe { T::splat(s, weights.add(r * self.keys / T::DEPTH + j)) };
                for (acc, v) in acc.iter_mut().zip(v) {
                    *acc = T::fma(s, weight, v, *acc);
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
    let bf16 = job.kv.is_bf16();
    if matches!(job.q, Input::Bf16(_)) && !(bf16 && head_dim.is_multiple_of(2)) {
        return Err(KernelError::CacheMismatch);
    }
    match job.kv {
        KvSource::Rows { k, k_stride, v, v_stride, len } => {
            if matches!(v, Input::Bf16(_)) != bf16 || bf16 && !head_dim.is_multiple_of(2) {
                return Err(KernelError::CacheMismatch);
            }
            at_least("keys", reach(len, k_stride), k.len())?;
            at_least("values", reach(len, v_stride), v.len())?;
        }
        KvSource::Blocks { pool, layer, blocks, len } => {
            pool.check_written(layer, blocks, len)?;
            if (pool.shape().heads, pool.shape().head_dim) != (heads, head_dim) {
                return Err(KernelError::CacheMismatch);
            }
        }
    }
    if let Some(bias) = job.bias {
        if bias.heads() != heads {
            return Err(KernelError::CacheMismatch);
        }
        let (limit, got) = (bias.span(), job.kv.len().max(job.start + job.rows));
        if got > limit {
            return Err(KernelError::OutOfRange { what: "position", limit, got });
        }
    }
    let keys = job.kv.len();
    let needed = if causal { job.start + job.rows } else { usize::from(job.rows > 0) };
    if keys < needed {
        return Err(KernelError::OutOfRange { what: "position", limit: keys, got: needed });
    }
    Ok(())
}
