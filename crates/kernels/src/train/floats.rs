//! Memory of training: weights, gradients, moments, activations.

use crate::buffer::Buffer;

/// Zeroed f32 values, aligned to a cache line and in huge pages: a step walks through all of them.
#[derive(Clone, Default)]
pub struct Floats(Buffer<f32>);

impl Floats {
    pub fn zeroed(len: usize) -> Self {
        Self(Buffer::zeroed_huge(len))
    }

    /// Exactly `len` values of unspecified content; the memory is kept while it suffices.
    pub fn at_least(&mut self, len: usize) -> &mut [f32] {
        if self.0.len() < len {
            // Freed first: the peak is what counts.
            self.0 = Buffer::default();
            self.0 = Buffer::zeroed_huge(len);
        }
        &mut self.0[..len]
    }
}

impl From<&[f32]> for Floats {
    fn from(values: &[f32]) -> Self {
        let mut floats = Self::zeroed(values.len());
        floats.copy_from_slice(values);
        floats
    }
}

impl std::ops::Deref for Floats {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        &self.0
    }
}

impl std::ops::DerefMut for Floats {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.0
    }
}

impl std::fmt::Debug for Floats {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Floats({})", self.0.len())
    }
}
