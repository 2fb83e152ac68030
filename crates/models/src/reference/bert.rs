//! BERT, Devlin et al. 2018, "BERT: Pre-training of Deep Bidirectional Transformers", on Candle: differentiable, on any
//! device.
//!
//! Names mirror the checkpoint's. `bert_cpu.rs` runs the same checkpoint on packed CPU kernels.

use candle_core::{Device, Tensor};
use serde::Deserialize;

use crate::files::config::of_head as names_of_head;
use crate::files::folder::ModelFolder;
use crate::files::foreign;
use crate::files::reading::fields;
use crate::files::weights::Weights;
use crate::reference::layers::{
    Activation, LayerNorm, Linear, Params, attention, embed, merge_heads, softmax_scale, split_heads,
};
use crate::{EncoderHead, ModelError, Result};

/// transformers' `BertConfig`: the keys that change the mathematics of a forward pass.
#[derive(Debug, Clone, Deserialize)]
pub struct Config {
    pub vocab_size: usize,
    pub hidden_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    pub intermediate_size: usize,
    pub max_position_embeddings: usize,
    #[serde(default = "two")]
    pub type_vocab_size: usize,
    #[serde(default = "gelu")]
    pub hidden_act: Activation,
    #[serde(default = "epsilon")]
    pub layer_norm_eps: f64,
    #[serde(default = "yes")]
    pub tie_word_embeddings: bool,
    #[serde(default)]
    position_embedding_type: Option<String>,
    #[serde(default)]
    is_decoder: bool,
}

fn two() -> usize {
    2
}
fn gelu() -> Activation {
    Activation::Gelu
}
fn epsilon() -> f64 {
    1e-12
}
fn yes() -> bool {
    true
}

impl Config {
    pub fn from_folder(folder: &ModelFolder) -> Result<Self> {
        if folder.model_type()? != "bert" {
            return Err(foreign::model_type(&folder.config));
        }
        let config: Self = fields(&folder.config, "config.json")?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<()> {
        let sizes = [
            ("vocab_size", self.vocab_size, 1 << 24),
            ("hidden_size", self.hidden_size, 1 << 16),
            ("num_hidden_layers", self.num_hidden_layers, 1 << 10),
            ("num_attention_heads", self.num_attention_heads, 1 << 10),
            ("intermediate_size", self.intermediate_size, 1 << 18),
            ("max_position_embeddings", self.max_position_embeddings, 1 << 20),
            ("type_vocab_size", self.type_vocab_size, 1 << 16),
        ];
        for (name, value, limit) in sizes {
            if value == 0 || value > limit {
                return Err(ModelError::Config(format!("{name} is {value}, expected 1 to {limit}")));
            }
        }
        if !self.hidden_size.is_multiple_of(self.num_attention_heads) {
            return Err(ModelError::Config("hidden_size is not a multiple of num_attention_heads".into()));
        }
        if !(self.layer_norm_eps > 0.0 && self.layer_norm_eps < 1.0) {
            return Err(ModelError::Config(format!("layer_norm_eps is {}", self.layer_norm_eps)));
        }
        if self.is_decoder {
            return Err(ModelError::UnsupportedModel("BERT as a decoder".into()));
        }
        match self.position_embedding_type.as_deref() {
            None | Some("absolute") => Ok(()),
            Some(other) => Err(ModelError::UnsupportedModel(format!("position_embedding_type {other:?}"))),
        }
    }

    pub fn head_dim(&self) -> usize {
        self.hidden_size / self.num_attention_heads
    }

    /// The masked-LM decoder's weight (V, H): the word embeddings where it is tied.
    pub(crate) fn decoder_weight(&self) -> &'static str {
        if self.tie_word_embeddings {
            "embeddings.word_embeddings.weight"
        } else {
            "cls.predictions.decoder.weight"
        }
    }

    /// The bias that transformers adds: the decoder's own, of which `cls.predictions.bias` is the older name.
    pub fn decoder_bias(weights: &Weights) -> &'static str {
        let own = "cls.predictions.decoder.bias";
        if weights.contains(own) { own } else { "cls.predictions.bias" }
    }

    pub fn parameter_count(&self, head: EncoderHead, classes: usize, pooler: bool) -> u64 {
        let (v, h, inner) = (self.vocab_size, self.hidden_size, self.intermediate_size);
        let square = h * h + h;
        let embeddings = (v + self.max_position_embeddings + self.type_vocab_size + 2) * h;
        let layer = 4 * square + 2 * h * inner + inner + h + 4 * h;
        let head = match head {
            EncoderHead::None => 0,
            EncoderHead::MaskedLm => square + 2 * h + v + if self.tie_word_embeddings { 0 } else { v * h },
            EncoderHead::SequenceClassification | EncoderHead::TokenClassification => (h + 1) * classes,
            EncoderHead::QuestionAnswering => (h + 1) * 2,
        };
        (embeddings + self.num_hidden_layers * layer + if pooler { square } else { 0 } + head) as u64
    }
}

/// Which head a checkpoint has: what `architectures` says, else what its tensors say.
pub fn head_of(folder: &ModelFolder, weights: &Weights) -> EncoderHead {
    let architecture = folder.config["architectures"][0].as_str().unwrap_or_default();
    match architecture {
        "BertForMaskedLM" | "BertForPreTraining" => EncoderHead::MaskedLm,
        "BertForSequenceClassification" => EncoderHead::SequenceClassification,
        "BertForTokenClassification" => EncoderHead::TokenClassification,
        "BertForQuestionAnswering" => EncoderHead::QuestionAnswering,
        "" if weights.contains("qa_outputs.weight") => EncoderHead::QuestionAnswering,
        "" | "BertModel" if classifier_of(weights).is_some() => EncoderHead::SequenceClassification,
        "" if weights.contains("cls.predictions.transform.dense.weight") => EncoderHead::MaskedLm,
        _ => EncoderHead::None,
    }
}

/// Names of a linear layer over the pooled output: transformers' `classifier`, and those common in modules that wrap a
/// `BertModel` (`pooled → dropout → linear`).
pub(crate) fn classifier_of(weights: &Weights) -> Option<&'static str> {
    ["classifier", "linear", "out", "fc"].into_iter().find(|name| weights.contains(&format!("{name}.weight")))
}

/// A bound far above any label set: an untrusted header may claim any number.
const MAX_CLASSES: usize = 1 << 16;

/// The classes of a classification head: `id2label`, else `LABEL_0` … for as many rows as `classifier` has.
pub fn labels_of(folder: &ModelFolder, weights: &Weights, head: EncoderHead) -> Result<Vec<String>> {
    if head == EncoderHead::QuestionAnswering {
        // A start and an end.
        names_of_head(&folder.config, folder.is_adapter(), 2)?;
    }
    if !matches!(head, EncoderHead::SequenceClassification | EncoderHead::TokenClassification) {
        return Ok(Vec::new());
    }
    let bias = format!("{}.bias", classifier_of(weights).unwrap_or("classifier"));
    let classes = weights.shape(&bias).and_then(|shape| shape.first().copied());
    let classes = classes.ok_or(ModelError::MissingTensor(bias))?;
    if classes == 0 || classes > MAX_CLASSES {
        return Err(ModelError::Config(format!("a classifier of {classes} classes")));
    }
    names_of_head(&folder.config, folder.is_adapter(), classes)
}

struct Layer {
    query: Linear,
    key: Linear,
    value: Linear,
    attention_output: Linear,
    attention_norm: LayerNorm,
    intermediate: Linear,
    output: Linear,
    output_norm: LayerNorm,
    heads: usize,
    scale: f64,
    activation: Activation,
}

impl Layer {
    fn load(params: &Params, index: usize, config: &Config) -> Result<Self> {
        let (h, inner, eps) = (config.hidden_size, config.intermediate_size, config.layer_norm_eps);
        let name = |part: &str| format!("encoder.layer.{index}.{part}");
        let square = |part: &str| Linear::linear(params, &name(part), h, h);
        Ok(Self {
            query: square("attention.self.query")?,
            key: square("attention.self.key")?,
            value: square("attention.self.value")?,
            attention_output: square("attention.output.dense")?,
            attention_norm: LayerNorm::load(params, &name("attention.output.LayerNorm"), h, eps)?,
            intermediate: Linear::linear(params, &name("intermediate.dense"), h, inner)?,
            output: Linear::linear(params, &name("output.dense"), inner, h)?,
            output_norm: LayerNorm::load(params, &name("output.LayerNorm"), h, eps)?,
            heads: config.num_attention_heads,
            scale: softmax_scale(config.head_dim(), true),
            activation: config.hidden_act,
        })
    }

    /// x: (B, T, H); visible: (B, 1, 1, T) u8.
    fn forward(&self, x: &Tensor, visible: Option<&Tensor>) -> Result<Tensor> {
        let part = |linear: &Linear| split_heads(&linear.forward(x)?, self.heads);
        let y = attention(&part(&self.query)?, &part(&self.key)?, &part(&self.value)?, self.scale, visible)?;
        let y = self.attention_output.forward(&merge_heads(&y)?)?;
        let x = self.attention_norm.forward(&(x + y)?)?;
        let y = self.output.forward(&self.activation.forward(&self.intermediate.forward(&x)?)?)?;
        self.output_norm.forward(&(x + y)?)
    }
}

enum Head {
    None,
    /// dense → activation → norm → the word embeddings, tied or not.
    MaskedLm {
        dense: Linear,
        norm: LayerNorm,
        decoder: Linear,
        activation: Activation,
    },
    /// From the pooled output.
    Sequence(Linear),
    /// From every token: classes, or start and end scores.
    Token(Linear),
}

impl Head {
    fn load(params: &Params, kind: EncoderHead, classes: usize, config: &Config) -> Result<Self> {
        let (v, h) = (config.vocab_size, config.hidden_size);
        Ok(match kind {
            EncoderHead::None => Self::None,
            EncoderHead::MaskedLm => {
                let decoder = params.get(config.decoder_weight(), &[v, h])?;
                let bias = params.get(Config::decoder_bias(params.weights()), &[v])?;
                Self::MaskedLm {
                    dense: Linear::linear(params, "cls.predictions.transform.dense", h, h)?,
                    norm: LayerNorm::load(
                        params,
                        "cls.predictions.transform.LayerNorm",
                        h,
                        config.layer_norm_eps,
                    )?,
                    decoder: Linear::onto(&decoder, Some(bias))?,
                    activation: config.hidden_act,
                }
            }
            EncoderHead::SequenceClassification => {
                let name = classifier_of(params.weights()).unwrap_or("classifier");
                Self::Sequence(Linear::linear(params, name, h, classes)?)
            }
            EncoderHead::TokenClassification => {
                Self::Token(Linear::linear(params, "classifier", h, classes)?)
            }
            EncoderHead::QuestionAnswering => Self::Token(Linear::linear(params, "qa_outputs", h, 2)?),
        })
    }
}

pub struct Bert {
    pub config: Config,
    word_embeddings: Tensor,
    position_embeddings: Tensor,
    token_type_embeddings: Tensor,
    norm: LayerNorm,
    layers: Vec<Layer>,
    pooler: Option<Linear>,
    head: Head,
    device: Device,
}

impl Bert {
    /// `pooler`: the checkpoint has one; `classes`: the width of a classification head.
    pub fn load(
        params: &Params,
        config: &Config,
        pooler: bool,
        head: EncoderHead,
        classes: usize,
    ) -> Result<Self> {
        let h = config.hidden_size;
        let table = |name: &str, rows: usize| params.get(&format!("embeddings.{name}.weight"), &[rows, h]);
        let word_embeddings = table("word_embeddings", config.vocab_size)?;
        let pooler = if pooler { Some(Linear::linear(params, "pooler.dense", h, h)?) } else { None };
        Ok(Self {
            config: config.clone(),
            position_embeddings: table("position_embeddings", config.max_position_embeddings)?,
            token_type_embeddings: table("token_type_embeddings", config.type_vocab_size)?,
            norm: LayerNorm::load(params, "embeddings.LayerNorm", h, config.layer_norm_eps)?,
            layers: (0..config.num_hidden_layers)
                .map(|i| Layer::load(params, i, config))
                .collect::<Result<_>>()?,
            pooler,
            head: Head::load(params, head, classes, config)?,
            word_embeddings,
            device: params.device().clone(),
        })
    }

    pub fn device(&self) -> &Device {
        &self.device
    }

    pub fn has_pooler(&self) -> bool {
        self.pooler.is_some()
    }

    /// ids, type_ids: (B, T) u32; mask: (B, T) u8, 1 for a token that is there → the embeddings' and each layer's
    /// output, `num_hidden_layers` + 1 of (B, T, H).
    pub fn hidden_states(
        &self,
        ids: &Tensor,
        type_ids: &Tensor,
        mask: Option<&Tensor>,
        stop: &dyn Fn() -> bool,
    ) -> Result<Vec<Tensor>> {
        let (b, t) = ids.dims2()?;
        let n = self.config.max_position_embeddings;
        if t > n {
            return Err(ModelError::Input(format!("{t} tokens, the model has {n} positions")));
        }
        let x = (embed(&self.word_embeddings, ids)? + embed(&self.token_type_embeddings, type_ids)?)?;
        let x = x.broadcast_add(&self.position_embeddings.narrow(0, 0, t)?)?;
        let visible = mask.map(|mask| mask.reshape((b, 1, 1, t))).transpose()?;
        let mut states = vec![self.norm.forward(&x)?];
        for layer in &self.layers {
            if stop() {
                return Err(ModelError::Stopped);
            }
            states.push(layer.forward(&states[states.len() - 1], visible.as_ref())?);
        }
        Ok(states)
    }

    /// tanh(W h₀ + b) of the first token: (B, T, H) → (B, H).
    pub fn pooled(&self, last_hidden_state: &Tensor) -> Result<Tensor> {
        let pooler =
            self.pooler.as_ref().ok_or_else(|| ModelError::Input("the model has no pooler".into()))?;
        let first = last_hidden_state.narrow(1, 0, 1)?.squeeze(1)?.contiguous()?;
        Ok(pooler.forward(&first)?.tanh()?)
    }

    /// Logits of the head: sequence classification (B, C), token classification (B, T, C), question answering (B, T,
    /// 2), masked LM (B, T, V).
    pub fn logits(&self, last_hidden_state: &Tensor) -> Result<Tensor> {
        match &self.head {
            Head::None => Err(ModelError::Input("the model has no head".into())),
            Head::MaskedLm { dense, norm, decoder, activation } => {
                let x = activation.forward(&dense.forward(last_hidden_state)?)?;
                decoder.forward(&norm.forward(&x)?)
            }
            Head::Sequence(classifier) => classifier.forward(&self.pooled(last_hidden_state)?),
            Head::Token(classifier) => classifier.forward(last_hidden_state),
        }
    }
}
