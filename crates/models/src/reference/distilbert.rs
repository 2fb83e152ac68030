//! DistilBERT, Sanh et al. 2019, "DistilBERT, a distilled version of BERT: smaller, faster, cheaper and lighter", on
//! Candle. No token types and no pooler; names mirror the checkpoint's.

use candle_core::{Device, Tensor};

use crate::family::config::Config;
use crate::family::heads::{QA_OUTPUTS, TOKEN_CLASSIFIER};
use crate::reference::encoder::{EncoderModel, Head, Layer, LayerNames};
use crate::reference::layers::{Activation, LayerNorm, Linear, Params, embed};
use crate::{EncoderHead, Result};

const LAYER: LayerNames = LayerNames {
    query: "attention.q_lin",
    key: "attention.k_lin",
    value: "attention.v_lin",
    attention_output: "attention.out_lin",
    attention_norm: "sa_layer_norm",
    intermediate: "ffn.lin1",
    output: "ffn.lin2",
    output_norm: "output_layer_norm",
};

pub struct DistilBert {
    config: Config,
    word_embeddings: Tensor,
    position_embeddings: Tensor,
    norm: LayerNorm,
    layers: Vec<Layer>,
    head: Head,
    device: Device,
}

impl DistilBert {
    pub fn load(params: &Params, config: &Config, head: EncoderHead, classes: usize) -> Result<Self> {
        let (v, h, eps) = (config.vocab_size, config.hidden_size, config.layer_norm_eps);
        let table = |name: &str, rows: usize| params.get(&format!("embeddings.{name}.weight"), &[rows, h]);
        let word_embeddings = table("word_embeddings", v)?;
        let linear = |name: &str, output: usize| Linear::linear(params, name, h, output);
        let head = match head {
            EncoderHead::None => Head::None,
            EncoderHead::MaskedLm => {
                let weight = if config.tie_word_embeddings {
                    word_embeddings.clone()
                } else {
                    params.get("vocab_projector.weight", &[v, h])?
                };
                Head::MaskedLm {
                    dense: linear("vocab_transform", h)?,
                    activation: config.hidden_act,
                    norm: LayerNorm::load(params, "vocab_layer_norm", h, eps)?,
                    decoder: Linear::onto(&weight, Some(params.get("vocab_projector.bias", &[v])?))?,
                }
            }
            EncoderHead::SequenceClassification => Head::Sequence {
                dense: Some((linear("pre_classifier", h)?, Activation::Relu)),
                classifier: linear("classifier", classes)?,
            },
            EncoderHead::TokenClassification => Head::Token(linear(TOKEN_CLASSIFIER, classes)?),
            EncoderHead::QuestionAnswering => Head::Token(linear(QA_OUTPUTS, 2)?),
        };
        Ok(Self {
            word_embeddings,
            position_embeddings: table("position_embeddings", config.max_position_embeddings)?,
            norm: LayerNorm::load(params, "embeddings.LayerNorm", h, eps)?,
            layers: Layer::all(params, "transformer.layer", &LAYER, config)?,
            head,
            config: config.clone(),
            device: params.device().clone(),
        })
    }
}

impl EncoderModel for DistilBert {
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
        None
    }
    fn head(&self) -> &Head {
        &self.head
    }

    fn embed(&self, ids: &Tensor, _: &Tensor) -> Result<Tensor> {
        let x = embed(&self.word_embeddings, ids)?;
        self.norm.forward(&x.broadcast_add(&self.position_embeddings.narrow(0, 0, ids.dim(1)?)?)?)
    }
}
