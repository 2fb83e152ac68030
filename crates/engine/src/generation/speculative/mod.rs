//! Tokens that are guessed and verified as rows of one pass. What is drawn at a position is keyed by (seed, position,
//! sample), so a guessed token counts exactly if it is what would have been drawn: speculation changes no bit, only how
//! many tokens a pass gives. (Leviathan et al., "Fast inference from transformers via speculative decoding", ICML 2023,
//! without the rejection sampling, which such randomness makes needless.)
//!
//! `lookup.rs` guesses what followed the same tokens before (Saxena, "Prompt lookup decoding", 2023). `cost.rs` knows
//! what a further row costs a pass. A guess is as long as it pays.

mod cost;
mod lookup;

pub use cost::Cost;

/// Whether tokens are guessed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Speculation {
    /// From the prompt and the text so far, where that pays.
    #[default]
    Lookup,
    Off,
}

/// The longest guess.
const MOST: usize = 16;
/// By how much a row must be worth more than it costs.
const MARGIN: f64 = 1.15;

/// How often guesses of one kind were right, the later ones counting for more.
#[derive(Debug, Clone, Copy)]
struct Rate {
    right: f64,
    tried: f64,
}

/// A sequence's guesses so far.
#[derive(Debug, Clone)]
pub(crate) struct Speculator {
    /// By how many tokens were found again: 1, 2, 3 to 4, more.
    rates: [Rate; 4],
    /// The kind of the guess that is being verified.
    kind: usize,
}

/// What is believed before anything was tried: the share of right guesses, as if so many had been tried.
const BELIEFS: [f64; 4] = [0.1, 0.3, 0.55, 0.8];
const BELIEF: f64 = 1.5;
/// A guess that is so many guesses old counts half as much: 1 - 1/12.
const FADE_TRIED: f64 = 0.92;
/// And a token without a guess: 1 - 1/200. So what failed is tried again, rarely.
const FADE_IDLE: f64 = 0.995;

impl Speculator {
    pub fn new() -> Self {
        Self { rates: [Rate { right: 0.0, tried: 0.0 }; 4], kind: 0 }
    }

    /// A guess of at most `most` tokens after `tokens`; empty if none pays. `rows`: of the pass without it.
    pub fn draft<'a>(&mut self, tokens: &'a [u32], most: usize, rows: usize, cost: &Cost) -> &'a [u32] {
        self.rates.iter_mut().for_each(|rate| rate.fade(FADE_IDLE));
        let Some((matched, guess)) = lookup::find(tokens) else { return &[] };
        self.kind = match matched {
            1 => 0,
            2 => 1,
            3..=4 => 2,
            _ => 3,
        };
        let right = self.rates[self.kind].share(BELIEFS[self.kind]);
        let bar = MARGIN * cost.share_of_row(rows);
        let mut worth = right;
        let mut length = 0;
        while length < MOST.min(most).min(guess.len()) && worth > bar {
            length += 1;
            worth *= right;
        }
        &guess[..length]
    }

    /// Of a guess of `drafted` tokens the first `accepted` were right.
    pub fn learn(&mut self, drafted: usize, accepted: usize) {
        let rate = &mut self.rates[self.kind];
        for at in 0..drafted.min(accepted + 1) {
            rate.fade(FADE_TRIED);
            rate.tried += 1.0;
            rate.right += f64::from(u8::from(at < accepted));
        }
    }
}

impl Rate {
    fn fade(&mut self, by: f64) {
        (self.right, self.tried) = (self.right * by, self.tried * by);
    }

    fn share(&self, belief: f64) -> f64 {
        (self.right + BELIEF * belief) / (self.tried + BELIEF)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows that cost a sixth of a pass of one, as those of q8_0 do.
    fn cost() -> Cost {
        let mut cost = Cost::default();
        (0..50).for_each(|i| cost.took(1 + i % 8, 5.0 + (1 + i % 8) as f64));
        cost
    }

    #[test]
    fn a_repetition_is_guessed_at_length_and_noise_not_at_all() {
        let cost = cost();
        let text: Vec<u32> = (0..40).chain(0..20).collect();
        let mut copying = Speculator::new();
        for _ in 0..20 {
            let drafted = copying.draft(&text, 100, 1, &cost).len();
            copying.learn(drafted, drafted);
        }
        assert_eq!(copying.draft(&text, 100, 1, &cost), &text[20..36]);
        assert_eq!(copying.draft(&text, 3, 1, &cost).len(), 3);
        // Among many rows a further one costs as much as it can give.
        assert_eq!(copying.draft(&text, 100, 200, &cost).len(), 0);
        let mut failing = Speculator::new();
        let rows: usize = (0..1000)
            .map(|_| {
                let drafted = failing.draft(&text, 100, 1, &cost).len();
                failing.learn(drafted, 0);
                drafted
            })
            .sum();
        assert!(rows < 60, "{rows} rows for nothing in 1,000 tokens");
    }
}
