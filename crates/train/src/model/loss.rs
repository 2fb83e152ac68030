//! Losses over logits, with their gradients.

use candlewick_kernels::train::{
    CrossEntropy, Floats, Gemm, Start, View, column_sums, cross_entropy, gather_rows, scatter_add_rows,
};

use super::batch::{Batch, Pass};
use super::cpu::Cpu;
use super::params::{Id, Params};
use crate::data::{Example, ProblemType, Target};
use crate::{Result, TrainError};

/// The results of a batch.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Outcome {
    /// The sum of the targets' losses.
    pub loss: f64,
    /// Tokens or rows that have a target.
    pub targets: u64,
    /// Targets that had the largest logit.
    pub correct: u64,
}

impl Outcome {
    pub fn add(&mut self, other: Self) {
        self.loss += other.loss;
        self.targets += other.targets;
        self.correct += other.correct;
    }

    pub fn mean(&self) -> f64 {
        self.loss / self.targets.max(1) as f64
    }
}

/// Rows of logits that exist at once: of a vocabulary of 50,257 they take 51 MB.
const LOGIT_ROWS: usize = 256;

/// Cross entropy over a vocabulary, a block of rows at a time, so that the logits of a whole batch never exist.
#[derive(Default)]
pub struct VocabularyLoss {
    logits: Floats,
    /// Of the last run's targets: loss, and whether nothing was likelier.
    pub losses: Vec<(f32, bool)>,
}

impl VocabularyLoss {
    /// x: (rows, D), weight: (V, D) and its bias. With gradients: those of weight and bias, and x ← dx.
    #[allow(clippy::too_many_arguments)] // the operands of one formula
    pub fn run(
        &mut self,
        cpu: &mut Cpu,
        params: &mut Params,
        weight: Id,
        bias: Option<Id>,
        targets: &[u32],
        pass: Pass,
        x: &mut [f32],
    ) -> Outcome {
        let [vocabulary, d] = params[weight].shape[..] else { unreachable!("an embedding is a matrix") };
        let mut outcome = Outcome { targets: targets.len() as u64, ..Outcome::default() };
        let (scale, smoothing) = pass.factors();
        self.losses.clear();
        self.losses.resize(targets.len(), (0.0, false));
        let mut losses = &mut self.losses[..];
        for (x, targets) in x.chunks_mut(LOGIT_ROWS * d).zip(targets.chunks(LOGIT_ROWS)) {
            let rows = targets.len();
            let logits = self.logits.at_least(rows * vocabulary);
            let head = View::new(params.value(weight), vocabulary, d);
            let bias_values = bias.map(|bias| params.value(bias));
            let options = Gemm { bias: bias_values, ..Gemm::SET };
            cpu.gemm(View::new(x, rows, d), head.transposed(), options, logits);
            let options = CrossEntropy { smoothing, scale, gradient: pass.trains() };
            let these = losses.split_off_mut(..rows).expect("a loss for each target");
            cross_entropy(&cpu.pool, options, targets, logits, these);
            for (loss, hit) in &*these {
                outcome.loss += f64::from(*loss);
                outcome.correct += u64::from(*hit);
            }
            if !pass.trains() {
                continue;
            }
            let dlogits = View::new(logits, rows, vocabulary);
            if let Some((_, gradient, start)) = params[weight].gradient() {
                cpu.gemm(dlogits.transposed(), View::new(x, rows, d), Gemm { start, ..Gemm::SET }, gradient);
            }
            if let Some(bias) = bias
                && let Some((_, gradient, start)) = params[bias].gradient()
            {
                column_sums(&cpu.pool, logits, vocabulary, 0, start == Start::Zero, gradient);
            }
            cpu.gemm(dlogits, View::new(params.value(weight), vocabulary, d), Gemm::SET, x);
        }
        outcome
    }
}

/// The rows of a matrix that have targets, and back.
pub struct Selected {
    /// Ascending.
    pub rows: Vec<u32>,
    pub targets: Vec<u32>,
}

impl Selected {
    /// (rows, D) → (selected, D).
    pub fn gather(&self, cpu: &Cpu, x: &[f32], d: usize) -> Floats {
        let mut out = Floats::zeroed(self.rows.len() * d);
        gather_rows(&cpu.pool, x, d, &self.rows, &mut out);
        out
    }

    /// The gradient of `gather`: dx is zero but for the selected rows.
    pub fn scatter(&self, cpu: &Cpu, dselected: &[f32], d: usize, dx: &mut [f32]) {
        dx.fill(0.0);
        scatter_add_rows(&cpu.pool, dselected, d, &self.rows, dx);
    }
}

impl Selected {
    /// The tokens that have a label of their own.
    pub fn of_tokens(examples: &[Example], batch: &Batch) -> Result<Self> {
        let mut selected = Self { rows: Vec::new(), targets: Vec::new() };
        for (example, first) in examples.iter().zip(&batch.starts) {
            let Target::Tokens(labels) = &example.target else { return Err(wrong_target()) };
            for (t, label) in labels.iter().enumerate().filter(|(_, label)| **label >= 0) {
                selected.rows.push((first + t) as u32);
                selected.targets.push(*label as u32);
            }
        }
        Ok(selected)
    }
}

fn wrong_target() -> TrainError {
    TrainError::Internal("an example's target is not of the head's kind".into())
}

/// The losses of a classifying head, by the examples' targets. With gradients: `logits` ← theirs, (n, classes).
pub fn of_classes(
    cpu: &Cpu,
    examples: &[Example],
    batch: &Batch,
    problem: ProblemType,
    classes: usize,
    pass: Pass,
    logits: &mut [f32],
) -> Result<Outcome> {
    let (scale, smoothing) = pass.factors();
    let options = CrossEntropy { smoothing, scale, gradient: pass.trains() };
    let outcome = |losses: &[(f32, bool)]| Outcome {
        loss: losses.iter().map(|(loss, _)| f64::from(*loss)).sum(),
        targets: losses.len() as u64,
        correct: losses.iter().filter(|(_, hit)| *hit).count() as u64,
    };
    match &examples[0].target {
        Target::Class(_) => {
            let class = |example: &Example| match example.target {
                Target::Class(class) if (class as usize) < classes => Ok(class),
                _ => Err(wrong_target()),
            };
            let targets = examples.iter().map(class).collect::<Result<Vec<_>>>()?;
            let mut losses = vec![(0.0, false); targets.len()];
            cross_entropy(&cpu.pool, options, &targets, logits, &mut losses);
            Ok(outcome(&losses))
        }
        Target::Tokens(_) => {
            let selected = Selected::of_tokens(examples, batch)?;
            if selected.targets.iter().any(|target| *target as usize >= classes) {
                return Err(wrong_target());
            }
            let mut rows = selected.gather(cpu, logits, classes);
            let mut losses = vec![(0.0, false); selected.targets.len()];
            cross_entropy(&cpu.pool, options, &selected.targets, &mut rows, &mut losses);
            selected.scatter(cpu, &rows, classes, logits);
            Ok(outcome(&losses))
        }
        Target::Scores(_) => {
            let mut losses = Vec::new();
            for (example, logits) in examples.iter().zip(logits.chunks_exact_mut(classes)) {
                let Target::Scores(targets) = &example.target else { return Err(wrong_target()) };
                if targets.len() != classes {
                    return Err(wrong_target());
                }
                losses.push(of_scores(problem, targets, scale, logits));
            }
            Ok(outcome(&losses))
        }
        Target::Span { .. } => {
            let mut losses = Vec::new();
            for (i, example) in examples.iter().enumerate() {
                let Target::Span { start, end } = example.target else { return Err(wrong_target()) };
                let rows = &mut logits[2 * batch.starts[i]..2 * batch.starts[i + 1]];
                let columns = [(0, start), (1, end)].map(|(column, target)| {
                    let mut scores: Vec<f32> = rows.iter().skip(column).step_by(2).copied().collect();
                    let mut loss = [(0.0, false)];
                    let options = CrossEntropy { scale: 0.5 * scale, ..options };
                    cross_entropy(&cpu.pool, options, &[target], &mut scores, &mut loss);
                    rows.iter_mut().skip(column).step_by(2).zip(scores).for_each(|(to, x)| *to = x);
                    loss[0]
                });
                losses.push((0.5 * (columns[0].0 + columns[1].0), columns[0].1 && columns[1].1));
            }
            Ok(outcome(&losses))
        }
        Target::None => Err(wrong_target()),
    }
}

/// Mean over the classes of the squared errors, or of the binary cross entropies; logits ← their gradients.
fn of_scores(problem: ProblemType, targets: &[f32], scale: f32, logits: &mut [f32]) -> (f32, bool) {
    let (mut loss, mut all) = (0f64, true);
    let classes = targets.len() as f32;
    for (logit, target) in logits.iter_mut().zip(targets) {
        let (x, t) = (f64::from(*logit), f64::from(*target));
        let (value, slope) = if problem == ProblemType::MultiLabelClassification {
            all &= (x > 0.0) == (t > 0.5);
            (x.max(0.0) - x * t + (-x.abs()).exp().ln_1p(), 1.0 / (1.0 + (-x).exp()) - t)
        } else {
            all = false;
            ((x - t).powi(2), 2.0 * (x - t))
        };
        loss += value;
        *logit = (slope as f32) / classes * scale;
    }
    ((loss / f64::from(classes)) as f32, all)
}
