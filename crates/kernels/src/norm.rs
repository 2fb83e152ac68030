//! Layer normalisation.

use crate::Pool;
use crate::buffer::SharedMut;
use crate::operand::Target;
use crate::simd::{Kernel, Simd, math};
use crate::types::LANES;
use half::bf16;

/// From this many values on it is worth a second thread.
const PARALLEL: usize = 1 << 14;

/// Per row of `width`: out = (x - mean) / sqrt(variance + eps) * weight + bias, the variance biased as everywhere;
/// `rounded` gets the same in bf16.
///
/// # Panics
/// If a slice does not have the length that its shape asks for.
#[allow(clippy::too_many_arguments)] // the operands of one formula
pub fn layer_norm(
    pool: &Pool,
    x: &[f32],
    rows: usize,
    width: usize,
    weight: &[f32],
    bias: &[f32],
    eps: f32,
    out: &mut [f32],
    rounded: Option<&mut [bf16]>,
) {
    assert_eq!(x.len(), rows * width, "x is [rows, width] = [{rows}, {width}]");
    assert_eq!(out.len(), rows * width, "out is [rows, width] = [{rows}, {width}]");
    assert!(weight.len() == width && bias.len() == width, "weight and bias are [width] = [{width}]");
    assert!(rounded.as_ref().is_none_or(|rounded| rounded.len() == out.len()), "rounded is as long as out");
    if x.is_empty() {
        return;
    }
    let rounded = rounded.map(|rounded| SharedMut(rounded.as_mut_ptr()));
    let per_task = if x.len() < PARALLEL { rows } else { (PARALLEL / 4).div_ceil(width) };
    let shared = SharedMut(out.as_mut_ptr());
    let norm = |task: usize| {
        let first = task * per_task * width;
        let len = x.len().min(first + per_task * width) - first;
        // SAFETY: each task has its own rows of out.
        let out = unsafe { shared.slice(first, len) };
        let rounded = rounded.map(|rounded| rounded.0.wrapping_add(first));
        pool.isa().launch(LayerNorm { x: &x[first..][..len], weight, bias, eps, out, rounded });
    };
    pool.run_apart(rows.div_ceil(per_task), |_, claims| claims.for_each(norm));
}

struct LayerNorm<'a> {
    x: &'a [f32],
    weight: &'a [f32],
    bias: &'a [f32],
    eps: f32,
    out: &'a mut [f32],
    /// As long as `out`.
    rounded: Option<*mut bf16>,
}

impl Kernel for LayerNorm<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let width = self.weight.len();
        let (whole, tail) = (width / LANES * LANES, width % LANES);
        for (row, (x, out)) in self.x.chunks_exact(width).zip(self.out.chunks_exact_mut(width)).enumerate() {
            let (x, out) = (x.as_ptr(), out.as_mut_ptr());
            let (weight, bias) = (self.weight.as_ptr(), self.bias.as_ptr());
            // SAFETY: x, out, weight and bias are `width` long; at..at + 16 is inside `whole`, at..at + n inside
            // `width`.
            unsafe {
                let mut sum = s.zero();
                for at in (0..whole).step_by(LANES) {
                    sum = s.add(sum, s.load(x.add(at)));
                }
                if tail > 0 {
                    sum = s.add(sum, s.load_head(x.add(whole), tail, 0.0));
                }
                let mean = math::fold(s, sum) / width as f32;
                let mean_lanes = s.splat(mean);
                let mut square = s.zero();
                for at in (0..whole).step_by(LANES) {
                    let centred = s.sub(s.load(x.add(at)), mean_lanes);
                    square = s.fma(centred, centred, square);
                }
                if tail > 0 {
                    // Lanes that are not there hold the mean, so they add 0.
                    let centred = s.sub(s.load_head(x.add(whole), tail, mean), mean_lanes);
                    square = s.fma(centred, centred, square);
                }
                let scale = s.splat(1.0 / (math::fold(s, square) / width as f32 + self.eps).sqrt());
                for at in (0..width).step_by(LANES) {
                    let n = LANES.min(width - at);
                    let centred = s.sub(s.load_head(x.add(at), n, 0.0), mean_lanes);
                    let (weight, bias) =
                        (s.load_head(weight.add(at), n, 0.0), s.load_head(bias.add(at), n, 0.0));
                    let y = s.fma(s.mul(centred, scale), weight, bias);
                    s.store_head(out.add(at), n, y);
                    if let Some(rounded) = self.rounded {
                        Target::Bf16(rounded).store(s, row * width + at, n, y);
                    }
                }
            }
        }
    }
}
