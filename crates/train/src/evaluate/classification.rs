//! Texts with one class, several, or a number.

use serde_json::{Value, json};

use super::context::{Context, Evaluation, Sample, loss, other_head, value};
use super::logits::{argmax, binary_cross_entropy, cross_entropy, probability};
use super::predictor::{Input, Predictor};
use crate::Result;
use crate::data::{Classification, Examples, ProblemType, Setup, Target};
use crate::metrics::{classes, regression, several_labels};

#[derive(Default)]
struct Outcome {
    loss: f64,
    truth: Vec<Target>,
    // Predictions of each row, by the kind of problem. Keeping all logits of thousands of classes would take gigabytes.
    /// The likeliest class, and its probability.
    classes: Vec<(u32, f64)>,
    labels: Vec<Vec<bool>>,
    values: Vec<f32>,
    samples: Vec<Sample>,
}

pub(super) fn run<P: Predictor>(
    mut context: Context<'_, P>,
    setup: &Setup<'_>,
) -> Result<Evaluation, P::Error> {
    let mut data = Classification::open(&context.options.data, setup)?;
    let labels = data.labels().to_vec();
    let mut outcome = Outcome::default();
    let most = context.options.samples;
    context.batches(data.len(), |predictor, range| {
        let examples = range.clone().map(|index| data.get(index)).collect::<Result<Vec<_>>>()?;
        let inputs = examples.iter().map(|example| Input {
            ids: example.input_ids.clone(),
            type_ids: example.token_type_ids.clone(),
        });
        let logits = predictor.logits(inputs.collect())?;
        for ((index, example), logits) in range.zip(examples).zip(logits) {
            if logits.len() != labels.len() {
                return Err(other_head().into());
            }
            let (row_loss, expected, predicted) = judge(&example.target, &logits, &labels);
            outcome.loss += row_loss;
            // Samples show wrong predictions before right ones.
            if outcome.samples.len() < most && expected != predicted {
                let row = data.row(index)?;
                let text = row.pair.map_or_else(|| json!(row.text), |pair| json!([row.text, pair]));
                let single = data.problem_type() == ProblemType::SingleLabelClassification;
                let score = single.then(|| probability(&logits, argmax(&logits)));
                outcome.samples.push(Sample { score, ..Sample::new(text, expected, predicted) });
            }
            outcome.truth.push(example.target);
            match data.problem_type() {
                ProblemType::SingleLabelClassification => {
                    let best = argmax(&logits);
                    outcome.classes.push((best as u32, probability(&logits, best)));
                }
                ProblemType::MultiLabelClassification => {
                    outcome.labels.push(logits.iter().map(|logit| *logit > 0.0).collect());
                }
                ProblemType::Regression => outcome.values.push(logits[0]),
            }
        }
        Ok(())
    })?;
    let count = outcome.truth.len();
    let metrics = match data.problem_type() {
        ProblemType::SingleLabelClassification => single(&labels, &outcome)?,
        ProblemType::MultiLabelClassification => several(&labels, &outcome)?,
        ProblemType::Regression => {
            let truth: Vec<f32> = outcome.truth.iter().map(|target| scores(target)[0]).collect();
            value(&regression(&truth, &outcome.values))?
        }
    };
    let facts = json!({"labels": labels, "problemType": data.problem_type(), "notes": [data.note()]});
    let all = [loss(outcome.loss, count), facts, metrics];
    Ok(Evaluation::new(count, &all, outcome.samples))
}

/// A row's loss as PyTorch has it, and both sides for people.
fn judge(target: &Target, logits: &[f32], labels: &[String]) -> (f64, Value, Value) {
    match target {
        Target::Class(class) => {
            let best = argmax(logits);
            (cross_entropy(logits, *class as usize), json!(labels[*class as usize]), json!(labels[best]))
        }
        Target::Scores(truth) if labels.len() == 1 => {
            let error = f64::from(logits[0]) - f64::from(truth[0]);
            (error * error, json!(truth[0]), json!(logits[0]))
        }
        Target::Scores(truth) => {
            let names = |on: &dyn Fn(usize) -> bool| -> Value {
                (0..labels.len()).filter(|at| on(*at)).map(|at| labels[at].clone()).collect::<Vec<_>>().into()
            };
            let loss = binary_cross_entropy(logits, truth);
            (loss, names(&|at| truth[at] > 0.5), names(&|at| logits[at] > 0.0))
        }
        _ => (0.0, Value::Null, Value::Null),
    }
}

fn scores(target: &Target) -> &[f32] {
    if let Target::Scores(scores) = target { scores } else { &[0.0] }
}

fn single(labels: &[String], outcome: &Outcome) -> Result<Value> {
    let class = |target: &Target| if let Target::Class(class) = target { *class } else { 0 };
    let truth: Vec<u32> = outcome.truth.iter().map(class).collect();
    let predicted: Vec<u32> = outcome.classes.iter().map(|(class, _)| *class).collect();
    let metrics = classes(labels, &truth, &predicted);
    let judge = |(truth, (class, confidence)): (&u32, &(u32, f64))| (*confidence, truth == class);
    let judged: Vec<(f64, bool)> = truth.iter().zip(&outcome.classes).map(judge).collect();
    let right = judged.iter().filter(|(_, right)| *right).count();
    let mut all = value(&metrics)?;
    all["accuracyInterval"] = json!(wilson(right, truth.len()));
    all["calibrationError"] = json!(calibration_error(&judged));
    Ok(all)
}

fn several(labels: &[String], outcome: &Outcome) -> Result<Value> {
    let truth: Vec<Vec<bool>> = outcome
        .truth
        .iter()
        .map(|target| scores(target).iter().map(|score| *score > 0.5).collect())
        .collect();
    value(&several_labels(labels, &truth, &outcome.labels))
}

/// Wilson's 95% interval of a share.
fn wilson(right: usize, total: usize) -> [f64; 2] {
    if total == 0 {
        return [0.0, 1.0];
    }
    let (n, z) = (total as f64, 1.959_963_984_540_054);
    let share = right as f64 / n;
    let middle = share + z * z / (2.0 * n);
    let half = z * (share * (1.0 - share) / n + z * z / (4.0 * n * n)).sqrt();
    [middle - half, middle + half].map(|bound| (bound / (1.0 + z * z / n)).clamp(0.0, 1.0))
}

/// How far confidence is from accuracy, in ten bins of confidence, weighted (Guo et al. 2017).
fn calibration_error(judged: &[(f64, bool)]) -> f64 {
    let mut bins = [(0.0, 0.0); 10];
    for (confidence, right) in judged {
        let bin = &mut bins[((confidence * 10.0).ceil() as usize).clamp(1, 10) - 1];
        bin.0 += confidence;
        bin.1 += f64::from(u8::from(*right));
    }
    bins.iter().map(|(confidence, right)| (confidence - right).abs()).sum::<f64>()
        / judged.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_is_wilsons_and_a_calibration_error_the_gap() {
        // Brown, Cai, DasGupta 2001: 7 of 10.
        let [low, high] = wilson(7, 10);
        assert!((low - 0.3968).abs() < 1e-4 && (high - 0.8922).abs() < 1e-4, "{low} {high}");
        assert!((wilson(10, 10)[1] - 1.0).abs() < 1e-12);
        let judged = [(0.9, true), (0.9, false), (0.6, true), (1.0, true)];
        assert!((calibration_error(&judged) - (0.8 + 0.4) / 4.0).abs() < 1e-12);
    }
}
