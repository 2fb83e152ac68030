//! RoBERTa, Liu et al. 2019, "RoBERTa: A Robustly Optimized BERT Pretraining Approach", on Candle; XLM-RoBERTa (Conneau
//! et al. 2019) and CamemBERT (Martin et al. 2019) have its mathematics. Names mirror the checkpoint's.

use candle_core::{DType, Tensor};

use crate::Result;
use crate::family::config::Config;
use crate::reference::bert::LAYER;
use crate::reference::encoder::{Body, EncoderModel, Parts, embeddings_norm, table};
use crate::reference::layers::{LayerNorm, Params, embed};

pub struct Roberta {
    body: Body,
    word_embeddings: Tensor,
    position_embeddings: Tensor,
    token_type_embeddings: Tensor,
    norm: LayerNorm,
}

impl Roberta {
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

/// ids: (B, T) u32 → their rows of the position embeddings, (B, T) u32, as fairseq counts them: from `padding` + 1 on,
/// padding tokens left out, which have `padding`.
pub(super) fn positions(ids: &Tensor, padding: u32) -> Result<Tensor> {
    let counted = ids.ne(padding)?.to_dtype(DType::F32)?;
    let number = (counted.cumsum(1)? * counted)?;
    Ok((number + f64::from(padding))?.to_dtype(DType::U32)?)
}

impl EncoderModel for Roberta {
    fn body(&self) -> &Body {
        &self.body
    }

    fn embed(&self, ids: &Tensor, type_ids: &Tensor) -> Result<Tensor> {
        let positions = positions(ids, self.body.config.padding.unwrap_or(1))?;
        let x = (embed(&self.word_embeddings, ids)? + embed(&self.token_type_embeddings, type_ids)?)?;
        self.norm.forward(&(x + embed(&self.position_embeddings, &positions)?)?)
    }
}
