//! ELECTRA, Clark et al. 2020, "ELECTRA: Pre-training Text Encoders as Discriminators Rather Than Generators", on
//! Candle. The embeddings may be narrower than the layers; there is no pooler. Names mirror the checkpoint's.

use candle_core::{Device, Tensor};

use crate::family::config::Config;
use crate::family::heads::{QA_OUTPUTS, TOKEN_CLASSIFIER};
use crate::reference::bert::LAYER;
use crate::reference::encoder::{EncoderModel, Head, Layer};
use crate::reference::layers::{Activation, LayerNorm, Linear, Params, embed};
use crate::{EncoderHead, Result};

pub struct Electra {
    config: Config,
    word_embeddings: Tensor,
    position_embeddings: Tensor,
    token_type_embeddings: Tensor,
    norm: LayerNorm,
    embeddings_project: Option<Linear>,
    layers: Vec<Layer>,
    head: Head,
    device: Device,
}

impl Electra {
    pub fn load(params: &Params, config: &Config, head: EncoderHead, classes: usize) -> Result<Self> {
        let (v, e, h, eps) =
            (config.vocab_size, config.embedding_size, config.hidden_size, config.layer_norm_eps);
        let table = |name: &str, rows: usize| params.get(&format!("embeddings.{name}.weight"), &[rows, e]);
        let word_embeddings = table("word_embeddings", v)?;
        let linear = |name: &str, output: usize| Linear::linear(params, name, h, output);
        let head = match head {
            EncoderHead::None => Head::None,
            EncoderHead::MaskedLm => {
                let weight = if config.tie_word_embeddings {
                    word_embeddings.clone()
                } else {
                    params.get("generator_lm_head.weight", &[v, e])?
                };
                Head::MaskedLm {
                    dense: linear("generator_predictions.dense", e)?,
                    activation: Activation::Gelu,
                    norm: LayerNorm::load(params, "generator_predictions.LayerNorm", e, eps)?,
                    decoder: Linear::onto(&weight, Some(params.get("generator_lm_head.bias", &[v])?))?,
                }
            }
            EncoderHead::SequenceClassification => Head::Sequence {
                dense: Some((linear("classifier.dense", h)?, Activation::Gelu)),
                classifier: linear("classifier.out_proj", classes)?,
            },
            EncoderHead::TokenClassification => Head::Token(linear(TOKEN_CLASSIFIER, classes)?),
            EncoderHead::QuestionAnswering => Head::Token(linear(QA_OUTPUTS, 2)?),
        };
        Ok(Self {
            word_embeddings,
            position_embeddings: table("position_embeddings", config.max_position_embeddings)?,
            token_type_embeddings: table("token_type_embeddings", config.type_vocab_size)?,
            norm: LayerNorm::load(params, "embeddings.LayerNorm", e, eps)?,
            embeddings_project: (e != h)
                .then(|| Linear::linear(params, "embeddings_project", e, h))
                .transpose()?,
            layers: Layer::all(params, "encoder.layer", &LAYER, config)?,
            head,
            config: config.clone(),
            device: params.device().clone(),
        })
    }
}

impl EncoderModel for Electra {
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

    fn embed(&self, ids: &Tensor, type_ids: &Tensor) -> Result<Tensor> {
        let x = (embed(&self.word_embeddings, ids)? + embed(&self.token_type_embeddings, type_ids)?)?;
        let x =
            self.norm.forward(&x.broadcast_add(&self.position_embeddings.narrow(0, 0, ids.dim(1)?)?)?)?;
        self.embeddings_project.as_ref().map_or(Ok(x.clone()), |project| project.forward(&x))
    }
}
