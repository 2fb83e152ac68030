//! Guesses of another, smaller model: the asking side. The other model answers on its own thread (`drafting.rs`) for
//! all sequences of a step at once. It chooses as the request does, with the request's options and the very random
//! numbers of the positions, so that two models that agree about a distribution agree about the token drawn from it.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use candlewick_models::CausalInfo;

use super::cost::Cost;
use super::rate::Rate;
use crate::error::{EngineError, Result};
use crate::runtime::codec::Codec;

/// The longest guess.
const MOST: usize = 16;
/// By how much guessing must be faster than not guessing.
const MARGIN: f64 = 1.03;
/// What is believed of a draft model's guesses, and how many tries that is worth: more than with lookup, because a
/// draft that was given up is tried again rarely.
const BELIEF: f64 = 0.6;
const WEIGHT: f64 = 5.0;
/// A guess counts half as much 17 guesses later.
const FADE: f64 = 0.96;

/// A loaded model that guesses for another. Holding it keeps the model open; if somebody closes it, nobody guesses.
#[derive(Clone)]
pub struct DraftModel {
    /// A model that is closed drops what it is sent.
    pub(crate) send: Arc<dyn Fn(DraftCommand) + Send + Sync>,
    pub(crate) vocab_size: usize,
    pub(crate) n_positions: usize,
    pub(crate) codec: Option<Codec>,
    /// The model's own flag, by which it is known.
    pub(crate) closing: Arc<AtomicBool>,
    pub(crate) speed: Arc<DraftSpeed>,
}

impl fmt::Debug for DraftModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DraftModel").field("vocab_size", &self.vocab_size).finish_non_exhaustive()
    }
}

impl DraftModel {
    /// Whether it can guess for the model of `info`, which `closing` belongs to.
    pub(crate) fn check(&self, info: &CausalInfo, closing: &Arc<AtomicBool>) -> Result<()> {
        if Arc::ptr_eq(&self.closing, closing) {
            return Err(EngineError::option("speculation", "a model cannot be its own draft"));
        }
        if self.closing.load(Ordering::Acquire) {
            return Err(EngineError::Closed);
        }
        if self.vocab_size != info.vocab_size {
            let reason = format!(
                "the draft model has another vocabulary: {} tokens, the model {}",
                self.vocab_size, info.vocab_size
            );
            return Err(EngineError::option("speculation", reason));
        }
        Ok(())
    }

    /// Whether its ids stand for the tokens of `codec`, if both have tokenizers. Milliseconds the first time.
    pub(crate) fn check_tokens(&self, codec: Option<&Codec>) -> Result<()> {
        match (&self.codec, codec) {
            (Some(own), Some(other)) if own.fingerprint() != other.fingerprint() => {
                let reason = "the draft model has another vocabulary: its ids stand for other tokens";
                Err(EngineError::option("speculation", reason))
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.closing, &other.closing)
    }
}

/// How long a draft model takes for a token of each sequence, asking included.
#[derive(Debug, Default)]
pub(crate) struct DraftSpeed {
    nanoseconds: AtomicU64,
}

impl DraftSpeed {
    pub fn took(&self, passes: usize, seconds: f64) {
        let new = seconds / passes.max(1) as f64;
        let mixed = self.seconds().map_or(new, |old| 0.8 * old + 0.2 * new);
        self.nanoseconds.store((mixed * 1e9).max(1.0) as u64, Ordering::Relaxed);
    }

    /// Nobody asks a model that is believed to be slow, so that nothing is measured: the belief fades.
    fn fade(&self) {
        if let Some(seconds) = self.seconds() {
            self.nanoseconds.store((seconds * 0.998 * 1e9).max(1.0) as u64, Ordering::Relaxed);
        }
    }

    fn seconds(&self) -> Option<f64> {
        let nanoseconds = self.nanoseconds.load(Ordering::Relaxed);
        (nanoseconds > 0).then_some(nanoseconds as f64 / 1e9)
    }
}

/// What a draft model's thread is told.
pub(crate) enum DraftCommand {
    Draft(DraftJob),
    /// A sequence has ended: what the model has of it can go.
    Forget(u64),
}

pub(crate) struct DraftJob {
    pub items: Vec<DraftItem>,
    pub answer: mpsc::Sender<Drafted>,
    /// Nobody waits for the answer any more. What was asked for is read nevertheless: the next guess needs it.
    pub abandoned: Arc<AtomicBool>,
}

/// Chooses the token after some tokens from its logits, which it overwrites.
pub(crate) type Choose = Box<dyn FnMut(&mut [f32], &[u32]) -> Option<u32> + Send>;

pub(crate) struct DraftItem {
    pub sequence: u64,
    /// All of its tokens, then the guessed ones.
    pub tokens: Vec<u32>,
    /// How many tokens to guess.
    pub most: usize,
    pub choose: Choose,
}

/// The items with their guesses.
pub(crate) struct Drafted {
    pub items: Vec<DraftItem>,
    pub passes: usize,
    /// Tokens that went through the model, past ones that it had not seen among them.
    pub tokens: usize,
}

/// One sequence's guesses by a draft model.
pub(crate) struct Drafter {
    past: DraftPast,
    rate: Rate,
    /// Kept between guesses, because it holds buffers of the vocabulary's size.
    choose: Option<Choose>,
}

/// What a draft model has of one sequence, and lets go of when this is dropped.
struct DraftPast {
    model: DraftModel,
    id: u64,
}

impl DraftPast {
    fn new(model: DraftModel) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self { model, id: NEXT.fetch_add(1, Ordering::Relaxed) }
    }
}

impl Drop for DraftPast {
    fn drop(&mut self) {
        (self.model.send)(DraftCommand::Forget(self.id));
    }
}

impl Clone for Drafter {
    /// For a copy of the sequence.
    fn clone(&self) -> Self {
        let past = DraftPast::new(self.past.model.clone());
        Self { past, rate: self.rate, choose: None }
    }
}

impl Drafter {
    pub fn new(model: DraftModel) -> Self {
        Self { past: DraftPast::new(model), rate: Rate::new(BELIEF, WEIGHT, FADE), choose: None }
    }

    pub fn model(&self) -> &DraftModel {
        &self.past.model
    }

    /// How many tokens to guess after `tokens`, at most `most`; `None`: guessing does not pay. `rows`: of the pass
    /// without guesses. `patience`: how long an answer is waited for. `choose` makes the function that chooses tokens
    /// of this sequence.
    pub fn ask(
        &mut self,
        tokens: &[u32],
        most: usize,
        rows: usize,
        cost: &Cost,
        patience: Duration,
        choose: impl FnOnce() -> Choose,
    ) -> Option<DraftItem> {
        self.rate.idle();
        if tokens.len() > self.model().n_positions {
            return None;
        }
        let most = self.length(rows, cost, patience).min(most);
        (most > 0).then(|| DraftItem {
            sequence: self.past.id,
            tokens: tokens.to_vec(),
            most,
            choose: self.choose.take().unwrap_or_else(choose),
        })
    }

    /// The length at which most tokens come in a second. With a chance of `right` for each token, `k` guesses give
    /// (1 - right^(k+1)) / (1 - right) tokens, in the time of a pass, `k` rows of it and `k` passes of the draft model.
    fn length(&self, rows: usize, cost: &Cost, patience: Duration) -> usize {
        // The first guess is one token, by which the model's speed is measured.
        let Some((seconds, draft)) = cost.seconds(rows).zip(self.model().speed.seconds()) else { return 1 };
        let right = self.rate.share().min(0.999);
        // A row makes the pass longer for all its rows, and gives one of them a token.
        let each = cost.share_of_row(rows) + draft / seconds;
        let rate = |k: usize| (1.0 - right.powi(k as i32 + 1)) / (1.0 - right) / (1.0 + k as f64 * each);
        // Half of the patience, because not every answer comes as soon as the others.
        let longest = (0.5 * patience.as_secs_f64() / draft).clamp(1.0, MOST as f64) as usize;
        let best = (1..=longest).max_by(|a, b| rate(*a).total_cmp(&rate(*b))).unwrap_or(0);
        if rate(best) > MARGIN {
            return best;
        }
        self.model().speed.fade();
        0
    }

    /// An answer has come. What cannot guess, because it has no memory, counts as wrong.
    pub fn answered(&mut self, choose: Choose, guessed: usize) {
        self.choose = Some(choose);
        if guessed == 0 {
            self.rate.learn(1, 0);
        }
    }

    pub fn learn(&mut self, drafted: usize, accepted: usize) {
        self.rate.learn(drafted, accepted);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drafter(step: f64) -> Drafter {
        let speed = Arc::new(DraftSpeed::default());
        speed.took(1, step);
        let closing = Arc::new(AtomicBool::new(false));
        let send = Arc::new(|_| {});
        Drafter::new(DraftModel { send, vocab_size: 10, n_positions: 100, codec: None, closing, speed })
    }

    #[test]
    fn a_guess_is_as_long_as_it_pays() {
        let mut cost = Cost::default();
        (0..100).for_each(|i| cost.took(1 + i % 8, 0.010 + 0.001 * (1 + i % 8) as f64));
        let length = |right: usize, step: f64| {
            let mut drafter = drafter(step);
            // Of each five guessed tokens so many are right.
            (0..50).for_each(|_| drafter.learn(5, right));
            drafter.length(1, &cost, Duration::from_millis(50))
        };
        let (best, good, fair) = (length(5, 0.001), length(4, 0.001), length(2, 0.001));
        assert!(best > good && good > fair && fair > 0, "{best} {good} {fair}");
        assert_eq!(length(0, 0.001), 0, "always wrong");
        assert_eq!(length(5, 0.011), 0, "as slow as the model itself");
        let ask = |patience| drafter(0.001).length(1, &cost, Duration::from_millis(patience));
        assert!(ask(50) > 1 && ask(2) == 1, "what comes too late is not asked for");
        assert_eq!(
            drafter(0.001).length(1, &Cost::default(), Duration::from_millis(50)),
            1,
            "not measured yet"
        );
    }
}
