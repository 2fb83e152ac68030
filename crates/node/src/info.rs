//! What is known about a loaded model.

use candlewick_engine as engine;
use engine::{Dtype, EncoderHead};
use napi_derive::napi;

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
    pub threads: u32,
    pub adapters: Vec<String>,
}

impl GeneratorInfo {
    pub fn new(info: &engine::CausalInfo, tokenizer_size: Option<usize>) -> Self {
        Self {
            model_type: info.model_type.to_string(),
            vocabulary_size: info.vocab_size as u32,
            tokenizer_size: tokenizer_size.map(|size| size as u32),
            positions: info.n_positions as u32,
            layers: info.n_layer as u32,
            hidden_size: info.n_embd as u32,
            heads: info.n_head as u32,
            parameters: info.parameters as f64,
            weight_bytes: info.weight_bytes as f64,
            bos_token_id: info.bos_token_id,
            eos_token_ids: info.eos_token_ids.clone(),
            dtype: dtype_name(info.dtype).to_string(),
            device: info.device.to_string(),
            threads: info.threads as u32,
            adapters: info.adapters.clone(),
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
    pub dtype: String,
    pub device: String,
    pub threads: u32,
}

impl EncoderInfo {
    pub fn new(info: &engine::EncoderInfo, tokenizer_size: Option<usize>) -> Self {
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
            dtype: dtype_name(info.dtype).to_string(),
            device: info.device.to_string(),
            threads: info.threads as u32,
        }
    }
}

fn dtype_name(dtype: Dtype) -> &'static str {
    match dtype {
        Dtype::F32 => "f32",
        Dtype::F16 => "f16",
        Dtype::Q8_0 => "q8_0",
        Dtype::Q4_0 => "q4_0",
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
