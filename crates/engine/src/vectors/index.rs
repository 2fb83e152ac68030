//! The handle of an index, and the thread that owns it: what is asked is done in turn, so that each search sees
//! what was added before it and nothing of what comes after. Files are written by a thread of their own, from a
//! copy that shares its memory, while searches go on.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};

use candlewick_models::{
    ModelError, RowSet, Similarity, VectorPool, VectorPrecision, VectorQuery, VectorShape,
};

use super::file;
use super::filter::Filter;
use super::table::{Batch, Table};
use super::values::{VectorId, parse};
use crate::error::{EngineError, Result};
use crate::runtime::cancel::CancelToken;
use crate::runtime::lifecycle::yield_to_event_loop;
use crate::runtime::reply::{Done, Reply};

/// A vector that was found: its place in the order of adding, and how similar it is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Hit {
    pub index: u32,
    /// Larger is closer; for distances the negative.
    pub score: f32,
}

/// What a search finds.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Found {
    /// Of each query, the closest first.
    pub hits: Vec<Vec<Hit>>,
    /// `[id, metadata]` of all hits in their order, in lists of JSON of some 100 KB each; none where places say all.
    pub details: Vec<String>,
}

/// Part of what is added.
pub struct Add {
    /// Parts of one number are added together, with the last of them.
    pub batch: u32,
    /// Vectors, one behind the other.
    pub data: Vec<f32>,
    /// `{"ids": […], "metadata": […]}`, as `values.rs` reads it.
    pub said: Option<String>,
    pub last: bool,
    /// Whether vectors of known ids replace those.
    pub replace: bool,
}

pub struct Search {
    /// One behind the other.
    pub queries: Vec<f32>,
    pub top_k: usize,
    /// The least score of a hit.
    pub threshold: Option<f32>,
    pub filter: Option<Filter>,
    /// Of bits: vectors that are scored for each that is wanted.
    pub oversample: usize,
}

/// Bytes of a list of details: what JavaScript parses within a millisecond.
const DETAILS: usize = 100 << 10;

type Job = Box<dyn FnOnce(&mut Owner) + Send>;

/// The thread ends with the last handle, after what was asked before, or with `close`.
pub struct VectorIndex {
    shape: VectorShape,
    jobs: Mutex<Option<mpsc::Sender<Job>>>,
    closed: Arc<AtomicBool>,
}

/// What the thread has.
struct Owner {
    table: Arc<Table>,
    batches: HashMap<u32, Batch>,
    pool: VectorPool,
    closed: Arc<AtomicBool>,
}

impl VectorIndex {
    pub fn new(shape: VectorShape, threads: usize) -> Result<Self> {
        if shape.width == 0 || shape.width > 1 << 20 {
            let reason = format!("expected 1 to {}, got {}", 1 << 20, shape.width);
            return Err(EngineError::option("dimensions", reason));
        }
        let bits = shape.precision == VectorPrecision::Binary;
        if !bits && shape.precision != shape.rescore {
            return Err(EngineError::option("rescore", "only a precision of binary is rescored"));
        }
        if shape.rescore == VectorPrecision::Binary && shape.similarity != Similarity::Cosine {
            return Err(EngineError::option(
                "rescore",
                "bits alone know nothing of lengths, so that they have cosine alone",
            ));
        }
        Self::of(Table::new(shape), threads)
    }

    fn of(table: Table, threads: usize) -> Result<Self> {
        let (jobs, todo) = mpsc::channel::<Job>();
        let closed = Arc::new(AtomicBool::new(false));
        let shape = table.rows.shape();
        let seen = Arc::clone(&closed);
        let run = move || {
            // Before the pool's threads are made, which are as nice as this one.
            yield_to_event_loop();
            let pool = VectorPool::new(threads.max(1));
            let mut owner = Owner { table: Arc::new(table), batches: HashMap::new(), pool, closed: seen };
            for job in todo {
                // A job that panics drops the reply it owes, which says so.
                let _ = catch_unwind(AssertUnwindSafe(|| job(&mut owner)));
            }
        };
        let thread = std::thread::Builder::new().name("candle-search".into()).spawn(run);
        thread.map_err(|error| EngineError::Internal(format!("no thread: {error}")))?;
        Ok(Self { shape, jobs: Mutex::new(Some(jobs)), closed })
    }

    /// Reads a file that `save` wrote, on a thread of its own.
    pub fn load(path: PathBuf, threads: usize, cancel: CancelToken, done: Done<(Self, usize)>) {
        let reply = Reply::new(done);
        spawn(move || {
            let pool = VectorPool::new(threads.max(1));
            let loaded = file::load(&path, &pool, &|| cancel.is_cancelled()).and_then(|table| {
                let size = table.len();
                Ok((Self::of(table, threads)?, size))
            });
            reply.send(loaded);
        });
    }

    pub fn shape(&self) -> VectorShape {
        self.shape
    }

    /// Answers with how many vectors there are.
    pub fn add(&self, add: Add, done: Done<usize>) {
        self.ask(done, move |owner, reply| reply.send(owner.add(add)));
    }

    /// Forgets the parts of a batch.
    pub fn discard(&self, batch: u32, done: Done<usize>) {
        self.ask(done, move |owner, reply| {
            owner.batches.remove(&batch);
            reply.send(Ok(owner.table.len()));
        });
    }

    /// Deletes vectors by id. Answers with how many were deleted.
    pub fn delete(&self, ids: String, done: Done<usize>) {
        self.ask(done, move |owner, reply| {
            let ids = parse(&ids).and_then(|ids| {
                ids.as_array().into_iter().flatten().map(VectorId::of).collect::<Result<Vec<_>>>()
            });
            reply.send(ids.map(|ids| {
                let rows = owner.table.rows_of(&ids);
                Arc::make_mut(&mut owner.table).delete(&rows)
            }));
        });
    }

    /// Deletes the vectors that a filter holds for. Answers with how many.
    pub fn delete_where(&self, filter: Filter, done: Done<usize>) {
        self.ask(done, move |owner, reply| {
            let rows = owner.table.rows_where(&filter);
            reply.send(Ok(Arc::make_mut(&mut owner.table).delete(&rows)));
        });
    }

    /// For each query the closest vectors, the closest first, of equal ones the one that was added first.
    pub fn search(&self, search: Search, cancel: CancelToken, done: Done<Found>) {
        self.ask(done, move |owner, reply| reply.send(owner.search(search, &cancel)));
    }

    /// Writes the index as it is now to a file.
    pub fn save(&self, path: PathBuf, cancel: CancelToken, done: Done<()>) {
        self.ask(done, move |owner, reply| {
            let table = Arc::clone(&owner.table);
            spawn(move || {
                let saved = file::save(&table, &path, &|| cancel.is_cancelled());
                drop(table);
                reply.send(saved);
            });
        });
    }

    /// Ends searches that run, and answers when the memory is free; what is asked later is refused.
    pub fn close(&self, done: Done<()>) {
        self.closed.store(true, Ordering::Release);
        let reply = Reply::new(done);
        let jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(jobs) = jobs else { return reply.send(Ok(())) };
        let end = move |owner: &mut Owner| {
            owner.table = Arc::new(Table::new(owner.table.rows.shape()));
            owner.batches.clear();
            reply.send(Ok(()));
        };
        let _ = jobs.send(Box::new(end));
    }

    fn ask<T: 'static>(&self, done: Done<T>, job: impl FnOnce(&mut Owner, Reply<T>) + Send + 'static) {
        let reply = Reply::new(done);
        let jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner).clone();
        // Without a thread the reply is dropped, which says that the index is closed.
        if let Some(jobs) = jobs {
            let _ = jobs.send(Box::new(move |owner| job(owner, reply)));
        }
    }
}

fn spawn(work: impl FnOnce() + Send + 'static) {
    // A reply that is dropped, because there is no thread or it panicked, says so.
    let _ = std::thread::Builder::new().name("candle-file".into()).spawn(move || {
        yield_to_event_loop();
        let _ = catch_unwind(AssertUnwindSafe(work));
    });
}

impl Owner {
    fn add(&mut self, Add { batch: number, data, said, last, replace }: Add) -> Result<usize> {
        let shape = self.table.rows.shape();
        let mut batch = self.batches.remove(&number).unwrap_or_else(|| Batch::new(shape));
        if !data.len().is_multiple_of(shape.width) {
            let reason = format!("{} numbers are no vectors of {}", data.len(), shape.width);
            return Err(EngineError::option("vectors", reason));
        }
        batch.push(data, said.as_deref())?;
        if last {
            Arc::make_mut(&mut self.table).commit(batch, replace)?;
        } else {
            self.batches.insert(number, batch);
        }
        Ok(self.table.len())
    }

    fn search(&self, search: Search, cancel: &CancelToken) -> Result<Found> {
        let table = &*self.table;
        let Search { mut queries, top_k, threshold, filter, oversample } = search;
        let width = table.rows.shape().width;
        if !queries.len().is_multiple_of(width) {
            return Err(EngineError::option(
                "query",
                format!("{} numbers are no vectors of {width}", queries.len()),
            ));
        }
        let among: Option<RowSet> = match filter {
            Some(filter) => Some(table.rows_where(&filter)),
            None if table.len() == table.rows.len() => None,
            None => Some(table.live.clone()),
        };
        let stop = || cancel.is_cancelled() || self.closed.load(Ordering::Acquire);
        let asked = VectorQuery { top_k, oversample, among: among.as_ref(), stop: &stop };
        let found =
            table.rows.search(&self.pool, &mut queries, &asked).map_err(|(at, error)| match error {
                ModelError::Stopped if !cancel.is_cancelled() => EngineError::Closed,
                error => EngineError::from(error).of_input(at),
            })?;
        let far = |score: f32| threshold.is_some_and(|least| score < least);
        let found: Vec<Vec<(u32, f32)>> =
            found.into_iter().map(|hits| hits.into_iter().filter(|hit| !far(hit.1)).collect()).collect();
        let mut details = Vec::new();
        if table.says_more() {
            let mut list = String::from("[");
            for (row, _) in found.iter().flatten() {
                if list.len() > DETAILS {
                    list.push(']');
                    details.push(std::mem::replace(&mut list, "[".into()));
                }
                list.push_str(if list.len() > 1 { "," } else { "" });
                table.write(*row as usize, &mut list);
            }
            list.push(']');
            details.push(list);
        }
        let hit = |(row, score): (u32, f32)| Hit { index: table.places[row as usize], score };
        let hits = found.into_iter().map(|hits| hits.into_iter().map(hit).collect()).collect();
        Ok(Found { hits, details })
    }
}
