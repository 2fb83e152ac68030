//! What the files of this crate agree on: lanes and blocks, instruction sets, types of weights, what follows a product.
//! It uses no other file.

use half::{bf16, f16};
use std::fmt;

/// Values per block along K.
pub const BLOCK: usize = 32;
/// Outputs per panel of weights: the lanes of one AVX-512 register, two of AVX2, four of NEON.
pub(crate) const LANES: usize = 16;
/// Bytes of the scales of a pair of blocks.
pub(crate) const PAIR_SCALES: usize = 2 * LANES * size_of::<f16>();
/// Bytes of the quants of one block of one panel.
pub(crate) const Q8_BLOCK: usize = BLOCK * LANES;
/// As above, two values to a byte.
pub(crate) const Q4_BLOCK: usize = BLOCK * LANES / 2;

/// Values per block of [`WeightType::Int8`] along K.
pub(crate) const INT8_BLOCK: usize = 128;
/// Bytes of one such block of one panel: 16 scales in f32, then the values.
pub(crate) const INT8_BLOCK_BYTES: usize = LANES * size_of::<f32>() + INT8_BLOCK * LANES;

/// Two neighbours along K.
pub(crate) type Pair = [bf16; 2];

/// An instruction set. Every one gives the same bits; they differ in speed only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Isa {
    /// Plain Rust. Compiled for a machine without a fused multiply-add it is slow (`fmaf` is a call), and still right.
    Portable,
    /// AArch64 NEON.
    Neon,
    /// NEON with the int8 dot product (SDOT): most machines since 2018, Apple's among them.
    NeonDotprod,
    /// AVX2 + FMA + F16C (x86-64-v3).
    Avx2,
    /// AVX-512 F + BW + DQ + VL.
    Avx512,
    /// AVX-512 with the int8 dot product.
    Avx512Vnni,
    /// As above, with the bf16 dot product.
    Avx512Bf16,
}

impl Isa {
    /// Slowest first.
    pub const ALL: [Isa; 7] = [
        Isa::Portable,
        Isa::Neon,
        Isa::NeonDotprod,
        Isa::Avx2,
        Isa::Avx512,
        Isa::Avx512Vnni,
        Isa::Avx512Bf16,
    ];

    fn name(self) -> &'static str {
        match self {
            Isa::Portable => "portable",
            Isa::Neon => "neon",
            Isa::NeonDotprod => "neondotprod",
            Isa::Avx2 => "avx2",
            Isa::Avx512 => "avx512",
            Isa::Avx512Vnni => "avx512vnni",
            Isa::Avx512Bf16 => "avx512bf16",
        }
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How a weight is stored. The input, the sums and the output are always f32; what a product takes of the input is
/// bf16 beside bf16 weights, and int8 beside int8 and quantised ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WeightType {
    F32,
    F16,
    /// Two of K side by side, as dot products take them.
    Bf16,
    /// int8 with an f16 scale per 32 along K: 8.5 bits a weight.
    Q8_0,
    /// int4 with an f16 scale per 32 along K: 4.5 bits a weight.
    Q4_0,
    /// int8 in turned blocks of 128 along K with an f32 scale each (`int8.rs`): 8.25 bits a weight.
    Int8,
}

impl WeightType {
    pub const ALL: [WeightType; 6] = [
        WeightType::F32,
        WeightType::F16,
        WeightType::Bf16,
        WeightType::Q8_0,
        WeightType::Q4_0,
        WeightType::Int8,
    ];

    fn name(self) -> &'static str {
        match self {
            WeightType::F32 => "f32",
            WeightType::F16 => "f16",
            WeightType::Bf16 => "bf16",
            WeightType::Q8_0 => "q8_0",
            WeightType::Q4_0 => "q4_0",
            WeightType::Int8 => "int8",
        }
    }

    /// Whether its products multiply integers.
    pub(crate) fn is_integer(self) -> bool {
        self.is_block_quantized() || self == WeightType::Int8
    }

    /// Whether K comes in blocks of 32, as in GGUF files.
    pub fn is_block_quantized(self) -> bool {
        matches!(self, WeightType::Q8_0 | WeightType::Q4_0)
    }

    /// The least magnitude that it cannot hold.
    pub(crate) fn beyond(self) -> f32 {
        const F16: f32 = 65_520.0;
        match self {
            WeightType::F32 => f32::INFINITY,
            WeightType::F16 => F16,
            // What is rounded to infinity.
            WeightType::Bf16 => f32::from_bits(0x7f7f_8000),
            WeightType::Q8_0 => F16 * 127.0,
            WeightType::Q4_0 => F16 * 8.0,
            // A sum of 128.
            WeightType::Int8 => f32::MAX / INT8_BLOCK as f32,
        }
    }

    /// Bytes of one panel of K inputs.
    pub(crate) fn panel_bytes(self, k: usize) -> usize {
        let pairs = k.div_ceil(2 * BLOCK);
        match self {
            WeightType::F32 => k * LANES * 4,
            WeightType::F16 => k * LANES * 2,
            WeightType::Bf16 => k.div_ceil(2) * LANES * size_of::<Pair>(),
            WeightType::Q8_0 => pairs * (PAIR_SCALES + 2 * Q8_BLOCK),
            WeightType::Q4_0 => pairs * (PAIR_SCALES + 2 * Q4_BLOCK),
            WeightType::Int8 => k.div_ceil(INT8_BLOCK) * INT8_BLOCK_BYTES,
        }
    }
}

impl fmt::Display for WeightType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The order of the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Layout {
    /// [out, in]: `nn.Linear`, embeddings, every GGUF matrix.
    OutIn,
    /// [in, out]: GPT-2's `Conv1D`.
    InOut,
}

/// What is applied to an output, element by element.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Activation {
    /// GPT-2's `gelu_new`, the tanh form.
    GeluNew,
    /// BERT's `gelu`, by erf.
    Gelu,
    Relu,
    Silu,
    Tanh,
}

/// out = activation(x · wᵀ + bias) + residual; what is `None` is left out.
#[derive(Debug, Clone, Copy, Default)]
pub struct Epilogue<'a> {
    /// [N]
    pub bias: Option<&'a [f32]>,
    pub activation: Option<Activation>,
    /// [M, N]
    pub residual: Option<&'a [f32]>,
}
