//! What can go wrong before any arithmetic starts. Arithmetic itself cannot fail.

use crate::{Isa, WeightType};
use std::fmt;

/// Errors of this crate. `code()` is stable; the text is for people.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum KernelError {
    /// A buffer does not have the number of elements (or bytes) that its shape asks for.
    Shape { what: &'static str, expected: usize, got: usize },
    /// Block-quantised weights need K to be a multiple of 32.
    BlockSize { weight_type: WeightType, k: usize },
    /// A KV cache was asked to hold more positions than it was made for.
    Capacity { capacity: usize, requested: usize },
    /// Two KV caches, or a cache and a call, that do not have the same layers, heads, head size or types;
    /// heads of an odd size in bf16 rows.
    CacheMismatch,
    /// A layer, head or position that does not exist.
    OutOfRange { what: &'static str, limit: usize, got: usize },
    /// The instruction set was forced, but this machine does not have it.
    UnsupportedIsa(Isa),
    /// `"f32" | "f16" | "q8_0" | "q4_0"` and friends: the text named none of them.
    UnknownName { what: &'static str, name: String },
}

impl KernelError {
    /// A stable name for this error, for the layers above to map.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Shape { .. } => "shape",
            Self::BlockSize { .. } => "block_size",
            Self::Capacity { .. } => "capacity",
            Self::CacheMismatch => "cache_mismatch",
            Self::OutOfRange { .. } => "out_of_range",
            Self::UnsupportedIsa(_) => "unsupported_isa",
            Self::UnknownName { .. } => "unknown_name",
        }
    }
}

impl fmt::Display for KernelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shape { what, expected, got } => {
                write!(f, "{what}: expected {expected} elements, got {got}")
            }
            Self::BlockSize { weight_type, k } => {
                write!(f, "{weight_type} weights need K to be a multiple of 32, got {k}")
            }
            Self::Capacity { capacity, requested } => {
                write!(f, "the KV cache holds {capacity} positions, {requested} were asked for")
            }
            Self::CacheMismatch => {
                write!(f, "the keys and values do not have the shape or the type of the queries")
            }
            Self::OutOfRange { what, limit, got } => {
                write!(f, "{what} {got} is out of range (there are {limit})")
            }
            Self::UnsupportedIsa(isa) => write!(f, "this machine does not have {isa}"),
            Self::UnknownName { what, name } => write!(f, "unknown {what} {name:?}"),
        }
    }
}

impl std::error::Error for KernelError {}

/// `Ok` when `got == expected`, else [`KernelError::Shape`].
pub(crate) fn expect_len(what: &'static str, expected: usize, got: usize) -> Result<(), KernelError> {
    if expected == got { Ok(()) } else { Err(KernelError::Shape { what, expected, got }) }
}

/// The one of `all` that is called `name`, else [`KernelError::UnknownName`]; `what` they are, for the message.
pub(crate) fn by_name<T: fmt::Display>(
    what: &'static str,
    all: impl IntoIterator<Item = T>,
    name: &str,
) -> Result<T, KernelError> {
    all.into_iter()
        .find(|one| one.to_string() == name)
        .ok_or_else(|| KernelError::UnknownName { what, name: name.to_owned() })
}
