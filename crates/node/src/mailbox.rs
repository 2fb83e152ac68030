//! One wake-up channel per JavaScript environment. An asynchronous native call carries an id that TypeScript chose; the
//! engine's answer goes into a queue here and rings one weak thread-safe function; TypeScript takes the whole queue and
//! settles its promises. No promise lives on a foreign thread, so the end of an environment leaves nothing to crash:
//! `close` runs first, and from then on an answer is dropped where it is given.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use candlewick_engine::{CancelToken, Control, Done, LoadProgress, Progress};
use napi::bindgen_prelude::Function;
use napi::threadsafe_function::{ThreadsafeFunction, ThreadsafeFunctionCallMode};
use napi::{Env, Result, Status, check_status, sys};
use napi_derive::napi;

use crate::answer::Answer;
use crate::error::Failure;

/// Rings without a value. Weak: by itself it keeps no process alive.
type Bell = ThreadsafeFunction<(), (), (), Status, false, true>;

/// The answer to the call `id`, or news of it.
#[napi(object, object_from_js = false)]
pub struct Settled {
    pub id: u32,
    /// A progress report, of two numbers, or a note, of one: the call goes on.
    pub progress: Option<Vec<f64>>,
    #[napi(ts_type = "unknown")]
    pub value: Option<Answer>,
    /// Set if the call failed.
    pub code: Option<String>,
    pub message: Option<String>,
    /// Of a failed call that may be tried again then.
    pub retry_after_ms: Option<f64>,
    /// Of a failed call: the input that is at fault.
    pub index: Option<u32>,
}

impl Settled {
    /// The call goes on.
    fn progress(id: u32, progress: Vec<f64>) -> Self {
        Self {
            id,
            progress: Some(progress),
            value: None,
            code: None,
            message: None,
            retry_after_ms: None,
            index: None,
        }
    }
}

/// The queue of one environment. TypeScript makes one when it is loaded and gives it to every asynchronous call.
#[napi]
pub struct Mailbox {
    shared: Arc<Shared>,
}

#[napi]
impl Mailbox {
    /// `wake` is called, on the JavaScript thread, when there is something to `take`.
    #[napi(constructor)]
    pub fn new(env: Env, wake: Function<'_, (), ()>) -> Result<Self> {
        let bell = wake.build_threadsafe_function::<()>().weak::<true>().build()?;
        let state = State { settled: Vec::new(), running: HashMap::new(), bell: Some(bell) };
        let shared = Arc::new(Shared { state: Mutex::new(state) });
        // Hooks run last in, first out: this one before Node closes the bell.
        env.add_env_cleanup_hook(shared.clone(), |shared| shared.close())?;
        Ok(Self { shared })
    }

    /// Everything that was answered since the last `take`.
    #[napi]
    pub fn take(&self) -> Vec<Settled> {
        std::mem::take(&mut self.shared.lock().settled)
    }

    /// Keeps the process alive until `release`: something is pending.
    #[napi]
    pub fn hold(&self, env: Env) -> Result<()> {
        // SAFETY: we are on the thread of `env`, and the bell is open while `with_bell` holds it.
        self.shared.with_bell(|bell| unsafe { sys::napi_ref_threadsafe_function(env.raw(), bell.raw()) })
    }

    #[napi]
    pub fn release(&self, env: Env) -> Result<()> {
        // SAFETY: as in `hold`.
        self.shared.with_bell(|bell| unsafe { sys::napi_unref_threadsafe_function(env.raw(), bell.raw()) })
    }

    /// The engine's callback for the call `id`.
    pub(crate) fn reply<T: 'static>(
        &self,
        id: u32,
        convert: impl FnOnce(T) -> Answer + Send + 'static,
    ) -> Done<T> {
        let shared = self.shared.clone();
        Box::new(move |result| shared.settle(id, result.map(convert).map_err(Failure::from)))
    }

    /// As `reply`, for those who convert themselves.
    pub(crate) fn answer(
        &self,
        id: u32,
    ) -> impl FnOnce(std::result::Result<Answer, Failure>) + Send + 'static + use<> {
        let shared = self.shared.clone();
        move |result| shared.settle(id, result)
    }

    /// As `reply`, of a call that is cancelled if the environment ends before it does.
    pub(crate) fn cancellable<T: 'static>(
        &self,
        id: u32,
        cancel: &Cancel,
        convert: impl FnOnce(T) -> Answer + Send + 'static,
    ) -> Done<T> {
        self.shared.lock().running.insert(id, cancel.token());
        self.reply(id, convert)
    }

    /// Does the work of the call `id` on a thread of its own; cancelled if the environment ends before it does.
    pub(crate) fn work(
        &self,
        id: u32,
        cancel: &Cancel,
        work: impl FnOnce() -> std::result::Result<Answer, Failure> + Send + 'static,
    ) {
        self.shared.lock().running.insert(id, cancel.token());
        let shared = self.shared.clone();
        let internal = |message: String| Failure::new("INTERNAL", message);
        let body = move || {
            let result = catch_unwind(AssertUnwindSafe(work));
            shared.settle(id, result.unwrap_or_else(|_| Err(internal("a thread panicked".into()))));
        };
        if let Err(error) = std::thread::Builder::new().name("candle-work".into()).spawn(body) {
            self.shared.settle(id, Err(internal(format!("no thread: {error}"))));
        }
    }

    /// Posts progress reports of the call `id`; one that has not been taken yet is replaced.
    pub(crate) fn progress(&self, id: u32) -> Box<dyn Fn(LoadProgress) + Send> {
        let shared = self.shared.clone();
        Box::new(move |progress| shared.report(id, progress))
    }

    /// Posts what is to be said about the call `id` beside its progress: one number, whose meaning the call has.
    pub(crate) fn note(&self, id: u32) -> Box<dyn Fn(f64) + Send> {
        let shared = self.shared.clone();
        Box::new(move |note| {
            drop(shared.lock().post(Settled::progress(id, vec![note])));
        })
    }

    /// The same of a call over texts, in texts.
    pub(crate) fn counting(&self, id: u32) -> Progress {
        let report = self.progress(id);
        Box::new(move |done, total| report(LoadProgress { done: done as u64, total: total as u64 }))
    }
}

/// Ends a call early. Its answer is then the error `ABORTED`.
#[napi]
#[derive(Default)]
pub struct Cancel {
    token: CancelToken,
}

#[napi]
impl Cancel {
    #[napi(constructor)]
    pub fn new() -> Self {
        Self::default()
    }

    #[napi]
    pub fn cancel(&self) {
        self.token.cancel();
    }

    pub(crate) fn token(&self) -> CancelToken {
        self.token.clone()
    }

    pub(crate) fn control(&self, progress: Option<Progress>) -> Control {
        Control { cancel: self.token(), progress }
    }
}

/// What the engine's threads hold of a mailbox.
pub(crate) struct Shared {
    state: Mutex<State>,
}

struct State {
    settled: Vec<Settled>,
    /// What to cancel if the environment ends before the call `id` does.
    running: HashMap<u32, CancelToken>,
    /// `None`: the environment has ended.
    bell: Option<Bell>,
}

impl Shared {
    fn settle(&self, id: u32, result: std::result::Result<Answer, Failure>) {
        let (value, error) = match result {
            Ok(value) => (Some(value), None),
            Err(failure) => (None, Some(failure)),
        };
        let retry_after_ms = error.as_ref().and_then(|failure| failure.retry_after_ms);
        let index = error.as_ref().and_then(|failure| failure.index);
        let (code, message) = error.map(|failure| (failure.code.to_string(), failure.message)).unzip();
        let mut state = self.lock();
        state.running.remove(&id);
        let settled = Settled { id, progress: None, value, code, message, retry_after_ms, index };
        let unclaimed = state.post(settled);
        drop(state);
        drop(unclaimed);
    }

    fn report(&self, id: u32, LoadProgress { done, total }: LoadProgress) {
        let progress = vec![done as f64, total as f64];
        let mut state = self.lock();
        match state
            .settled
            .iter_mut()
            .find(|settled| settled.id == id && settled.progress.as_ref().is_some_and(|p| p.len() == 2))
        {
            Some(settled) => settled.progress = Some(progress),
            None => drop(state.post(Settled::progress(id, progress))),
        }
    }

    fn close(&self) {
        let mut state = self.lock();
        let bell = state.bell.take();
        let settled = std::mem::take(&mut state.settled);
        let running = std::mem::take(&mut state.running);
        drop(state);
        running.values().for_each(CancelToken::cancel);
        drop((bell, settled));
    }

    fn with_bell(&self, call: impl FnOnce(&Bell) -> sys::napi_status) -> Result<()> {
        match &self.lock().bell {
            Some(bell) => check_status!(call(bell)),
            None => Ok(()),
        }
    }

    /// A panic in a callback cannot leave the queue in a state that matters, so poisoning is ignored.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Rings once per batch: a queue that has something in it has been announced. Gives the answer back if nobody is
    /// left to take it; it may own a model, whose end must not be awaited under the lock.
    #[must_use]
    fn post(&mut self, settled: Settled) -> Option<Settled> {
        let Some(bell) = &self.bell else { return Some(settled) };
        if self.settled.is_empty() {
            bell.call((), ThreadsafeFunctionCallMode::NonBlocking);
        }
        self.settled.push(settled);
        None
    }
}
