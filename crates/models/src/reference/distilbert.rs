//! DistilBERT, Sanh et al. 2019, "DistilBERT, a distilled version of BERT: smaller, faster, cheaper and lighter", on
//! Candle. No token types and no pooler; names mirror the checkpoint's.

use candle_core::Tensor;

use crate::Result;
use crate::family::config::Config;
use crate::reference::encoder::{Body, EncoderModel, LayerNames, Parts, embeddings_norm, table};
use crate::reference::layers::{LayerNorm, Params, embed};

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
    body: Body,
    word_embeddings: Tensor,
    position_embeddings: Tensor,
    norm: LayerNorm,
}

impl DistilBert {
    pub fn load(params: &Params, config: &Config, parts: Parts) -> Result<Self> {
        let table = |name: &str, rows: usize| table(params, config, name, rows);
        let word_embeddings = table("word_embeddings", config.vocab_size)?;
        Ok(Self {
            body: Body::load(params, config, parts, ("transformer.layer", &LAYER), &word_embeddings)?,
            word_embeddings,
            position_embeddings: table("position_embeddings", config.max_position_embeddings)?,
            norm: embeddings_norm(params, config)?,
        })
    }
}

impl EncoderModel for DistilBert {
    fn body(&self) -> &Body {
        &self.body
    }

    fn embed(&self, ids: &Tensor, _: &Tensor) -> Result<Tensor> {
        let x = embed(&self.word_embeddings, ids)?;
        self.norm.forward(&x.broadcast_add(&self.position_embeddings.narrow(0, 0, ids.dim(1)?)?)?)
    }
}
