//! Attention of whole sequences, and its gradients. Sequences lie one after the other, without padding.
//!
//! A task is a head of a sequence, worked through in blocks of 64 queries, so nothing of T × T size is ever stored: the
//! forward pass keeps one number a row (the logarithm of the softmax's sum), from which the backward pass makes the
//! probabilities again. Rao, Dao et al. 2022, "FlashAttention"; here a block's keys are all in the cache, so they are
//! not tiled.

use crate::Pool;
use crate::buffer::SharedMut;
use crate::pool::Claims;
use crate::rows::row_max;
use crate::simd::{Kernel, Simd, math};
use crate::train::Floats;
use crate::train::bias::{Bias, add_bias, take_bias_gradient};
use crate::train::gemm::{Operands, Source, multiply, pack};
use crate::train::random::Dropout;
use crate::types::LANES;

/// Queries of a block.
const QUERIES: usize = 64;

/// The shape and options of attention.
#[derive(Debug, Clone, Copy)]
pub struct Attention<'a> {
    /// First row of each sequence, and the number of rows in all.
    pub starts: &'a [usize],
    pub heads: usize,
    /// Width of a head.
    pub width: usize,
    /// Scores are multiplied by it.
    pub scale: f32,
    /// A row sees itself and those before it.
    pub causal: bool,
    /// Of the probabilities.
    pub dropout: Option<Dropout>,
    /// Added to the scaled scores.
    pub bias: Option<Bias<'a>>,
}

impl Attention<'_> {
    fn sequences(&self) -> usize {
        self.starts.len().saturating_sub(1)
    }

    fn rows(&self) -> usize {
        self.starts.last().copied().unwrap_or(0)
    }

    fn longest(&self) -> usize {
        self.starts.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(0)
    }

    fn check(&self, qkv: &[f32], mixed: &[f32], sums: &[f32]) {
        let (rows, d) = (self.rows(), self.heads * self.width);
        assert!(self.starts.first().is_none_or(|first| *first == 0) && self.starts.is_sorted());
        assert!(qkv.len() == 3 * rows * d && mixed.len() == rows * d && sums.len() == rows * self.heads);
        if let Some(bias) = &self.bias {
            assert!(bias.reach + 1 >= self.longest() && bias.values.len() == self.heads * bias.distances());
        }
    }
}

/// qkv: [rows, 3 · heads · width], queries, keys, values side by side → mixed: [rows, heads · width], and `sums`:
/// [heads, rows], the logarithm of each softmax's sum.
pub fn attention_forward(
    pool: &Pool,
    attention: Attention,
    qkv: &[f32],
    scratch: &mut Floats,
    mixed: &mut [f32],
    sums: &mut [f32],
) {
    attention.check(qkv, mixed, sums);
    let space = Space::of(&attention, false);
    let scratch = scratch.at_least(pool.threads() * space.total);
    let call = Call {
        attention,
        space,
        qkv: qkv.as_ptr() as usize,
        scratch: SharedMut(scratch.as_mut_ptr()),
        mixed: SharedMut(mixed.as_mut_ptr()),
        sums: SharedMut(sums.as_mut_ptr()),
        dmixed: 0,
        dqkv: SharedMut(std::ptr::null_mut()),
        dbias: None,
    };
    let isa = pool.isa();
    pool.run_shares(attention.sequences() * attention.heads, |worker, claims| {
        isa.launch(Share::<false> { call: &call, worker, claims });
    });
}

/// The gradient of qkv from that of `mixed`; `mixed` and `sums` as the forward pass left them. `dbias`: [sequences,
/// heads, distances], to which the gradient of the bias is added: a sequence each, so that no order of tasks shows.
#[allow(clippy::too_many_arguments)] // the operands of one formula
pub fn attention_backward(
    pool: &Pool,
    attention: Attention,
    qkv: &[f32],
    mixed: &[f32],
    sums: &[f32],
    dmixed: &[f32],
    scratch: &mut Floats,
    dqkv: &mut [f32],
    dbias: Option<&mut [f32]>,
) {
    attention.check(qkv, mixed, sums);
    if let Some(dbias) = &dbias {
        let distances = attention.bias.map_or(0, |bias| bias.distances());
        assert!(dbias.len() == attention.sequences() * attention.heads * distances);
    }
    assert!(dqkv.len() == qkv.len() && dmixed.len() == mixed.len());
    let space = Space::of(&attention, true);
    let scratch = scratch.at_least(pool.threads() * space.total);
    let call = Call {
        attention,
        space,
        qkv: qkv.as_ptr() as usize,
        scratch: SharedMut(scratch.as_mut_ptr()),
        // Only read, by `backward`.
        mixed: SharedMut(mixed.as_ptr().cast_mut()),
        sums: SharedMut(sums.as_ptr().cast_mut()),
        dmixed: dmixed.as_ptr() as usize,
        dqkv: SharedMut(dqkv.as_mut_ptr()),
        dbias: dbias.map(|dbias| SharedMut(dbias.as_mut_ptr())),
    };
    let isa = pool.isa();
    pool.run_shares(attention.sequences() * attention.heads, |worker, claims| {
        isa.launch(Share::<true> { call: &call, worker, claims });
    });
}

/// Offsets of the parts of a thread's scratch, in elements.
#[derive(Clone, Copy)]
struct Space {
    /// T × width packed panels, or width × T: as much.
    panels: usize,
    /// 64 × width packed panels.
    block: usize,
    /// 64 × T.
    scores: usize,
    total: usize,
}

impl Space {
    fn of(attention: &Attention, backward: bool) -> Self {
        let longest = attention.longest();
        let panels = longest.next_multiple_of(LANES) * attention.width.next_multiple_of(LANES);
        let block = QUERIES * attention.width.next_multiple_of(LANES);
        let scores = QUERIES * longest;
        let total = if backward { 3 * panels + 2 * block + 2 * scores } else { 2 * panels + scores };
        Self { panels, block, scores, total: total.next_multiple_of(LANES) }
    }
}

struct Call<'a> {
    attention: Attention<'a>,
    space: Space,
    /// Addresses of what is only read.
    qkv: usize,
    dmixed: usize,
    scratch: SharedMut<f32>,
    mixed: SharedMut<f32>,
    sums: SharedMut<f32>,
    dqkv: SharedMut<f32>,
    dbias: Option<SharedMut<f32>>,
}

struct Share<'a, const BACKWARD: bool> {
    call: &'a Call<'a>,
    worker: usize,
    claims: Claims<'a>,
}

impl<const BACKWARD: bool> Kernel for Share<'_, BACKWARD> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Call { attention, space, .. } = self.call;
        let scratch = self.call.scratch.0.wrapping_add(self.worker * space.total);
        for task in self.claims {
            let (sequence, head) = (task / attention.heads, task % attention.heads);
            let first = attention.starts[sequence];
            let rows = attention.starts[sequence + 1] - first;
            let head = Head { call: self.call, sequence, head, first, rows };
            if rows > 0 {
                // SAFETY: the caller checked the sizes; rows and columns of this head and sequence are this task's own.
                unsafe { if BACKWARD { head.backward(s, scratch) } else { head.forward(s, scratch) } }
            }
        }
    }
}

/// One head of one sequence.
struct Head<'a> {
    call: &'a Call<'a>,
    sequence: usize,
    head: usize,
    /// Of the sequence.
    first: usize,
    rows: usize,
}

impl Head<'_> {
    fn d(&self) -> usize {
        self.call.attention.heads * self.call.attention.width
    }

    /// Offset of this head's queries (0), keys (1) or values (2) in qkv.
    fn part(&self, part: usize) -> usize {
        self.first * 3 * self.d() + part * self.d() + self.head * self.call.attention.width
    }

    fn qkv(&self, part: usize) -> Source {
        Source {
            data: (self.call.qkv as *const f32).wrapping_add(self.part(part)),
            row: 3 * self.d(),
            column: 1,
        }
    }

    /// This head's columns of a matrix [rows, D].
    fn mixed_at(&self) -> usize {
        self.first * self.d() + self.head * self.call.attention.width
    }

    fn sums_at(&self) -> usize {
        self.head * self.call.attention.rows() + self.first
    }

    /// Keys that some row of the block from `first` on sees.
    fn keys(&self, first: usize, count: usize) -> usize {
        if self.call.attention.causal { first + count } else { self.rows }
    }

    /// Keys that row `row` sees.
    fn seen(&self, row: usize) -> usize {
        if self.call.attention.causal { row + 1 } else { self.rows }
    }

    /// What is added to the scaled scores of row `row`.
    fn bias(&self, row: usize, keys: usize) -> Option<&[f32]> {
        self.call.attention.bias.as_ref().map(|bias| bias.row(self.head, row, keys))
    }

    /// Where the gradient of the bias is that row `row` adds to, if it is wanted.
    fn dbias(&self, row: usize) -> Option<*mut f32> {
        let (dbias, bias) = (self.call.dbias.as_ref()?, self.call.attention.bias?);
        let list = (self.sequence * self.call.attention.heads + self.head) * bias.distances();
        Some(dbias.0.wrapping_add(list + bias.start(row)))
    }

    fn dropout(&self, row: usize) -> Option<Dropout> {
        let part = ((self.first + row) * self.call.attention.heads + self.head) as u64;
        self.call.attention.dropout.map(|dropout| dropout.part(part))
    }

    /// # Safety
    /// As `Share::run` says.
    #[inline(always)]
    unsafe fn forward<S: Simd>(&self, s: S, scratch: *mut f32) {
        let Call { attention, space, mixed, sums, .. } = self.call;
        let (width, rows, d) = (attention.width, self.rows, self.d());
        let keys_panels = scratch;
        let values_panels = scratch.wrapping_add(space.panels);
        let scores = scratch.wrapping_add(2 * space.panels);
        // SAFETY: promised by the caller.
        unsafe {
            pack(s, self.qkv(1).transposed(), width, rows, keys_panels);
            let mut packed_keys = 0;
            for first in (0..rows).step_by(QUERIES) {
                let count = QUERIES.min(rows - first);
                let keys = self.keys(first, count);
                let q = Source { data: self.qkv(0).at(first, 0), ..self.qkv(0) };
                product(s, q, keys_panels, width, count, keys, scores, keys, false);
                for r in 0..count {
                    let row = first + r;
                    let line = std::slice::from_raw_parts_mut(scores.add(r * keys), keys);
                    let seen = self.seen(row);
                    let sum = match self.bias(row, seen) {
                        None => softmax(s, &mut line[..seen], attention.scale),
                        Some(bias) => {
                            add_bias(s, attention.scale, bias, &mut line[..seen]);
                            softmax(s, &mut line[..seen], 1.0)
                        }
                    };
                    line[seen..].fill(0.0);
                    *sums.0.add(self.sums_at() + row) = sum;
                    if let Some(dropout) = self.dropout(row) {
                        drop_row(s, dropout, &mut line[..seen]);
                    }
                }
                if packed_keys != keys {
                    pack(s, self.qkv(2), keys, width, values_panels);
                    packed_keys = keys;
                }
                let p = Source { data: scores, row: keys, column: 1 };
                let out = mixed.0.add(self.mixed_at() + first * d);
                product(s, p, values_panels, keys, count, width, out, d, false);
            }
        }
    }

    /// # Safety
    /// As `Share::run` says.
    #[inline(always)]
    unsafe fn backward<S: Simd>(&self, s: S, scratch: *mut f32) {
        let Call { attention, space, mixed, sums, dqkv, .. } = self.call;
        let (width, rows, d) = (attention.width, self.rows, self.d());
        let keys_turned = scratch;
        let values_turned = scratch.wrapping_add(space.panels);
        let keys_panels = scratch.wrapping_add(2 * space.panels);
        let block = scratch.wrapping_add(3 * space.panels);
        let p = block.wrapping_add(2 * space.block);
        let ds = p.wrapping_add(space.scores);
        let dq = dqkv.0.wrapping_add(self.part(0));
        let dk = dqkv.0.wrapping_add(self.part(1));
        let dv = dqkv.0.wrapping_add(self.part(2));
        let dmixed = Source {
            data: (self.call.dmixed as *const f32).wrapping_add(self.mixed_at()),
            row: d,
            column: 1,
        };
        // SAFETY: promised by the caller.
        unsafe {
            pack(s, self.qkv(1).transposed(), width, rows, keys_turned);
            pack(s, self.qkv(2).transposed(), width, rows, values_turned);
            for row in 0..rows {
                std::slice::from_raw_parts_mut(dk.add(row * 3 * d), width).fill(0.0);
                std::slice::from_raw_parts_mut(dv.add(row * 3 * d), width).fill(0.0);
            }
            let mut packed_keys = 0;
            for first in (0..rows).step_by(QUERIES) {
                let count = QUERIES.min(rows - first);
                let keys = self.keys(first, count);
                let q = Source { data: self.qkv(0).at(first, 0), ..self.qkv(0) };
                let dout = Source { data: dmixed.at(first, 0), ..dmixed };
                product(s, q, keys_turned, width, count, keys, p, keys, false);
                product(s, dout, values_turned, width, count, keys, ds, keys, false);
                for r in 0..count {
                    let row = first + r;
                    let seen = self.seen(row);
                    let p = std::slice::from_raw_parts_mut(p.add(r * keys), keys);
                    let ds = std::slice::from_raw_parts_mut(ds.add(r * keys), keys);
                    let out = std::slice::from_raw_parts(mixed.0.add(self.mixed_at() + row * d), width);
                    let dout = std::slice::from_raw_parts(dout.at(r, 0), width);
                    let sum = *sums.0.add(self.sums_at() + row);
                    let common = dot(s, out, dout);
                    let mut line = Line { scale: attention.scale, sum, common, dropout: self.dropout(row) };
                    if let Some(bias) = self.bias(row, seen) {
                        add_bias(s, attention.scale, bias, &mut p[..seen]);
                        line.scale = 1.0;
                    }
                    line.backward(s, &mut p[..seen], &mut ds[..seen]);
                    if attention.bias.is_some() {
                        let dbias = self.dbias(row).map(|start| std::slice::from_raw_parts_mut(start, seen));
                        take_bias_gradient(s, attention.scale, &mut ds[..seen], dbias);
                    }
                    p[seen..].fill(0.0);
                    ds[seen..].fill(0.0);
                }
                if packed_keys != keys {
                    pack(s, self.qkv(1), keys, width, keys_panels);
                    packed_keys = keys;
                }
                let scores = Source { data: ds, row: keys, column: 1 };
                product(s, scores, keys_panels, keys, count, width, dq.add(first * 3 * d), 3 * d, false);
                pack(s, q, count, width, block);
                product(s, scores.transposed(), block, count, keys, width, dk, 3 * d, true);
                let probabilities = Source { data: p, row: keys, column: 1 };
                let dout_panels = block.add(space.block);
                pack(s, dout, count, width, dout_panels);
                product(s, probabilities.transposed(), dout_panels, count, keys, width, dv, 3 * d, true);
            }
        }
    }
}

/// out[m, n] (+)= a[m, k] · panels.
///
/// # Safety
/// As [`multiply`].
#[inline(always)]
#[allow(clippy::too_many_arguments)] // sizes and pointers of one product
unsafe fn product<S: Simd>(
    s: S,
    a: Source,
    panels: *const f32,
    k: usize,
    m: usize,
    n: usize,
    out: *mut f32,
    width: usize,
    add: bool,
) {
    // SAFETY: promised by the caller.
    unsafe { multiply(s, Operands { a, panels, k, bias: std::ptr::null(), add }, m, n, out, width) }
}

/// x ← softmax(scale · x); returns the logarithm of the sum of exp(scale · x).
#[inline(always)]
fn softmax<S: Simd>(s: S, x: &mut [f32], scale: f32) -> f32 {
    // A negative scale does not occur, so the largest score is the largest x.
    let max = row_max(s, x) * scale;
    let (scale, max_lanes) = (s.splat(scale), s.splat(max));
    let mut sum = s.zero();
    for x in x.chunks_mut(LANES) {
        // SAFETY: both touch the chunk's own elements. What is not there counts as exp(-infinity) = 0.
        unsafe {
            let score = s.mul(s.load_head(x.as_ptr(), x.len(), f32::NEG_INFINITY), scale);
            let y = math::exp(s, s.sub(score, max_lanes));
            s.store_head(x.as_mut_ptr(), x.len(), y);
            sum = s.add(sum, y);
        }
    }
    let sum = math::fold(s, sum);
    let factor = s.splat(1.0 / sum);
    for x in x.chunks_mut(LANES) {
        // SAFETY: both touch the chunk's own elements.
        unsafe { s.store_head(x.as_mut_ptr(), x.len(), s.mul(s.load_head(x.as_ptr(), x.len(), 0.0), factor)) }
    }
    max + f64::from(sum).ln() as f32
}

#[inline(always)]
fn drop_row<S: Simd>(s: S, dropout: Dropout, x: &mut [f32]) {
    for (i, x) in x.chunks_mut(LANES).enumerate() {
        // SAFETY: 16 factors, and the chunk's own elements.
        unsafe {
            let factors = s.load(dropout.factors((i * LANES) as u32).as_ptr());
            s.store_head(x.as_mut_ptr(), x.len(), s.mul(s.load_head(x.as_ptr(), x.len(), 0.0), factors));
        }
    }
}

#[inline(always)]
fn dot<S: Simd>(s: S, a: &[f32], b: &[f32]) -> f32 {
    let mut sum = s.zero();
    for (a, b) in a.chunks(LANES).zip(b.chunks(LANES)) {
        // SAFETY: two chunks of as many elements.
        sum = unsafe {
            s.fma(s.load_head(a.as_ptr(), a.len(), 0.0), s.load_head(b.as_ptr(), b.len(), 0.0), sum)
        };
    }
    math::fold(s, sum)
}

/// One row of probabilities.
struct Line {
    scale: f32,
    /// The logarithm of the softmax's sum.
    sum: f32,
    /// Σ p dp over the row, which is out · dout.
    common: f32,
    dropout: Option<Dropout>,
}

impl Line {
    /// p: scores → probabilities after dropout; ds: their gradient → that of the scores before scaling.
    #[inline(always)]
    fn backward<S: Simd>(&self, s: S, p: &mut [f32], ds: &mut [f32]) {
        let (scale, sum, common) = (s.splat(self.scale), s.splat(self.sum), s.splat(self.common));
        for (i, (p, ds)) in p.chunks_mut(LANES).zip(ds.chunks_mut(LANES)).enumerate() {
            let n = p.len();
            // SAFETY: two chunks of n elements, 16 factors.
            unsafe {
                let score = s.mul(s.load_head(p.as_ptr(), n, 0.0), scale);
                let probability = math::exp(s, s.sub(score, sum));
                let mut dp = s.load_head(ds.as_ptr(), n, 0.0);
                let mut kept = probability;
                if let Some(dropout) = self.dropout {
                    let factors = s.load(dropout.factors((i * LANES) as u32).as_ptr());
                    dp = s.mul(dp, factors);
                    kept = s.mul(kept, factors);
                }
                s.store_head(p.as_mut_ptr(), n, kept);
                let dscore = s.mul(s.mul(probability, s.sub(dp, common)), scale);
                s.store_head(ds.as_mut_ptr(), n, dscore);
            }
        }
    }
}
