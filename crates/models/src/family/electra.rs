//! ELECTRA, Clark et al. 2020, "ELECTRA: Pre-training Text Encoders as Discriminators Rather Than Generators": BERT
//! with embeddings of a width of their own.
//!
//! The discriminator's head, which says of each token whether it was replaced, is no head here: such a checkpoint is
//! what people embed texts with and go on from.

use super::activation::Activation;
use super::architecture::{Architecture, KEYS, MaskedLmHead, Positions, SequenceHead};
use crate::files::names::Names;

pub static ELECTRA: Architecture = Architecture {
    model_type: "electra",
    class: "Electra",
    names: Names { prefix: "electra", layer: "encoder.layer", modules: &[] },
    keys: &KEYS,
    positions: Positions::FromZero,
    token_types: true,
    narrow_embeddings: true,
    relative_bias: false,
    pooler: false,
    fixed_norm_eps: false,
    mask_token: "[MASK]",
    pad_token: "[PAD]",
    sequence: SequenceHead {
        dense: "classifier.dense",
        activation: Activation::Gelu,
        classifier: "classifier.out_proj",
        other_classifiers: &[],
    },
    masked_lm: MaskedLmHead {
        dense: "generator_predictions.dense",
        activation: Some(Activation::Gelu),
        norm: "generator_predictions.LayerNorm",
        decoder: "generator_lm_head",
        bias: None,
    },
};
