//! How often guesses of one kind were right.

/// What is known fades with every token, guessed or not, to a half in 138 tokens. So what failed is tried again,
/// rarely.
const FADE_IDLE: f64 = 0.995;

/// Counts of guessed tokens, the later ones counting for more.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rate {
    right: f64,
    tried: f64,
    /// The share that is right, as long as nothing was tried, and how many tries that is worth.
    belief: f64,
    weight: f64,
    /// What is left of a count after the next try.
    fade: f64,
}

impl Rate {
    pub const fn new(belief: f64, weight: f64, fade: f64) -> Self {
        Self { right: 0.0, tried: 0.0, belief, weight, fade }
    }

    /// Of a guess of `drafted` tokens the first `accepted` were right; what stood after a wrong one says nothing.
    pub fn learn(&mut self, drafted: usize, accepted: usize) {
        for at in 0..drafted.min(accepted + 1) {
            self.fade(self.fade);
            self.tried += 1.0;
            self.right += f64::from(u8::from(at < accepted));
        }
    }

    /// A token passes.
    pub fn idle(&mut self) {
        self.fade(FADE_IDLE);
    }

    /// The chance that a guessed token is right, if those before it are.
    pub fn share(&self) -> f64 {
        (self.right + self.weight * self.belief) / (self.tried + self.weight)
    }

    fn fade(&mut self, by: f64) {
        (self.right, self.tried) = (self.right * by, self.tried * by);
    }
}
