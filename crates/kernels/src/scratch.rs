//! Work space that a caller keeps between calls, so that nothing is allocated per token.

use crate::buffer::Buffer;

/// Grows to what the largest call needs and stays there. One per thread that calls kernels; its content means nothing
/// between calls.
#[derive(Default)]
pub struct Scratch {
    /// The quantised input of a product: int8 values, and per block its scale and the sum of its values.
    pub(crate) quants: Buffer<i8>,
    pub(crate) scales: Buffer<f32>,
    pub(crate) sums: Buffer<i32>,
    /// Work space of attention, a part per thread.
    pub(crate) attention: Buffer<f32>,
}

impl Scratch {
    pub fn new() -> Self {
        Self::default()
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.quants.len() + 4 * (self.scales.len() + self.sums.len() + self.attention.len())
    }
}

impl std::fmt::Debug for Scratch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Scratch({} bytes)", self.bytes())
    }
}
