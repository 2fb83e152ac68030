//! MPNet, Song et al. 2020, "MPNet: Masked and Permuted Pre-training for Language Understanding": no token types, and
//! attention adds a bias by distance, which all layers share.

use super::architecture::{Architecture, KEYS, Positions};
use super::roberta::{MASKED_LM, SEQUENCE};
use crate::files::names::Names;

pub static MPNET: Architecture = Architecture {
    model_type: "mpnet",
    class: "MPNet",
    names: Names {
        prefix: "mpnet",
        layer: "encoder.layer",
        modules: &[
            ("attention.self.query", "attention.attn.q"),
            ("attention.self.key", "attention.attn.k"),
            ("attention.self.value", "attention.attn.v"),
            ("attention.output.dense", "attention.attn.o"),
            ("attention.output.LayerNorm", "attention.LayerNorm"),
        ],
    },
    keys: &KEYS,
    positions: Positions::AfterOne,
    token_types: false,
    narrow_embeddings: false,
    relative_bias: true,
    pooler: true,
    fixed_norm_eps: false,
    mask_token: "<mask>",
    pad_token: "<pad>",
    sequence: SEQUENCE,
    masked_lm: MASKED_LM,
};
