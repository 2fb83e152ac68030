//! Guesses what followed the same tokens before (Saxena, "Prompt lookup decoding", 2023).

use super::cost::Cost;
use super::rate::Rate;

/// The longest guess.
const MOST: usize = 16;
/// By how much a row must be worth more than it costs: in a pass of one row, and at the most. It grows with the rows,
/// because sequences that get ahead end sooner, and the smaller passes of the rest use the machine less well.
const MARGIN: (f64, f64) = (1.15, 1.6);
const MARGIN_OF_ROW: f64 = 0.07;
/// What is believed of each kind of guess, and how many tries that is worth.
const BELIEFS: [f64; 4] = [0.1, 0.3, 0.55, 0.8];
const WEIGHT: f64 = 1.5;
/// A guess counts half as much eight guesses later.
const FADE: f64 = 0.92;

/// A sequence's guesses so far.
#[derive(Debug, Clone)]
pub(crate) struct Lookup {
    /// By how many tokens were found again: 1, 2, 3 to 4, more.
    rates: [Rate; 4],
    /// The kind of the guess that is being verified.
    kind: usize,
}

impl Lookup {
    pub fn new() -> Self {
        Self { rates: BELIEFS.map(|belief| Rate::new(belief, WEIGHT, FADE)), kind: 0 }
    }

    /// A guess of at most `most` tokens after `tokens`; empty if none pays. `rows`: of the pass without it.
    pub fn draft<'a>(&mut self, tokens: &'a [u32], most: usize, rows: usize, cost: &Cost) -> &'a [u32] {
        self.rates.iter_mut().for_each(Rate::idle);
        let Some((matched, guess)) = find(tokens) else { return &[] };
        self.kind = match matched {
            1 => 0,
            2 => 1,
            3..=4 => 2,
            _ => 3,
        };
        let right = self.rates[self.kind].share();
        let margin = (MARGIN.0 + MARGIN_OF_ROW * (rows as f64 - 1.0)).min(MARGIN.1);
        let bar = margin * cost.share_of_row(rows);
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
        self.rates[self.kind].learn(drafted, accepted);
    }
}

/// Tokens that are compared; more say no more.
const LONGEST: usize = 8;

/// Where the last tokens stood before: of several places the one where most of the tokens before agree, of these the
/// latest. Returns how many agree, and what followed there. One pass over `tokens`.
fn find(tokens: &[u32]) -> Option<(usize, &[u32])> {
    let (last, before) = tokens.split_last()?;
    let mut best = None;
    let mut end = before.len();
    while let Some(at) = before[..end].iter().rposition(|token| token == last) {
        let common = before[..at].iter().rev().zip(before.iter().rev()).take_while(|(a, b)| a == b);
        let matched = 1 + common.take(LONGEST - 1).count();
        if best.is_none_or(|(most, _)| matched > most) {
            best = Some((matched, at + 1));
        }
        if matched == LONGEST {
            break;
        }
        end = at;
    }
    best.map(|(matched, from)| (matched, &tokens[from..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_agreement_is_found_and_of_equals_the_latest() {
        assert_eq!(find(&[]), None);
        assert_eq!(find(&[1]), None);
        assert_eq!(find(&[1, 2]), None);
        assert_eq!(find(&[1, 1]), Some((1, &[1][..])));
        assert_eq!(find(&[5, 1, 6, 1, 7, 1]), Some((1, &[7, 1][..])));
        assert_eq!(find(&[2, 1, 6, 3, 1, 7, 2, 1]), Some((2, &[6, 3, 1, 7, 2, 1][..])));
        let long: Vec<u32> = (0..20).chain(0..20).collect();
        assert_eq!(find(&long), Some((8, &long[20..])));
    }

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
        let mut copying = Lookup::new();
        for _ in 0..20 {
            let drafted = copying.draft(&text, 100, 1, &cost).len();
            copying.learn(drafted, drafted);
        }
        assert_eq!(copying.draft(&text, 100, 1, &cost), &text[20..36]);
        assert_eq!(copying.draft(&text, 3, 1, &cost).len(), 3);
        // Among many rows a further one costs as much as it can give.
        assert_eq!(copying.draft(&text, 100, 200, &cost).len(), 0);
        let mut failing = Lookup::new();
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
