//! How many tokens a step may have so that it does not take too long: a longer step is a longer pause between two
//! tokens of whoever decodes beside it, and a longer wait for whoever comes.

use std::time::Duration;

/// A slow model reads its prompts by so few at the least.
const LEAST: usize = 8;
/// The first step beside somebody else, whose speed nobody knows.
const FIRST: usize = 64;
/// A step is planned for so much of the time it may take: the next one has longer sequences, or more of them.
const AIM: f64 = 0.85;

pub(crate) struct Pace {
    longest: f64,
    /// Beyond so many tokens a step is no more efficient.
    most: usize,
    tokens: usize,
}

impl Pace {
    /// `longest`: what a step may take.
    pub fn new(longest: Duration, most: usize) -> Self {
        Self { longest: longest.as_secs_f64(), most, tokens: FIRST }
    }

    /// Tokens of the next step. `alone`: it holds nobody up, and may be as long as is good for its speed.
    pub fn tokens(&self, alone: bool) -> usize {
        if alone { self.most } else { self.tokens }
    }

    /// A step of `tokens` tokens took `seconds`. A small one says little about speed, unless it took too long.
    pub fn took(&mut self, tokens: usize, seconds: f64) {
        let fits = tokens as f64 * AIM * self.longest / seconds.max(1e-9);
        if 2 * tokens >= self.tokens || seconds > self.longest {
            let least = (self.tokens / 2).max(LEAST);
            self.tokens = (fits as usize).clamp(least, 2 * self.tokens).min(self.most);
        }
    }
}
