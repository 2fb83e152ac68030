//! The queue between the model's thread and a reader: a full queue pauses the generation.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::{EngineError, Result};
use crate::generation::result::{GenerationResult, TokenEvent};
use crate::runtime::cancel::{CancelToken, HookGuard};
use crate::runtime::reply::{Done, Reply};

/// Tokens that may wait for the reader before the request stops stepping; one step's worth more, because a step is not
/// undone.
pub const QUEUE_LIMIT: usize = 64;
/// The same for each of a request's running sequences, where that is more: many side by side fill the queue in few
/// steps.
const QUEUE_PER_SEQUENCE: usize = 8;

type Batch = Option<Vec<TokenEvent>>;

#[derive(Default)]
struct State {
    queue: VecDeque<TokenEvent>,
    /// Calls of `next` that found nothing, oldest first, and how many events each takes at most.
    pulls: VecDeque<(usize, Reply<Batch>)>,
    ended: bool,
    /// The answer to the first `next` after the last event.
    error: Option<EngineError>,
    outcome: Option<Result<GenerationResult>>,
    askers: Vec<Reply<GenerationResult>>,
    /// Prompt tokens of a request that was checked and queued, or why it was not.
    accepted: Option<Result<usize>>,
    accepted_askers: Vec<Reply<usize>>,
    /// Answers on their way out. One thread at a time sends them, so that they arrive in order.
    outbox: VecDeque<Box<dyn FnOnce() + Send>>,
    sending: bool,
    /// The model's thread found the queue full and skips this request until so few tokens are left: half of them, so
    /// that a reader who takes one at a time does not toggle it.
    paused: Option<usize>,
}

impl State {
    /// Moves every pull that can be answered to the outbox.
    fn settle(&mut self) {
        while !self.pulls.is_empty() && (self.ended || !self.queue.is_empty()) {
            let Some((max, reply)) = self.pulls.pop_front() else { return };
            let answer = if self.queue.is_empty() {
                self.error.take().map_or(Ok(None), Err)
            } else {
                let count = max.clamp(1, self.queue.len());
                Ok(Some(self.queue.drain(..count).collect()))
            };
            self.outbox.push_back(Box::new(move || reply.send(answer)));
        }
        if let Some(outcome) = &self.outcome {
            for reply in self.askers.drain(..) {
                let outcome = outcome.clone();
                self.outbox.push_back(Box::new(move || reply.send(outcome)));
            }
        }
        if let Some(accepted) = &self.accepted {
            for reply in self.accepted_askers.drain(..) {
                let accepted = accepted.clone();
                self.outbox.push_back(Box::new(move || reply.send(accepted)));
            }
        }
    }
}

pub(crate) struct Shared {
    state: Mutex<State>,
    /// The reader's own cancellation, which keeps the tokens so far.
    cancelled: AtomicBool,
    /// The caller's token, which is an error.
    token: CancelToken,
    wake: Box<dyn Fn() + Send + Sync>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state and sends the answers that became possible, without the lock.
    fn update<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.lock();
        let value = change(&mut state);
        state.settle();
        if state.sending {
            return value;
        }
        state.sending = true;
        while let Some(send) = state.outbox.pop_front() {
            drop(state);
            send();
            state = self.lock();
        }
        state.sending = false;
        value
    }

    /// Asked by the model between layers.
    pub fn stopped(&self) -> bool {
        self.cancelled.load(Ordering::Acquire) || self.token.is_cancelled()
    }

    fn cancel(&self) {
        if !self.cancelled.swap(true, Ordering::AcqRel) {
            (self.wake)();
        }
    }
}

/// The writing end, owned by the request on the model's thread. Dropped before its end it ends the stream with an
/// error.
pub(crate) struct Producer {
    shared: Arc<Shared>,
    finished: bool,
    closing: Arc<AtomicBool>,
    _hook: HookGuard,
}

/// Why a request was stopped.
pub(crate) enum Stop {
    /// Its reader left: the result holds the tokens so far.
    Reader,
    /// Its cancel token: an error.
    Token,
}

impl Producer {
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    pub fn stop(&self) -> Option<Stop> {
        if self.shared.token.is_cancelled() {
            Some(Stop::Token)
        } else {
            self.shared.cancelled.load(Ordering::Acquire).then_some(Stop::Reader)
        }
    }

    /// Whether the reader keeps up with so many sequences. After a `false`, the reader wakes the model's thread once it
    /// has caught up.
    pub fn has_room(&self, sequences: usize) -> bool {
        let limit = QUEUE_LIMIT.max(QUEUE_PER_SEQUENCE * sequences);
        let mut state = self.shared.lock();
        state.paused = (state.queue.len() >= limit).then_some(limit / 2);
        state.paused.is_none()
    }

    /// The prompts are tokenised and fit; `prompt_tokens` is their sum.
    pub fn accept(&self, prompt_tokens: usize) {
        self.shared.update(|state| state.accepted = Some(Ok(prompt_tokens)));
    }

    pub fn push(&self, events: impl IntoIterator<Item = TokenEvent>) {
        self.shared.update(|state| state.queue.extend(events));
    }

    pub fn finish(mut self, outcome: Result<GenerationResult>) {
        self.end(outcome);
    }

    fn end(&mut self, outcome: Result<GenerationResult>) {
        self.finished = true;
        self.shared.update(|state| {
            state.ended = true;
            state.error = outcome.as_ref().err().cloned();
            let refused = || Err(state.error.clone().unwrap_or(EngineError::Aborted));
            state.accepted.get_or_insert_with(refused);
            state.outcome = Some(outcome);
        });
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        if !self.finished {
            let closed = self.closing.load(Ordering::Acquire) || !std::thread::panicking();
            self.end(Err(if closed {
                EngineError::Closed
            } else {
                EngineError::Internal("the model's thread panicked".into())
            }));
        }
    }
}

/// The reading end. Clones read the same stream; the last one dropped cancels it.
#[derive(Clone)]
pub struct TokenStream(Arc<Reader>);

struct Reader {
    shared: Arc<Shared>,
    /// Keeps the model open while a stream exists, even if its handle was dropped.
    _keep: Box<dyn Send + Sync>,
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.shared.cancel();
    }
}

impl TokenStream {
    pub(crate) fn new(
        token: CancelToken,
        closing: Arc<AtomicBool>,
        wake: impl Fn() + Clone + Send + Sync + 'static,
        keep: impl Send + Sync + 'static,
    ) -> (Self, Producer) {
        let hook = token.on_cancel(wake.clone());
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            cancelled: AtomicBool::new(false),
            token,
            wake: Box::new(wake),
        });
        let producer = Producer { shared: shared.clone(), finished: false, closing, _hook: hook };
        (Self(Arc::new(Reader { shared, _keep: Box::new(keep) })), producer)
    }

    /// The next tokens: as many as are ready, at least one and at most `max`; `None` after the last. Calls may overlap
    /// and are answered in their order. An error is given once, after the tokens before it; then `None`.
    pub fn next(&self, max: usize, done: Done<Option<Vec<TokenEvent>>>) {
        let resume = self.0.shared.update(|state| {
            state.pulls.push_back((max, Reply::new(done)));
            state.settle();
            let queued = state.queue.len();
            state.paused.take_if(|few| queued <= *few).is_some()
        });
        if resume {
            (self.0.shared.wake)();
        }
    }

    /// The number of prompt tokens, as soon as the prompts are tokenised, checked and queued: before any of them is
    /// computed. An error is what is wrong with them; `Aborted` also if the reader cancelled before. May be asked any
    /// number of times.
    pub fn accepted(&self, done: Done<usize>) {
        self.0.shared.update(|state| state.accepted_askers.push(Reply::new(done)));
    }

    /// Ends the computation by the next token, or the next layer of a prefill. The result then holds the tokens so far.
    pub fn cancel(&self) {
        self.0.shared.cancel();
    }

    /// The result, when the stream has ended. May be called any number of times.
    pub fn result(&self, done: Done<GenerationResult>) {
        self.0.shared.update(|state| state.askers.push(Reply::new(done)));
    }
}
