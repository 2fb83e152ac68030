//! Element-wise functions and reductions over one row, such as 50,257 logits.

use crate::simd::{Element, Kernel, Simd, math};
use crate::types::LANES;
use crate::{Activation, Pool};

/// x ← activation(x).
pub fn activation(pool: &Pool, activation: Activation, x: &mut [f32]) {
    pool.isa().launch(Activate(activation, x));
}

/// x ← softmax(x). -infinity becomes 0; a row of nothing else becomes NaN.
pub fn softmax_row(pool: &Pool, x: &mut [f32]) {
    pool.isa().launch(Softmax(x));
}

/// x ← log(softmax(x)).
pub fn log_softmax_row(pool: &Pool, x: &mut [f32]) {
    pool.isa().launch(LogSoftmax(x));
}

/// The first index of the largest value. NaNs are passed over; 0 for an empty row or one of NaNs.
pub fn argmax(pool: &Pool, x: &[f32]) -> usize {
    let max = pool.isa().launch(Max(x));
    x.iter().position(|x| *x == max).unwrap_or(0)
}

struct Activate<'a>(Activation, &'a mut [f32]);
struct Softmax<'a>(&'a mut [f32]);
struct LogSoftmax<'a>(&'a mut [f32]);
struct Max<'a>(&'a [f32]);

impl Kernel for Activate<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for x in self.1.chunks_mut(LANES) {
            // SAFETY: both touch the chunk's own elements.
            unsafe {
                let y = math::activate(s, self.0, s.load_head(x.as_ptr(), x.len(), 0.0));
                s.store_head(x.as_mut_ptr(), x.len(), y);
            }
        }
    }
}

impl Kernel for Softmax<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let max = row_max(s, self.0);
        let x = self.0.as_mut_ptr();
        // SAFETY: the row's own elements.
        let sum = unsafe { exponentials::<S, f32>(s, x, self.0.len(), max, Some(x)) };
        scale(s, self.0, 1.0 / sum);
    }
}

impl Kernel for LogSoftmax<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let max = row_max(s, self.0);
        // SAFETY: the row's own elements.
        let sum = unsafe { exponentials::<S, f32>(s, self.0.as_ptr(), self.0.len(), max, None) };
        let log_sum = f64::from(sum).ln() as f32;
        let (max, log_sum) = (s.splat(max), s.splat(log_sum));
        for x in self.0.chunks_mut(LANES) {
            // SAFETY: both touch the chunk's own elements.
            unsafe {
                let y = s.sub(s.sub(s.load_head(x.as_ptr(), x.len(), 0.0), max), log_sum);
                s.store_head(x.as_mut_ptr(), x.len(), y);
            }
        }
    }
}

impl Kernel for Max<'_> {
    type Output = f32;
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f32 {
        row_max(s, self.0)
    }
}

/// The largest value, NaNs passed over; -infinity for none.
#[inline(always)]
pub(crate) fn row_max<S: Simd>(s: S, x: &[f32]) -> f32 {
    // A maximum does not depend on the order, so four can run side by side.
    let mut max = [s.splat(f32::NEG_INFINITY); 4];
    let mut chunks = x.chunks_exact(4 * LANES);
    for x in &mut chunks {
        for (i, max) in max.iter_mut().enumerate() {
            // SAFETY: the chunk has 4 × 16 elements.
            *max = s.max(*max, unsafe { s.load(x.as_ptr().add(i * LANES)) });
        }
    }
    for x in chunks.remainder().chunks(LANES) {
        // SAFETY: the chunk's own elements.
        max[0] = s.max(max[0], unsafe { s.load_head(x.as_ptr(), x.len(), f32::NEG_INFINITY) });
    }
    s.most(s.max(s.max(max[0], max[1]), s.max(max[2], max[3])))
}

/// The sum of exp(x - max) over `n` values at `x`. They become inputs at `to`, which may be `x`.
///
/// # Safety
/// The values can be read; `to` has room for them, as [`Element::store`] says.
#[inline(always)]
pub(crate) unsafe fn exponentials<S: Simd, T: Element>(
    s: S,
    x: *const f32,
    n: usize,
    max: f32,
    to: Option<*mut T::Input>,
) -> f32 {
    let max = s.splat(max);
    let mut sum = s.zero();
    for at in (0..n).step_by(LANES) {
        let lanes = LANES.min(n - at);
        // SAFETY: promised by the caller. What is not there counts as exp(-infinity) = 0.
        unsafe {
            let y = math::exp(s, s.sub(s.load_head(x.add(at), lanes, f32::NEG_INFINITY), max));
            if let Some(to) = to {
                T::store(s, to.add(at / T::DEPTH), lanes, y);
            }
            sum = s.add(sum, y);
        }
    }
    math::fold(s, sum)
}

/// x ← x * factor.
#[inline(always)]
fn scale<S: Simd>(s: S, x: &mut [f32], factor: f32) {
    let factor = s.splat(factor);
    for x in x.chunks_mut(LANES) {
        // SAFETY: both touch the chunk's own elements.
        unsafe { s.store_head(x.as_mut_ptr(), x.len(), s.mul(s.load_head(x.as_ptr(), x.len(), 0.0), factor)) }
    }
}
