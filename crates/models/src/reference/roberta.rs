//! RoBERTa, Liu et al. 2019, "RoBERTa: A Robustly Optimized BERT Pretraining Approach", on Candle; XLM-RoBERTa (Conneau
//! et al. 2019) and CamemBERT (Martin et al. 2019) have its mathematics. Names mirror the checkpoint's.

use candle_core::{DType, Device, Tensor};

use crate::family::config::Config;
use crate::family::heads::{QA_OUTPUTS, TOKEN_CLASSIFIER};
use crate::reference::bert::LAYER;
use crate::reference::encoder::{EncoderModel, Head, Layer};
use crate::reference::layers::{Activation, LayerNorm, Linear, Params, embed};
use crate::{EncoderHead, Result};

pub struct Roberta {
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

impl Roberta {
    pub fn load(
        params: &Params,
        config: &Config,
        pooler: bool,
        head: EncoderHead,
        classes: usize,
    ) -> Result<Self> {
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
                    params.get("lm_head.decoder.weight", &[v, h])?
                };
                Head::MaskedLm {
                    dense: linear("lm_head.dense", h)?,
                    activation: Activation::Gelu,
                    norm: LayerNorm::load(params, "lm_head.layer_norm", h, eps)?,
                    decoder: Linear::onto(
                        &weight,
                        Some(params.get(&config.decoder_bias(Some(params.weights())), &[v])?),
                    )?,
                }
            }
            EncoderHead::SequenceClassification => Head::Sequence {
                dense: Some((linear("classifier.dense", h)?, Activation::Tanh)),
                classifier: linear("classifier.out_proj", classes)?,
            },
            EncoderHead::TokenClassification => Head::Token(linear(TOKEN_CLASSIFIER, classes)?),
            EncoderHead::QuestionAnswering => Head::Token(linear(QA_OUTPUTS, 2)?),
        };
        Ok(Self {
            word_embeddings,
            position_embeddings: table("position_embeddings", config.max_position_embeddings)?,
            token_type_embeddings: table("token_type_embeddings", config.type_vocab_size)?,
            norm: LayerNorm::load(params, "embeddings.LayerNorm", h, eps)?,
            layers: Layer::all(params, "encoder.layer", &LAYER, config)?,
            pooler: pooler.then(|| linear("pooler.dense", h)).transpose()?,
            head,
            config: config.clone(),
            device: params.device().clone(),
        })
    }
}

/// ids: (B, T) u32 → their rows of the position embeddings, (B, T) u32, as fairseq counts them: from `padding` + 1 on,
/// padding tokens left out, which have `padding`.
pub(super) fn positions(ids: &Tensor, padding: u32) -> Result<Tensor> {
    let counted = ids.ne(padding)?.to_dtype(DType::F32)?;
    let number = (counted.cumsum(1)? * counted)?;
    Ok((number + f64::from(padding))?.to_dtype(DType::U32)?)
}

impl EncoderModel for Roberta {
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
        let positions = positions(ids, self.config.padding.unwrap_or(1))?;
        let x = (embed(&self.word_embeddings, ids)? + embed(&self.token_type_embeddings, type_ids)?)?;
        self.norm.forward(&(x + embed(&self.position_embeddings, &positions)?)?)
    }
}
