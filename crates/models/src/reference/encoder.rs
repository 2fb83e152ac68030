//! What the encoders of BERT's family have in common on Candle: post-norm layers, heads, and the pass through them. A
//! model's file says what its layers' tensors are called and how its embeddings are made; the heads are as its
//! description says.

use candle_core::{Device, Tensor};

use crate::family::architecture::POOLER;
use crate::family::config::Config;
use crate::family::heads::{QA_OUTPUTS, TOKEN_CLASSIFIER, classifier_of};
use crate::reference::layers::{
    Activation, LayerNorm, Linear, Params, attention_with, merge_heads, softmax_scale, split_heads,
};
use crate::{EncoderHead, ModelError, Result};

/// What a layer's modules are called in a checkpoint.
pub struct LayerNames {
    pub query: &'static str,
    pub key: &'static str,
    pub value: &'static str,
    pub attention_output: &'static str,
    pub attention_norm: &'static str,
    pub intermediate: &'static str,
    pub output: &'static str,
    pub output_norm: &'static str,
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
    /// All layers, `{list}.0` and so on.
    fn all(params: &Params, list: &str, names: &LayerNames, config: &Config) -> Result<Vec<Self>> {
        (0..config.num_hidden_layers)
            .map(|i| Self::load(params, &format!("{list}.{i}"), names, config))
            .collect()
    }

    fn load(params: &Params, layer: &str, names: &LayerNames, config: &Config) -> Result<Self> {
        let (h, inner, eps) = (config.hidden_size, config.intermediate_size, config.layer_norm_eps);
        let linear =
            |part: &str, input, output| Linear::linear(params, &format!("{layer}.{part}"), input, output);
        let norm = |part: &str| LayerNorm::load(params, &format!("{layer}.{part}"), h, eps);
        Ok(Self {
            query: linear(names.query, h, h)?,
            key: linear(names.key, h, h)?,
            value: linear(names.value, h, h)?,
            attention_output: linear(names.attention_output, h, h)?,
            attention_norm: norm(names.attention_norm)?,
            intermediate: linear(names.intermediate, h, inner)?,
            output: linear(names.output, inner, h)?,
            output_norm: norm(names.output_norm)?,
            heads: config.num_attention_heads,
            scale: softmax_scale(config.head_dim(), true),
            activation: config.hidden_act,
        })
    }

    /// x: (B, T, H); bias: (1, heads, T, T); visible: (B, 1, 1, T) u8.
    fn forward(&self, x: &Tensor, bias: Option<&Tensor>, visible: Option<&Tensor>) -> Result<Tensor> {
        let part = |linear: &Linear| split_heads(&linear.forward(x)?, self.heads);
        let (q, k, v) = (part(&self.query)?, part(&self.key)?, part(&self.value)?);
        let y = attention_with(&q, &k, &v, self.scale, bias, visible)?;
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
        activation: Activation,
        norm: LayerNorm,
        decoder: Linear,
    },
    /// dense → activation → classifier of the first token; without a dense layer of its own, of the pooled output.
    Sequence {
        dense: Option<(Linear, Activation)>,
        classifier: Linear,
    },
    /// From every token: classes, or start and end scores.
    Token(Linear),
}

impl Head {
    /// `embeddings`: the word embeddings, (V, E).
    fn load(
        params: &Params,
        config: &Config,
        kind: EncoderHead,
        classes: usize,
        embeddings: &Tensor,
    ) -> Result<Self> {
        let (v, e, h) = (config.vocab_size, config.embedding_size, config.hidden_size);
        let (sequence, masked_lm) = (&config.architecture.sequence, &config.architecture.masked_lm);
        let linear = |name: &str, output: usize| Linear::linear(params, name, h, output);
        Ok(match kind {
            EncoderHead::None => Self::None,
            EncoderHead::MaskedLm => {
                let weight = match config.tie_word_embeddings {
                    true => embeddings.clone(),
                    false => params.get(&config.decoder_weight(), &[v, e])?,
                };
                let bias = params.get(&config.decoder_bias(Some(params.weights())), &[v])?;
                Self::MaskedLm {
                    dense: linear(masked_lm.dense, e)?,
                    activation: config.masked_lm_activation(),
                    norm: LayerNorm::load(params, masked_lm.norm, e, config.layer_norm_eps)?,
                    decoder: Linear::onto(&weight, Some(bias))?,
                }
            }
            EncoderHead::SequenceClassification => {
                let own = !config.architecture.classifies_pooled();
                let name = classifier_of(config.architecture, params.weights());
                Self::Sequence {
                    dense: own
                        .then(|| linear(sequence.dense, h))
                        .transpose()?
                        .map(|d| (d, sequence.activation)),
                    classifier: linear(name.unwrap_or(sequence.classifier), classes)?,
                }
            }
            EncoderHead::TokenClassification => Self::Token(linear(TOKEN_CLASSIFIER, classes)?),
            EncoderHead::QuestionAnswering => Self::Token(linear(QA_OUTPUTS, 2)?),
        })
    }
}

/// What is above a model's embeddings.
pub struct Body {
    pub config: Config,
    pub device: Device,
    layers: Vec<Layer>,
    pooler: Option<Linear>,
    head: Head,
}

/// What of a checkpoint is loaded.
#[derive(Clone, Copy)]
pub struct Parts {
    /// The checkpoint has a pooler.
    pub pooler: bool,
    pub head: EncoderHead,
    /// The width of a classification head.
    pub classes: usize,
}

impl Body {
    /// `list`: what the list of layers is called; `embeddings`: the word embeddings, (V, E).
    pub fn load(
        params: &Params,
        config: &Config,
        parts: Parts,
        (list, names): (&str, &LayerNames),
        embeddings: &Tensor,
    ) -> Result<Self> {
        let h = config.hidden_size;
        Ok(Self {
            layers: Layer::all(params, list, names, config)?,
            pooler: parts.pooler.then(|| Linear::linear(params, POOLER, h, h)).transpose()?,
            head: Head::load(params, config, parts.head, parts.classes, embeddings)?,
            config: config.clone(),
            device: params.device().clone(),
        })
    }
}

/// The table of embeddings `name`, of `rows`.
pub fn table(params: &Params, config: &Config, name: &str, rows: usize) -> Result<Tensor> {
    params.get(&format!("embeddings.{name}.weight"), &[rows, config.embedding_size])
}

/// The norm of the embeddings' sum.
pub fn embeddings_norm(params: &Params, config: &Config) -> Result<LayerNorm> {
    LayerNorm::load(params, "embeddings.LayerNorm", config.embedding_size, config.layer_norm_eps)
}

/// A model of the family.
pub trait EncoderModel: Send {
    fn body(&self) -> &Body;

    /// ids, type_ids: (B, T) u32 → (B, T, H): what the first layer reads.
    fn embed(&self, ids: &Tensor, type_ids: &Tensor) -> Result<Tensor>;

    /// What attention adds to the scores of T tokens, (1, heads, T, T).
    fn bias(&self, _tokens: usize) -> Result<Option<Tensor>> {
        Ok(None)
    }

    /// ids, type_ids: (B, T) u32; mask: (B, T) u8, 1 for a token that is there → the embeddings' and each layer's
    /// output, `num_hidden_layers` + 1 of (B, T, H).
    fn hidden_states(
        &self,
        ids: &Tensor,
        type_ids: &Tensor,
        mask: Option<&Tensor>,
        stop: &dyn Fn() -> bool,
    ) -> Result<Vec<Tensor>> {
        let (b, t) = ids.dims2()?;
        let n = self.body().config.max_positions();
        if t > n {
            return Err(ModelError::Input(format!("{t} tokens, the model has {n} positions")));
        }
        let visible = mask.map(|mask| mask.reshape((b, 1, 1, t))).transpose()?;
        let bias = self.bias(t)?;
        let mut states = vec![self.embed(ids, type_ids)?];
        for layer in &self.body().layers {
            if stop() {
                return Err(ModelError::Stopped);
            }
            states.push(layer.forward(&states[states.len() - 1], bias.as_ref(), visible.as_ref())?);
        }
        Ok(states)
    }

    /// tanh(W h₀ + b) of the first token: (B, T, H) → (B, H).
    fn pooled(&self, last_hidden_state: &Tensor) -> Result<Tensor> {
        let pooler = self.body().pooler.as_ref();
        let pooler = pooler.ok_or_else(|| ModelError::Input("the model has no pooler".into()))?;
        Ok(pooler.forward(&first(last_hidden_state)?)?.tanh()?)
    }

    /// Logits of the head: sequence classification (B, C), token classification (B, T, C), question answering (B, T,
    /// 2), masked LM (B, T, V).
    fn logits(&self, last_hidden_state: &Tensor) -> Result<Tensor> {
        match &self.body().head {
            Head::None => Err(ModelError::Input("the model has no head".into())),
            Head::MaskedLm { dense, activation, norm, decoder } => {
                let x = activation.forward(&dense.forward(last_hidden_state)?)?;
                decoder.forward(&norm.forward(&x)?)
            }
            Head::Sequence { dense: None, classifier } => {
                classifier.forward(&self.pooled(last_hidden_state)?)
            }
            Head::Sequence { dense: Some((dense, activation)), classifier } => {
                classifier.forward(&activation.forward(&dense.forward(&first(last_hidden_state)?)?)?)
            }
            Head::Token(classifier) => classifier.forward(last_hidden_state),
        }
    }
}

/// The first token's states: (B, T, H) → (B, H).
fn first(states: &Tensor) -> Result<Tensor> {
    Ok(states.narrow(1, 0, 1)?.squeeze(1)?.contiguous()?)
}
