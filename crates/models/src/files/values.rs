//! A tensor's values in memory, as a checkpoint stored them.

use candlewick_kernels::{Q4_0_BYTES, Q8_0_BYTES, SourceType};
use half::vec::HalfBitsVecExt;
use half::{bf16, f16};

use crate::Result;

/// A tensor's values, row-major, as they were stored.
#[derive(Debug, Clone)]
pub enum Values {
    F32(Vec<f32>),
    F16(Vec<f16>),
    /// GGUF's blocks of 32 values: an f16 scale, then 32 signed bytes.
    Q8_0(Vec<u8>),
    /// GGUF's blocks of 32 values: an f16 scale, then 32 nibbles around 8, the first 16 low.
    Q4_0(Vec<u8>),
}

impl Values {
    /// Bytes in memory.
    pub fn bytes(&self) -> usize {
        match self {
            Self::F32(values) => 4 * values.len(),
            Self::F16(values) => 2 * values.len(),
            Self::Q8_0(blocks) | Self::Q4_0(blocks) => blocks.len(),
        }
    }

    /// The `bytes` bytes that `read` fills, stored as `source`: bf16 becomes f32, which holds it exactly; all else
    /// stays as it is.
    pub(crate) fn read(
        source: SourceType,
        bytes: usize,
        read: impl Fn(&mut [u8]) -> Result<()>,
    ) -> Result<Self> {
        let raw = || {
            let mut buffer = vec![0; bytes];
            read(&mut buffer).map(|()| buffer)
        };
        Ok(match source {
            SourceType::F32 => {
                let mut values = vec![0f32; bytes / 4];
                read(bytemuck::cast_slice_mut(&mut values))?;
                Self::F32(values)
            }
            SourceType::F16 => {
                let mut values = vec![0u16; bytes / 2];
                read(bytemuck::cast_slice_mut(&mut values))?;
                Self::F16(values.reinterpret_into())
            }
            SourceType::BF16 => {
                let values = raw()?;
                Self::F32(values.as_chunks().0.iter().map(|b| bf16::from_le_bytes(*b).to_f32()).collect())
            }
            SourceType::Q8_0 => Self::Q8_0(raw()?),
            SourceType::Q4_0 => Self::Q4_0(raw()?),
        })
    }

    /// Whether all of them are numbers.
    pub fn are_finite(&self) -> bool {
        let scales = |blocks: &[u8], size: usize| {
            blocks.chunks_exact(size).all(|block| f16::from_le_bytes([block[0], block[1]]).is_finite())
        };
        match self {
            // Without an early exit, so that it vectorises.
            Self::F32(values) => values.iter().fold(true, |all, x| all & x.is_finite()),
            Self::F16(values) => values.iter().fold(true, |all, x| all & x.is_finite()),
            Self::Q8_0(blocks) => scales(blocks, Q8_0_BYTES),
            Self::Q4_0(blocks) => scales(blocks, Q4_0_BYTES),
        }
    }

    pub fn into_f32(self) -> Vec<f32> {
        let scale = |block: &[u8]| f16::from_le_bytes([block[0], block[1]]).to_f32();
        match self {
            Self::F32(values) => values,
            Self::F16(values) => values.into_iter().map(f16::to_f32).collect(),
            Self::Q8_0(blocks) => blocks
                .chunks_exact(Q8_0_BYTES)
                .flat_map(|block| block[2..].iter().map(move |&q| scale(block) * f32::from(q as i8)))
                .collect(),
            Self::Q4_0(blocks) => blocks
                .chunks_exact(Q4_0_BYTES)
                .flat_map(|block| {
                    let (low, high) = (block[2..].iter().map(|q| q & 15), block[2..].iter().map(|q| q >> 4));
                    low.chain(high).map(move |q| scale(block) * (f32::from(q) - 8.0))
                })
                .collect(),
        }
    }
}
