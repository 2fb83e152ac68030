//! ELECTRA, Clark et al. 2020, "ELECTRA: Pre-training Text Encoders as Discriminators Rather Than Generators", on
//! Candle. The embeddings may be narrower than the layers; there is no pooler. Names mirror the checkpoint's.

use candle_core::Tensor;

use crate::Result;
use crate::family::config::Config;
use crate::reference::bert::LAYER;
use crate::reference::encoder::{Body, EncoderModel, Parts, embeddings_norm, table};
use crate::reference::layers::{LayerNorm, Linear, Params, embed};

pub struct Electra {
    body: Body,
    word_embeddings: Tensor,
    position_embeddings: Tensor,
    token_type_embeddings: Tensor,
    norm: LayerNorm,
    embeddings_project: Option<Linear>,
}

impl Electra {
    pub fn load(params: &Params, config: &Config, parts: Parts) -> Result<Self> {
        let (e, h) = (config.embedding_size, config.hidden_size);
        let table = |name: &str, rows: usize| table(params, config, name, rows);
        let word_embeddings = table("word_embeddings", config.vocab_size)?;
        Ok(Self {
            body: Body::load(params, config, parts, ("encoder.layer", &LAYER), &word_embeddings)?,
            word_embeddings,
            position_embeddings: table("position_embeddings", config.max_position_embeddings)?,
            token_type_embeddings: table("token_type_embeddings", config.type_vocab_size)?,
            norm: embeddings_norm(params, config)?,
            embeddings_project: (e != h)
                .then(|| Linear::linear(params, "embeddings_project", e, h))
                .transpose()?,
        })
    }
}

impl EncoderModel for Electra {
    fn body(&self) -> &Body {
        &self.body
    }

    fn embed(&self, ids: &Tensor, type_ids: &Tensor) -> Result<Tensor> {
        let x = (embed(&self.word_embeddings, ids)? + embed(&self.token_type_embeddings, type_ids)?)?;
        let x =
            self.norm.forward(&x.broadcast_add(&self.position_embeddings.narrow(0, 0, ids.dim(1)?)?)?)?;
        self.embeddings_project.as_ref().map_or(Ok(x.clone()), |project| project.forward(&x))
    }
}
