//! How much may wait for a model. What is beyond is refused at once, so that a caller who would time out hears it while
//! there is time to ask elsewhere, and memory has a bound.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crate::error::{EngineError, Result};

/// What a model's queue and steps may grow to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// Tokens of requests that wait. A GPT-2's prompt waits until it starts, a BERT's input until it has run.
    pub max_queued_tokens: usize,
    /// Requests that wait: of a GPT-2 those with a prompt that has not started.
    pub max_queued_requests: usize,
    /// No step takes longer, where its tokens can be divided: a long step is a long pause between two tokens of whoever
    /// decodes, and a long wait for whoever comes.
    pub max_step: std::time::Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_queued_tokens: 4 << 20,
            max_queued_requests: 16 << 10,
            max_step: std::time::Duration::from_millis(50),
        }
    }
}

/// What waits for a model, counted where it is called and where it runs.
pub(crate) struct Queue {
    limits: Limits,
    tokens: AtomicUsize,
    requests: AtomicUsize,
    /// Requests that came so far.
    arrivals: AtomicUsize,
    /// Tokens that the model computes a second, as the bits of an f64; 0: not known yet.
    speed: AtomicU64,
}

impl Queue {
    pub fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self {
            limits,
            tokens: AtomicUsize::new(0),
            requests: AtomicUsize::new(0),
            arrivals: AtomicUsize::new(0),
            speed: AtomicU64::new(0),
        })
    }

    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    pub fn tokens(&self) -> usize {
        self.tokens.load(Ordering::Relaxed)
    }

    pub fn arrivals(&self) -> usize {
        self.arrivals.load(Ordering::Acquire)
    }

    /// A request is about to be sent to the model's thread.
    pub fn arrives(&self) {
        self.arrivals.fetch_add(1, Ordering::Release);
    }

    pub fn set_speed(&self, tokens_per_second: f64) {
        self.speed.store(tokens_per_second.to_bits(), Ordering::Relaxed);
    }

    /// Lets a request in, whose tokens are not known yet.
    pub fn enter(self: &Arc<Self>) -> Result<Ticket> {
        let before = self.requests.fetch_add(1, Ordering::Relaxed);
        let ticket = Ticket { queue: self.clone(), tokens: 0, waits: true };
        let most = self.limits.max_queued_requests;
        // A refused ticket is dropped, which takes it off the count.
        if before < most {
            Ok(ticket)
        } else {
            Err(self.full(format!("{before} requests wait, at most {most} may")))
        }
    }

    fn full(&self, reason: String) -> EngineError {
        let speed = f64::from_bits(self.speed.load(Ordering::Relaxed));
        let seconds = if speed > 0.0 { self.tokens() as f64 / speed } else { 1.0 };
        EngineError::QueueFull { reason, retry_after_ms: (seconds * 1e3).clamp(50.0, 3_600_000.0) as u64 }
    }
}

/// A request's place in the queue. Dropped, it leaves.
pub(crate) struct Ticket {
    queue: Arc<Queue>,
    /// Of it that wait.
    tokens: usize,
    waits: bool,
}

impl Ticket {
    /// The request has so many tokens.
    pub fn add(&mut self, tokens: usize) -> Result<()> {
        let before = self.queue.tokens.fetch_add(tokens, Ordering::Relaxed);
        self.tokens += tokens;
        let most = self.queue.limits.max_queued_tokens;
        if before.saturating_add(tokens) <= most {
            return Ok(());
        }
        self.start(tokens);
        Err(self.queue.full(format!("{before} tokens wait and {tokens} came, at most {most} may")))
    }

    /// So many of its tokens wait no longer.
    pub fn start(&mut self, tokens: usize) {
        let tokens = tokens.min(self.tokens);
        self.tokens -= tokens;
        self.queue.tokens.fetch_sub(tokens, Ordering::Relaxed);
    }

    /// Nothing of it waits any longer.
    pub fn leave(&mut self) {
        self.start(self.tokens);
        if std::mem::take(&mut self.waits) {
            self.queue.requests.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.leave();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_leaves_makes_room() {
        let limits = Limits { max_queued_tokens: 10, max_queued_requests: 2, ..Limits::default() };
        let queue = Queue::new(limits);
        let (mut a, mut b) = (queue.enter().unwrap(), queue.enter().unwrap());
        assert_eq!(queue.enter().err().map(|error| error.code()), Some("QUEUE_FULL"));
        a.add(6).unwrap();
        let refused = b.add(5).unwrap_err();
        assert!(matches!(refused, EngineError::QueueFull { retry_after_ms: 1000, .. }), "{refused:?}");
        queue.set_speed(60.0);
        assert!(matches!(b.add(5).unwrap_err(), EngineError::QueueFull { retry_after_ms: 100, .. }));
        a.start(2);
        b.add(5).unwrap();
        assert_eq!(queue.tokens(), 9);
        a.leave();
        a.leave();
        let _c = queue.enter().unwrap();
        drop((a, b));
        assert_eq!((queue.tokens(), queue.requests.load(Ordering::Relaxed)), (0, 1));
    }
}
