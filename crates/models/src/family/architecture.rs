//! What one encoder of BERT's family has otherwise than BERT. The forward passes and the files' readers ask this
//! description; none of them knows a model's name.

use crate::family::activation::Activation;
use crate::files::names::Names;

#[derive(Debug, PartialEq)]
pub struct Architecture {
    /// `model_type` in config.json.
    pub model_type: &'static str,
    /// What its transformers classes begin with: `DistilBert` of `DistilBertForMaskedLM`.
    pub class: &'static str,
    pub names: Names,
    pub keys: &'static Keys,
    pub positions: Positions,
    pub token_types: bool,
    /// The embeddings have a width of their own, and a projection onto that of the layers where it is another.
    pub narrow_embeddings: bool,
    /// Attention adds to each score a number that depends on head and distance.
    pub relative_bias: bool,
    /// The bare model has a pooler (a dense layer and tanh over the first token) behind its layers.
    pub pooler: bool,
    /// `layer_norm_eps` of a model whose configuration has none.
    pub fixed_norm_eps: bool,
    /// How its tokenizer writes the mask and the padding where the files do not say.
    pub mask_token: &'static str,
    pub pad_token: &'static str,
    pub sequence: SequenceHead,
    pub masked_lm: MaskedLmHead,
}

/// The keys of config.json by which the sizes are called.
#[derive(Debug, PartialEq)]
pub struct Keys {
    pub hidden_size: &'static str,
    pub num_hidden_layers: &'static str,
    pub num_attention_heads: &'static str,
    pub intermediate_size: &'static str,
    pub hidden_act: &'static str,
}

/// Which row of the position embeddings a token gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Positions {
    /// The first token row 0, the next row 1.
    FromZero,
    /// As fairseq numbers them: the first token the row after `pad_token_id`, and so on; a padding token in the text
    /// gets the row `pad_token_id` and is not counted.
    AfterPadding,
    /// As `AfterPadding` with 1 for the padding token's id, whatever the configuration says.
    AfterOne,
}

/// A text's classes: dense → activation → classifier, over the first token's state.
#[derive(Debug, PartialEq)]
pub struct SequenceHead {
    pub dense: &'static str,
    pub activation: Activation,
    pub classifier: &'static str,
    /// Other names that the classifier has in modules that wrap the model (`pooled → dropout → linear`).
    pub other_classifiers: &'static [&'static str],
}

/// A token's scores in the vocabulary: dense → activation → norm → decoder, over the token's state.
#[derive(Debug, PartialEq)]
pub struct MaskedLmHead {
    pub dense: &'static str,
    /// `None`: that of the layers.
    pub activation: Option<Activation>,
    pub norm: &'static str,
    /// Its weight is the word embeddings where it is tied.
    pub decoder: &'static str,
    /// The older name of the decoder's bias.
    pub bias: Option<&'static str>,
}

/// Keys as BERT has them, and most.
pub(super) const KEYS: Keys = Keys {
    hidden_size: "hidden_size",
    num_hidden_layers: "num_hidden_layers",
    num_attention_heads: "num_attention_heads",
    intermediate_size: "intermediate_size",
    hidden_act: "hidden_act",
};

impl Architecture {
    /// Its transformers class for `task`, `"MaskedLM"`, or `""` for the bare model.
    pub fn class_for(&self, task: &str) -> String {
        if task.is_empty() { format!("{}Model", self.class) } else { format!("{}For{task}", self.class) }
    }

    /// Whether the dense layer before a text's classes is the pooler.
    pub fn classifies_pooled(&self) -> bool {
        self.sequence.dense == POOLER
    }
}

/// The pooler's name.
pub const POOLER: &str = "pooler.dense";
