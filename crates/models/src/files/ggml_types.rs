//! ggml's types of tensors: their numbers, names and blocks, and how each is read. Source: ggml's `ggml.h` (numbers)
//! and `ggml-common.h` (blocks).

use candlewick_kernels::SourceType;

use crate::files::dequantize as de;

/// A type of tensor that ggml has, or has had.
pub struct GgmlType {
    pub code: u32,
    pub name: &'static str,
    /// Values in a block, which lies within a row.
    pub values: usize,
    /// Bytes of a block.
    pub bytes: usize,
    pub reading: Reading,
}

/// How a type's values are read.
#[derive(Clone, Copy)]
pub enum Reading {
    /// As they are stored: the kernels know the type.
    As(SourceType),
    /// In f32, a block at a time.
    Decoded(fn(&[u8], &mut [f32])),
    /// Not at all, for this reason.
    Refused(&'static str),
}

/// The most values that a block has.
pub const MOST_VALUES: usize = 256;

const GRID: Reading = Reading::Refused("its values are places in a codebook");
const NO_WEIGHTS: Reading = Reading::Refused("a type that no weights have");
const SCALED: Reading = Reading::Refused("it needs further scales from another tensor");
const REMOVED: Reading = Reading::Refused("ggml has given it up");
const UNKNOWN_TO_PYTHON: Reading = Reading::Refused("a new type of one bit a value");

const fn kind(code: u32, name: &'static str, values: usize, bytes: usize, reading: Reading) -> GgmlType {
    GgmlType { code, name, values, bytes, reading }
}

/// In the order of their numbers.
static TYPES: [GgmlType; 42] = [
    kind(0, "F32", 1, 4, Reading::As(SourceType::F32)),
    kind(1, "F16", 1, 2, Reading::As(SourceType::F16)),
    kind(2, "Q4_0", 32, 18, Reading::As(SourceType::Q4_0)),
    kind(3, "Q4_1", 32, 20, Reading::Decoded(de::q4_1)),
    kind(4, "Q4_2", 16, 10, REMOVED),
    kind(5, "Q4_3", 16, 12, REMOVED),
    kind(6, "Q5_0", 32, 22, Reading::Decoded(de::q5_0)),
    kind(7, "Q5_1", 32, 24, Reading::Decoded(de::q5_1)),
    kind(8, "Q8_0", 32, 34, Reading::As(SourceType::Q8_0)),
    kind(9, "Q8_1", 32, 36, Reading::Decoded(de::q8_1)),
    kind(10, "Q2_K", 256, 84, Reading::Decoded(de::q2_k)),
    kind(11, "Q3_K", 256, 110, Reading::Decoded(de::q3_k)),
    kind(12, "Q4_K", 256, 144, Reading::Decoded(de::q4_k)),
    kind(13, "Q5_K", 256, 176, Reading::Decoded(de::q5_k)),
    kind(14, "Q6_K", 256, 210, Reading::Decoded(de::q6_k)),
    kind(15, "Q8_K", 256, 292, Reading::Decoded(de::q8_k)),
    kind(16, "IQ2_XXS", 256, 66, GRID),
    kind(17, "IQ2_XS", 256, 74, GRID),
    kind(18, "IQ3_XXS", 256, 98, GRID),
    kind(19, "IQ1_S", 256, 50, GRID),
    kind(20, "IQ4_NL", 32, 18, Reading::Decoded(de::iq4_nl)),
    kind(21, "IQ3_S", 256, 110, GRID),
    kind(22, "IQ2_S", 256, 82, GRID),
    kind(23, "IQ4_XS", 256, 136, Reading::Decoded(de::iq4_xs)),
    kind(24, "I8", 1, 1, NO_WEIGHTS),
    kind(25, "I16", 1, 2, NO_WEIGHTS),
    kind(26, "I32", 1, 4, NO_WEIGHTS),
    kind(27, "I64", 1, 8, NO_WEIGHTS),
    kind(28, "F64", 1, 8, NO_WEIGHTS),
    kind(29, "IQ1_M", 256, 56, GRID),
    kind(30, "BF16", 1, 2, Reading::As(SourceType::BF16)),
    kind(31, "Q4_0_4_4", 32, 18, REMOVED),
    kind(32, "Q4_0_4_8", 32, 18, REMOVED),
    kind(33, "Q4_0_8_8", 32, 18, REMOVED),
    kind(34, "TQ1_0", 256, 54, Reading::Decoded(de::tq1_0)),
    kind(35, "TQ2_0", 256, 66, Reading::Decoded(de::tq2_0)),
    kind(36, "IQ4_NL_4_4", 32, 18, REMOVED),
    kind(37, "IQ4_NL_4_8", 32, 18, REMOVED),
    kind(38, "IQ4_NL_8_8", 32, 18, REMOVED),
    kind(39, "MXFP4", 32, 17, Reading::Decoded(de::mxfp4)),
    kind(40, "NVFP4", 64, 36, SCALED),
    kind(41, "Q1_0", 128, 18, UNKNOWN_TO_PYTHON),
];

impl GgmlType {
    /// The type of this number.
    pub fn of(code: u32) -> Option<&'static Self> {
        TYPES.get(code as usize).filter(|kind| kind.code == code)
    }

    /// Whether its values are packed in blocks with scales.
    pub fn is_quantised(&self) -> bool {
        self.values > 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_type_is_at_its_number_and_each_block_has_room() {
        for (code, kind) in TYPES.iter().enumerate() {
            assert_eq!(kind.code as usize, code, "{}", kind.name);
            assert!(kind.values <= MOST_VALUES && kind.bytes > 0);
        }
        assert!(GgmlType::of(42).is_none());
    }
}
