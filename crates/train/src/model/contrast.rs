//! Sentence embeddings out of pairs: by contrast, multiple negatives ranking (Henderson et al. 2017) over the pairs of
//! a batch; or by their scores, the mean squared error of the cosines (Reimers and Gurevych 2019).

use candlewick_kernels::train::{CrossEntropy, Floats, Gemm, View, cross_entropy, scale};

use super::batch::Pass;
use super::cpu::Cpu;
use super::loss::Outcome;
use crate::data::{Example, Target};
use crate::{Result, TrainError};

/// What cosines are multiplied by, as in sentence-transformers.
const SCALE: f32 = 20.0;

pub fn pairs(examples: &[Example]) -> Result<Vec<&Example>> {
    let missing = || TrainError::Internal("training by contrast needs pairs".into());
    examples.iter().map(|example| example.pair.as_deref().ok_or_else(missing)).collect()
}

/// How near each pair should be, if the data says so.
pub fn scores(examples: &[Example]) -> Option<Vec<f32>> {
    let score = |example: &Example| match &example.target {
        Target::Scores(scores) => scores.first().copied(),
        _ => None,
    };
    examples.iter().map(score).collect()
}

/// hidden: (rows, D) of B texts and then their B pairs. With gradients: dx ← that of `hidden`.
///
/// With scores, the loss is the square of what the pair's cosine lacks; without, the cross entropy of finding the
/// partner in the batch.
pub fn run(
    cpu: &mut Cpu,
    hidden: &[f32],
    starts: &[usize],
    d: usize,
    scores: Option<&[f32]>,
    pass: Pass,
    dx: &mut [f32],
) -> Outcome {
    let texts = starts.len() - 1;
    let count = texts / 2;
    // Means of the tokens, divided by their norms.
    let (mut unit, mut norms) = (Floats::zeroed(texts * d), vec![0f32; texts]);
    for (i, unit) in unit.chunks_exact_mut(d).enumerate() {
        let rows = &hidden[starts[i] * d..starts[i + 1] * d];
        for row in rows.chunks_exact(d) {
            unit.iter_mut().zip(row).for_each(|(sum, x)| *sum += x);
        }
        let len = (starts[i + 1] - starts[i]) as f32;
        unit.iter_mut().for_each(|x| *x /= len);
        norms[i] = unit.iter().map(|x| x * x).sum::<f32>().sqrt().max(1e-12);
        unit.iter_mut().for_each(|x| *x /= norms[i]);
    }
    let mut dunit = Floats::zeroed(if pass.trains() { texts * d } else { 0 });
    let losses = match scores {
        Some(scores) => by_scores(&unit, d, scores, pass, &mut dunit),
        None => by_contrast(cpu, &unit, d, pass, &mut dunit),
    };
    for (i, (unit, dunit)) in unit.chunks_exact(d).zip(dunit.chunks_exact(d)).enumerate() {
        let along: f32 = unit.iter().zip(dunit).map(|(u, g)| u * g).sum();
        let len = (starts[i + 1] - starts[i]) as f32;
        for row in dx[starts[i] * d..starts[i + 1] * d].chunks_exact_mut(d) {
            for ((out, u), g) in row.iter_mut().zip(unit).zip(dunit) {
                *out = (g - u * along) / (norms[i] * len);
            }
        }
    }
    Outcome {
        loss: losses.iter().map(|(loss, _)| f64::from(*loss)).sum(),
        targets: count as u64,
        correct: losses.iter().filter(|(_, hit)| *hit).count() as u64,
    }
}

/// unit: (2B, D) → each pair's loss; dunit ← the gradient, if it has room.
fn by_contrast(cpu: &mut Cpu, unit: &[f32], d: usize, pass: Pass, dunit: &mut [f32]) -> Vec<(f32, bool)> {
    let count = unit.len() / (2 * d);
    let (anchors, positives) = unit.split_at(count * d);
    let (anchors, positives) = (View::new(anchors, count, d), View::new(positives, count, d));
    let mut scores = Floats::zeroed(count * count);
    cpu.gemm(anchors, positives.transposed(), Gemm::SET, &mut scores);
    scale(&cpu.pool, SCALE, &mut scores);
    let targets: Vec<u32> = (0..count as u32).collect();
    let mut losses = vec![(0.0, false); count];
    let (factor, smoothing) = pass.factors();
    let options = CrossEntropy { smoothing, scale: factor * SCALE, gradient: pass.trains() };
    cross_entropy(&cpu.pool, options, &targets, &mut scores, &mut losses);
    if pass.trains() {
        let dscores = View::new(&scores, count, count);
        let (danchors, dpositives) = dunit.split_at_mut(count * d);
        cpu.gemm(dscores, positives, Gemm::SET, danchors);
        cpu.gemm(dscores.transposed(), anchors, Gemm::SET, dpositives);
    }
    losses
}

/// As `by_contrast`.
fn by_scores(unit: &[f32], d: usize, scores: &[f32], pass: Pass, dunit: &mut [f32]) -> Vec<(f32, bool)> {
    let half = unit.len() / 2;
    let (factor, _) = pass.factors();
    let mut losses = Vec::new();
    for (at, score) in (0..half).step_by(d).zip(scores) {
        let (a, b) = (&unit[at..at + d], &unit[half + at..][..d]);
        let missing = a.iter().zip(b).map(|(x, y)| x * y).sum::<f32>() - score;
        losses.push((missing * missing, false));
        if pass.trains() {
            let slope = 2.0 * missing * factor;
            dunit[at..at + d].iter_mut().zip(b).for_each(|(g, x)| *g = slope * x);
            dunit[half + at..][..d].iter_mut().zip(a).for_each(|(g, x)| *g = slope * x);
        }
    }
    losses
}
