//! Stored values as f32 and back.

use candlewick_kernels::SourceType;
use half::{bf16, f16};

/// Appends the values of `bytes`, which hold f32, f16 or bf16.
pub fn decode(source: SourceType, bytes: &[u8], values: &mut Vec<f32>) {
    match source {
        SourceType::F32 => values.extend(bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b))),
        SourceType::F16 => values.extend(bytes.as_chunks().0.iter().map(|b| f16::from_le_bytes(*b).to_f32())),
        SourceType::BF16 => {
            values.extend(bytes.as_chunks().0.iter().map(|b| bf16::from_le_bytes(*b).to_f32()))
        }
        SourceType::Q8_0 | SourceType::Q4_0 => unreachable!("blocks are no single values"),
    }
}

/// Appends `values` as f32, f16 or bf16, to the nearest.
pub fn encode(values: &[f32], to: SourceType, bytes: &mut Vec<u8>) {
    match to {
        SourceType::F32 => bytes.extend(values.iter().flat_map(|x| x.to_le_bytes())),
        SourceType::F16 => bytes.extend(values.iter().flat_map(|x| f16::from_f32(*x).to_le_bytes())),
        SourceType::BF16 => bytes.extend(values.iter().flat_map(|x| bf16::from_f32(*x).to_le_bytes())),
        SourceType::Q8_0 | SourceType::Q4_0 => unreachable!("blocks are no single values"),
    }
}
