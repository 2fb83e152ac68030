//! What stands behind the pooling of a sentence-transformers model: layers from one vector to one vector.

use crate::ModelError;

/// torch.nn's functions by the names of their classes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VectorActivation {
    Identity,
    Tanh,
    Sigmoid,
    Relu,
    /// With erf, as torch's default.
    Gelu,
    Silu,
}

impl VectorActivation {
    fn of(self, x: f32) -> f32 {
        match self {
            Self::Identity => x,
            Self::Tanh => x.tanh(),
            Self::Sigmoid => 1.0 / (1.0 + (-x).exp()),
            Self::Relu => x.max(0.0),
            Self::Gelu => x * (0.5 + 0.5 * erf(f64::from(x) * std::f64::consts::FRAC_1_SQRT_2) as f32),
            Self::Silu => x / (1.0 + (-x).exp()),
        }
    }
}

/// By the series of positive terms 2/√π · exp(-x²) · Σ 2ⁿ x²ⁿ⁺¹ / (2n+1)!!; ±1 from 6 on, where f32 has no other value.
fn erf(x: f64) -> f64 {
    if x.abs() >= 6.0 {
        return x.signum();
    }
    let (mut term, mut sum) = (x, x);
    for n in 1..200 {
        term *= 2.0 * x * x / f64::from(2 * n + 1);
        sum += term;
        if term.abs() < 1e-17 * sum.abs() {
            break;
        }
    }
    std::f64::consts::FRAC_2_SQRT_PI * (-x * x).exp() * sum
}

/// What is added to a dense layer's output.
#[derive(Debug, Clone, PartialEq)]
pub enum Residual {
    None,
    Input,
    /// A matrix (out, in) times the input.
    Projected(Vec<f32>),
}

/// A layer behind the pooling; vectors are rows of f32.
#[derive(Debug, Clone, PartialEq)]
pub enum VectorLayer {
    /// activation(W x + b) + residual. W: (out, in), row-major.
    Dense {
        inputs: usize,
        weight: Vec<f32>,
        bias: Option<Vec<f32>>,
        activation: VectorActivation,
        residual: Residual,
    },
    /// torch's, whose epsilon is 1e-5.
    LayerNorm { weight: Vec<f32>, bias: Vec<f32> },
    /// To length 1.
    Normalize,
}

impl VectorLayer {
    /// Costs in × out products for a dense layer, sequentially over the inputs: the same bits in any batch.
    pub fn apply(&self, vector: &mut Vec<f32>) -> Result<(), ModelError> {
        match self {
            Self::Dense { inputs, weight, bias, activation, residual } => {
                let product = |matrix: &[f32]| -> Vec<f32> {
                    let row = |row: &[f32]| row.iter().zip(vector.iter()).map(|(w, x)| w * x).sum();
                    matrix.chunks_exact(*inputs).map(row).collect()
                };
                let mut output = product(weight);
                if let Some(bias) = bias {
                    output.iter_mut().zip(bias).for_each(|(y, b)| *y += b);
                }
                output.iter_mut().for_each(|y| *y = activation.of(*y));
                match residual {
                    Residual::None => {}
                    Residual::Input => output.iter_mut().zip(vector.iter()).for_each(|(y, x)| *y += x),
                    Residual::Projected(matrix) => {
                        output.iter_mut().zip(product(matrix)).for_each(|(y, x)| *y += x);
                    }
                }
                *vector = output;
            }
            Self::LayerNorm { weight, bias } => {
                let count = vector.len() as f32;
                let mean = vector.iter().sum::<f32>() / count;
                let variance = vector.iter().map(|x| (x - mean) * (x - mean)).sum::<f32>() / count;
                let scale = 1.0 / (variance + 1e-5).sqrt();
                let scales = weight.iter().zip(bias);
                vector.iter_mut().zip(scales).for_each(|(x, (w, b))| *x = (*x - mean) * scale * w + b);
            }
            Self::Normalize => normalize(vector),
        }
        check_finite(vector)
    }
}

/// # Errors
/// `NotFinite`: NaN or infinity among a text's vector.
pub fn check_finite(vector: &[f32]) -> Result<(), ModelError> {
    match vector.iter().all(|x| x.is_finite()) {
        true => Ok(()),
        false => Err(ModelError::NotFinite("the vectors".into())),
    }
}

/// torch's `normalize`: to length 1; a vector of zeros stays one. One whose length overflows, which torch makes one of
/// zeros in silence, has no numbers afterwards, so that whoever looks refuses it.
pub fn normalize(vector: &mut [f32]) {
    let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt().max(1e-12);
    let length = if length.is_finite() { length } else { f32::NAN };
    vector.iter_mut().for_each(|x| *x /= length);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn erf_is_that_of_tables() {
        for (x, y) in
            [(0.0, 0.0), (0.5, 0.5204998778), (-1.0, -0.8427007929), (2.5, 0.9995930480), (5.9, 1.0)]
        {
            assert!((erf(x) - y).abs() < 1e-10, "{x}: {}", erf(x));
        }
    }

    #[test]
    fn values_that_overflow_are_an_error() {
        let weight = vec![f32::MAX, f32::MAX];
        let (activation, residual) = (VectorActivation::Identity, Residual::None);
        let dense = VectorLayer::Dense { inputs: 2, weight, bias: None, activation, residual };
        assert_eq!(dense.apply(&mut vec![1.0, 1.0]).unwrap_err().code(), "NOT_FINITE");
        assert_eq!(VectorLayer::Normalize.apply(&mut vec![3e38, 1.0]).unwrap_err().code(), "NOT_FINITE");
    }
}
