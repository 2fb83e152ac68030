//! Metrics of numbers: regression, correlation, and the likelihood of texts.

use serde::Serialize;

use super::ratio;

#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Regression {
    pub mean_squared_error: f64,
    pub mean_absolute_error: f64,
    pub pearson: f64,
    pub spearman: f64,
}

pub fn regression(truth: &[f32], predicted: &[f32]) -> Regression {
    let mean = |error: fn(f64) -> f64| {
        let errors = truth.iter().zip(predicted).map(|(a, b)| error(f64::from(*a) - f64::from(*b)));
        ratio(errors.sum(), truth.len() as f64)
    };
    Regression {
        mean_squared_error: mean(|x| x * x),
        mean_absolute_error: mean(f64::abs),
        pearson: pearson(truth, predicted),
        spearman: spearman(truth, predicted),
    }
}

/// 0 where one side is constant (scipy: NaN).
pub fn pearson(a: &[f32], b: &[f32]) -> f64 {
    let wide = |x: &[f32]| x.iter().map(|x| f64::from(*x)).collect::<Vec<_>>();
    correlation(&wide(a), &wide(b))
}

fn correlation(a: &[f64], b: &[f64]) -> f64 {
    let mean = |x: &[f64]| x.iter().sum::<f64>() / x.len() as f64;
    let (mean_a, mean_b) = (mean(a), mean(b));
    let sum = |term: &dyn Fn(f64, f64) -> f64| -> f64 {
        a.iter().zip(b).map(|(x, y)| term(x - mean_a, y - mean_b)).sum()
    };
    ratio(sum(&|x, y| x * y), (sum(&|x, _| x * x) * sum(&|_, y| y * y)).sqrt())
}

/// Pearson's correlation of the ranks; equals share theirs.
pub fn spearman(a: &[f32], b: &[f32]) -> f64 {
    correlation(&ranks(a), &ranks(b))
}

fn ranks(values: &[f32]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|x, y| values[*x].total_cmp(&values[*y]));
    let mut ranks = vec![0.0; values.len()];
    let mut start = 0;
    for group in order.chunk_by(|x, y| values[*x] == values[*y]) {
        let rank = start as f64 + (group.len() as f64 + 1.0) / 2.0;
        group.iter().for_each(|index| ranks[*index] = rank);
        start += group.len();
    }
    ranks
}

/// Of a language model on texts.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Perplexity {
    /// Nats a token.
    pub loss: f64,
    pub perplexity: f64,
    /// All bits over all bytes of UTF-8: comparable between tokenizers.
    pub bits_per_byte: f64,
    /// Share of tokens that were the likeliest.
    pub token_accuracy: f64,
    /// Tokens that were guessed.
    pub tokens: u64,
    pub bytes: u64,
}

impl Perplexity {
    /// `nats`: minus the sum of the tokens' log-probabilities.
    pub fn new(nats: f64, tokens: u64, right: u64, bytes: u64) -> Self {
        let loss = ratio(nats, tokens as f64);
        Self {
            loss,
            perplexity: loss.exp(),
            bits_per_byte: ratio(nats / std::f64::consts::LN_2, bytes as f64),
            token_accuracy: ratio(right as f64, tokens as f64),
            tokens,
            bytes,
        }
    }
}
