//! BERT, Devlin et al. 2018, "BERT: Pre-training of Deep Bidirectional Transformers", on Candle: differentiable, on any
//! device.
//!
//! Names mirror the checkpoint's. `cpu/bert.rs` runs the same checkpoint on packed CPU kernels.

use candle_core::{Device, Tensor};

use crate::family::config::Config;
use crate::family::heads::{QA_OUTPUTS, TOKEN_CLASSIFIER, classifier_of};
use crate::reference::encoder::{EncoderModel, Head, Layer, LayerNames};
use crate::reference::layers::{LayerNorm, Linear, Params, embed};
use crate::{EncoderHead, Result};

/// RoBERTa and ELECTRA have them too.
pub(super) const LAYER: LayerNames = LayerNames {
    query: "attention.self.query",
    key: "attention.self.key",
    value: "attention.self.value",
    attention_output: "attention.output.dense",
    attention_norm: "attention.output.LayerNorm",
    intermediate: "intermediate.dense",
    output: "output.dense",
    output_norm: "output.LayerNorm",
};

pub struct Bert {
    config: Config,
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
        let (v, h, eps) = (config.vocab_size, config.hidden_size, config.layer_norm_eps);
        let table = |name: &str, rows: usize| params.get(&format!("embeddings.{name}.weight"), &[rows, h]);
        let head = match head {
            EncoderHead::None => Head::None,
            EncoderHead::MaskedLm => Head::MaskedLm {
                dense: Linear::linear(params, "cls.predictions.transform.dense", h, h)?,
                activation: config.hidden_act,
                norm: LayerNorm::load(params, "cls.predictions.transform.LayerNorm", h, eps)?,
                decoder: Linear::onto(
                    &params.get(&config.decoder_weight(), &[v, h])?,
                    Some(params.get(&config.decoder_bias(Some(params.weights())), &[v])?),
                )?,
            },
            EncoderHead::SequenceClassification => {
                let name = classifier_of(config.architecture, params.weights()).unwrap_or("classifier");
                Head::Sequence { dense: None, classifier: Linear::linear(params, name, h, classes)? }
            }
            EncoderHead::TokenClassification => {
                Head::Token(Linear::linear(params, TOKEN_CLASSIFIER, h, classes)?)
            }
            EncoderHead::QuestionAnswering => Head::Token(Linear::linear(params, QA_OUTPUTS, h, 2)?),
        };
        Ok(Self {
            word_embeddings: table("word_embeddings", v)?,
            position_embeddings: table("position_embeddings", config.max_position_embeddings)?,
            token_type_embeddings: table("token_type_embeddings", config.type_vocab_size)?,
            norm: LayerNorm::load(params, "embeddings.LayerNorm", h, eps)?,
            layers: Layer::all(params, "encoder.layer", &LAYER, config)?,
            pooler: pooler.then(|| Linear::linear(params, "pooler.dense", h, h)).transpose()?,
            head,
            config: config.clone(),
            device: params.device().clone(),
        })
    }
}

impl EncoderModel for Bert {
    fn config(&self) -> &Config {
        &self.config
    }
    fn device(&self) -> &Device {
        &self.device
    }
    fn layers(&self) -> &[Layer] {
        &self.layers
    }
    fn pooler(&self) -> Option<&Linear> {
        self.pooler.as_ref()
    }
    fn head(&self) -> &Head {
        &self.head
    }

    fn embed(&self, ids: &Tensor, type_ids: &Tensor) -> Result<Tensor> {
        let x = (embed(&self.word_embeddings, ids)? + embed(&self.token_type_embeddings, type_ids)?)?;
        self.norm.forward(&x.broadcast_add(&self.position_embeddings.narrow(0, 0, ids.dim(1)?)?)?)
    }
}
