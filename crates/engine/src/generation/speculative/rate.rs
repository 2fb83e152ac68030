//! How often guesses of one kind were right.

/// A token's guess that is so many guesses old counts half as much: 1 - 1/12.
const FADE_TRIED: f64 = 0.92;
/// And a token without a guess: 1 - 1/200. So what failed is tried again, rarely.
const FADE_IDLE: f64 = 0.995;
/// How many tries a belief is worth.
const WEIGHT: f64 = 1.5;

/// Counts of guessed tokens, the later ones counting for more.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rate {
    right: f64,
    tried: f64,
    /// The share that is right, as long as nothing was tried.
    belief: f64,
}

impl Rate {
    pub const fn new(belief: f64) -> Self {
        Self { right: 0.0, tried: 0.0, belief }
    }

    /// Of a guess of `drafted` tokens the first `accepted` were right; what stood after a wrong one says nothing.
    pub fn learn(&mut self, drafted: usize, accepted: usize) {
        for at in 0..drafted.min(accepted + 1) {
            self.fade(FADE_TRIED);
            self.tried += 1.0;
            self.right += f64::from(u8::from(at < accepted));
        }
    }

    /// A token passes without a guess.
    pub fn idle(&mut self) {
        self.fade(FADE_IDLE);
    }

    /// The chance that a guessed token is right, if those before it are.
    pub fn share(&self) -> f64 {
        (self.right + WEIGHT * self.belief) / (self.tried + WEIGHT)
    }

    fn fade(&mut self, by: f64) {
        (self.right, self.tried) = (self.right * by, self.tried * by);
    }
}
