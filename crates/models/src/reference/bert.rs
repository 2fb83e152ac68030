//! BERT, Devlin et al. 2018, "BERT: Pre-training of Deep Bidirectional Transformers", on Candle: differentiable, on any
//! device.
//!
//! Names mirror the checkpoint's. `cpu/bert.rs` runs the same checkpoint on packed CPU kernels.

use candle_core::{Device, Tensor};

use crate::family::config::Config;
use crate::family::heads::{QA_OUTPUTS, TOKEN_CLASSIFIER, classifier_of};
use crate::reference::layers::{
    Activation, LayerNorm, Linear, Params, attention, embed, merge_heads, softmax_scale, split_heads,
};
use crate::{EncoderHead, ModelError, Result};

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
                let decoder = params.get(&config.decoder_weight(), &[v, h])?;
                let bias = params.get(&config.decoder_bias(Some(params.weights())), &[v])?;
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
                let name = classifier_of(config.architecture, params.weights()).unwrap_or("classifier");
                Self::Sequence(Linear::linear(params, name, h, classes)?)
            }
            EncoderHead::TokenClassification => {
                Self::Token(Linear::linear(params, TOKEN_CLASSIFIER, h, classes)?)
            }
            EncoderHead::QuestionAnswering => Self::Token(Linear::linear(params, QA_OUTPUTS, h, 2)?),
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
