//! AdamW (Loshchilov, Hutter 2019, "Decoupled Weight Decay Regularization") in one pass over weights, gradients and
//! moments.

use crate::Pool;
use crate::buffer::SharedMut;
use crate::simd::{Kernel, Simd, math};
use crate::types::LANES;

/// Values of a task: what is summed together must not depend on the threads.
const PART: usize = 1 << 15;

#[derive(Debug, Clone, Copy)]
pub struct AdamW {
    pub beta_1: f32,
    pub beta_2: f32,
    pub epsilon: f32,
}

/// What differs from step to step, and from weight to weight.
#[derive(Debug, Clone, Copy)]
pub struct AdamWStep {
    pub learning_rate: f32,
    pub weight_decay: f32,
    /// What gradients are multiplied by first: clipping.
    pub gradient_scale: f32,
    /// Steps so far, this one included: the bias corrections.
    pub step: u64,
}

impl AdamW {
    /// PyTorch's formula and order: w -= lr · decay · w; m += (1 - β₁)(g - m); v = β₂ v + (1 - β₂) g²;
    /// w -= lr / (1 - β₁ᵗ) · m / (√v / √(1 - β₂ᵗ) + ε).
    ///
    /// # Panics
    /// If the slices are not of one length.
    pub fn update(
        &self,
        pool: &Pool,
        step: AdamWStep,
        weights: &mut [f32],
        gradient: &[f32],
        first_moment: &mut [f32],
        second_moment: &mut [f32],
    ) {
        let len = weights.len();
        assert!(gradient.len() == len && first_moment.len() == len && second_moment.len() == len);
        let correction = |beta: f32| 1.0 - f64::from(beta).powf(step.step as f64);
        let pass = Pass {
            decay: (1.0 - f64::from(step.learning_rate) * f64::from(step.weight_decay)) as f32,
            scale: step.gradient_scale,
            beta_2: self.beta_2,
            rest_1: (1.0 - f64::from(self.beta_1)) as f32,
            rest_2: (1.0 - f64::from(self.beta_2)) as f32,
            rate: (f64::from(step.learning_rate) / correction(self.beta_1)) as f32,
            root: (1.0 / correction(self.beta_2).sqrt()) as f32,
            epsilon: self.epsilon,
        };
        let [w, m, v] = [weights, first_moment, second_moment].map(|slice| SharedMut(slice.as_mut_ptr()));
        pool.run(len.div_ceil(PART), |task| {
            let (first, count) = (task * PART, PART.min(len - task * PART));
            // SAFETY: parts are disjoint.
            let (w, m, v) = unsafe { (w.slice(first, count), m.slice(first, count), v.slice(first, count)) };
            pool.isa().launch(Part { pass, w, g: &gradient[first..][..count], m, v });
        });
    }
}

#[derive(Clone, Copy)]
struct Pass {
    decay: f32,
    scale: f32,
    beta_2: f32,
    rest_1: f32,
    rest_2: f32,
    rate: f32,
    root: f32,
    epsilon: f32,
}

struct Part<'a> {
    pass: Pass,
    w: &'a mut [f32],
    g: &'a [f32],
    m: &'a mut [f32],
    v: &'a mut [f32],
}

impl Kernel for Part<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Pass { decay, scale, beta_2, rest_1, rest_2, rate, root, epsilon } = self.pass;
        let operands = self.w.chunks_mut(LANES).zip(self.g.chunks(LANES));
        for (((w, g), m), v) in operands.zip(self.m.chunks_mut(LANES)).zip(self.v.chunks_mut(LANES)) {
            let n = w.len();
            // SAFETY: four chunks of n elements.
            unsafe {
                let g = s.mul(s.load_head(g.as_ptr(), n, 0.0), s.splat(scale));
                let old = s.load_head(m.as_ptr(), n, 0.0);
                let m_new = s.fma(s.sub(g, old), s.splat(rest_1), old);
                s.store_head(m.as_mut_ptr(), n, m_new);
                let grown = s.mul(s.load_head(v.as_ptr(), n, 0.0), s.splat(beta_2));
                let v_new = s.fma(s.mul(g, g), s.splat(rest_2), grown);
                s.store_head(v.as_mut_ptr(), n, v_new);
                // The root is correctly rounded on every machine, so a loop over lanes is as good as an instruction.
                let roots = s.lanes(v_new).map(f32::sqrt);
                let below = s.fma(s.load(roots.as_ptr()), s.splat(root), s.splat(epsilon));
                let kept = s.mul(s.load_head(w.as_ptr(), n, 0.0), s.splat(decay));
                let step = s.mul(s.splat(rate), s.div(m_new, below));
                s.store_head(w.as_mut_ptr(), n, s.sub(kept, step));
            }
        }
    }
}

/// Σ x², in f64 over parts of 512.
pub fn sum_of_squares(pool: &Pool, x: &[f32]) -> f64 {
    let mut parts = vec![0f64; x.len().div_ceil(PART)];
    let shared = SharedMut(parts.as_mut_ptr());
    pool.run(x.len().div_ceil(PART), |task| {
        let part = &x[task * PART..x.len().min((task + 1) * PART)];
        // SAFETY: each task has its own element.
        unsafe { shared.slice(task, 1)[0] = pool.isa().launch(Squares(part)) };
    });
    parts.iter().sum()
}

struct Squares<'a>(&'a [f32]);

impl Kernel for Squares<'_> {
    type Output = f64;
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f64 {
        let mut total = 0.0;
        for part in self.0.chunks(32 * LANES) {
            let mut sum = s.zero();
            for x in part.chunks(LANES) {
                // SAFETY: the chunk's own elements.
                let x = unsafe { s.load_head(x.as_ptr(), x.len(), 0.0) };
                sum = s.fma(x, x, sum);
            }
            total += f64::from(math::fold(s, sum));
        }
        total
    }
}
