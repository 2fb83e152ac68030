//! BERT and its heads with gradients. Names mirror the checkpoint's.

use candlewick_kernels::Activation;
use candlewick_kernels::train::{
    Floats, Start, activation_backward, activation_forward, add_rows, dropout_backward, dropout_forward,
    gather_rows, scatter_add_rows,
};
use candlewick_models::family::Config;

use super::batch::{Batch, Pass};
use super::block::{Block, Norm};
use super::contrast;
use super::cpu::Cpu;
use super::linear::Linear;
use super::load::Source;
use super::loss::{self, Outcome, Selected, VocabularyLoss};
use super::params::{Id, Params};
use super::stack::Stack;
use crate::Result;
use crate::data::{Example, ProblemType, Target};

/// Of everything that is added to the residual stream, of attention's probabilities, and before a classifier.
#[derive(Debug, Clone, Copy)]
pub struct BertDropouts {
    pub hidden: f32,
    pub attention: f32,
    pub classifier: f32,
}

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

pub(super) enum Head {
    /// Pooled output → dropout → linear.
    Sequence {
        pooler: Linear,
        classifier: Linear,
        problem: ProblemType,
    },
    /// Dropout → linear, for every token.
    Token {
        classifier: Linear,
        dropout: bool,
    },
    MaskedLm {
        dense: Linear,
        norm: Norm,
        decoder: Id,
        bias: Id,
        activation: Activation,
    },
    Embedding,
}

pub struct Bert {
    pub(super) config: Config,
    dropouts: BertDropouts,
    word: Id,
    position: Id,
    token_type: Id,
    norm: Norm,
    pub stack: Stack,
    pub(super) head: Head,
    loss: VocabularyLoss,
    /// (rows, D): the embeddings' sum, before their norm.
    sum: Floats,
    stats: Floats,
    dx: Floats,
}

/// A head's logits and what its backward pass needs.
pub(super) struct Classified {
    /// (n, classes): n sequences or tokens.
    pub logits: Floats,
    pub classes: usize,
    /// (n, D): the classifier's input.
    input: Floats,
    /// (n, D): the pooler's input, and its output before tanh.
    first: Floats,
    before: Floats,
}

const SITE_CLASSIFIER: u64 = 1;

impl Bert {
    pub fn new(
        source: &mut Source,
        config: Config,
        dropouts: BertDropouts,
        head: HeadKind,
        decoder_bias: &str,
    ) -> Result<Self> {
        let (h, inner, eps) = (config.hidden_size, config.intermediate_size, config.layer_norm_eps);
        let deviation = source.deviation;
        let mut table = |name: &str, rows: usize| {
            source.matrix(&format!("embeddings.{name}.weight"), &[rows, h], deviation)
        };
        let word = table("word_embeddings", config.vocab_size)?;
        let position = table("position_embeddings", config.max_position_embeddings)?;
        let token_type = table("token_type_embeddings", config.type_vocab_size)?;
        let norm = source.norm("embeddings.LayerNorm", h, eps)?;
        let mut blocks = Vec::new();
        for i in 0..config.num_hidden_layers {
            let name = |part: &str| format!("encoder.layer.{i}.{part}");
            let qkv = ["query", "key", "value"]
                .map(|part| source.linear(&name(&format!("attention.self.{part}")), h, h, false, deviation));
            blocks.push(Block {
                norm_first: false,
                qkv: qkv.into_iter().collect::<Result<_>>()?,
                proj: source.linear(&name("attention.output.dense"), h, h, false, deviation)?,
                ln_1: source.norm(&name("attention.output.LayerNorm"), h, eps)?,
                fc: source.linear(&name("intermediate.dense"), h, inner, false, deviation)?,
                out: source.linear(&name("output.dense"), inner, h, false, deviation)?,
                ln_2: source.norm(&name("output.LayerNorm"), h, eps)?,
                heads: config.num_attention_heads,
                scale: 1.0 / (config.head_dim() as f32).sqrt(),
                activation: config.hidden_act.into(),
                attention_dropout: dropouts.attention,
                dropout: dropouts.hidden,
                site: 16 * (i as u64 + 1),
            });
        }
        source.may_be_new = true;
        let mut linear = |name: &str, output: usize| source.linear(name, h, output, false, deviation);
        let head = match head {
            HeadKind::Sequence { classes, problem } => Head::Sequence {
                pooler: linear("pooler.dense", h)?,
                classifier: linear("classifier", classes)?,
                problem,
            },
            HeadKind::Token { classes } => {
                Head::Token { classifier: linear("classifier", classes)?, dropout: true }
            }
            HeadKind::Questions => Head::Token { classifier: linear("qa_outputs", 2)?, dropout: false },
            HeadKind::MaskedLm => {
                let dense = linear("cls.predictions.transform.dense", h)?;
                let norm = source.norm("cls.predictions.transform.LayerNorm", h, eps)?;
                let decoder = if config.tie_word_embeddings {
                    word
                } else {
                    source.matrix("cls.predictions.decoder.weight", &[config.vocab_size, h], deviation)?
                };
                let bias = source.vector(decoder_bias, config.vocab_size, 0.0)?;
                Head::MaskedLm { dense, norm, decoder, bias, activation: config.hidden_act.into() }
            }
            HeadKind::Embedding => {
                // Not used, but the checkpoint's: it is written again.
                if source.contains("pooler.dense.weight") {
                    let pooler = source.linear("pooler.dense", h, h, false, deviation)?;
                    for id in [pooler.weight, pooler.bias.expect("a linear layer has a bias")] {
                        source.params[id].trainable = false;
                    }
                }
                Head::Embedding
            }
        };
        Ok(Self {
            config,
            dropouts,
            word,
            position,
            token_type,
            norm,
            stack: Stack::new(blocks),
            head,
            loss: VocabularyLoss::default(),
            sum: Floats::default(),
            stats: Floats::default(),
            dx: Floats::default(),
        })
    }

    /// Targets in these examples: rows, or tokens that have a label.
    /// The stack, and the linear layers of the head.
    pub fn linears_mut(&mut self) -> (&mut Stack, Vec<&mut Linear>) {
        let heads = match &mut self.head {
            Head::Sequence { pooler, classifier, .. } => vec![pooler, classifier],
            Head::Token { classifier, .. } => vec![classifier],
            Head::MaskedLm { dense, .. } => vec![dense],
            Head::Embedding => Vec::new(),
        };
        (&mut self.stack, heads)
    }

    pub fn targets(&self, examples: &[Example]) -> u64 {
        let of = |example: &Example| match &example.target {
            Target::Tokens(labels) => labels.iter().filter(|label| **label >= 0).count() as u64,
            _ => 1,
        };
        examples.iter().map(of).sum()
    }

    pub(super) fn batch<'a>(&self, examples: impl IntoIterator<Item = &'a Example>) -> Result<Batch> {
        let Config { vocab_size, type_vocab_size, max_position_embeddings, .. } = self.config;
        Batch::new(examples, vocab_size, type_vocab_size, max_position_embeddings)
    }

    /// The last hidden states, in `stack.output`.
    pub(super) fn encode(
        &mut self,
        cpu: &mut Cpu,
        params: &Params,
        batch: &Batch,
        trains: bool,
        stop: &dyn Fn() -> bool,
    ) -> Result<()> {
        let d = self.config.hidden_size;
        let len = batch.rows() * d;
        let sum = self.sum.at_least(len);
        gather_rows(&cpu.pool, params.value(self.word), d, &batch.ids, sum);
        add_rows(&cpu.pool, params.value(self.token_type), d, &batch.types, sum);
        add_rows(&cpu.pool, params.value(self.position), d, &batch.positions, sum);
        let normal = self.dx.at_least(len);
        self.norm.forward(cpu, params, sum, self.stats.at_least(2 * batch.rows()), normal);
        let x = self.stack.input(len);
        dropout_forward(&cpu.pool, cpu.dropout(self.dropouts.hidden, 0), normal, x);
        self.stack.forward(cpu, params, &batch.starts, len, trains, stop)
    }

    /// From the gradient of the last hidden states, in `dx`, to all gradients below the head.
    fn encode_backward(
        &mut self,
        cpu: &mut Cpu,
        params: &mut Params,
        batch: &Batch,
        stop: &dyn Fn() -> bool,
    ) -> Result<()> {
        let d = self.config.hidden_size;
        let rows = batch.rows();
        let dx = &mut self.dx[..rows * d];
        self.stack.backward(cpu, params, &batch.starts, dx, stop)?;
        if self.stack.lowest > 0 {
            return Ok(());
        }
        dropout_backward(&cpu.pool, cpu.dropout(self.dropouts.hidden, 0), dx);
        let mut dsum = Floats::zeroed(rows * d);
        let stats = &self.stats[..2 * rows];
        self.norm.backward(cpu, params, dx, &self.sum[..rows * d], stats, Start::Zero, &mut dsum);
        let tables =
            [(self.word, &batch.ids), (self.token_type, &batch.types), (self.position, &batch.positions)];
        for (table, ids) in tables {
            if let Some(gradient) = params[table].gradient_to_add() {
                scatter_add_rows(&cpu.pool, &dsum, d, ids, gradient);
            }
        }
        Ok(())
    }

    /// The logits of a classifying head over the last hidden states.
    pub(super) fn classify(&self, cpu: &mut Cpu, params: &Params, batch: &Batch) -> Classified {
        let d = self.config.hidden_size;
        let hidden = &self.stack.output[..batch.rows() * d];
        let mut out = Classified {
            logits: Floats::default(),
            classes: 0,
            input: Floats::default(),
            first: Floats::default(),
            before: Floats::default(),
        };
        let dropout = cpu.dropout(self.dropouts.classifier, SITE_CLASSIFIER);
        let classifier = match &self.head {
            Head::Sequence { pooler, classifier, .. } => {
                let firsts: Vec<u32> =
                    batch.starts[..batch.starts.len() - 1].iter().map(|s| *s as u32).collect();
                let len = firsts.len() * d;
                out.first = Floats::zeroed(len);
                out.before = Floats::zeroed(len);
                out.input = Floats::zeroed(len);
                gather_rows(&cpu.pool, hidden, d, &firsts, &mut out.first);
                pooler.forward(cpu, params, &out.first, None, &mut out.before);
                let mut pooled = Floats::zeroed(len);
                activation_forward(&cpu.pool, Activation::Tanh, &out.before, &mut pooled);
                dropout_forward(&cpu.pool, dropout, &pooled, &mut out.input);
                classifier
            }
            Head::Token { classifier, dropout: drops } => {
                out.input = Floats::zeroed(hidden.len());
                dropout_forward(&cpu.pool, dropout.filter(|_| *drops), hidden, &mut out.input);
                classifier
            }
            _ => unreachable!("the head classifies"),
        };
        out.classes = classifier.output;
        out.logits = Floats::zeroed(out.input.len() / d * out.classes);
        classifier.forward(cpu, params, &out.input, None, &mut out.logits);
        out
    }

    /// The gradients of `classify`: into the head's parameters and `dx`.
    fn classify_backward(
        &mut self,
        cpu: &mut Cpu,
        params: &mut Params,
        batch: &Batch,
        mut saved: Classified,
        dlogits: &[f32],
    ) {
        let d = self.config.hidden_size;
        let dx = &mut self.dx[..batch.rows() * d];
        let dropout = cpu.dropout(self.dropouts.classifier, SITE_CLASSIFIER);
        match &self.head {
            Head::Sequence { pooler, classifier, .. } => {
                let mut dpooled = Floats::zeroed(saved.input.len());
                let into = Some((&mut dpooled[..], Start::Zero));
                classifier.backward(cpu, params, &saved.input, dlogits, None, into);
                dropout_backward(&cpu.pool, dropout, &mut dpooled);
                activation_backward(&cpu.pool, Activation::Tanh, &saved.before, &mut dpooled);
                let into = Some((&mut saved.input[..], Start::Zero));
                pooler.backward(cpu, params, &saved.first, &dpooled, None, into);
                let rows = batch.starts[..batch.starts.len() - 1].iter().map(|s| *s as u32).collect();
                Selected { rows, targets: Vec::new() }.scatter(cpu, &saved.input, d, dx);
            }
            Head::Token { classifier, dropout: drops } => {
                classifier.backward(cpu, params, &saved.input, dlogits, None, Some((dx, Start::Zero)));
                dropout_backward(&cpu.pool, dropout.filter(|_| *drops), dx);
            }
            _ => unreachable!("the head classifies"),
        }
    }

    pub fn run(
        &mut self,
        cpu: &mut Cpu,
        params: &mut Params,
        examples: &[Example],
        pass: Pass,
        stop: &dyn Fn() -> bool,
    ) -> Result<Outcome> {
        let batch = match self.head {
            Head::Embedding => self.batch(examples.iter().chain(contrast::pairs(examples)?))?,
            _ => self.batch(examples)?,
        };
        self.encode(cpu, params, &batch, pass.trains(), stop)?;
        let outcome = match self.head {
            Head::Sequence { .. } | Head::Token { .. } => {
                self.classes(cpu, params, examples, &batch, pass)?
            }
            Head::MaskedLm { .. } => self.masked(cpu, params, examples, &batch, pass)?,
            Head::Embedding => self.pairs(cpu, examples, &batch, pass),
        };
        if pass.trains() {
            self.encode_backward(cpu, params, &batch, stop)?;
        }
        Ok(outcome)
    }

    // The heads: a loss of the last hidden states; with gradients, those of the head's parameters, and into `dx`.

    fn classes(
        &mut self,
        cpu: &mut Cpu,
        params: &mut Params,
        examples: &[Example],
        batch: &Batch,
        pass: Pass,
    ) -> Result<Outcome> {
        let mut saved = self.classify(cpu, params, batch);
        let problem = match &self.head {
            Head::Sequence { problem, .. } => *problem,
            _ => ProblemType::SingleLabelClassification,
        };
        let mut logits = std::mem::take(&mut saved.logits);
        let outcome = loss::of_classes(cpu, examples, batch, problem, saved.classes, pass, &mut logits)?;
        if pass.trains() {
            self.classify_backward(cpu, params, batch, saved, &logits);
        }
        Ok(outcome)
    }

    fn masked(
        &mut self,
        cpu: &mut Cpu,
        params: &mut Params,
        examples: &[Example],
        batch: &Batch,
        pass: Pass,
    ) -> Result<Outcome> {
        let d = self.config.hidden_size;
        let selected = Selected::of_tokens(examples, batch)?;
        let len = batch.rows() * d;
        let Head::MaskedLm { dense, norm, decoder, bias, activation } = &self.head else {
            unreachable!("a masked-LM head")
        };
        let hidden = selected.gather(cpu, &self.stack.output[..len], d);
        let [mut before, mut after, mut normal] = [(); 3].map(|()| Floats::zeroed(hidden.len()));
        let mut stats = Floats::zeroed(2 * selected.rows.len());
        dense.forward(cpu, params, &hidden, None, &mut before);
        activation_forward(&cpu.pool, *activation, &before, &mut after);
        norm.forward(cpu, params, &after, &mut stats, &mut normal);
        let targets = &selected.targets;
        let outcome = self.loss.run(cpu, params, *decoder, Some(*bias), targets, pass, &mut normal);
        if pass.trains() {
            let mut dafter = Floats::zeroed(hidden.len());
            norm.backward(cpu, params, &normal, &after, &stats, Start::Zero, &mut dafter);
            activation_backward(&cpu.pool, *activation, &before, &mut dafter);
            dense.backward(cpu, params, &hidden, &dafter, None, Some((&mut normal, Start::Zero)));
            selected.scatter(cpu, &normal, d, &mut self.dx[..len]);
        }
        Ok(outcome)
    }

    fn pairs(&mut self, cpu: &mut Cpu, examples: &[Example], batch: &Batch, pass: Pass) -> Outcome {
        let d = self.config.hidden_size;
        let len = batch.rows() * d;
        let (hidden, dx) = (&self.stack.output[..len], &mut self.dx[..len]);
        let scores = contrast::scores(examples);
        contrast::run(cpu, hidden, &batch.starts, d, scores.as_deref(), pass, dx)
    }
}
