//! Metrics. Each metric is defined by the reference that people compare with, and tested against it.
//!
//! - `classes.rs`: scikit-learn's accuracy, precision, recall, F1, Matthews correlation, confusion matrix; several
//!   labels.
//! - `entities.rs`: seqeval's entity F1. `answers.rs`: SQuAD's exact match and F1.
//! - `bleu.rs`, `chrf.rs`: sacrebleu's. `numbers.rs`: regression, rank correlation (scipy), perplexity.

mod answers;
mod bleu;
mod chrf;
mod classes;
mod entities;
mod numbers;

use serde::Serialize;

pub use answers::{Answers, answer_scores};
pub use bleu::{Bleu, BleuTokenizer, bleu};
pub use chrf::chrf;
pub use classes::{ClassMetrics, MultiLabelMetrics, classes, several_labels};
pub use entities::{EntityMetrics, entities};
pub use numbers::{Perplexity, Regression, pearson, regression, spearman};

/// Precision, recall and F1 of one class, or over several.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Scores {
    pub precision: f64,
    pub recall: f64,
    pub f1: f64,
}

/// One class's share of a result.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ClassScores {
    pub label: String,
    #[serde(flatten)]
    pub scores: Scores,
    /// Number of instances in the data (support).
    pub support: u64,
}

/// Right, found and existing instances of a class.
#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    right: u64,
    predicted: u64,
    actual: u64,
}

/// 0 for a division by zero, as in the references.
fn ratio(part: f64, whole: f64) -> f64 {
    if whole == 0.0 { 0.0 } else { part / whole }
}

impl Counts {
    fn scores(self) -> Scores {
        let precision = ratio(self.right as f64, self.predicted as f64);
        let recall = ratio(self.right as f64, self.actual as f64);
        let f1 = ratio(2.0 * self.right as f64, (self.predicted + self.actual) as f64);
        Scores { precision, recall, f1 }
    }
}

/// The three ways to make one number of many classes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Averages {
    /// Over all instances.
    pub micro: Scores,
    /// The mean over the classes that occur, in the data or in the predictions.
    #[serde(rename = "macro")]
    pub macro_average: Scores,
    /// The same, weighted by support.
    pub weighted: Scores,
}

fn averages(counts: &[Counts]) -> Averages {
    let occur: Vec<&Counts> = counts.iter().filter(|class| class.predicted + class.actual > 0).collect();
    let sum = |field: fn(&Counts) -> u64| counts.iter().map(field).sum();
    let all = Counts { right: sum(|c| c.right), predicted: sum(|c| c.predicted), actual: sum(|c| c.actual) };
    let mean = |weight: &dyn Fn(&Counts) -> f64| {
        let total: f64 = occur.iter().map(|class| weight(class)).sum();
        let mean = |field: fn(Scores) -> f64| {
            ratio(occur.iter().map(|class| weight(class) * field(class.scores())).sum(), total)
        };
        Scores { precision: mean(|s| s.precision), recall: mean(|s| s.recall), f1: mean(|s| s.f1) }
    };
    Averages {
        micro: all.scores(),
        macro_average: mean(&|_| 1.0),
        weighted: mean(&|class| class.actual as f64),
    }
}

fn class_scores(labels: &[String], counts: &[Counts]) -> Vec<ClassScores> {
    let class = |(label, counts): (&String, &Counts)| ClassScores {
        label: label.clone(),
        scores: counts.scores(),
        support: counts.actual,
    };
    labels.iter().zip(counts).map(class).collect()
}
