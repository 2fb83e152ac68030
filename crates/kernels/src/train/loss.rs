//! Softmax cross entropy, the loss and its gradient in one visit of the logits.

use crate::Pool;
use crate::buffer::SharedMut;
use crate::rows::{exponentials, row_max};
use crate::simd::{Kernel, Simd, math};
use crate::types::LANES;

/// The targets of rows of logits, and what is computed.
#[derive(Debug, Clone, Copy)]
pub struct CrossEntropy {
    /// ε: the target's probability is 1 - ε + ε / N, every other's ε / N.
    pub smoothing: f32,
    /// What the gradient is multiplied by, such as 1 / targets in the batch.
    pub scale: f32,
    /// Whether `logits` become their gradient; otherwise they become exp(logit - largest).
    pub gradient: bool,
}

/// `logits`: [rows, N], one target per row. `losses` takes each row's loss, unscaled, and whether the target had the
/// (first) largest logit.
///
/// # Panics
/// If a target is not below N or the sizes do not fit.
pub fn cross_entropy(
    pool: &Pool,
    options: CrossEntropy,
    targets: &[u32],
    logits: &mut [f32],
    losses: &mut [(f32, bool)],
) {
    let rows = targets.len();
    if rows == 0 {
        return;
    }
    let n = logits.len() / rows;
    assert!(logits.len() == rows * n && losses.len() == rows && targets.iter().all(|t| (*t as usize) < n));
    let (logits, losses) = (SharedMut(logits.as_mut_ptr()), SharedMut(losses.as_mut_ptr()));
    pool.run(rows, |row| {
        // SAFETY: each task has its own row.
        let (logits, loss) = unsafe { (logits.slice(row * n, n), losses.slice(row, 1)) };
        loss[0] = pool.isa().launch(Row { options, target: targets[row] as usize, logits });
    });
}

struct Row<'a> {
    options: CrossEntropy,
    target: usize,
    logits: &'a mut [f32],
}

impl Kernel for Row<'_> {
    type Output = (f32, bool);
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> (f32, bool) {
        let CrossEntropy { smoothing, scale, gradient } = self.options;
        let n = self.logits.len() as f32;
        let max = row_max(s, self.logits);
        let chosen = self.logits[self.target];
        let hit = chosen == max && !self.logits[..self.target].contains(&max);
        // Σ (max - logit), only where it is asked for.
        let distance = if smoothing > 0.0 { distances(s, self.logits, max) } else { 0.0 };
        let row = self.logits.as_mut_ptr();
        // SAFETY: the row's own elements.
        let sum = unsafe { exponentials::<S, f32>(s, row, self.logits.len(), max, Some(row)) };
        let log_sum = f64::from(sum).ln();
        let nll = log_sum - f64::from(chosen - max);
        let uniform = log_sum + distance / f64::from(n);
        let loss = ((1.0 - f64::from(smoothing)) * nll + f64::from(smoothing) * uniform) as f32;
        if gradient {
            // exp(logit - max) / sum · scale - ε / N · scale, and the target's own share.
            let (factor, even) = (s.splat(scale / sum), s.splat(-smoothing / n * scale));
            for x in self.logits.chunks_mut(LANES) {
                // SAFETY: both touch the chunk's own elements.
                unsafe {
                    let y = s.fma(s.load_head(x.as_ptr(), x.len(), 0.0), factor, even);
                    s.store_head(x.as_mut_ptr(), x.len(), y);
                }
            }
            self.logits[self.target] -= (1.0 - smoothing) * scale;
        }
        (loss, hit)
    }
}

/// Σ (max - x), in f64 over chunks.
#[inline(always)]
fn distances<S: Simd>(s: S, x: &[f32], max: f32) -> f64 {
    let mut total = 0.0;
    for part in x.chunks(64 * LANES) {
        let mut sum = s.zero();
        for x in part.chunks(LANES) {
            // SAFETY: the chunk's own elements.
            sum = s.add(sum, s.sub(s.splat(max), unsafe { s.load_head(x.as_ptr(), x.len(), max) }));
        }
        total += f64::from(math::fold(s, sum));
    }
    total
}
