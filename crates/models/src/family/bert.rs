//! BERT, Devlin et al. 2018, "BERT: Pre-training of Deep Bidirectional Transformers". The scheme of names is its own.

use super::activation::Activation;
use super::architecture::{Architecture, KEYS, MaskedLmHead, POOLER, Positions, SequenceHead};
use crate::files::names::Names;

pub static BERT: Architecture = Architecture {
    model_type: "bert",
    class: "Bert",
    names: Names { prefix: "bert", layer: "encoder.layer", modules: &[] },
    keys: &KEYS,
    positions: Positions::FromZero,
    token_types: true,
    narrow_embeddings: false,
    relative_bias: false,
    pooler: true,
    fixed_norm_eps: false,
    mask_token: "[MASK]",
    pad_token: "[PAD]",
    sequence: SequenceHead {
        dense: POOLER,
        activation: Activation::Tanh,
        classifier: "classifier",
        other_classifiers: &["linear", "out", "fc"],
    },
    masked_lm: MaskedLmHead {
        dense: "cls.predictions.transform.dense",
        activation: None,
        norm: "cls.predictions.transform.LayerNorm",
        decoder: "cls.predictions.decoder",
        bias: Some("cls.predictions.bias"),
    },
};
