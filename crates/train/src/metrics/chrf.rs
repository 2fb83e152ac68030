//! sacrebleu's corpus chrF2 (Popović 2015), and with words up to order 2 chrF2++ (Popović 2017).

use std::collections::HashMap;
use std::hash::Hash;

use super::bleu::split;

const CHARACTERS: usize = 6;
/// Recall counts β² times as much as precision.
const BETA_SQUARED: f64 = 4.0;

/// n-grams said, n-grams of the reference, and those in both, by order.
type Statistics = Vec<[u64; 3]>;

/// 0 to 100. `words`: 0 for chrF, 2 for chrF++. Each row: what was said, and the references, of which the best counts.
pub fn chrf<'a, R: AsRef<str> + 'a>(rows: impl Iterator<Item = (&'a str, &'a [R])>, words: usize) -> f64 {
    let mut total: Statistics = vec![[0; 3]; CHARACTERS + words];
    for (said, references) in rows {
        let said = Ngrams::of(said, words);
        let mut best: Option<(f64, Statistics)> = None;
        for reference in references {
            let statistics = said.against(&Ngrams::of(reference.as_ref(), words));
            let score = f_score(&statistics);
            if best.as_ref().is_none_or(|(other, _)| score > *other) {
                best = Some((score, statistics));
            }
        }
        for (total, row) in total.iter_mut().zip(best.map(|(_, row)| row).unwrap_or_default()) {
            (0..3).for_each(|i| total[i] += row[i]);
        }
    }
    f_score(&total)
}

/// Counts of n-grams, by order.
struct Ngrams {
    characters: Vec<HashMap<Vec<char>, u64>>,
    words: Vec<HashMap<Vec<String>, u64>>,
}

impl Ngrams {
    fn of(text: &str, words: usize) -> Self {
        let characters: Vec<char> = split(text).flat_map(str::chars).collect();
        let tokens = if words == 0 { Vec::new() } else { separated(text) };
        Self {
            characters: (1..=CHARACTERS).map(|order| counts(&characters, order)).collect(),
            words: (1..=words).map(|order| counts(&tokens, order)).collect(),
        }
    }

    fn against(&self, reference: &Self) -> Statistics {
        let characters = self.characters.iter().zip(&reference.characters).map(|(a, b)| statistics(a, b));
        let words = self.words.iter().zip(&reference.words).map(|(a, b)| statistics(a, b));
        characters.chain(words).collect()
    }
}

fn counts<T: Clone + Eq + Hash>(items: &[T], order: usize) -> HashMap<Vec<T>, u64> {
    let mut counts = HashMap::new();
    for ngram in items.windows(order) {
        *counts.entry(ngram.to_vec()).or_default() += 1;
    }
    counts
}

fn statistics<T: Eq + Hash>(said: &HashMap<T, u64>, reference: &HashMap<T, u64>) -> [u64; 3] {
    let both = said.iter().map(|(ngram, count)| reference.get(ngram).map_or(0, |there| *count.min(there)));
    // Without n-grams in the reference, those said count for nothing.
    let said_count = if reference.is_empty() { 0 } else { said.values().sum() };
    [said_count, reference.values().sum(), both.sum()]
}

/// Over the orders that both sides have.
fn f_score(statistics: &[[u64; 3]]) -> f64 {
    let (mut precision, mut recall, mut orders) = (0.0, 0.0, 0.0);
    for [said, reference, both] in
        statistics.iter().filter(|[said, reference, _]| *said > 0 && *reference > 0)
    {
        precision += *both as f64 / *said as f64;
        recall += *both as f64 / *reference as f64;
        orders += 1.0;
    }
    if precision + recall == 0.0 {
        return 0.0;
    }
    let (precision, recall) = (precision / orders, recall / orders);
    100.0 * (1.0 + BETA_SQUARED) * precision * recall / (BETA_SQUARED * precision + recall)
}

/// Words, with one mark of punctuation at their end or else at their start taken off.
fn separated(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    for word in split(text) {
        let mut chars = word.chars();
        let (first, last) = (chars.next(), chars.next_back());
        match (first, last) {
            (Some(_), Some(last)) if last.is_ascii_punctuation() => {
                words.extend([word[..word.len() - 1].to_string(), last.to_string()]);
            }
            (Some(first), Some(_)) if first.is_ascii_punctuation() => {
                words.extend([first.to_string(), word[1..].to_string()]);
            }
            _ => words.push(word.to_string()),
        }
    }
    words
}
