//! Tokens that are guessed and verified as rows of one pass. What is drawn at a position is keyed by (seed, position,
//! sample), so a guessed token counts exactly if it is what would have been drawn: speculation changes no bit, only how
//! many tokens a pass gives. (Leviathan et al., "Fast inference from transformers via speculative decoding", ICML 2023,
//! without the rejection sampling, which such randomness makes needless.)
//!
//! `lookup.rs` guesses from the text so far; `draft.rs` asks another model, whose thread answers with `drafting.rs`.
//! `cost.rs` knows what a further row costs a pass, `rate.rs` how often guesses were right. A guess is as long as it
//! pays.

mod cost;
pub(crate) mod draft;
pub(crate) mod drafting;
mod lookup;
mod rate;

pub use cost::Cost;
pub use draft::DraftModel;
use draft::Drafter;
use lookup::Lookup;

/// Who guesses tokens.
#[derive(Debug, Clone, Default)]
pub enum Speculation {
    /// Nobody but the prompt and the text so far, where that pays.
    #[default]
    Lookup,
    /// Another model, where that pays.
    Draft(DraftModel),
    Off,
}

/// A sequence's guesses so far.
#[derive(Clone)]
pub(crate) enum Speculator {
    Lookup(Lookup),
    Draft(Drafter),
}

impl Speculator {
    pub fn new(speculation: &Speculation) -> Option<Self> {
        match speculation {
            Speculation::Lookup => Some(Self::Lookup(Lookup::new())),
            Speculation::Draft(model) => Some(Self::Draft(Drafter::new(model.clone()))),
            Speculation::Off => None,
        }
    }

    /// Of a guess of `drafted` tokens the first `accepted` were right.
    pub fn learn(&mut self, drafted: usize, accepted: usize) {
        match self {
            Self::Lookup(lookup) => lookup.learn(drafted, accepted),
            Self::Draft(drafter) => drafter.learn(drafted, accepted),
        }
    }
}
