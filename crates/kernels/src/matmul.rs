//! x[M, K] · wᵀ[K, N], for one row and for many, with what follows it fused.

use crate::{PackedMatrix, Pool, Scratch, reference};

/// What is applied to an output, element by element.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Activation {
    /// GPT-2's `gelu_new`, the tanh form.
    GeluNew,
    /// BERT's `gelu`, by erf.
    Gelu,
    Relu,
    Silu,
    Tanh,
}

/// out = activation(x · wᵀ + bias) + residual; what is `None` is left out.
#[derive(Debug, Clone, Copy, Default)]
pub struct Epilogue<'a> {
    /// [N]
    pub bias: Option<&'a [f32]>,
    pub activation: Option<Activation>,
    /// [M, N]
    pub residual: Option<&'a [f32]>,
}

/// out[M, N] = activation(x[M, K] · wᵀ + bias) + residual.
///
/// An output's bits depend on its row of x, on w and on the epilogue: not on M, on the other rows, or on the threads.
///
/// # Panics
/// If a slice does not have the length that its shape asks for.
pub fn matmul(
    pool: &Pool,
    x: &[f32],
    m: usize,
    w: &PackedMatrix,
    ep: Epilogue,
    scratch: &mut Scratch,
    out: &mut [f32],
) {
    let (n, k) = (w.n(), w.k());
    assert_eq!(x.len(), m * k, "x is [M, K] = [{m}, {k}]");
    assert_eq!(out.len(), m * n, "out is [M, N] = [{m}, {n}]");
    assert!(ep.bias.is_none_or(|bias| bias.len() == n), "bias is [N] = [{n}]");
    assert!(ep.residual.is_none_or(|residual| residual.len() == m * n), "residual is [M, N] = [{m}, {n}]");
    let _ = (pool, scratch);
    reference::matmul(x, m, w, &ep, out);
}
