//! MPNet, Song et al. 2020, "MPNet: Masked and Permuted Pre-training for Language Understanding", on Candle. No token
//! types; attention adds a bias by distance, which all layers share. Names mirror the checkpoint's.

use candle_core::Tensor;

use crate::Result;
use crate::family::config::Config;
use crate::family::relative::bucket;
use crate::reference::encoder::{Body, EncoderModel, LayerNames, Parts, embeddings_norm, table};
use crate::reference::layers::{LayerNorm, Params, embed};
use crate::reference::roberta::positions;

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
    body: Body,
    word_embeddings: Tensor,
    position_embeddings: Tensor,
    norm: LayerNorm,
    /// (buckets, heads)
    relative_attention_bias: Tensor,
}

impl MpNet {
    pub fn load(params: &Params, config: &Config, parts: Parts) -> Result<Self> {
        let table = |name: &str, rows: usize| table(params, config, name, rows);
        let word_embeddings = table("word_embeddings", config.vocab_size)?;
        Ok(Self {
            body: Body::load(params, config, parts, ("encoder.layer", &LAYER), &word_embeddings)?,
            word_embeddings,
            position_embeddings: table("position_embeddings", config.max_position_embeddings)?,
            norm: embeddings_norm(params, config)?,
            relative_attention_bias: params.get(
                "encoder.relative_attention_bias.weight",
                &[config.relative_buckets, config.num_attention_heads],
            )?,
        })
    }
}

impl EncoderModel for MpNet {
    fn body(&self) -> &Body {
        &self.body
    }

    fn embed(&self, ids: &Tensor, _: &Tensor) -> Result<Tensor> {
        let rows = embed(&self.position_embeddings, &positions(ids, 1)?)?;
        self.norm.forward(&(embed(&self.word_embeddings, ids)? + rows)?)
    }

    fn bias(&self, tokens: usize) -> Result<Option<Tensor>> {
        let t = tokens as isize;
        let buckets: Vec<u32> =
            (0..t).flat_map(|query| (0..t).map(move |key| bucket(key - query) as u32)).collect();
        let buckets = Tensor::from_vec(buckets, (tokens, tokens), &self.body.device)?;
        // (T, T, heads) → (1, heads, T, T)
        let bias = embed(&self.relative_attention_bias, &buckets)?;
        Ok(Some(bias.permute((2, 0, 1))?.unsqueeze(0)?.contiguous()?))
    }
}
