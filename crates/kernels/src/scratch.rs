//! Work space that a caller keeps between calls, so that nothing is allocated per token.

use crate::buffer::Buffer;

/// Grows to what the largest call needs and stays there. One per thread that calls kernels; its content means nothing
/// between calls.
#[derive(Default)]
pub struct Scratch {
    /// The quantised input of a product; for a few rows, one copy per thread.
    pub(crate) input: Buffer<u8>,
    /// Work space of attention, a part per thread.
    pub(crate) attention: Buffer<f32>,
}

impl Scratch {
    pub fn new() -> Self {
        Self::default()
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.input.len() + 4 * self.attention.len()
    }
}

impl std::fmt::Debug for Scratch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Scratch({} bytes)", self.bytes())
    }
}
