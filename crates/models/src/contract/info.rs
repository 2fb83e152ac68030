//! What is known of a loaded model.

use crate::contract::dtype::Dtype;
use crate::files::usage::EncoderUsage;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Device {
    /// CUDA where this build has it, a GPU is there and no adapters are asked for, else the CPU.
    Auto,
    Cpu,
    /// The GPU of this number, from 0 on, in CUDA's order.
    Cuda(usize),
}

#[derive(Debug, Clone)]
pub struct CausalInfo {
    pub model_type: &'static str,
    pub vocab_size: usize,
    /// Positions the model has; prompt and continuation together fit in them.
    pub n_positions: usize,
    pub layers: usize,
    pub hidden_size: usize,
    pub heads: usize,
    pub parameters: u64,
    /// Bytes of weights in memory.
    pub weight_bytes: u64,
    pub bos_token_id: Option<u32>,
    pub eos_token_ids: Vec<u32>,
    pub dtype: Dtype,
    /// "cpu", "cuda", or another GPU than the first, such as "cuda:1".
    pub device: String,
    /// A GPU's name, such as "NVIDIA H100 80GB HBM3".
    pub device_name: Option<String>,
    pub threads: usize,
    /// What products are computed with: the CPU's instruction set, or the GPU's compute capability.
    pub instruction_set: String,
    /// Sequences that are best run at once, and the tokens beyond which a step is no more efficient.
    pub lanes: usize,
    pub step_tokens: usize,
    /// Names of the adapters that a sequence may have.
    pub adapters: Vec<String>,
}

/// The head of an encoder's checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EncoderHead {
    None,
    MaskedLm,
    SequenceClassification,
    TokenClassification,
    QuestionAnswering,
}

#[derive(Debug, Clone)]
pub struct EncoderInfo {
    pub model_type: &'static str,
    pub vocab_size: usize,
    pub max_positions: usize,
    /// 0: the model has no token types.
    pub type_vocab_size: usize,
    pub hidden_size: usize,
    pub layers: usize,
    pub heads: usize,
    pub parameters: u64,
    pub weight_bytes: u64,
    pub has_pooler: bool,
    pub head: EncoderHead,
    /// Names of the head's classes, by id.
    pub labels: Vec<String>,
    /// What the folder's files say about tokenizing, pooling and labels.
    pub usage: EncoderUsage,
    pub dtype: Dtype,
    /// "cpu", "cuda", or another GPU than the first, such as "cuda:1".
    pub device: String,
    /// A GPU's name, such as "NVIDIA H100 80GB HBM3".
    pub device_name: Option<String>,
    pub threads: usize,
    /// What products are computed with: the CPU's instruction set, or the GPU's compute capability.
    pub instruction_set: String,
}
