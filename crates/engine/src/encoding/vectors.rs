//! Search among vectors: every one is compared with the query. A hundred thousand of 384 numbers are 150 MB, read once
//! for a query in some ten milliseconds, and exactly; an approximate index pays from millions on.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc;

use candlewick_models::Similarity;

use crate::error::{EngineError, Result};
use crate::logits;
use crate::runtime::cancel::CancelToken;
use crate::runtime::reply::{Done, Reply};

/// A vector that was found: its place in the order of adding, and how similar it is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Hit {
    pub index: u32,
    /// Larger is closer; for distances the negative.
    pub score: f32,
}

type Job = Box<dyn FnOnce(&mut Rows) + Send>;

/// The handle of a list of vectors that a thread owns. The thread ends with the last handle, after what was asked
/// before.
pub struct VectorIndex {
    width: usize,
    jobs: mpsc::Sender<Job>,
}

impl VectorIndex {
    pub fn new(width: usize, similarity: Similarity, threads: usize) -> Result<Self> {
        if width == 0 || width > 1 << 20 {
            return Err(EngineError::option("dimensions", format!("expected 1 to {}, got {width}", 1 << 20)));
        }
        let (jobs, todo) = mpsc::channel::<Job>();
        let mut rows = Rows { width, similarity, threads: threads.max(1), data: Vec::new() };
        let run = move || {
            for job in todo {
                // A job that panics drops the reply it owes, which says so.
                let _ = catch_unwind(AssertUnwindSafe(|| job(&mut rows)));
            }
        };
        let thread = std::thread::Builder::new().name("candle-search".into()).spawn(run);
        thread.map_err(|error| EngineError::Internal(format!("no thread: {error}")))?;
        Ok(Self { width, jobs })
    }

    /// Adds vectors, one behind the other in `data`.
    pub fn add(&self, data: Vec<f32>, done: Done<()>) {
        let reply = Reply::new(done);
        if !data.len().is_multiple_of(self.width) {
            return reply.send(Err(EngineError::option("vectors", self.not_rows(data.len()))));
        }
        self.send(move |rows| reply.send(rows.add(data)));
    }

    /// For each query the `top_k` closest vectors, the closest first.
    pub fn search(
        &self,
        queries: Vec<f32>,
        top_k: usize,
        threshold: Option<f32>,
        cancel: CancelToken,
        done: Done<Vec<Vec<Hit>>>,
    ) {
        let reply = Reply::new(done);
        if !queries.len().is_multiple_of(self.width) {
            return reply.send(Err(EngineError::option("query", self.not_rows(queries.len()))));
        }
        self.send(move |rows| reply.send(rows.search(queries, top_k, threshold, &cancel)));
    }

    fn send(&self, job: impl FnOnce(&mut Rows) + Send + 'static) {
        let _ = self.jobs.send(Box::new(job));
    }

    fn not_rows(&self, numbers: usize) -> String {
        format!("{numbers} numbers are no vectors of {}", self.width)
    }
}

struct Rows {
    width: usize,
    similarity: Similarity,
    threads: usize,
    /// (n, width); for cosine of length 1.
    data: Vec<f32>,
}

impl Rows {
    fn add(&mut self, mut data: Vec<f32>) -> Result<()> {
        if (self.data.len() + data.len()) / self.width > u32::MAX as usize {
            return Err(EngineError::option("vectors", "more than 2^32 of them"));
        }
        self.prepare(&mut data);
        self.data.extend(data);
        Ok(())
    }

    /// Scales vectors to length 1 where only the angle counts.
    fn prepare(&self, data: &mut [f32]) {
        if self.similarity == Similarity::Cosine {
            for row in data.chunks_exact_mut(self.width) {
                let length = dot(row, row).sqrt().max(1e-12);
                row.iter_mut().for_each(|x| *x /= length);
            }
        }
    }

    fn search(
        &self,
        mut queries: Vec<f32>,
        top_k: usize,
        threshold: Option<f32>,
        cancel: &CancelToken,
    ) -> Result<Vec<Vec<Hit>>> {
        self.prepare(&mut queries);
        let mut scores = vec![0.0; self.data.len() / self.width];
        let mut found = Vec::with_capacity(queries.len() / self.width);
        for query in queries.chunks_exact(self.width) {
            if cancel.is_cancelled() {
                return Err(EngineError::Aborted);
            }
            self.score(query, &mut scores);
            let hit = |entry: logits::Entry| Hit { index: entry.id, score: entry.score };
            let hits = logits::largest(&scores, top_k).into_iter().map(hit);
            found.push(hits.filter(|hit| threshold.is_none_or(|least| hit.score >= least)).collect());
        }
        Ok(found)
    }

    fn score(&self, query: &[f32], scores: &mut [f32]) {
        let part = scores.len().div_ceil(self.threads).max(4096);
        let score_part = |rows: &[f32], scores: &mut [f32]| {
            for (row, score) in rows.chunks_exact(self.width).zip(scores) {
                *score = similarity(self.similarity, query, row);
            }
        };
        std::thread::scope(|scope| {
            let mut parts = self.data.chunks(part * self.width).zip(scores.chunks_mut(part));
            let own = parts.next();
            for (rows, scores) in parts {
                scope.spawn(move || score_part(rows, scores));
            }
            if let Some((rows, scores)) = own {
                score_part(rows, scores);
            }
        });
    }
}

/// The dot product, the negative distance, or the cosine of two vectors of length 1.
fn similarity(kind: Similarity, a: &[f32], b: &[f32]) -> f32 {
    match kind {
        Similarity::Cosine | Similarity::Dot => dot(a, b),
        Similarity::Euclidean => -fold(a, b, |x, y| (x - y) * (x - y)).sqrt(),
        Similarity::Manhattan => -fold(a, b, |x, y| (x - y).abs()),
    }
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    fold(a, b, |x, y| x * y)
}

/// The sum of `f` over both, in lanes, so that it vectorises.
fn fold(a: &[f32], b: &[f32], f: impl Fn(f32, f32) -> f32) -> f32 {
    const LANES: usize = 16;
    let mut lanes = [0.0f32; LANES];
    let (a, rest_a) = a.as_chunks::<LANES>();
    let (b, rest_b) = b.as_chunks::<LANES>();
    for (a, b) in a.iter().zip(b) {
        for lane in 0..LANES {
            lanes[lane] += f(a[lane], b[lane]);
        }
    }
    let rest: f32 = rest_a.iter().zip(rest_b).map(|(a, b)| f(*a, *b)).sum();
    lanes.iter().sum::<f32>() + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(similarity: Similarity, n: usize, width: usize) -> (Rows, Vec<f32>) {
        let mut state = 7u32;
        let mut random = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 24) as f32 - 0.5
        };
        let data: Vec<f32> = (0..n * width).map(|_| random()).collect();
        let mut rows = Rows { width, similarity, threads: 3, data: Vec::new() };
        rows.add(data.clone()).unwrap();
        (rows, data)
    }

    #[test]
    fn finds_what_a_loop_over_all_finds() {
        for kind in [Similarity::Cosine, Similarity::Dot, Similarity::Euclidean, Similarity::Manhattan] {
            let (width, n) = (37, 9000);
            let (rows, data) = rows(kind, n, width);
            let query = data[5 * width..6 * width].to_vec();
            let found = rows.search(query.clone(), 10, None, &CancelToken::new()).unwrap().remove(0);
            let pair = |row: &[f32]| {
                let pairs: Vec<(f64, f64)> =
                    query.iter().zip(row).map(|(a, b)| ((*a).into(), (*b).into())).collect();
                pairs.into_iter()
            };
            let length = |row: &[f32]| row.iter().map(|x| f64::from(x * x)).sum::<f64>().sqrt();
            let exact = |row: &[f32]| match kind {
                Similarity::Dot => pair(row).map(|(a, b)| a * b).sum::<f64>(),
                Similarity::Cosine => {
                    pair(row).map(|(a, b)| a * b).sum::<f64>() / length(&query) / length(row)
                }
                Similarity::Euclidean => -pair(row).map(|(a, b)| (a - b) * (a - b)).sum::<f64>().sqrt(),
                Similarity::Manhattan => -pair(row).map(|(a, b)| (a - b).abs()).sum::<f64>(),
            };
            let mut expected: Vec<(usize, f64)> = data.chunks(width).map(exact).enumerate().collect();
            expected.sort_by(|a, b| b.1.total_cmp(&a.1));
            assert_eq!(found.len(), 10);
            for (hit, (index, score)) in found.iter().zip(&expected) {
                assert_eq!(hit.index as usize, *index, "{kind:?}");
                assert!((f64::from(hit.score) - score).abs() < 1e-5, "{kind:?}: {} {score}", hit.score);
            }
            let least = found[3].score;
            let above = rows.search(query.clone(), 10, Some(least), &CancelToken::new()).unwrap().remove(0);
            assert_eq!(above, found[..4]);
        }
    }

    #[test]
    fn stops_when_it_is_told_to() {
        let (rows, data) = rows(Similarity::Dot, 100, 4);
        let cancel = CancelToken::new();
        cancel.cancel();
        assert_eq!(rows.search(data, 1, None, &cancel).unwrap_err().code(), "ABORTED");
    }
}
