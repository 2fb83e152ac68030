//! BERT, Devlin et al. 2018, "BERT: Pre-training of Deep Bidirectional Transformers", on Candle: differentiable, on any
//! device.
//!
//! Names mirror the checkpoint's. `cpu/bert.rs` runs the same checkpoint on packed CPU kernels.

use candle_core::Tensor;

use crate::Result;
use crate::family::config::Config;
use crate::reference::encoder::{Body, EncoderModel, LayerNames, Parts, embeddings_norm, table};
use crate::reference::layers::{LayerNorm, Params, embed};

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
    body: Body,
    word_embeddings: Tensor,
    position_embeddings: Tensor,
    token_type_embeddings: Tensor,
    norm: LayerNorm,
}

impl Bert {
    pub fn load(params: &Params, config: &Config, parts: Parts) -> Result<Self> {
        let table = |name: &str, rows: usize| table(params, config, name, rows);
        let word_embeddings = table("word_embeddings", config.vocab_size)?;
        Ok(Self {
            body: Body::load(params, config, parts, ("encoder.layer", &LAYER), &word_embeddings)?,
            word_embeddings,
            position_embeddings: table("position_embeddings", config.max_position_embeddings)?,
            token_type_embeddings: table("token_type_embeddings", config.type_vocab_size)?,
            norm: embeddings_norm(params, config)?,
        })
    }
}

impl EncoderModel for Bert {
    fn body(&self) -> &Body {
        &self.body
    }

    fn embed(&self, ids: &Tensor, type_ids: &Tensor) -> Result<Tensor> {
        let x = (embed(&self.word_embeddings, ids)? + embed(&self.token_type_embeddings, type_ids)?)?;
        self.norm.forward(&x.broadcast_add(&self.position_embeddings.narrow(0, 0, ids.dim(1)?)?)?)
    }
}
