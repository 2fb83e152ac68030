//! Layer normalisation.

use crate::{Pool, reference};

/// Per row of `width`: out = (x - mean) / sqrt(variance + eps) * weight + bias, the variance biased as everywhere.
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
) {
    assert_eq!(x.len(), rows * width, "x is [rows, width] = [{rows}, {width}]");
    assert_eq!(out.len(), rows * width, "out is [rows, width] = [{rows}, {width}]");
    assert!(weight.len() == width && bias.len() == width, "weight and bias are [width] = [{width}]");
    let _ = pool;
    reference::layer_norm(x, width, weight, bias, eps, out);
}
