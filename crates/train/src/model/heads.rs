//! An encoder's heads, as its family's description says: their layers, and where dropout is.

use candlewick_kernels::Activation;
use candlewick_models::family::Config;
use candlewick_models::family::heads::{QA_OUTPUTS, TOKEN_CLASSIFIER};

use super::block::Norm;
use super::linear::Linear;
use super::load::Source;
use super::params::Id;
use crate::Result;
use crate::data::ProblemType;

/// Which head, and how wide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadKind {
    Sequence {
        classes: usize,
        problem: ProblemType,
    },
    Token {
        classes: usize,
    },
    Questions,
    MaskedLm,
    /// The mean of the last hidden states.
    Embedding,
}

impl HeadKind {
    /// What transformers' classes call the task; empty for the bare model.
    pub fn task(self) -> &'static str {
        match self {
            Self::Sequence { .. } => "SequenceClassification",
            Self::Token { .. } => "TokenClassification",
            Self::Questions => "QuestionAnswering",
            Self::MaskedLm => "MaskedLM",
            Self::Embedding => "",
        }
    }
}

pub(super) enum Head {
    /// First token's state → (dropout →) dense → activation → dropout → linear.
    Sequence {
        dense: Linear,
        activation: Activation,
        classifier: Linear,
        problem: ProblemType,
        drops_first: bool,
    },
    /// Dropout → linear, for every token.
    Token {
        classifier: Linear,
        dropout: bool,
    },
    /// Dense → activation → norm → decoder (V, E) and its bias.
    MaskedLm {
        dense: Linear,
        norm: Norm,
        decoder: Id,
        bias: Id,
        activation: Activation,
    },
    Embedding,
}

/// Whether transformers drops of the first token's state before the dense layer: where that is part of the head (a
/// RoBERTa, an ELECTRA, an MPNet), not where it stands before it (BERT's pooler, DistilBERT's `pre_classifier`).
fn drops_first(config: &Config) -> bool {
    let head = &config.architecture.sequence;
    let module = |name: &str| name.split('.').next().map(str::to_string);
    module(head.dense) == module(head.classifier)
}

impl Head {
    /// Its parameters may be new. `word`: the embeddings, to which a decoder may be tied.
    pub fn new(source: &mut Source, config: &Config, kind: HeadKind, word: Id, bias: &str) -> Result<Self> {
        let (h, e, deviation) = (config.hidden_size, config.embedding_size, source.deviation);
        source.may_be_new = true;
        let architecture = config.architecture;
        let mut linear = |name: &str, output: usize| source.linear(name, h, output, false, deviation);
        Ok(match kind {
            HeadKind::Sequence { classes, problem } => Self::Sequence {
                dense: linear(architecture.sequence.dense, h)?,
                activation: architecture.sequence.activation.into(),
                classifier: linear(architecture.sequence.classifier, classes)?,
                problem,
                drops_first: drops_first(config),
            },
            HeadKind::Token { classes } => {
                Self::Token { classifier: linear(TOKEN_CLASSIFIER, classes)?, dropout: true }
            }
            // Of the family DistilBERT alone drops before the answers' scores.
            HeadKind::Questions => Self::Token {
                classifier: linear(QA_OUTPUTS, 2)?,
                dropout: architecture.model_type == "distilbert",
            },
            HeadKind::MaskedLm => {
                let dense = linear(architecture.masked_lm.dense, e)?;
                let norm = source.norm(architecture.masked_lm.norm, e, config.layer_norm_eps)?;
                let decoder = match config.tie_word_embeddings {
                    true => word,
                    false => source.matrix(&config.decoder_weight(), &[config.vocab_size, e], deviation)?,
                };
                let bias = source.vector(bias, config.vocab_size, 0.0)?;
                Self::MaskedLm {
                    dense,
                    norm,
                    decoder,
                    bias,
                    activation: config.masked_lm_activation().into(),
                }
            }
            HeadKind::Embedding => {
                // Not used, but the checkpoint's: it is written again.
                if architecture.pooler && source.contains("pooler.dense.weight") {
                    let pooler = source.linear("pooler.dense", h, h, false, deviation)?;
                    for id in [pooler.weight, pooler.bias.expect("a linear layer has a bias")] {
                        source.params[id].trainable = false;
                    }
                }
                Self::Embedding
            }
        })
    }
}
