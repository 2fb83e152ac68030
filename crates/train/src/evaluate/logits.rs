//! From logits to losses and choices, in f64.

/// ln Σ e^x.
pub(super) fn log_sum_exp(logits: &[f32]) -> f64 {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    f64::from(max) + logits.iter().map(|x| f64::from(x - max).exp()).sum::<f64>().ln()
}

/// Minus the logarithm of a class's probability.
pub(super) fn cross_entropy(logits: &[f32], class: usize) -> f64 {
    log_sum_exp(logits) - f64::from(logits[class])
}

/// The mean over decisions, as PyTorch's `BCEWithLogitsLoss`.
pub(super) fn binary_cross_entropy(logits: &[f32], truth: &[f32]) -> f64 {
    let one = |(x, t): (&f32, &f32)| {
        let (x, t) = (f64::from(*x), f64::from(*t));
        x.max(0.0) - x * t + (-x.abs()).exp().ln_1p()
    };
    logits.iter().zip(truth).map(one).sum::<f64>() / logits.len() as f64
}

/// The first of the largest.
pub(super) fn argmax(logits: &[f32]) -> usize {
    let better = |best: usize, (at, x): (usize, &f32)| if *x > logits[best] { at } else { best };
    logits.iter().enumerate().fold(0, better)
}

/// The probability of a class.
pub(super) fn probability(logits: &[f32], class: usize) -> f64 {
    (-cross_entropy(logits, class)).exp()
}
