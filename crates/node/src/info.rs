//! What is known about a loaded model.

use std::collections::HashMap;

use candlewick_engine as engine;
use engine::{Dtype, EncoderHead};
use napi_derive::napi;

use crate::names::{pooling_name, similarity_name};

#[napi(object, object_from_js = false)]
pub struct GeneratorInfo {
    pub model_type: String,
    /// Rows of the embedding.
    pub vocabulary_size: u32,
    /// Entries of the tokenizer; absent without one.
    pub tokenizer_size: Option<u32>,
    pub positions: u32,
    pub layers: u32,
    pub hidden_size: u32,
    pub heads: u32,
    pub parameters: f64,
    pub weight_bytes: f64,
    pub bos_token_id: Option<u32>,
    pub eos_token_ids: Vec<u32>,
    pub dtype: String,
    pub device: String,
    pub device_name: Option<String>,
    pub threads: u32,
    pub instruction_set: String,
    pub adapters: Vec<String>,
    /// Whether the files have a chat template.
    pub chat_template: bool,
}

impl GeneratorInfo {
    pub fn new(info: &engine::CausalInfo, tokenizer_size: Option<usize>, chat_template: bool) -> Self {
        Self {
            model_type: info.model_type.to_string(),
            vocabulary_size: info.vocab_size as u32,
            tokenizer_size: tokenizer_size.map(|size| size as u32),
            positions: info.n_positions as u32,
            layers: info.layers as u32,
            hidden_size: info.hidden_size as u32,
            heads: info.heads as u32,
            parameters: info.parameters as f64,
            weight_bytes: info.weight_bytes as f64,
            bos_token_id: info.bos_token_id,
            eos_token_ids: info.eos_token_ids.clone(),
            dtype: dtype_name(info.dtype).to_string(),
            device: info.device.clone(),
            device_name: info.device_name.clone(),
            threads: info.threads as u32,
            instruction_set: info.instruction_set.clone(),
            adapters: info.adapters.clone(),
            chat_template,
        }
    }
}

#[napi(object, object_from_js = false)]
pub struct EncoderInfo {
    pub model_type: String,
    /// Rows of the embedding.
    pub vocabulary_size: u32,
    /// Entries of the tokenizer; absent without one.
    pub tokenizer_size: Option<u32>,
    pub positions: u32,
    pub types: u32,
    pub layers: u32,
    pub hidden_size: u32,
    pub heads: u32,
    pub parameters: f64,
    pub weight_bytes: f64,
    pub has_pooler: bool,
    #[napi(
        ts_type = "'masked-lm' | 'sequence-classification' | 'token-classification' | 'question-answering'"
    )]
    pub head: Option<String>,
    pub labels: Vec<String>,
    /// Tokens that the tokenizer cuts at, if that is less than `positions`.
    pub max_length: u32,
    pub problem_type: Option<String>,
    pub mask_token: Option<String>,
    pub cross_encoder_activation: Option<String>,
    pub sentences: SentenceInfo,
    pub dtype: String,
    pub device: String,
    pub device_name: Option<String>,
    pub threads: u32,
    pub instruction_set: String,
}

/// What sentence-transformers' files say.
#[napi(object, object_from_js = false)]
pub struct SentenceInfo {
    pub pooling: Vec<String>,
    pub normalize: bool,
    pub lower_case: bool,
    pub max_length: u32,
    pub prompts: HashMap<String, String>,
    pub default_prompt: Option<String>,
    #[napi(ts_type = "'cosine' | 'dot' | 'euclidean' | 'manhattan'")]
    pub similarity: String,
}

impl EncoderInfo {
    pub fn new(info: &engine::EncoderInfo, tokenizer_size: Option<usize>) -> Self {
        let usage = &info.usage;
        let max_length = usage.tokenizer_max_length.unwrap_or(usize::MAX).min(info.max_positions) as u32;
        Self {
            model_type: info.model_type.to_string(),
            vocabulary_size: info.vocab_size as u32,
            tokenizer_size: tokenizer_size.map(|size| size as u32),
            positions: info.max_positions as u32,
            types: info.type_vocab_size as u32,
            layers: info.layers as u32,
            hidden_size: info.hidden_size as u32,
            heads: info.heads as u32,
            parameters: info.parameters as f64,
            weight_bytes: info.weight_bytes as f64,
            has_pooler: info.has_pooler,
            head: head_name(info.head).map(str::to_string),
            labels: info.labels.clone(),
            max_length,
            problem_type: usage.problem_type.clone(),
            mask_token: usage.mask_token.clone(),
            cross_encoder_activation: usage.cross_encoder_activation.clone(),
            sentences: SentenceInfo {
                pooling: usage.pooling.modes.iter().map(|mode| pooling_name(*mode).to_string()).collect(),
                normalize: usage.normalize,
                lower_case: usage.lower_case,
                max_length: usage
                    .sentence_max_length
                    .map_or(max_length, |length| length.min(info.max_positions) as u32),
                prompts: usage.prompts.clone().into_iter().collect(),
                default_prompt: usage.default_prompt.clone(),
                similarity: similarity_name(usage.similarity).to_string(),
            },
            dtype: dtype_name(info.dtype).to_string(),
            device: info.device.clone(),
            device_name: info.device_name.clone(),
            threads: info.threads as u32,
            instruction_set: info.instruction_set.clone(),
        }
    }
}

fn dtype_name(dtype: Dtype) -> &'static str {
    match dtype {
        Dtype::F32 => "f32",
        Dtype::F16 => "f16",
        Dtype::Bf16 => "bf16",
        Dtype::Q8_0 => "q8_0",
        Dtype::Q4_0 => "q4_0",
        Dtype::Int8 => "int8",
    }
}

fn head_name(head: EncoderHead) -> Option<&'static str> {
    match head {
        EncoderHead::None => None,
        EncoderHead::MaskedLm => Some("masked-lm"),
        EncoderHead::SequenceClassification => Some("sequence-classification"),
        EncoderHead::TokenClassification => Some("token-classification"),
        EncoderHead::QuestionAnswering => Some("question-answering"),
    }
}
