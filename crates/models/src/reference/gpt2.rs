//! GPT-2, Radford et al. 2019, "Language Models are Unsupervised Multitask Learners", on Candle: differentiable, on any
//! device.
//!
//! Names mirror the checkpoint's. `gpt2_cpu.rs` runs the same checkpoint on packed CPU kernels.

use candle_core::{Device, Tensor};
use serde::Deserialize;
use serde_json::Value;

use crate::family::heads::class_names;
use crate::files::folder::ModelFolder;
use crate::files::foreign;
use crate::files::gguf::Gguf;
use crate::files::gguf_metadata::short;
use crate::files::reading::fields;
use crate::files::weights::Weights;
use crate::reference::layers::{
    Activation, LayerNorm, Linear, Params, attention, causal_mask, embed, merge_heads, softmax_scale,
    split_heads,
};
use crate::{ModelError, Result};

/// transformers' `GPT2Config`: the keys that change the mathematics of a forward pass.
#[derive(Debug, Clone, Deserialize)]
pub struct Config {
    pub vocab_size: usize,
    #[serde(alias = "n_ctx")]
    pub n_positions: usize,
    pub n_embd: usize,
    pub n_layer: usize,
    pub n_head: usize,
    /// Width of the feed-forward layer; 4 × `n_embd` if absent.
    pub n_inner: Option<usize>,
    #[serde(default = "gelu_new")]
    pub activation_function: Activation,
    #[serde(default = "epsilon")]
    pub layer_norm_epsilon: f64,
    /// Scores are divided by √head width.
    #[serde(default = "yes")]
    pub scale_attn_weights: bool,
    /// Scores are also divided by layer index + 1.
    #[serde(default)]
    pub scale_attn_by_inverse_layer_idx: bool,
    /// The head is `wte`, transposed.
    #[serde(default = "yes")]
    pub tie_word_embeddings: bool,
    #[serde(default)]
    add_cross_attention: bool,
}

/// transformers' general names for GPT-2's own.
const ALIASES: [(&str, &str); 4] = [
    ("hidden_size", "n_embd"),
    ("num_hidden_layers", "n_layer"),
    ("num_attention_heads", "n_head"),
    ("max_position_embeddings", "n_positions"),
];

/// Refuses a field that stands there under both names with two values.
fn under_one_name(config: &mut Value) -> Result<()> {
    let Some(object) = config.as_object_mut() else { return Ok(()) };
    for (alias, own) in ALIASES {
        let Some(value) = object.remove(alias) else { continue };
        let here = object.entry(own).or_insert(value.clone());
        if *here != value {
            let what = format!("config.json: {own} is {here}, and {alias}, which is the same, is {value}");
            return Err(ModelError::Inconsistent(what));
        }
    }
    Ok(())
}

fn gelu_new() -> Activation {
    Activation::GeluNew
}
fn epsilon() -> f64 {
    1e-5
}
fn yes() -> bool {
    true
}

impl Config {
    /// Of a language model.
    pub fn from_folder(folder: &ModelFolder) -> Result<Self> {
        if let Some(error) = foreign::gpt2_head(&folder.config) {
            return Err(error);
        }
        Self::of_body(folder)
    }

    /// Of a classifier, or of what becomes one: no language model's head is read.
    pub fn of_classifier(folder: &ModelFolder) -> Result<Self> {
        Ok(Self { tie_word_embeddings: true, ..Self::of_body(folder)? })
    }

    fn of_body(folder: &ModelFolder) -> Result<Self> {
        if folder.model_type()? != "gpt2" {
            return Err(foreign::model_type(&folder.config));
        }
        let mut config = folder.config.clone();
        if let Some(object) = config.as_object_mut()
            && object.contains_key("n_positions")
        {
            object.remove("n_ctx"); // an old synonym that some checkpoints carry beside the new name
        }
        under_one_name(&mut config)?;
        let config: Self = fields(&config, "config.json")?;
        config.check()?;
        Ok(config)
    }

    /// What a GGUF file's metadata says. Its GPT-2 always has the original's activation and scaling.
    pub(crate) fn from_gguf(gguf: &Gguf) -> Result<Self> {
        let metadata = &gguf.metadata;
        let architecture = metadata.text("general.architecture")?;
        if architecture != Some("gpt2") {
            let found = architecture.map_or("missing".into(), short);
            return Err(ModelError::UnsupportedModel(format!(
                "{}: general.architecture is {found}, expected \"gpt2\"",
                gguf.name
            )));
        }
        let embedding = gguf
            .tensors
            .get("wte.weight")
            .ok_or_else(|| ModelError::MissingTensor("token_embd.weight".into()))?;
        let epsilon = "gpt2.attention.layer_norm_epsilon";
        let config = Self {
            vocab_size: embedding.shape.first().copied().unwrap_or(0),
            n_positions: metadata.size("gpt2.context_length")?,
            n_embd: metadata.size("gpt2.embedding_length")?,
            n_layer: metadata.size("gpt2.block_count")?,
            n_head: metadata.size("gpt2.attention.head_count")?,
            // Its tensors' shapes say it too.
            n_inner: metadata.size_if_any("gpt2.feed_forward_length")?,
            activation_function: gelu_new(),
            layer_norm_epsilon: metadata
                .float(epsilon)?
                .ok_or_else(|| metadata.bad(epsilon, "is missing"))?,
            scale_attn_weights: true,
            scale_attn_by_inverse_layer_idx: false,
            tie_word_embeddings: !gguf.tensors.contains_key("lm_head.weight")
                || gguf.same("wte.weight", "lm_head.weight")?,
            add_cross_attention: false,
        };
        config.check()?;
        config.check_gguf(gguf)?;
        Ok(config)
    }

    /// Refuses what the file says that a GPT-2 is not: other keys, other sizes, further tensors.
    fn check_gguf(&self, gguf: &Gguf) -> Result<()> {
        let metadata = &gguf.metadata;
        for key in metadata.keys("gpt2.") {
            let expected = match key.strip_prefix("gpt2.").unwrap_or(key) {
                "context_length" | "embedding_length" | "block_count" | "feed_forward_length" => continue,
                "attention.head_count" | "attention.layer_norm_epsilon" => continue,
                "vocab_size" => self.vocab_size,
                "attention.head_count_kv" => self.n_head,
                "attention.key_length" | "attention.value_length" => self.head_dim(),
                "attention.causal" if metadata.flag(key)? == Some(true) => continue,
                "attention.causal" => return Err(metadata.bad(key, "is false")),
                _ => {
                    let what = format!("{}: {}, which a GPT-2 does not have", gguf.name, short(key));
                    return Err(ModelError::UnsupportedModel(what));
                }
            };
            let found = metadata.size(key)?;
            if found != expected {
                return Err(metadata.bad(key, format!("is {found}, the model's is {expected}")));
            }
        }
        gguf.check_tensors(&self.parameters(), "lm_head.weight")
    }

    fn check(&self) -> Result<()> {
        let sizes = [
            ("vocab_size", self.vocab_size, 1 << 24),
            ("n_positions", self.n_positions, 1 << 20),
            ("n_embd", self.n_embd, 1 << 16),
            ("n_layer", self.n_layer, 1 << 10),
            ("n_head", self.n_head, 1 << 10),
            ("n_inner", self.n_inner(), 1 << 18),
        ];
        for (name, value, limit) in sizes {
            if value == 0 || value > limit {
                return Err(ModelError::Config(format!("{name} is {value}, expected 1 to {limit}")));
            }
        }
        if !self.n_embd.is_multiple_of(self.n_head) {
            let Self { n_embd, n_head, .. } = self;
            return Err(ModelError::Config(format!("n_embd {n_embd} is not a multiple of n_head {n_head}")));
        }
        if !(self.layer_norm_epsilon > 0.0 && self.layer_norm_epsilon < 1.0) {
            return Err(ModelError::Config(format!("layer_norm_epsilon is {}", self.layer_norm_epsilon)));
        }
        if self.add_cross_attention {
            return Err(ModelError::UnsupportedModel("GPT-2 with cross-attention".into()));
        }
        Ok(())
    }

    pub fn n_inner(&self) -> usize {
        self.n_inner.unwrap_or(4 * self.n_embd)
    }

    pub fn head_dim(&self) -> usize {
        self.n_embd / self.n_head
    }

    /// What the scores of layer `index` are multiplied by.
    pub fn attention_scale(&self, index: usize) -> f64 {
        softmax_scale(self.head_dim(), self.scale_attn_weights)
            / if self.scale_attn_by_inverse_layer_idx { (index + 1) as f64 } else { 1.0 }
    }

    /// Every parameter: name, shape. The first is the embedding.
    pub fn parameters(&self) -> Vec<(String, Vec<usize>)> {
        let (d, inner) = (self.n_embd, self.n_inner());
        let mut all = vec![
            ("wte.weight".into(), vec![self.vocab_size, d]),
            ("wpe.weight".into(), vec![self.n_positions, d]),
        ];
        for i in 0..self.n_layer {
            let shapes: [(&str, &[usize]); 12] = [
                ("ln_1.weight", &[d]),
                ("ln_1.bias", &[d]),
                ("attn.c_attn.weight", &[d, 3 * d]),
                ("attn.c_attn.bias", &[3 * d]),
                ("attn.c_proj.weight", &[d, d]),
                ("attn.c_proj.bias", &[d]),
                ("ln_2.weight", &[d]),
                ("ln_2.bias", &[d]),
                ("mlp.c_fc.weight", &[d, inner]),
                ("mlp.c_fc.bias", &[inner]),
                ("mlp.c_proj.weight", &[inner, d]),
                ("mlp.c_proj.bias", &[d]),
            ];
            all.extend(shapes.map(|(name, shape)| (format!("h.{i}.{name}"), shape.to_vec())));
        }
        all.extend([("ln_f.weight".into(), vec![d]), ("ln_f.bias".into(), vec![d])]);
        if !self.tie_word_embeddings {
            all.push(("lm_head.weight".into(), vec![self.vocab_size, d]));
        }
        all
    }

    pub fn parameter_count(&self) -> u64 {
        self.parameters().iter().map(|(_, shape)| shape.iter().product::<usize>() as u64).sum()
    }
}

/// The weight of a classifier (C, D), which has no bias.
pub const SCORE: &str = "score.weight";

/// Whether a checkpoint is a `GPT2ForSequenceClassification`: what `architectures` says, else what its tensors say.
pub fn is_classifier(folder: &ModelFolder, weights: &Weights) -> bool {
    match folder.config["architectures"][0].as_str() {
        Some(architecture) => architecture == "GPT2ForSequenceClassification",
        None => weights.contains(SCORE),
    }
}

/// The classes of a classifier, by its weight and `id2label`.
pub fn labels_of(folder: &ModelFolder, weights: &Weights) -> Result<Vec<String>> {
    let classes = weights.shape(SCORE).and_then(|shape| shape.first().copied());
    class_names(folder, classes.ok_or_else(|| ModelError::MissingTensor(SCORE.into()))?)
}

/// `pad_token_id`: ids of it do not count as a text's last token. A number that is no id of the model never does.
pub fn padding_of(folder: &ModelFolder) -> Result<Option<u32>> {
    match &folder.config["pad_token_id"] {
        Value::Null => Ok(None),
        value if value.is_i64() || value.is_u64() => Ok(value.as_u64().and_then(|id| id.try_into().ok())),
        value => Err(ModelError::Config(format!("config.json: pad_token_id: {value} is not a token id"))),
    }
}

/// Where the token is whose scores are a text's: the last one that is not padding; the first if all are, as in
/// transformers.
pub fn last_token(ids: &[u32], padding: Option<u32>) -> usize {
    match padding {
        Some(padding) => ids.iter().rposition(|id| *id != padding).unwrap_or(0),
        None => ids.len() - 1,
    }
}

struct Attention {
    c_attn: Linear,
    c_proj: Linear,
    n_head: usize,
    scale: f64,
}

impl Attention {
    fn load(params: &Params, index: usize, config: &Config) -> Result<Self> {
        let d = config.n_embd;
        Ok(Self {
            c_attn: Linear::conv1d(params, &format!("h.{index}.attn.c_attn"), d, 3 * d)?,
            c_proj: Linear::conv1d(params, &format!("h.{index}.attn.c_proj"), d, d)?,
            n_head: config.n_head,
            scale: config.attention_scale(index),
        })
    }

    /// x: (B, T, D). `past` holds keys and values (B, H, S, D/H) and grows by T.
    fn forward(&self, x: &Tensor, past: Option<&mut Past>) -> Result<Tensor> {
        let (_, t, d) = x.dims3()?;
        let qkv = self.c_attn.forward(x)?;
        let part = |i: usize| split_heads(&qkv.narrow(2, i * d, d)?, self.n_head);
        let (q, mut k, mut v) = (part(0)?, part(1)?, part(2)?);
        let mut seen = 0;
        if let Some(past) = past {
            if let Some((past_k, past_v)) = past.as_ref() {
                seen = past_k.dim(2)?;
                k = Tensor::cat(&[past_k, &k], 2)?;
                v = Tensor::cat(&[past_v, &v], 2)?;
            }
            *past = Some((k.clone(), v.clone()));
        }
        let visible = if t == 1 { None } else { Some(causal_mask(seen, t, x.device())?) };
        let y = attention(&q, &k, &v, self.scale, visible.as_ref())?;
        self.c_proj.forward(&merge_heads(&y)?)
    }
}

/// Keys and values of one layer's past, each (B, H, S, D/H).
pub type Past = Option<(Tensor, Tensor)>;

struct Block {
    ln_1: LayerNorm,
    attn: Attention,
    ln_2: LayerNorm,
    c_fc: Linear,
    c_proj: Linear,
    activation: Activation,
}

impl Block {
    fn load(params: &Params, index: usize, config: &Config) -> Result<Self> {
        let (d, inner, eps) = (config.n_embd, config.n_inner(), config.layer_norm_epsilon);
        Ok(Self {
            ln_1: LayerNorm::load(params, &format!("h.{index}.ln_1"), d, eps)?,
            attn: Attention::load(params, index, config)?,
            ln_2: LayerNorm::load(params, &format!("h.{index}.ln_2"), d, eps)?,
            c_fc: Linear::conv1d(params, &format!("h.{index}.mlp.c_fc"), d, inner)?,
            c_proj: Linear::conv1d(params, &format!("h.{index}.mlp.c_proj"), inner, d)?,
            activation: config.activation_function,
        })
    }

    fn forward(&self, x: &Tensor, past: Option<&mut Past>) -> Result<Tensor> {
        let x = (x + self.attn.forward(&self.ln_1.forward(x)?, past)?)?;
        let inner = self.activation.forward(&self.c_fc.forward(&self.ln_2.forward(&x)?)?)?;
        Ok((&x + self.c_proj.forward(&inner)?)?)
    }
}

pub struct Gpt2 {
    pub config: Config,
    wte: Tensor,
    wpe: Tensor,
    h: Vec<Block>,
    ln_f: LayerNorm,
    lm_head: Linear,
    device: Device,
}

impl Gpt2 {
    pub fn load(params: &Params, config: &Config) -> Result<Self> {
        let (v, d) = (config.vocab_size, config.n_embd);
        let wte = params.get("wte.weight", &[v, d])?;
        let head =
            if config.tie_word_embeddings { wte.clone() } else { params.get("lm_head.weight", &[v, d])? };
        Ok(Self {
            config: config.clone(),
            wpe: params.get("wpe.weight", &[config.n_positions, d])?,
            h: (0..config.n_layer).map(|i| Block::load(params, i, config)).collect::<Result<_>>()?,
            ln_f: LayerNorm::load(params, "ln_f", d, config.layer_norm_epsilon)?,
            lm_head: Linear::onto(&head, None)?,
            wte,
            device: params.device().clone(),
        })
    }

    pub fn device(&self) -> &Device {
        &self.device
    }

    /// ids: (B, T) u32 → the residual stream after the embeddings, after each block but the last, and after `ln_f`:
    /// transformers' `hidden_states`, `n_layer` + 1 of (B, T, D).
    pub fn hidden_states(&self, ids: &Tensor) -> Result<Vec<Tensor>> {
        let mut states = vec![self.embed(ids, 0)?];
        for block in &self.h {
            states.push(block.forward(&states[states.len() - 1], None)?);
        }
        let last = states.pop().expect("the embeddings' state");
        states.push(self.ln_f.forward(&last)?);
        Ok(states)
    }

    /// ids: (B, T) u32, positions from 0 → logits (B, T, V).
    pub fn forward(&self, ids: &Tensor) -> Result<Tensor> {
        let mut x = self.embed(ids, 0)?;
        for block in &self.h {
            x = block.forward(&x, None)?;
        }
        self.logits(&x)
    }

    /// One sequence's next tokens (1, T) after `seen` earlier ones → the residual stream (1, T, D), before `ln_f`.
    /// `stop` is asked before each block.
    pub fn extend(
        &self,
        ids: &Tensor,
        seen: usize,
        past: &mut [Past],
        stop: &dyn Fn() -> bool,
    ) -> Result<Tensor> {
        let mut x = self.embed(ids, seen)?;
        for (block, past) in self.h.iter().zip(past) {
            if stop() {
                return Err(ModelError::Stopped);
            }
            x = block.forward(&x, Some(past))?;
        }
        Ok(x)
    }

    /// x: (B, T, D), before `ln_f` → (B, T, V).
    pub fn logits(&self, x: &Tensor) -> Result<Tensor> {
        self.lm_head.forward(&self.ln_f.forward(x)?)
    }

    fn embed(&self, ids: &Tensor, first: usize) -> Result<Tensor> {
        let t = ids.dim(1)?;
        if first + t > self.config.n_positions {
            let n = self.config.n_positions;
            return Err(ModelError::Input(format!("{} positions, the model has {n}", first + t)));
        }
        Ok(embed(&self.wte, ids)?.broadcast_add(&self.wpe.narrow(0, first, t)?)?)
    }
}

/// GPT-2 with a classifier over the state of each text's last token.
pub struct Gpt2Classifier {
    pub body: Gpt2,
    score: Linear,
    padding: Option<u32>,
}

impl Gpt2Classifier {
    /// `padding`: as [`padding_of`] says.
    pub fn load(params: &Params, config: &Config, classes: usize, padding: Option<u32>) -> Result<Self> {
        let score = Linear::onto(&params.get(SCORE, &[classes, config.n_embd])?, None)?;
        Ok(Self { body: Gpt2::load(params, config)?, score, padding })
    }

    /// ids of one text, and its last hidden state (1, T, D) → (1, C).
    pub fn logits(&self, ids: &[u32], last_hidden_state: &Tensor) -> Result<Tensor> {
        let last = last_token(ids, self.padding);
        self.score.forward(&last_hidden_state.narrow(1, last, 1)?.squeeze(1)?.contiguous()?)
    }
}
