//! What JavaScript gives, as the engine's values. `src/types.ts` is where users read about them, and where types and
//! unknown names are checked; `None` is the engine's default.

use std::time::Duration;

use candlewick_engine as engine;
use engine::{
    ChatMessage, ChatRequest, Device, Dtype, EarlyStopping, EncoderInput, EncoderText, EngineError, Layers,
    LoadRequest, Priority, Progress, Prompt, Speculation, Truncate, Truncation,
};
use napi::bindgen_prelude::Uint32Array;
use napi_derive::napi;

use crate::error::{Result, thrown};
use crate::mailbox::{Cancel, Mailbox};

#[napi(object, object_to_js = false)]
pub struct LoadOptions {
    pub path: String,
    /// The folder of an adapter's base.
    pub base: Option<String>,
    #[napi(ts_type = "'f32' | 'f16' | 'bf16' | 'int8' | 'q8_0' | 'q4_0'")]
    pub dtype: Option<String>,
    #[napi(ts_type = "'auto' | 'cpu' | 'cuda' | `cuda:${number}`")]
    pub device: Option<String>,
    pub threads: Option<u32>,
    /// Pairs of name and folder.
    pub adapters: Option<Vec<(String, String)>>,
    /// Bytes for keys and values.
    pub kv_cache_bytes: Option<f64>,
    pub max_queued_tokens: Option<f64>,
    pub max_queued_requests: Option<f64>,
    pub max_step_ms: Option<f64>,
    /// Whether to report progress.
    pub progress: bool,
}

impl LoadOptions {
    pub fn into_request(self, mailbox: &Mailbox, id: u32, cancel: &Cancel) -> Result<LoadRequest> {
        let mut request = LoadRequest::new(self.path);
        request.cancel = cancel.token();
        request.options.dtype = self.dtype.map(|name| dtype(&name)).transpose().map_err(thrown)?;
        if let Some(name) = self.device {
            request.options.device = device(&name).map_err(thrown)?;
        }
        request.options.threads = self.threads.unwrap_or(0) as usize;
        request.options.base = self.base;
        request.options.adapters = self.adapters.unwrap_or_default();
        request.options.kv_cache_bytes = self.kv_cache_bytes.map(|bytes| bytes as u64);
        let limits = &mut request.limits;
        let count = |given: Option<f64>, default: usize| given.map_or(default, |count| count as usize);
        limits.max_queued_tokens = count(self.max_queued_tokens, limits.max_queued_tokens);
        limits.max_queued_requests = count(self.max_queued_requests, limits.max_queued_requests);
        limits.max_step = self.max_step_ms.map_or(limits.max_step, |ms| Duration::from_secs_f64(ms / 1e3));
        request.progress = self.progress.then(|| mailbox.progress(id));
        Ok(request)
    }
}

/// Texts, or token ids: one of the two.
#[napi(object, object_to_js = false)]
pub struct Prompts {
    pub texts: Option<Vec<String>>,
    pub ids: Option<Vec<Uint32Array>>,
}

impl From<Prompts> for Vec<Prompt> {
    fn from(prompts: Prompts) -> Self {
        let texts = prompts.texts.into_iter().flatten().map(Prompt::Text);
        let ids = prompts.ids.into_iter().flatten().map(|ids| Prompt::Ids(ids.to_vec()));
        texts.chain(ids).collect()
    }
}

/// Messages as columns.
#[napi(object, object_to_js = false)]
pub struct Conversation {
    pub roles: Vec<String>,
    pub contents: Vec<String>,
    pub add_generation_prompt: bool,
    /// Local time, in milliseconds since 1970.
    pub now: f64,
}

impl From<Conversation> for ChatRequest {
    fn from(conversation: Conversation) -> Self {
        let Conversation { roles, contents, add_generation_prompt, now } = conversation;
        let message = |(role, content)| ChatMessage { role, content };
        Self {
            messages: roles.into_iter().zip(contents).map(message).collect(),
            add_generation_prompt,
            now: now as i64,
        }
    }
}

#[napi(object, object_to_js = false)]
pub struct GenerateOptions {
    pub max_new_tokens: Option<u32>,
    pub wished_new_tokens: Option<u32>,
    pub wished_length: Option<u32>,
    pub min_new_tokens: Option<u32>,
    pub temperature: Option<f64>,
    pub top_k: Option<u32>,
    pub top_p: Option<f64>,
    pub min_p: Option<f64>,
    pub repetition_penalty: Option<f64>,
    pub presence_penalty: Option<f64>,
    pub frequency_penalty: Option<f64>,
    pub no_repeat_ngram_size: Option<u32>,
    pub logit_bias_ids: Option<Vec<u32>>,
    pub logit_bias_values: Option<Vec<f64>>,
    pub bad_words: Option<Vec<String>>,
    pub bad_word_ids: Option<Vec<Uint32Array>>,
    pub suppress_tokens: Option<Vec<u32>>,
    pub begin_suppress_tokens: Option<Vec<u32>>,
    pub stop: Option<Vec<String>>,
    pub stop_token_ids: Option<Vec<u32>>,
    pub ignore_eos: Option<bool>,
    /// An integer below 2^53.
    pub seed: Option<f64>,
    pub logprobs: Option<u32>,
    pub n: Option<u32>,
    pub num_beams: Option<u32>,
    pub num_return_sequences: Option<u32>,
    pub length_penalty: Option<f64>,
    #[napi(ts_type = "'true' | 'false' | 'never'")]
    pub early_stopping: Option<String>,
    #[napi(ts_type = "'left'")]
    pub truncate: Option<String>,
    pub adapter: Option<String>,
    pub client: Option<String>,
    #[napi(ts_type = "'interactive' | 'batch'")]
    pub priority: Option<String>,
    /// Milliseconds from the call on.
    pub deadline: Option<f64>,
    pub scope: Option<String>,
    pub continue_from: Option<Vec<Uint32Array>>,
    #[napi(ts_type = "'off'")]
    pub speculation: Option<String>,
}

impl From<GenerateOptions> for engine::GenerateOptions {
    fn from(from: GenerateOptions) -> Self {
        let default = Self::default();
        let count = |value: Option<u32>, default: usize| value.map_or(default, |value| value as usize);
        let number = |value: Option<f64>, default: f32| value.map_or(default, |value| value as f32);
        let bias_ids = from.logit_bias_ids.into_iter().flatten();
        let bias_values = from.logit_bias_values.into_iter().flatten().map(|value| value as f32);
        Self {
            max_new_tokens: from.max_new_tokens.map(|value| value as usize),
            wished_new_tokens: from.wished_new_tokens.map(|value| value as usize),
            wished_length: from.wished_length.map(|value| value as usize),
            min_new_tokens: count(from.min_new_tokens, default.min_new_tokens),
            temperature: number(from.temperature, default.temperature),
            top_k: count(from.top_k, default.top_k),
            top_p: number(from.top_p, default.top_p),
            min_p: number(from.min_p, default.min_p),
            repetition_penalty: number(from.repetition_penalty, default.repetition_penalty),
            presence_penalty: number(from.presence_penalty, default.presence_penalty),
            frequency_penalty: number(from.frequency_penalty, default.frequency_penalty),
            no_repeat_ngram_size: count(from.no_repeat_ngram_size, default.no_repeat_ngram_size),
            logit_bias: bias_ids.zip(bias_values).collect(),
            bad_words: from.bad_words.unwrap_or_default(),
            bad_word_ids: from.bad_word_ids.into_iter().flatten().map(|ids| ids.to_vec()).collect(),
            suppress_tokens: from.suppress_tokens.unwrap_or_default(),
            begin_suppress_tokens: from.begin_suppress_tokens.unwrap_or_default(),
            stop: from.stop.unwrap_or_default(),
            stop_token_ids: from.stop_token_ids.unwrap_or_default(),
            ignore_eos: from.ignore_eos.unwrap_or(default.ignore_eos),
            seed: from.seed.map(|seed| seed as u64),
            logprobs: from.logprobs.map(|value| value as usize),
            n: count(from.n, default.n),
            num_beams: count(from.num_beams, default.num_beams),
            num_return_sequences: count(from.num_return_sequences, default.num_return_sequences),
            length_penalty: number(from.length_penalty, default.length_penalty),
            early_stopping: match from.early_stopping.as_deref() {
                Some("true") => EarlyStopping::True,
                Some("never") => EarlyStopping::Never,
                _ => default.early_stopping,
            },
            truncate: match from.truncate.as_deref() {
                Some("left") => Truncate::Left,
                _ => default.truncate,
            },
            adapter: from.adapter,
            client: from.client,
            priority: priority(from.priority.as_deref()),
            deadline: from.deadline.map(|ms| Duration::from_secs_f64(ms / 1e3)),
            scope: from.scope,
            continue_from: from.continue_from.into_iter().flatten().map(|ids| ids.to_vec()).collect(),
            speculation: match from.speculation.as_deref() {
                Some("off") => Speculation::Off,
                _ => default.speculation,
            },
            cancel: default.cancel,
        }
    }
}

#[napi(object, object_to_js = false)]
pub struct ScoreOptions {
    pub top_logprobs: Option<u32>,
    pub adapter: Option<String>,
    pub client: Option<String>,
    #[napi(ts_type = "'interactive' | 'batch'")]
    pub priority: Option<String>,
    pub scope: Option<String>,
}

impl ScoreOptions {
    pub fn of(self, cancel: &Cancel) -> engine::ScoreOptions {
        engine::ScoreOptions {
            top_logprobs: self.top_logprobs.unwrap_or(0) as usize,
            adapter: self.adapter,
            client: self.client,
            priority: priority(self.priority.as_deref()),
            scope: self.scope,
            cancel: cancel.token(),
        }
    }
}

/// Columns, so that a thousand texts are a few arrays: texts, or texts with as many pairs, or ids with as many pairs
/// or type ids.
#[napi(object, object_to_js = false)]
pub struct Texts {
    pub texts: Option<Vec<String>>,
    /// `None`: a text alone; an empty second text is a text.
    pub pairs: Option<Vec<Option<String>>>,
    pub ids: Option<Vec<Uint32Array>>,
    pub pair_ids: Option<Vec<Uint32Array>>,
    pub type_ids: Option<Vec<Uint32Array>>,
}

impl From<Texts> for Vec<EncoderText> {
    fn from(from: Texts) -> Self {
        let texts = from.texts.unwrap_or_default().into_iter();
        let ids = from.ids.unwrap_or_default().into_iter().map(|ids| ids.to_vec());
        if let Some(pairs) = from.pair_ids {
            let pairs = pairs.iter().map(|pair| pair.to_vec());
            return ids.zip(pairs).map(|(ids, pair)| EncoderText::IdPair(ids, pair)).collect();
        }
        match (from.pairs, from.type_ids) {
            (Some(pairs), _) => {
                let read = |(text, pair)| match pair {
                    Some(pair) => EncoderText::Pair(text, pair),
                    None => EncoderText::Single(text),
                };
                texts.zip(pairs).map(read).collect()
            }
            (None, Some(types)) => ids
                .zip(types)
                .map(|(ids, types)| {
                    EncoderText::Ids(EncoderInput { ids, type_ids: types.to_vec(), ..Default::default() })
                })
                .collect(),
            (None, None) => texts.map(EncoderText::Single).collect(),
        }
    }
}

#[napi(object, object_to_js = false)]
pub struct EncodeOptions {
    pub max_length: Option<u32>,
    pub truncate: Option<bool>,
    #[napi(ts_type = "'longest' | 'first' | 'second'")]
    pub truncation: Option<String>,
    /// Whether to report progress: inputs that have run, and all.
    pub progress: Option<bool>,
}

impl EncodeOptions {
    pub fn split(self, mailbox: &Mailbox, id: u32) -> (Option<Progress>, engine::EncodeOptions) {
        let default = engine::EncodeOptions::default();
        let options = engine::EncodeOptions {
            max_length: self.max_length.map(|length| length as usize),
            truncate: self.truncate.unwrap_or(default.truncate),
            truncation: match self.truncation.as_deref() {
                Some("first") => Truncation::First,
                Some("second") => Truncation::Second,
                _ => default.truncation,
            },
        };
        (self.progress.unwrap_or(false).then(|| mailbox.counting(id)), options)
    }
}

#[napi(object, object_to_js = false)]
pub struct EncoderWant {
    pub last_hidden_state: bool,
    /// Of which layers; absent: all.
    pub hidden_states: bool,
    pub hidden_layers: Option<Vec<u32>>,
    pub attentions: bool,
    pub attention_layers: Option<Vec<u32>>,
    pub pooled: bool,
    pub logits: bool,
}

impl From<EncoderWant> for engine::EncoderWant {
    fn from(want: EncoderWant) -> Self {
        Self {
            last_hidden_state: want.last_hidden_state,
            hidden_states: layers(want.hidden_states, want.hidden_layers),
            attentions: layers(want.attentions, want.attention_layers),
            embedding: None,
            pooled: want.pooled,
            logits: want.logits,
        }
    }
}

fn priority(name: Option<&str>) -> Priority {
    match name {
        Some("batch") => Priority::Batch,
        _ => Priority::default(),
    }
}

fn layers(any: bool, chosen: Option<Vec<u32>>) -> Layers {
    match chosen {
        _ if !any => Layers::None,
        None => Layers::All,
        Some(chosen) => Layers::Some(chosen.into_iter().map(|layer| layer as usize).collect()),
    }
}

fn dtype(name: &str) -> engine::Result<Dtype> {
    match name {
        "f32" => Ok(Dtype::F32),
        "f16" => Ok(Dtype::F16),
        "bf16" => Ok(Dtype::Bf16),
        "q8_0" => Ok(Dtype::Q8_0),
        "q4_0" => Ok(Dtype::Q4_0),
        "int8" => Ok(Dtype::Int8),
        _ => Err(EngineError::OptionInvalid { option: "dtype", reason: format!("there is no {name}") }),
    }
}

fn device(name: &str) -> engine::Result<Device> {
    let unknown = || EngineError::OptionInvalid { option: "device", reason: format!("there is no {name}") };
    match name {
        "auto" => Ok(Device::Auto),
        "cpu" => Ok(Device::Cpu),
        "cuda" => Ok(Device::Cuda(0)),
        _ => {
            let ordinal = name.strip_prefix("cuda:").and_then(|ordinal| ordinal.parse().ok());
            ordinal.map(Device::Cuda).ok_or_else(unknown)
        }
    }
}
