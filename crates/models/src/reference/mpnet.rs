//! MPNet, Song et al. 2020, "MPNet: Masked and Permuted Pre-training for Language Understanding", on Candle. No token
//! types; attention adds a bias by distance, which all layers share. Names mirror the checkpoint's.

use candle_core::{Device, Tensor};

use crate::family::config::Config;
use crate::family::heads::{QA_OUTPUTS, TOKEN_CLASSIFIER};
use crate::family::relative::bucket;
use crate::reference::encoder::{EncoderModel, Head, Layer, LayerNames};
use crate::reference::layers::{Activation, LayerNorm, Linear, Params, embed};
use crate::reference::roberta::positions;
use crate::{EncoderHead, Result};

const LAYER: LayerNames = LayerNames {
    query: "attention.attn.q",
    key: "attention.attn.k",
    value: "attention.attn.v",
    attention_output: "attention.attn.o",
    attention_norm: "attention.LayerNorm",
    intermediate: "intermediate.dense",
    output: "output.dense",
    output_norm: "output.LayerNorm",
};

pub struct MpNet {
    config: Config,
    word_embeddings: Tensor,
    position_embeddings: Tensor,
    norm: LayerNorm,
    /// (buckets, heads)
    relative_attention_bias: Tensor,
    layers: Vec<Layer>,
    pooler: Option<Linear>,
    head: Head,
    device: Device,
}

impl MpNet {
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
            norm: LayerNorm::load(params, "embeddings.LayerNorm", h, eps)?,
            relative_attention_bias: params.get(
                "encoder.relative_attention_bias.weight",
                &[config.relative_buckets, config.num_attention_heads],
            )?,
            layers: Layer::all(params, "encoder.layer", &LAYER, config)?,
            pooler: pooler.then(|| linear("pooler.dense", h)).transpose()?,
            head,
            config: config.clone(),
            device: params.device().clone(),
        })
    }
}

impl EncoderModel for MpNet {
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

    fn embed(&self, ids: &Tensor, _: &Tensor) -> Result<Tensor> {
        let rows = embed(&self.position_embeddings, &positions(ids, 1)?)?;
        self.norm.forward(&(embed(&self.word_embeddings, ids)? + rows)?)
    }

    fn bias(&self, tokens: usize) -> Result<Option<Tensor>> {
        let t = tokens as isize;
        let buckets: Vec<u32> =
            (0..t).flat_map(|query| (0..t).map(move |key| bucket(key - query) as u32)).collect();
        let buckets = Tensor::from_vec(buckets, (tokens, tokens), &self.device)?;
        // (T, T, heads) → (1, heads, T, T)
        let bias = embed(&self.relative_attention_bias, &buckets)?;
        Ok(Some(bias.permute((2, 0, 1))?.unsqueeze(0)?.contiguous()?))
    }
}
