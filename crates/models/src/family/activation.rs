//! The activations that configurations name.

use serde::Deserialize;

/// The activations that transformers' GPT-2 and BERT configurations name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// With the error function.
    #[serde(alias = "gelu_python")]
    Gelu,
    /// Hendrycks & Gimpel's tanh approximation.
    #[serde(alias = "gelu_pytorch_tanh", alias = "gelu_fast")]
    GeluNew,
    Relu,
    #[serde(alias = "swish")]
    Silu,
    Tanh,
}
