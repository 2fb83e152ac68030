//! Muon (Jordan et al., 2024): a hidden layer's matrix steps by its momentum made orthogonal, so that all directions of
//! it move alike, those too of which gradients have little. Scaled as in Liu et al., "Muon is Scalable for LLM
//! Training" (2025), so that AdamW's learning rate and decay hold: `torch.optim.Muon` with
//! `adjust_lr_fn="match_rms_adamw"`, but for f32 where that computes in bf16, and for GPT-2's `c_attn`, which is three
//! matrices here.

use candlewick_kernels::train::{Floats, Gemm, View};

use crate::model::{Cpu, Param};

const MOMENTUM: f32 = 0.95;
const ITERATIONS: usize = 5;
/// Of Newton and Schulz's iteration X <- aX + (bA + cA^2)X, where A = XX^T: it is fast, and leaves singular values
/// around 1.
const COEFFICIENTS: [f32; 3] = [3.4445, -4.775, 2.0315];
/// Root mean square of AdamW's updates, by experience.
const RMS: f32 = 0.2;

/// The work space of a step; the momentum is a parameter's `first_moment`.
#[derive(Default)]
pub struct Muon {
    x: Floats,
    next: Floats,
    gram: Floats,
    polynomial: Floats,
}

/// The update of one step, applied to every matrix.
#[derive(Debug, Clone, Copy)]
pub struct MuonStep {
    pub learning_rate: f32,
    pub weight_decay: f32,
    pub gradient_scale: f32,
}

impl Muon {
    /// Matrices inside the layers: not embeddings, heads, biases, norms, or adapters.
    pub fn takes(param: &Param) -> bool {
        let inside = param.name.starts_with("h.") || param.name.starts_with("encoder.layer.");
        inside && param.shape.len() == 2 && !param.name.contains(".lora_")
    }

    pub fn update(&mut self, cpu: &mut Cpu, param: &mut Param, step: MuonStep) {
        let [rows, width] = param.shape[..] else { unreachable!("Muon::takes") };
        let momentum = &mut param.first_moment;
        if momentum.len() != param.value.len() {
            *momentum = Floats::zeroed(param.value.len());
        }
        for (m, g) in momentum.iter_mut().zip(&param.gradient[..]) {
            *m += (1.0 - MOMENTUM) * (g * step.gradient_scale - *m);
        }
        let parts = if param.name.ends_with("c_attn.weight") { 3 } else { 1 };
        let columns = width / parts;
        let rate = step.learning_rate * RMS * (rows.max(columns) as f32).sqrt();
        let keep = 1.0 - step.learning_rate * step.weight_decay;
        for part in 0..parts {
            let first = part * columns;
            let tall = rows > columns;
            let (r, c) = if tall { (columns, rows) } else { (rows, columns) };
            let place = |row: usize, column: usize| if tall { column * c + row } else { row * c + column };
            let x = self.x.at_least(r * c);
            for row in 0..rows {
                for column in 0..columns {
                    let at = row * width + first + column;
                    let g = param.gradient[at] * step.gradient_scale;
                    // Nesterov's: where the momentum is going.
                    x[place(row, column)] = g + MOMENTUM * (param.first_moment[at] - g);
                }
            }
            let update = self.orthogonal(cpu, r, c);
            for row in 0..rows {
                for column in 0..columns {
                    let value = &mut param.value[row * width + first + column];
                    *value = *value * keep - rate * update[place(row, column)];
                }
            }
        }
    }

    /// Of `x`, [r, c] with r <= c: the nearest matrix with orthonormal rows, about.
    fn orthogonal(&mut self, cpu: &mut Cpu, r: usize, c: usize) -> &[f32] {
        let [a, b, d] = COEFFICIENTS;
        let Self { x, next, gram, polynomial } = self;
        let (mut x, mut next) = (x.at_least(r * c), next.at_least(r * c));
        let (gram, polynomial) = (gram.at_least(r * r), polynomial.at_least(r * r));
        let norm = x.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>().sqrt();
        let scale = 1.0 / (norm as f32).max(1e-7);
        x.iter_mut().for_each(|x| *x *= scale);
        for _ in 0..ITERATIONS {
            let view = View::new(x, r, c);
            cpu.exact_gemm(view, view.transposed(), Gemm::SET, gram);
            let square = View::new(gram, r, r);
            cpu.exact_gemm(square, square, Gemm::SET, polynomial);
            polynomial.iter_mut().zip(&gram[..]).for_each(|(p, g)| *p = b * g + d * *p);
            cpu.exact_gemm(View::new(polynomial, r, r), View::new(x, r, c), Gemm::SET, next);
            next.iter_mut().zip(&x[..]).for_each(|(n, x)| *n += a * x);
            std::mem::swap(&mut x, &mut next);
        }
        x
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Singular values near 1 whatever they were: X X^T is about the identity, and the left and right directions are
    /// kept.
    #[test]
    fn makes_rows_orthonormal_whatever_their_sizes() {
        let (r, c) = (24, 40);
        let mut muon = Muon::default();
        let mut cpu = Cpu::new(2);
        let mut state = 7u32;
        let x = muon.x.at_least(r * c);
        for (i, value) in x.iter_mut().enumerate() {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            // Rows of very different sizes.
            *value = (state as f32 / u32::MAX as f32 - 0.5) * 10f32.powi((i / c) as i32 % 3);
        }
        let update = muon.orthogonal(&mut cpu, r, c).to_vec();
        for i in 0..r {
            for j in 0..r {
                let dot: f32 = (0..c).map(|k| update[i * c + k] * update[j * c + k]).sum();
                if i == j {
                    assert!((0.4..1.5).contains(&dot), "row {i}: {dot}");
                } else {
                    assert!(dot.abs() < 0.45, "rows {i}, {j}: {dot}");
                }
            }
        }
    }
}
