//! Element-wise functions and reductions over one row, such as 50,257 logits.

use crate::{Activation, Pool, reference};

/// x ← activation(x).
pub fn activation(pool: &Pool, activation: Activation, x: &mut [f32]) {
    let _ = pool;
    x.iter_mut().for_each(|x| *x = reference::apply(activation, *x));
}

/// x ← softmax(x). -infinity becomes 0; a row of nothing else becomes NaN.
pub fn softmax_row(pool: &Pool, x: &mut [f32]) {
    let _ = pool;
    reference::softmax_row(x);
}

/// x ← log(softmax(x)).
pub fn log_softmax_row(pool: &Pool, x: &mut [f32]) {
    let _ = pool;
    reference::log_softmax_row(x);
}

/// The first index of the largest value. NaNs are passed over; 0 for an empty row or one of NaNs.
pub fn argmax(pool: &Pool, x: &[f32]) -> usize {
    let _ = pool;
    reference::argmax(x)
}
