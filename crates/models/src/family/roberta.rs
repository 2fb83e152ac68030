//! RoBERTa, Liu et al. 2019, "RoBERTa: A Robustly Optimized BERT Pretraining Approach": positions are counted from
//! the padding token's id on. XLM-RoBERTa (Conneau et al. 2019) and CamemBERT (Martin et al. 2019) are the same model
//! with other vocabularies.

use super::activation::Activation;
use super::architecture::{Architecture, KEYS, MaskedLmHead, Positions, SequenceHead};
use crate::files::names::Names;

pub static ROBERTA: Architecture = roberta("roberta", "Roberta");
pub static XLM_ROBERTA: Architecture = roberta("xlm-roberta", "XLMRoberta");
pub static CAMEMBERT: Architecture = roberta("camembert", "Camembert");

const fn roberta(model_type: &'static str, class: &'static str) -> Architecture {
    Architecture {
        model_type,
        class,
        names: Names { prefix: "roberta", layer: "encoder.layer", modules: &[] },
        keys: &KEYS,
        positions: Positions::AfterPadding,
        token_types: true,
        narrow_embeddings: false,
        relative_bias: false,
        pooler: true,
        fixed_norm_eps: false,
        mask_token: "<mask>",
        pad_token: "<pad>",
        sequence: SEQUENCE,
        masked_lm: MASKED_LM,
    }
}

pub(super) const SEQUENCE: SequenceHead = SequenceHead {
    dense: "classifier.dense",
    activation: Activation::Tanh,
    classifier: "classifier.out_proj",
    other_classifiers: &[],
};

pub(super) const MASKED_LM: MaskedLmHead = MaskedLmHead {
    dense: "lm_head.dense",
    activation: Some(Activation::Gelu),
    norm: "lm_head.layer_norm",
    decoder: "lm_head.decoder",
    bias: Some("lm_head.bias"),
};
