//! A run on a thread of its own, and a bounded queue of its events: the run waits for a slow reader, and no event is
//! lost.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::event::{Event, TrainObserver};
use super::options::FinetuneOptions;
use super::run::finetune;
use crate::{Result, TrainError};

/// Events that are ready before the run waits.
const QUEUE: usize = 256;

/// Events that are ready, or `None` after the last; called once, on any thread.
pub type Ready = Box<dyn FnOnce(Result<Option<Vec<Event>>>) + Send>;

#[derive(Default)]
struct State {
    events: VecDeque<Event>,
    /// How the run ended.
    end: Option<Result<()>>,
    reader: Option<Ready>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    room: Condvar,
    stop: AtomicBool,
}

/// Dropping it cancels the run.
pub struct Session {
    shared: Arc<Shared>,
}

impl Session {
    pub fn start(options: FinetuneOptions) -> Result<Self> {
        let shared = Arc::new(Shared::default());
        let own = shared.clone();
        let body = move || {
            let result = catch_unwind(AssertUnwindSafe(|| finetune(&options, &*own)));
            let panicked = |_| Err(TrainError::Internal("the run's thread panicked".into()));
            own.finish(result.unwrap_or_else(panicked));
        };
        std::thread::Builder::new()
            .name("candle-train".into())
            .spawn(body)
            .map_err(|error| TrainError::Internal(format!("no thread: {error}")))?;
        Ok(Self { shared })
    }

    /// The run ends by the next layer, with a checkpoint.
    pub fn cancel(&self) {
        self.shared.stop.store(true, Ordering::Release);
        // Under the lock, so that a run that is about to wait sees the flag.
        drop(self.shared.lock());
        self.shared.room.notify_all();
    }

    /// One call at a time: an earlier one is answered with nothing.
    pub fn next(&self, ready: Ready) {
        let mut state = self.shared.lock();
        if state.events.is_empty() && state.end.is_none() {
            let earlier = state.reader.replace(ready);
            drop(state);
            if let Some(earlier) = earlier {
                earlier(Ok(Some(Vec::new())));
            }
            return;
        }
        let answer = state.take();
        drop(state);
        self.shared.room.notify_all();
        ready(answer);
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.cancel();
    }
}

impl State {
    fn take(&mut self) -> Result<Option<Vec<Event>>> {
        if !self.events.is_empty() {
            return Ok(Some(self.events.drain(..).collect()));
        }
        match &self.end {
            Some(Err(error)) => Err(error.clone()),
            _ => Ok(None),
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands what is there to a reader that waits.
    fn serve(&self, mut state: MutexGuard<'_, State>) {
        if let Some(reader) = state.reader.take() {
            let answer = state.take();
            drop(state);
            reader(answer);
        }
    }

    fn finish(&self, result: Result<()>) {
        let mut state = self.lock();
        state.end = Some(result);
        self.serve(state);
    }
}

impl TrainObserver for Shared {
    fn event(&self, event: Event) {
        let mut state = self.lock();
        // After a cancellation no reader may be left, so the queue is not bounded any more; few events follow.
        while state.events.len() >= QUEUE && !self.stop() {
            state = self.room.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.events.push_back(event);
        self.serve(state);
    }

    fn stop(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }
}
