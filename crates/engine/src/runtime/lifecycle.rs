//! The life of a loaded model: open → closing → closed. One owner of its threads, and one place that joins them.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::JoinHandle;

use crate::error::{EngineError, Result};
use crate::runtime::codec::{Codec, TextThread};
use crate::runtime::reply::Reply;

/// Holds a thread's own handle, so that the thread can pass it to its [`Life`].
pub(crate) type ThreadSlot = Arc<Mutex<Option<JoinHandle<()>>>>;

/// Starts the thread that will own a model. On that thread `assemble` makes the handle, which is sent to `reply`, and
/// the server, which `run` runs until the model closes. If no thread can be started, `reply` gets an error.
pub(crate) fn start_owner<H: 'static, S: 'static>(
    assemble: impl FnOnce(ThreadSlot) -> Result<(H, S)> + Send + 'static,
    run: fn(S),
    reply: Reply<H>,
) -> Result<()> {
    spawn_owner(move |slot| match catch_unwind(AssertUnwindSafe(|| assemble(slot))) {
        Ok(Ok((handle, server))) => {
            reply.send(Ok(handle));
            run(server);
        }
        Ok(Err(error)) => reply.send(Err(error)),
        Err(panic) => reply.send(Err(EngineError::panicked(&*panic))),
    })
}

/// As [`start_owner`], and waits for the handle.
pub(crate) fn start_owner_and_wait<H: Send + 'static, S: 'static>(
    assemble: impl FnOnce(ThreadSlot) -> Result<(H, S)> + Send + 'static,
    run: fn(S),
) -> Result<H> {
    let (send, receive) = mpsc::channel();
    let reply = Reply::new(Box::new(move |answer| drop(send.send(answer))));
    start_owner(assemble, run, reply)?;
    receive.recv().unwrap_or_else(|_| Err(EngineError::Internal("the model's thread ended".into())))
}

fn spawn_owner(body: impl FnOnce(ThreadSlot) + Send + 'static) -> Result<()> {
    let slot = ThreadSlot::default();
    let given = slot.clone();
    // The lock is held during the spawn, so that `close` finds the handle even if the thread ends at once.
    let mut guard = lock(&slot);
    let compute = move || {
        yield_to_event_loop();
        body(given);
    };
    let thread = std::thread::Builder::new().name("candle-model".into()).spawn(compute);
    *guard = Some(thread.map_err(|error| EngineError::Internal(format!("no thread: {error}")))?);
    Ok(())
}

/// The process has an event loop, whose turns are short and waited for; a model's threads compute for as long as they
/// may. Where they take all cores, the scheduler lets the event loop wait for the end of their slice, unless they are
/// nicer than it is. The threads that this one starts, which are the pool's, are as nice as it is.
///
/// Measured with 32 streams over HTTP on 2 cores: the 99th percentile of the loop's delay is 4.5 ms instead of 5.3 ms,
/// at the same speed.
pub(crate) fn yield_to_event_loop() {
    #[cfg(target_os = "linux")]
    // SAFETY: both take numbers alone. On Linux 0 is the calling thread, not its process. A refusal changes nothing.
    unsafe {
        let nice = libc::getpriority(libc::PRIO_PROCESS, 0);
        libc::setpriority(libc::PRIO_PROCESS, 0, nice + NICER);
    }
}

#[cfg(target_os = "linux")]
const NICER: i32 = 5;

enum State {
    Open { text: TextThread, threads: Vec<JoinHandle<()>> },
    Closing(Vec<Reply<()>>),
    Closed,
}

pub(crate) struct Life {
    /// Read by the model between layers.
    closing: Arc<AtomicBool>,
    model: ThreadSlot,
    state: Mutex<State>,
    /// Wakes the model's thread so that it sees `closing`.
    wake: Box<dyn Fn() + Send + Sync>,
}

impl Life {
    pub fn start(
        codec: Option<Codec>,
        model: ThreadSlot,
        closing: Arc<AtomicBool>,
        wake: impl Fn() + Send + Sync + 'static,
    ) -> Result<Arc<Self>> {
        let (text, thread) = TextThread::start(codec, closing.clone())
            .map_err(|error| EngineError::Internal(format!("no thread: {error}")))?;
        let state = Mutex::new(State::Open { text, threads: vec![thread] });
        Ok(Arc::new(Self { closing, model, state, wake: Box::new(wake) }))
    }

    pub fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    /// Runs `job` on the text thread; after `close` it is dropped, and the replies it owes say `MODEL_CLOSED`.
    pub fn text(&self, job: impl FnOnce(Option<&Codec>) + Send + 'static) {
        let state = lock(&self.state);
        if let State::Open { text, .. } = &*state {
            text.run(job);
        } else {
            // Dropping a job answers its callers, which must not happen under the lock.
            drop(state);
            drop(job);
        }
    }

    /// Ends both threads and answers when they are gone and the model's memory with them. May be called any number of
    /// times, from any thread, the model's own included: the joining is done by a short-lived third one.
    pub fn close(self: &Arc<Self>, reply: Option<Reply<()>>) {
        let mut state = lock(&self.state);
        match std::mem::replace(&mut *state, State::Closed) {
            State::Closed => {
                drop(state);
                answer(reply);
            }
            State::Closing(mut waiting) => {
                waiting.extend(reply);
                *state = State::Closing(waiting);
            }
            State::Open { text, threads } => {
                *state = State::Closing(reply.into_iter().collect());
                drop(state);
                self.closing.store(true, Ordering::Release);
                drop(text);
                (self.wake)();
                let life = self.clone();
                let join = move || life.join(threads);
                // If the third thread cannot be started, the callers are answered at once: the model's thread ends by
                // itself.
                if std::thread::Builder::new().name("candle-close".into()).spawn(join).is_err() {
                    self.closed();
                }
            }
        }
    }

    fn join(&self, threads: Vec<JoinHandle<()>>) {
        for thread in threads.into_iter().chain(lock(&self.model).take()) {
            let _ = thread.join();
        }
        self.closed();
    }

    fn closed(&self) {
        let state = std::mem::replace(&mut *lock(&self.state), State::Closed);
        if let State::Closing(waiting) = state {
            waiting.into_iter().for_each(|reply| answer(Some(reply)));
        }
    }
}

fn answer(reply: Option<Reply<()>>) {
    if let Some(reply) = reply {
        reply.send(Ok(()));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
