//! How weights are held in memory.

/// The types that `LoadOptions::dtype` can ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dtype {
    F32,
    F16,
    /// Products take their inputs in bf16 too; their sums are f32.
    Bf16,
    Q8_0,
    Q4_0,
    /// Weights and the inputs of products in turned blocks of 128, with exact integer sums
    /// (`kernels/src/int8.rs`). No file holds it.
    Int8,
}
