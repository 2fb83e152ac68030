//! Losses over logits, with their gradients.

use candlewick_kernels::train::{
    CrossEntropy, Floats, Gemm, Start, View, column_sums, cross_entropy, gather_rows, scatter_add_rows,
};

use super::batch::Pass;
use super::cpu::Cpu;
use super::params::{Id, Params};

/// What a batch gave.
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
    losses: Vec<(f32, bool)>,
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
        let (scale, smoothing) = match pass {
            Pass::Train { scale, smoothing } => (scale, smoothing),
            Pass::Evaluate => (0.0, 0.0),
        };
        for (x, targets) in x.chunks_mut(LOGIT_ROWS * d).zip(targets.chunks(LOGIT_ROWS)) {
            let rows = targets.len();
            let logits = self.logits.at_least(rows * vocabulary);
            let head = View::new(params.value(weight), vocabulary, d);
            let bias_values = bias.map(|bias| params.value(bias));
            let options = Gemm { bias: bias_values, ..Gemm::SET };
            cpu.gemm(View::new(x, rows, d), head.transposed(), options, logits);
            self.losses.resize(rows, (0.0, false));
            let options = CrossEntropy { smoothing, scale, gradient: pass.trains() };
            cross_entropy(&cpu.pool, options, targets, logits, &mut self.losses);
            for (loss, hit) in &self.losses {
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
