//! The closest rows. A search is as fast as what it reads: for f32 rows it reads the int8 rows beside them, a
//! quarter, and is exact all the same.
//!
//! Let x = x̂ + e be a row, its bytes and what they lack, and q = q̂ + d the query. Then q·x − q̂·x̂ = d·x̂ + q·e,
//! so that |q·x − q̂·x̂| ≤ |d| |x̂| + |q| |e|: with the two lengths of every row kept, the product of bytes bounds
//! each score from both sides. Whose upper bound is below the k-th largest lower bound is none of the k closest;
//! the others, some tens or hundreds among a million, are scored from what is kept of them. So scores and order are
//! those of a loop over all rows, whatever the number of threads.
//!
//! Bits have no such bound: of them the nearest `oversample` times k are taken, and scored.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use candlewick_kernels::{
    Compare, Line, LineBytes, Pool, compare_byte_rows, compare_rows, differing_bits, dot_byte_rows,
};

use super::block::{Block, prepare, quantise};
use super::pool::VectorPool;
use super::rows::VectorRows;
use super::set::RowSet;
use super::shape::{VectorPrecision, VectorShape};
use crate::{ModelError, Result, Similarity};

/// Rows and their scores.
type Scored = Vec<(u32, f32)>;

/// What is asked of the rows.
pub struct VectorQuery<'a> {
    pub top_k: usize,
    /// Rows that are scored for each that is wanted, of those that bits find.
    pub oversample: usize,
    /// Rows that count; `None`: all.
    pub among: Option<&'a RowSet>,
    /// Asked between blocks.
    pub stop: &'a (dyn Fn() -> bool + Sync),
}

/// Queries that are compared with a block while it is in a core's cache.
const GROUP: usize = 8;
/// Rows that are scored one by one where they are at most this share.
const FEW: usize = 16;
/// Scored rows to a task.
const PART: usize = 256;

/// A query as rows are compared with it.
struct Query {
    floats: Vec<f32>,
    bytes: Vec<Line>,
    bits: Vec<u64>,
    scale: f32,
    length: f32,
    error: f32,
}

/// The k-th largest of what is offered.
struct Bar {
    k: usize,
    values: Mutex<Vec<f32>>,
    /// The k-th largest so far, as bits: what is below is not worth the lock.
    bar: AtomicU32,
}

impl Bar {
    fn new(k: usize) -> Self {
        Self { k, values: Mutex::default(), bar: AtomicU32::new(f32::NEG_INFINITY.to_bits()) }
    }

    fn get(&self) -> f32 {
        f32::from_bits(self.bar.load(Ordering::Relaxed))
    }

    fn offer(&self, values: &[f32]) {
        let bar = self.get();
        let above: Vec<f32> = values.iter().copied().filter(|value| *value > bar).collect();
        if above.is_empty() {
            return;
        }
        let mut all = self.values.lock().unwrap_or_else(PoisonError::into_inner);
        all.extend(above);
        if all.len() >= self.k {
            let (_, kth, _) = all.select_nth_unstable_by(self.k - 1, |a, b| b.total_cmp(a));
            self.bar.store(kth.to_bits(), Ordering::Relaxed);
            all.truncate(self.k);
        }
    }
}

impl VectorRows {
    /// For each query (Q, W) its closest rows and their scores, the closest first, of equal ones the first row.
    ///
    /// # Errors
    /// `INPUT_INVALID` for a query that is not finite, with its place; `ABORTED` if `stop` says so.
    pub fn search(
        &self,
        pool: &VectorPool,
        queries: &mut [f32],
        asked: &VectorQuery,
    ) -> std::result::Result<Vec<Scored>, (usize, ModelError)> {
        let mut prepared = Vec::new();
        for (at, query) in queries.chunks_exact_mut(self.shape.width).enumerate() {
            prepared.push(Query::new(&self.shape, query).map_err(|error| (at, error))?);
        }
        let _awake = pool.0.active();
        let mut found = Vec::with_capacity(prepared.len());
        for group in prepared.chunks(GROUP) {
            found.extend(self.search_group(&pool.0, group, asked).map_err(|error| (0, error))?);
        }
        Ok(found)
    }

    fn search_group(&self, pool: &Pool, queries: &[Query], asked: &VectorQuery) -> Result<Vec<Scored>> {
        let counted = asked.among.map_or(self.len(), RowSet::count);
        let k = asked.top_k.min(counted);
        if k == 0 {
            return Ok(vec![Vec::new(); queries.len()]);
        }
        let few = counted <= self.len() / FEW;
        let wanted = match self.shape.precision {
            VectorPrecision::Binary => k.saturating_mul(asked.oversample).min(counted),
            _ => k,
        };
        let narrow = self.shape.is_bounded() || self.shape.has_bits();
        if few || !narrow || wanted > counted / FEW {
            let rows: Option<Vec<u32>> =
                asked.among.map(|among| among.iter().map(|row| row as u32).collect());
            return queries
                .iter()
                .map(|query| self.closest(pool, query, rows.as_deref(), k, asked))
                .collect();
        }
        let candidates = self.narrow(pool, queries, wanted, asked)?;
        let of = |(query, rows): (&Query, Vec<u32>)| self.closest(pool, query, Some(&rows), k, asked);
        queries.iter().zip(candidates).map(of).collect()
    }

    /// For each query rows among which its `wanted` closest are, ascending.
    fn narrow(
        &self,
        pool: &Pool,
        queries: &[Query],
        wanted: usize,
        asked: &VectorQuery,
    ) -> Result<Vec<Vec<u32>>> {
        let (each, len) = (self.shape.block_rows(), self.len());
        // (Q, R): upper bounds of scores, or the negative distance of bits.
        let mut upper = vec![0.0f32; queries.len() * len];
        let mut parts: Vec<Vec<&mut [f32]>> = self.blocks.iter().map(|_| Vec::new()).collect();
        for row in upper.chunks_mut(len) {
            for (part, block) in row.chunks_mut(each).zip(&mut parts) {
                block.push(part);
            }
        }
        let parts: Vec<Mutex<Vec<&mut [f32]>>> = parts.into_iter().map(Mutex::new).collect();
        let bars: Vec<Bar> = queries.iter().map(|_| Bar::new(wanted)).collect();
        pool.run(self.blocks.len(), |at| {
            if (asked.stop)() {
                return;
            }
            let mut lower = vec![0.0; self.blocks[at].rows];
            let mut parts = parts[at].lock().unwrap_or_else(PoisonError::into_inner);
            for ((query, upper), bar) in queries.iter().zip(parts.iter_mut()).zip(&bars) {
                bounds(pool, &self.shape, &self.blocks[at], query, upper, &mut lower);
                if let Some(among) = asked.among {
                    for (row, (upper, lower)) in upper.iter_mut().zip(&mut lower).enumerate() {
                        if !among.contains(at * each + row) {
                            (*upper, *lower) = (f32::NEG_INFINITY, f32::NEG_INFINITY);
                        }
                    }
                }
                bar.offer(&lower);
            }
        });
        drop(parts);
        if (asked.stop)() {
            return Err(ModelError::Stopped);
        }
        let chosen = upper.chunks(len).zip(bars).map(|(upper, bar)| {
            let bar = bar.get();
            let rows = |keep: &dyn Fn(f32) -> bool| {
                let mut rows = Vec::new();
                for (part, scores) in upper.chunks(64).enumerate() {
                    // One test for all: nearly all parts have none.
                    if scores.iter().fold(false, |any, score| any | (*score >= bar)) {
                        let kept = scores.iter().enumerate().filter(|(_, score)| keep(**score));
                        rows.extend(kept.map(|(row, _)| (part * 64 + row) as u32));
                    }
                }
                rows
            };
            if self.shape.is_bounded() {
                return rows(&|score| score >= bar);
            }
            // Of those that are as far as the last one, the first.
            let mut nearer = rows(&|score| score > bar);
            let equal = rows(&|score| score == bar);
            nearer.extend(&equal[..equal.len().min(wanted.saturating_sub(nearer.len()))]);
            nearer.sort_unstable();
            nearer
        });
        Ok(chosen.collect())
    }

    /// The k closest of `rows`, or of all.
    fn closest(
        &self,
        pool: &Pool,
        query: &Query,
        rows: Option<&[u32]>,
        k: usize,
        asked: &VectorQuery,
    ) -> Result<Scored> {
        let mut scores = vec![0.0f32; rows.map_or(self.len(), <[u32]>::len)];
        let each = self.shape.block_rows();
        let part = if rows.is_some() { PART } else { each };
        let parts: Vec<Mutex<&mut [f32]>> = scores.chunks_mut(part).map(Mutex::new).collect();
        pool.run(parts.len(), |at| {
            if (asked.stop)() {
                return;
            }
            let mut scores = parts[at].lock().unwrap_or_else(PoisonError::into_inner);
            let Some(rows) = rows else {
                return score(pool, &self.shape, &self.blocks[at], query, 0, &mut scores);
            };
            for (row, out) in rows[at * part..].iter().zip(scores.iter_mut()) {
                let (block, row) = (*row as usize / each, *row as usize % each);
                score(pool, &self.shape, &self.blocks[block], query, row, std::slice::from_mut(out));
            }
        });
        drop(parts);
        if (asked.stop)() {
            return Err(ModelError::Stopped);
        }
        let row = |at: usize| rows.map_or(at as u32, |rows| rows[at]);
        let mut hits: Vec<(u32, f32)> =
            scores.iter().enumerate().map(|(at, score)| (row(at), *score)).collect();
        let closer = |a: &(u32, f32), b: &(u32, f32)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
        if k < hits.len() {
            hits.select_nth_unstable_by(k, closer);
            hits.truncate(k);
        }
        hits.sort_unstable_by(closer);
        Ok(hits)
    }
}

impl Query {
    fn new(shape: &VectorShape, vector: &mut [f32]) -> Result<Self> {
        let length = prepare(shape.similarity, vector)?;
        let mut bytes = vec![Line([0; 64]); shape.lines()];
        let quants = quantise(vector, 0, &mut bytes.as_flattened_bytes_mut()[..vector.len()]);
        let word =
            |part: &[f32]| part.iter().enumerate().fold(0, |word, (i, x)| word | u64::from(*x > 0.0) << i);
        let bits = vector.chunks(64).map(word).collect();
        Ok(Self { floats: vector.to_vec(), bytes, bits, scale: quants.scale, length, error: quants.error })
    }
}

/// What no row's score is above and below, in an order of their own: products, or for distances
/// |q|² - |q - x|² = 2 q·x - |x|²; the negative distance of bits twice.
fn bounds(
    pool: &Pool,
    shape: &VectorShape,
    block: &Block,
    query: &Query,
    upper: &mut [f32],
    lower: &mut [f32],
) {
    if shape.has_bits() {
        let mut counts = vec![0; block.rows];
        differing_bits(&query.bits, &block.bits, &mut counts);
        for ((upper, lower), count) in upper.iter_mut().zip(lower).zip(counts) {
            (*upper, *lower) = (-(count as f32), -(count as f32));
        }
        return;
    }
    dot_byte_rows(pool, &query.bytes, &block.bytes, upper);
    // What f32 sums of that many products, and the few operations below, may be off, with a factor to spare.
    let rounding = (shape.width + 64) as f32 * 2.4e-7;
    let distance = shape.similarity == Similarity::Euclidean;
    let columns = block.scales.iter().zip(&block.lengths).zip(&block.errors);
    for ((upper, lower), ((scale, length), error)) in upper.iter_mut().zip(lower).zip(columns) {
        let product = *upper * (scale * query.scale);
        let longest = length + error;
        let off = query.error * longest + query.length * error;
        let off = off + rounding * (query.length + query.error) * longest;
        let (score, off) = if distance {
            let both = query.length + longest;
            (2.0 * product - length * length, 2.0 * off + rounding * both * both)
        } else {
            (product, off)
        };
        // And what sums of the smallest numbers may be.
        let off = off + f32::MIN_POSITIVE;
        (*upper, *lower) = (score + off, score - off);
    }
}

/// The scores of rows from `first` on.
fn score(pool: &Pool, shape: &VectorShape, block: &Block, query: &Query, first: usize, out: &mut [f32]) {
    let compare = match shape.similarity {
        Similarity::Cosine | Similarity::Dot => Compare::Products,
        Similarity::Euclidean => Compare::Squares,
        Similarity::Manhattan => Compare::Distances,
    };
    match shape.rescore {
        VectorPrecision::F32 => {
            let rows = &block.floats[first * shape.width..][..out.len() * shape.width];
            compare_rows(pool, compare, &query.floats, rows, out);
        }
        VectorPrecision::Int8 => {
            let rows = &block.bytes[first * shape.lines()..][..out.len() * shape.lines()];
            let scales = &block.scales[first..][..out.len()];
            compare_byte_rows(pool, compare, &query.floats, rows, scales, out);
        }
        // The query beside the corner of the cube that is nearest to the row, scaled to length 1.
        VectorPrecision::Binary => {
            let side = 1.0 / (shape.width as f32).sqrt();
            let mut row = vec![0.0; shape.width];
            for (bits, out) in block.bits[first * shape.words()..].chunks_exact(shape.words()).zip(out) {
                for (i, x) in row.iter_mut().enumerate() {
                    *x = if bits[i / 64] >> (i % 64) & 1 == 1 { side } else { -side };
                }
                compare_rows(pool, compare, &query.floats, &row, std::slice::from_mut(out));
            }
            return;
        }
    }
    match shape.similarity {
        Similarity::Euclidean => out.iter_mut().for_each(|square| *square = -square.sqrt()),
        Similarity::Manhattan => out.iter_mut().for_each(|sum| *sum = -*sum),
        _ => {}
    }
}
