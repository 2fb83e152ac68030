//! DistilBERT, Sanh et al. 2019, "DistilBERT, a distilled version of BERT": no token types, no pooler, other names.

use super::activation::Activation;
use super::architecture::{Architecture, Keys, MaskedLmHead, Positions, SequenceHead};
use crate::files::names::Names;

pub static DISTILBERT: Architecture = Architecture {
    model_type: "distilbert",
    class: "DistilBert",
    names: Names {
        prefix: "distilbert",
        layer: "transformer.layer",
        modules: &[
            ("attention.self.query", "attention.q_lin"),
            ("attention.self.key", "attention.k_lin"),
            ("attention.self.value", "attention.v_lin"),
            ("attention.output.dense", "attention.out_lin"),
            ("attention.output.LayerNorm", "sa_layer_norm"),
            ("intermediate.dense", "ffn.lin1"),
            ("output.dense", "ffn.lin2"),
            ("output.LayerNorm", "output_layer_norm"),
        ],
    },
    keys: &Keys {
        hidden_size: "dim",
        num_hidden_layers: "n_layers",
        num_attention_heads: "n_heads",
        intermediate_size: "hidden_dim",
        hidden_act: "activation",
    },
    positions: Positions::FromZero,
    token_types: false,
    narrow_embeddings: false,
    relative_bias: false,
    pooler: false,
    fixed_norm_eps: true,
    mask_token: "[MASK]",
    pad_token: "[PAD]",
    sequence: SequenceHead {
        dense: "pre_classifier",
        activation: Activation::Relu,
        classifier: "classifier",
        other_classifiers: &[],
    },
    masked_lm: MaskedLmHead {
        dense: "vocab_transform",
        activation: None,
        norm: "vocab_layer_norm",
        decoder: "vocab_projector",
        bias: None,
    },
};
