//! What the kernels read and write: rows in f32, or rounded to bf16 by whoever wrote them.

use crate::simd::Simd;
use crate::types::LANES;
use half::bf16;

/// Rows to read.
#[derive(Debug, Clone, Copy)]
pub enum Input<'a> {
    F32(&'a [f32]),
    /// What bf16 products would round to: half the memory to read, and nothing to round. int8 products take it too.
    Bf16(&'a [bf16]),
}

/// Rows to write.
#[derive(Debug)]
pub enum Output<'a> {
    F32(&'a mut [f32]),
    Bf16(&'a mut [bf16]),
}

impl<'a> Input<'a> {
    #[allow(clippy::len_without_is_empty)] // a length to be checked
    pub fn len(&self) -> usize {
        match self {
            Input::F32(x) => x.len(),
            Input::Bf16(x) => x.len(),
        }
    }

    /// The values from `at` on.
    pub fn from(self, at: usize) -> Input<'a> {
        match self {
            Input::F32(x) => Input::F32(&x[at..]),
            Input::Bf16(x) => Input::Bf16(&x[at..]),
        }
    }

    /// `len` values from `at` on.
    pub(crate) fn part(self, at: usize, len: usize) -> Input<'a> {
        match self {
            Input::F32(x) => Input::F32(&x[at..][..len]),
            Input::Bf16(x) => Input::Bf16(&x[at..][..len]),
        }
    }

    pub(crate) fn bytes(&self) -> &'a [u8] {
        match self {
            Input::F32(x) => crate::buffer::bytes_of(x),
            Input::Bf16(x) => crate::buffer::bytes_of(x),
        }
    }
}

impl<'a> Output<'a> {
    #[allow(clippy::len_without_is_empty)] // a length to be checked
    pub fn len(&self) -> usize {
        match self {
            Output::F32(x) => x.len(),
            Output::Bf16(x) => x.len(),
        }
    }

    /// The first `at` values, and the rest.
    pub fn split_at(self, at: usize) -> (Output<'a>, Output<'a>) {
        match self {
            Output::F32(x) => {
                let (head, tail) = x.split_at_mut(at);
                (Output::F32(head), Output::F32(tail))
            }
            Output::Bf16(x) => {
                let (head, tail) = x.split_at_mut(at);
                (Output::Bf16(head), Output::Bf16(tail))
            }
        }
    }
}

/// Where tasks write, each a part of its own.
#[derive(Clone, Copy)]
pub(crate) enum Target {
    F32(*mut f32),
    Bf16(*mut bf16),
}
// SAFETY: code that writes states why tasks touch disjoint elements.
unsafe impl Send for Target {}
// SAFETY: as above.
unsafe impl Sync for Target {}

impl Target {
    pub fn of(out: &mut Output) -> Self {
        match out {
            Output::F32(out) => Target::F32(out.as_mut_ptr()),
            Output::Bf16(out) => Target::Bf16(out.as_mut_ptr()),
        }
    }

    /// As `from`, `at` values on.
    pub fn from(self, at: usize) -> Self {
        match self {
            Target::F32(out) => Target::F32(out.wrapping_add(at)),
            Target::Bf16(out) => Target::Bf16(out.wrapping_add(at)),
        }
    }

    /// Asks for the line with the value at `at`.
    #[inline(always)]
    pub fn prefetch<S: Simd>(self, s: S, at: usize) {
        match self {
            Target::F32(out) => s.prefetch(out.wrapping_add(at).cast()),
            Target::Bf16(out) => s.prefetch(out.wrapping_add(at).cast()),
        }
    }

    /// Writes the first `n <= 16` lanes at `at`.
    ///
    /// # Safety
    /// They are inside, and nobody else touches them.
    #[inline(always)]
    pub unsafe fn store<S: Simd>(self, s: S, at: usize, n: usize, y: S::F) {
        // SAFETY: promised by the caller.
        unsafe {
            match self {
                Target::F32(out) => s.store_head(out.add(at), n, y),
                Target::Bf16(out) if n == LANES => out.add(at).cast::<[bf16; LANES]>().write(s.bf16(y)),
                Target::Bf16(out) => std::ptr::copy_nonoverlapping(s.bf16(y).as_ptr(), out.add(at), n),
            }
        }
    }
}

macro_rules! conversions {
    ($($value:ty => $variant:ident),*) => {$(
        impl<'a> From<&'a [$value]> for Input<'a> {
            fn from(x: &'a [$value]) -> Self {
                Input::$variant(x)
            }
        }
        impl<'a> From<&'a Vec<$value>> for Input<'a> {
            fn from(x: &'a Vec<$value>) -> Self {
                Input::$variant(x)
            }
        }
        impl<'a, const N: usize> From<&'a [$value; N]> for Input<'a> {
            fn from(x: &'a [$value; N]) -> Self {
                Input::$variant(x)
            }
        }
        impl<'a> From<&'a mut [$value]> for Output<'a> {
            fn from(x: &'a mut [$value]) -> Self {
                Output::$variant(x)
            }
        }
        impl<'a> From<&'a mut Vec<$value>> for Output<'a> {
            fn from(x: &'a mut Vec<$value>) -> Self {
                Output::$variant(x)
            }
        }
        impl<'a, const N: usize> From<&'a mut [$value; N]> for Output<'a> {
            fn from(x: &'a mut [$value; N]) -> Self {
                Output::$variant(x)
            }
        }
    )*};
}
conversions!(f32 => F32, bf16 => Bf16);
