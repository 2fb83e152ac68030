//! Sentence embeddings by contrast: multiple negatives ranking (Henderson et al. 2017) over the pairs of a batch.

use candlewick_kernels::train::{CrossEntropy, Floats, Gemm, View, cross_entropy, scale};

use super::batch::Pass;
use super::cpu::Cpu;
use super::loss::Outcome;
use crate::data::Example;
use crate::{Result, TrainError};

/// What cosines are multiplied by, as in sentence-transformers.
const SCALE: f32 = 20.0;

pub fn pairs(examples: &[Example]) -> Result<Vec<&Example>> {
    let missing = || TrainError::Internal("training by contrast needs pairs".into());
    examples.iter().map(|example| example.pair.as_deref().ok_or_else(missing)).collect()
}

/// hidden: (rows, D) of B texts and then their B pairs. With gradients: dx ← that of `hidden`.
pub fn run(cpu: &mut Cpu, hidden: &[f32], starts: &[usize], d: usize, pass: Pass, dx: &mut [f32]) -> Outcome {
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
    let (anchors, positives) = unit.split_at(count * d);
    let (anchors, positives) = (View::new(anchors, count, d), View::new(positives, count, d));
    let mut scores = Floats::zeroed(count * count);
    cpu.gemm(anchors, positives.transposed(), Gemm::SET, &mut scores);
    scale(&cpu.pool, SCALE, &mut scores);
    let targets: Vec<u32> = (0..count as u32).collect();
    let mut losses = vec![(0.0, false); count];
    let (factor, smoothing) = match pass {
        Pass::Train { scale, smoothing } => (scale, smoothing),
        Pass::Evaluate => (0.0, 0.0),
    };
    let options = CrossEntropy { smoothing, scale: factor * SCALE, gradient: pass.trains() };
    cross_entropy(&cpu.pool, options, &targets, &mut scores, &mut losses);
    if pass.trains() {
        let dscores = View::new(&scores, count, count);
        let mut dunit = Floats::zeroed(texts * d);
        let (danchors, dpositives) = dunit.split_at_mut(count * d);
        cpu.gemm(dscores, positives, Gemm::SET, danchors);
        cpu.gemm(dscores.transposed(), anchors, Gemm::SET, dpositives);
        for i in 0..texts {
            let (unit, dunit) = (&unit[i * d..][..d], &dunit[i * d..][..d]);
            let along: f32 = unit.iter().zip(dunit).map(|(u, g)| u * g).sum();
            let len = (starts[i + 1] - starts[i]) as f32;
            for row in dx[starts[i] * d..starts[i + 1] * d].chunks_exact_mut(d) {
                for ((out, u), g) in row.iter_mut().zip(unit).zip(dunit) {
                    *out = (g - u * along) / (norms[i] * len);
                }
            }
        }
    }
    Outcome {
        loss: losses.iter().map(|(loss, _)| f64::from(*loss)).sum(),
        targets: count as u64,
        correct: losses.iter().filter(|(_, hit)| *hit).count() as u64,
    }
}
