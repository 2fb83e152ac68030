//! What the engine sees of a model: a causal language model that extends sequences, an encoder that reads texts.
//! A batch is a list of sequences without padding; each row's result does not depend on what else is in the batch.

use std::sync::Arc;

use crate::{Dtype, EncoderUsage, Result};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Device {
    /// CUDA where this build has it, a GPU is there and it can take what is asked for (f32, from a folder), else the
    /// CPU.
    Auto,
    Cpu,
    Cuda,
}

/// How to load. What to load is always a path: hub ids become a local folder in `src/hub.ts`, before Rust is called.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// `None`: the checkpoint's own precision, f32 or f16.
    pub dtype: Option<Dtype>,
    pub device: Device,
    /// Model threads, the calling one included; 0 = as many as the machine allows this process.
    pub threads: usize,
    /// LoRA adapters in PEFT's files: name and folder. The packed CPU models only.
    pub adapters: Vec<(String, String)>,
    /// Where what is loaded is an adapter's folder: that of its base. `None`: the path that the adapter gives, absolute
    /// or from its own folder.
    pub base: Option<String>,
    /// Run the differentiable Candle model on the CPU too, instead of the packed kernels: slower, for comparison.
    pub reference: bool,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self {
            dtype: None,
            device: Device::Auto,
            threads: 0,
            adapters: Vec::new(),
            base: None,
            reference: false,
        }
    }
}

/// Progress of a load: `done` of `total` bytes of weights.
#[derive(Debug, Clone, Copy)]
pub struct LoadProgress {
    pub done: u64,
    pub total: u64,
}

/// The callbacks of a load: progress, and whether to stop.
pub trait LoadObserver {
    fn progress(&self, _progress: LoadProgress) {}
    /// Asked between tensors; `true` ends the load with [`crate::ModelError::Stopped`].
    fn stop(&self) -> bool {
        false
    }
}

/// An observer that ignores progress and never stops.
impl LoadObserver for () {}

#[derive(Debug, Clone)]
pub struct CausalInfo {
    pub model_type: &'static str,
    pub vocab_size: usize,
    /// Positions the model has; prompt and continuation together fit in them.
    pub n_positions: usize,
    pub n_layer: usize,
    pub n_embd: usize,
    pub n_head: usize,
    pub parameters: u64,
    /// Bytes of weights in memory.
    pub weight_bytes: u64,
    pub bos_token_id: Option<u32>,
    pub eos_token_ids: Vec<u32>,
    pub dtype: Dtype,
    pub device: &'static str,
    pub threads: usize,
    /// Names of the adapters that a sequence may have.
    pub adapters: Vec<String>,
}

/// Keys and values of one sequence's past, for every layer, allocated once for `capacity` positions.
pub trait Cache: Send {
    fn len(&self) -> usize;
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    fn capacity(&self) -> usize;
    /// Which of the model's adapters made these keys and values, and takes part in what is appended.
    fn adapter(&self) -> Option<usize> {
        None
    }
    /// Forgets all positions from `len` on.
    fn truncate(&mut self, len: usize);
    /// A copy with room for `capacity` positions (at least `self.len()`).
    fn fork(&self, capacity: usize) -> Result<Box<dyn Cache>>;
    fn as_any(&self) -> &dyn std::any::Any;
    fn as_any_mut(&mut self) -> &mut dyn std::any::Any;
}

/// Which of a step's tokens need logits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogitsOf {
    /// A prefill chunk with more to come.
    None,
    /// The last token's: `logits` becomes (V).
    Last,
    /// Every token's: `logits` becomes (T, V).
    All,
}

/// One sequence's part of a forward pass: `tokens` (T ≥ 1) are appended to `cache`, `logits` is overwritten.
pub struct SequenceStep<'a> {
    pub tokens: &'a [u32],
    pub cache: &'a mut dyn Cache,
    pub want: LogitsOf,
    pub logits: &'a mut Vec<f32>,
}

pub trait CausalLm: Send {
    fn info(&self) -> &CausalInfo;

    /// A cache for at most `capacity` positions (1 ..= `n_positions`).
    fn new_cache(&self, capacity: usize) -> Result<Box<dyn Cache>>;

    /// A cache for a sequence with adapter `adapter` of `info().adapters`.
    fn new_adapted_cache(&self, _capacity: usize, adapter: usize) -> Result<Box<dyn Cache>> {
        Err(crate::ModelError::Input(format!("the model has no adapter {adapter}")))
    }

    /// Runs one step of every sequence in `batch`. `stop` is asked before each layer; if it says `true` the step ends
    /// with [`crate::ModelError::Stopped`] and every cache is as long as it was before.
    fn forward(&mut self, batch: &mut [SequenceStep<'_>], stop: &dyn Fn() -> bool) -> Result<()>;

    /// While the guard lives the model's helper threads spin for work instead of sleeping. Held while a request runs.
    fn active(&self) -> Box<dyn std::any::Any> {
        Box::new(())
    }
}

/// The head of a BERT checkpoint.
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
    pub device: &'static str,
    pub threads: usize,
}

/// One text: ids and their token types, both (T), without padding.
#[derive(Debug, Clone, Default)]
pub struct EncoderInput {
    pub ids: Vec<u32>,
    pub type_ids: Vec<u32>,
    /// Tokens whose masked-LM logits are wanted, in order; empty: all of them.
    pub logits_at: Vec<u32>,
}

/// Which of a model's layers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Layers {
    #[default]
    None,
    All,
    Some(Arc<[usize]>),
}

impl Layers {
    pub fn contains(&self, index: usize) -> bool {
        match self {
            Self::None => false,
            Self::All => true,
            Self::Some(chosen) => chosen.contains(&index),
        }
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EncoderWant {
    pub last_hidden_state: bool,
    /// Of the embeddings' output (0) and every layer's (1 ..= `layers`).
    pub hidden_states: Layers,
    /// Of every layer (0 .. `layers`): attention weights.
    pub attentions: Layers,
    pub pooled: bool,
    /// The head's logits.
    pub logits: bool,
}

#[derive(Debug, Clone, Default)]
pub struct EncoderOutput {
    /// (T, H)
    pub last_hidden_state: Vec<f32>,
    /// (T, H) each, of the layers that were chosen, the first one first.
    pub hidden_states: Vec<Vec<f32>>,
    /// (heads, T, T) each: row i holds the attention weights of token i, which sum to 1.
    pub attentions: Vec<Vec<f32>>,
    /// (H)
    pub pooled: Vec<f32>,
    /// Sequence classification (C); token classification (T, C); question answering (T, 2); masked LM (T, V), or
    /// (n, V) for the n tokens of `logits_at`.
    pub logits: Vec<f32>,
}

pub trait Encoder: Send {
    fn info(&self) -> &EncoderInfo;

    /// Outputs in the order of `batch`. `stop` is asked before each layer.
    fn forward(
        &mut self,
        batch: &[EncoderInput],
        want: &EncoderWant,
        stop: &dyn Fn() -> bool,
    ) -> Result<Vec<EncoderOutput>>;

    fn active(&self) -> Box<dyn std::any::Any> {
        Box::new(())
    }
}
