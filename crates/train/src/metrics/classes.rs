//! scikit-learn's `accuracy_score`, `precision_recall_fscore_support`, `matthews_corrcoef` and `confusion_matrix`.

use serde::Serialize;

use super::{Averages, ClassScores, Counts, averages, class_scores, ratio};

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ClassMetrics {
    pub accuracy: f64,
    #[serde(flatten)]
    pub averages: Averages,
    /// Matthews's correlation coefficient.
    pub mcc: f64,
    pub per_class: Vec<ClassScores>,
    /// Row: the class; column: what was said.
    pub confusion_matrix: Vec<Vec<u64>>,
}

/// `truth` and `predicted` are class ids below `labels.len()`, both (N).
pub fn classes(labels: &[String], truth: &[u32], predicted: &[u32]) -> ClassMetrics {
    let mut matrix = vec![vec![0u64; labels.len()]; labels.len()];
    for (truth, predicted) in truth.iter().zip(predicted) {
        matrix[*truth as usize][*predicted as usize] += 1;
    }
    let counts: Vec<Counts> = (0..labels.len())
        .map(|class| Counts {
            right: matrix[class][class],
            predicted: matrix.iter().map(|row| row[class]).sum(),
            actual: matrix[class].iter().sum(),
        })
        .collect();
    let right: u64 = counts.iter().map(|class| class.right).sum();
    let total = truth.len() as f64;
    // Gorodkin 2004, for any number of classes.
    let sum = |term: fn(f64, f64) -> f64| -> f64 {
        counts.iter().map(|class| term(class.predicted as f64, class.actual as f64)).sum()
    };
    let covariance = right as f64 * total - sum(|predicted, actual| predicted * actual);
    let square = total * total;
    let spread =
        (square - sum(|predicted, _| predicted * predicted)) * (square - sum(|_, actual| actual * actual));
    ClassMetrics {
        accuracy: ratio(right as f64, total),
        averages: averages(&counts),
        mcc: ratio(covariance, spread.sqrt()),
        per_class: class_scores(labels, &counts),
        confusion_matrix: matrix,
    }
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MultiLabelMetrics {
    /// Share of rows whose labels are all right.
    pub accuracy: f64,
    /// Share of wrong label decisions.
    pub hamming_loss: f64,
    #[serde(flatten)]
    pub averages: Averages,
    pub per_class: Vec<ClassScores>,
}

/// Rows of as many decisions as there are labels.
pub fn several_labels(labels: &[String], truth: &[Vec<bool>], predicted: &[Vec<bool>]) -> MultiLabelMetrics {
    let mut counts = vec![Counts::default(); labels.len()];
    let (mut whole, mut wrong) = (0u64, 0u64);
    for (truth, predicted) in truth.iter().zip(predicted) {
        whole += u64::from(truth == predicted);
        for ((counts, truth), predicted) in counts.iter_mut().zip(truth).zip(predicted) {
            counts.right += u64::from(*truth && *predicted);
            counts.predicted += u64::from(*predicted);
            counts.actual += u64::from(*truth);
            wrong += u64::from(truth != predicted);
        }
    }
    MultiLabelMetrics {
        accuracy: ratio(whole as f64, truth.len() as f64),
        hamming_loss: ratio(wrong as f64, (truth.len() * labels.len()) as f64),
        averages: averages(&counts),
        per_class: class_scores(labels, &counts),
    }
}
