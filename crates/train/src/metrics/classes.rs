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
    /// Row: the class; column: what was said. Of more than 500 classes there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub confusion_matrix: Option<Vec<Vec<u64>>>,
}

/// A matrix of so many classes has 250,000 numbers, as text half a megabyte.
const MOST_IN_MATRIX: usize = 500;

/// `truth` and `predicted` are class ids below `labels.len()`, both (N).
pub fn classes(labels: &[String], truth: &[u32], predicted: &[u32]) -> ClassMetrics {
    let mut counts = vec![Counts::default(); labels.len()];
    let mut matrix = (labels.len() <= MOST_IN_MATRIX).then(|| vec![vec![0u64; labels.len()]; labels.len()]);
    for (truth, predicted) in truth.iter().zip(predicted).map(|(a, b)| (*a as usize, *b as usize)) {
        counts[truth].right += u64::from(truth == predicted);
        counts[truth].actual += 1;
        counts[predicted].predicted += 1;
        if let Some(matrix) = &mut matrix {
            matrix[truth][predicted] += 1;
        }
    }
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
