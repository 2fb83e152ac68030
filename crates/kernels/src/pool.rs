//! Threads that share one product at a time.
//!
//! Between the products of a token there is no time to wake a thread: a futex costs as much as a small product. So
//! helpers spin between jobs while a request runs ([`Pool::active`]) and sleep otherwise. A job never waits for a
//! helper that has not started: tasks are claimed one at a time, and when none are left the caller closes the job and
//! waits only for the helpers that are inside. So a helper that the system has descheduled costs its help, not the job.

use crate::arena::Arena;
use crate::{Isa, KernelError, isa};
use std::any::Any;
use std::cell::UnsafeCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// `state`: bits 0..16 helpers inside the job, bit 16 the job is open, bit 17 shut down, the rest counts jobs.
const INSIDE: u64 = (1 << 16) - 1;
const OPEN: u64 = 1 << 16;
const SHUTDOWN: u64 = 1 << 17;
const JOB: u64 = 1 << 18;

/// Rounds of `spin_loop` (about 40 cycles each on recent x86) between looks at the clock: some microseconds.
const SPIN_ROUNDS: u32 = 128;
/// How long a helper of an active pool spins for the next job before it starts to yield, and before it sleeps after
/// all.
const SPIN: Duration = Duration::from_micros(200);
const SPIN_CROWDED: Duration = Duration::from_micros(10);
const YIELD: Duration = Duration::from_millis(2);

const MOST_THREADS: usize = 1 << 12;

/// Threads of all active pools in this process. When they outnumber the cores, spinning takes time from working
/// threads.
static ACTIVE_THREADS: AtomicUsize = AtomicUsize::new(0);

/// The function of a job, called once by each thread that takes part.
type Share<'a> = dyn Fn(usize, Claims) + Sync + 'a;

/// The job that runs: a pointer to the caller's closure, valid from publication until the caller has seen
/// `inside == 0`.
#[derive(Clone, Copy)]
struct Job {
    share: *const Share<'static>,
    tasks: usize,
    /// Ranges of tasks with a counter of their own.
    ranges: usize,
}

/// The tasks that fall to a thread, until there are none left. They lie in ranges of equal length; a thread begins with
/// its own range and then helps with the others.
pub(crate) struct Claims<'a> {
    /// Of each range how many tasks were claimed.
    claimed: &'a [AtomicUsize],
    range: usize,
    /// Ranges that this thread has found empty.
    empty: usize,
    tasks: usize,
}

impl Iterator for Claims<'_> {
    type Item = usize;
    #[inline]
    fn next(&mut self) -> Option<usize> {
        let ranges = self.claimed.len();
        while self.empty < ranges {
            let first = self.range * self.tasks / ranges;
            let task = first + self.claimed[self.range].fetch_add(1, Ordering::Relaxed);
            if task < (self.range + 1) * self.tasks / ranges {
                return Some(task);
            }
            (self.range, self.empty) = ((self.range + 1) % ranges, self.empty + 1);
        }
        None
    }
}

/// What a job is published with, in one cache line (two, for those that fetch pairs): on some machines a line that
/// another core has written costs 100 ns, and a small product takes 5 µs.
#[repr(align(128))]
struct Hot {
    state: AtomicU64,
    /// Claimed tasks of the first range, which most jobs alone have.
    claimed: [AtomicUsize; 1],
    job: UnsafeCell<Option<Job>>,
}

struct Shared {
    hot: Hot,
    /// Claimed tasks of each thread's range, in jobs that have them.
    claimed: Box<[AtomicUsize]>,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    active: AtomicUsize,
    sleepers: AtomicUsize,
    door: Mutex<()>,
    bell: Condvar,
    cores: usize,
}

// SAFETY: `job` is written only while no helper is inside (the job is closed and `inside == 0`) and read only by those
// who entered an open job; both are ordered by `state`. Everything else is Sync by itself.
unsafe impl Sync for Shared {}
// SAFETY: the raw pointer in `job` points to a `Sync` closure, and is used only as described above.
unsafe impl Send for Shared {}

/// A fixed set of threads (the caller and `threads - 1` helpers) that run the tasks of one job at a time.
///
/// Results never depend on the number of threads: a task computes its outputs completely, on whichever thread it runs.
pub struct Pool {
    shared: Arc<Shared>,
    helpers: Vec<JoinHandle<()>>,
    busy: AtomicBool,
    isa: Isa,
    arena: Arena,
}

/// While one of these lives, the pool's helpers wait for the next job awake. Hold it for the length of a request.
#[must_use = "the helpers sleep again as soon as this is dropped"]
pub struct Active {
    shared: Arc<Shared>,
    threads: usize,
}

impl Pool {
    /// A pool of `threads` threads, the caller included; 1 (or 0) runs everything inline. Uses the best instruction
    /// set.
    pub fn new(threads: usize) -> Self {
        Self::build(threads, isa())
    }

    /// A pool whose kernels use `isa`: for proofs and benchmarks.
    pub fn with_isa(threads: usize, isa: Isa) -> Result<Self, KernelError> {
        if isa.is_available() { Ok(Self::build(threads, isa)) } else { Err(KernelError::UnsupportedIsa(isa)) }
    }

    fn build(threads: usize, isa: Isa) -> Self {
        let shared = Arc::new(Shared {
            hot: Hot { state: AtomicU64::new(0), claimed: Default::default(), job: UnsafeCell::new(None) },
            claimed: (0..threads.clamp(1, MOST_THREADS)).map(|_| AtomicUsize::new(0)).collect(),
            panic: Mutex::new(None),
            active: AtomicUsize::new(0),
            sleepers: AtomicUsize::new(0),
            door: Mutex::new(()),
            bell: Condvar::new(),
            cores: std::thread::available_parallelism().map_or(1, |n| n.get()),
        });
        // Where the system refuses a thread, the pool is smaller, not broken.
        let helpers = (1..threads.min(MOST_THREADS))
            .map_while(|worker| {
                let shared = Arc::clone(&shared);
                let name = format!("candlewick-{worker}");
                std::thread::Builder::new().name(name).spawn(move || helper(&shared, worker)).ok()
            })
            .collect();
        Self { shared, helpers, busy: AtomicBool::new(false), isa, arena: Arena::default() }
    }

    /// Threads that take part, the caller included.
    pub fn threads(&self) -> usize {
        self.helpers.len() + 1
    }

    /// The instruction set of this pool's kernels.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// Where the weights packed with this pool lie.
    pub(crate) fn arena(&self) -> &Arena {
        &self.arena
    }

    /// Keeps the helpers awake while the guard lives. Guards nest.
    pub fn active(&self) -> Active {
        if self.shared.active.fetch_add(1, Ordering::SeqCst) == 0 {
            ACTIVE_THREADS.fetch_add(self.threads(), Ordering::Relaxed);
            self.shared.ring();
        }
        Active { shared: Arc::clone(&self.shared), threads: self.threads() }
    }

    /// Calls `f(0)`, …, `f(tasks - 1)`, each once, in no particular order and on any thread, and returns when all are
    /// done. A panic in a task is a panic here. From inside a task, or while another thread runs a job, it all runs
    /// inline.
    pub fn run(&self, tasks: usize, f: impl Fn(usize) + Sync) {
        self.run_shares(tasks, |_, claims| claims.for_each(&f));
    }

    /// As `run`, but `share` is called once per thread that takes part, with the thread's number (below `threads()`,
    /// never twice at the same time) and the tasks that fall to it: for work that each thread has to do first.
    pub(crate) fn run_shares(&self, tasks: usize, share: impl Fn(usize, Claims) + Sync) {
        self.run_ranges(tasks, 1, share);
    }

    /// As `run_shares`, for tasks of which neighbours touch the same rows: each thread begins with a part of them of
    /// its own, so that what it wrote in one job is in its cache in the next.
    pub(crate) fn run_apart(&self, tasks: usize, share: impl Fn(usize, Claims) + Sync) {
        self.run_ranges(tasks, self.threads(), share);
    }

    fn run_ranges(&self, tasks: usize, ranges: usize, share: impl Fn(usize, Claims) + Sync) {
        if tasks <= 1 || self.helpers.is_empty() || self.busy.swap(true, Ordering::Acquire) {
            return share(0, Claims { claimed: &[AtomicUsize::new(0)], range: 0, empty: 0, tasks });
        }
        let shared = &*self.shared;
        let share: &Share = &share;
        // SAFETY: only the lifetime changes. The pointer is used by those inside the job, and this function does not
        // return (nor unwind) before it has closed the job and seen the last of them leave.
        let share: &Share<'static> = unsafe { std::mem::transmute(share) };
        // SAFETY: `busy` makes us the only caller, and the last job was closed and left, so nobody reads `job`.
        unsafe { *shared.hot.job.get() = Some(Job { share, tasks, ranges }) };
        shared.claimed(ranges).iter().for_each(|claimed| claimed.store(0, Ordering::Relaxed));
        let before = shared.hot.state.load(Ordering::Relaxed);
        shared.hot.state.store((before & !INSIDE).wrapping_add(JOB) | OPEN, Ordering::SeqCst);
        if shared.sleepers.load(Ordering::SeqCst) > 0 {
            shared.ring();
        }

        let mine = catch_unwind(AssertUnwindSafe(|| share(0, shared.claims(0, tasks, ranges))));
        if mine.is_err() {
            shared.claim_all(tasks, ranges);
        }
        shared.hot.state.fetch_and(!OPEN, Ordering::AcqRel);
        let mut rounds = 0u32;
        while shared.hot.state.load(Ordering::Acquire) & INSIDE != 0 {
            rounds += 1;
            // A helper that was descheduled in the middle of a task needs this core.
            if rounds < 20_000 { std::hint::spin_loop() } else { std::thread::yield_now() }
        }
        let theirs = lock(&shared.panic).take();
        self.busy.store(false, Ordering::Release);
        if let Some(panic) = mine.err().or(theirs) {
            resume_unwind(panic);
        }
    }
}

impl Shared {
    fn claimed(&self, ranges: usize) -> &[AtomicUsize] {
        if ranges == 1 { &self.hot.claimed } else { &self.claimed[..ranges] }
    }

    fn claims(&self, worker: usize, tasks: usize, ranges: usize) -> Claims<'_> {
        Claims { claimed: self.claimed(ranges), range: worker % ranges, empty: 0, tasks }
    }

    /// After a panic: the job ends with the tasks that run.
    fn claim_all(&self, tasks: usize, ranges: usize) {
        self.claimed(ranges).iter().for_each(|claimed| claimed.store(tasks, Ordering::Relaxed));
    }

    fn ring(&self) {
        drop(lock(&self.door));
        self.bell.notify_all();
    }

    /// Enters the job if it is open and not `last`; returns its number.
    fn enter(&self, last: u64) -> Option<u64> {
        let mut state = self.hot.state.load(Ordering::Acquire);
        while state & OPEN != 0 && state / JOB != last {
            match self.hot.state.compare_exchange_weak(state, state + 1, Ordering::AcqRel, Ordering::Acquire)
            {
                Ok(_) => return Some(state / JOB),
                Err(now) => state = now,
            }
        }
        None
    }
}

fn helper(shared: &Shared, worker: usize) {
    // Jobs count from 1, so 0 is "none yet".
    let mut last = 0;
    let mut idle_since = Instant::now();
    loop {
        if let Some(job) = shared.enter(last) {
            last = job;
            // SAFETY: we are inside, so the job stays as it is until we leave.
            let Job { share, tasks, ranges } = unsafe { *shared.hot.job.get() }.expect("an open job is set");
            // SAFETY: as above: the closure outlives the job.
            let share = unsafe { &*share };
            let run = || share(worker, shared.claims(worker, tasks, ranges));
            if let Err(panic) = catch_unwind(AssertUnwindSafe(run)) {
                shared.claim_all(tasks, ranges);
                lock(&shared.panic).get_or_insert(panic);
            }
            shared.hot.state.fetch_sub(1, Ordering::Release);
            idle_since = Instant::now();
            continue;
        }
        if shared.hot.state.load(Ordering::Relaxed) & SHUTDOWN != 0 {
            return;
        }
        let idle = idle_since.elapsed();
        let crowded = ACTIVE_THREADS.load(Ordering::Relaxed) > shared.cores;
        if shared.active.load(Ordering::Relaxed) == 0 || idle > YIELD {
            sleep(shared, last);
            idle_since = Instant::now();
        } else if idle > if crowded { SPIN_CROWDED } else { SPIN } {
            std::thread::yield_now();
        } else {
            for _ in 0..SPIN_ROUNDS {
                if shared.hot.state.load(Ordering::Relaxed) / JOB != last {
                    break;
                }
                std::hint::spin_loop();
            }
        }
    }
}

/// Sleeps until a job is published, the pool becomes active or shuts down.
fn sleep(shared: &Shared, last: u64) {
    let was_active = shared.active.load(Ordering::SeqCst) > 0;
    // The caller stores `state`, then reads `sleepers`; we count ourselves, then read `state`. One of us sees the
    // other.
    shared.sleepers.fetch_add(1, Ordering::SeqCst);
    let mut door = lock(&shared.door);
    loop {
        let state = shared.hot.state.load(Ordering::SeqCst);
        let woken = state & SHUTDOWN != 0
            || (state & OPEN != 0 && state / JOB != last)
            || (!was_active && shared.active.load(Ordering::SeqCst) > 0);
        if woken {
            break;
        }
        door = shared.bell.wait(door).unwrap_or_else(PoisonError::into_inner);
    }
    drop(door);
    shared.sleepers.fetch_sub(1, Ordering::SeqCst);
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for Active {
    fn drop(&mut self) {
        if self.shared.active.fetch_sub(1, Ordering::SeqCst) == 1 {
            ACTIVE_THREADS.fetch_sub(self.threads, Ordering::Relaxed);
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.hot.state.fetch_or(SHUTDOWN, Ordering::SeqCst);
        self.shared.ring();
        for helper in self.helpers.drain(..) {
            // Helpers catch their tasks' panics, so joining them cannot fail.
            let _ = helper.join();
        }
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("threads", &self.threads()).field("isa", &self.isa).finish()
    }
}
