//! BERT and its family with gradients. Names are BERT's (`files/names.rs` has each model's own); what a model has
//! otherwise, its description says.

use candlewick_kernels::train::{
    Floats, Start, activation_backward, activation_forward, add_rows, dropout_backward, dropout_forward,
    gather_rows, scatter_add_rows,
};
use candlewick_models::family::Config;

use super::batch::{Batch, Pass};
use super::block::{Block, Norm};
use super::contrast;
use super::cpu::Cpu;
use super::heads::{Head, HeadKind};
use super::linear::Linear;
use super::load::Source;
use super::loss::{self, Outcome, Selected, VocabularyLoss};
use super::params::{Id, Params};
use super::relative::Relative;
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

pub struct Bert {
    pub(super) config: Config,
    dropouts: BertDropouts,
    word: Id,
    position: Id,
    token_type: Option<Id>,
    norm: Norm,
    /// From the embeddings' width to that of the layers (ELECTRA).
    projection: Option<Linear>,
    relative: Option<Relative>,
    pub stack: Stack,
    pub(super) head: Head,
    loss: VocabularyLoss,
    /// (rows, E): the embeddings' sum, before their norm; and behind it, where they are projected.
    sum: Floats,
    embedded: Floats,
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
    /// (n, D): the dense layer's input, and its output before the activation.
    first: Floats,
    before: Floats,
}

/// (buckets, heads)
const RELATIVE_BIAS: &str = "encoder.relative_attention_bias.weight";

const SITE_CLASSIFIER: u64 = 1;
const SITE_FIRST: u64 = 2;

/// DistilBERT drops nothing of attention's output.
fn attention_output_dropout(config: &Config, dropouts: BertDropouts) -> f32 {
    if config.architecture.model_type == "distilbert" { 0.0 } else { dropouts.hidden }
}

impl Bert {
    pub fn new(
        source: &mut Source,
        config: Config,
        dropouts: BertDropouts,
        head: HeadKind,
        decoder_bias: &str,
    ) -> Result<Self> {
        let (h, inner, eps) = (config.hidden_size, config.intermediate_size, config.layer_norm_eps);
        let e = config.embedding_size;
        let deviation = source.deviation;
        let mut table = |name: &str, rows: usize| {
            source.matrix(&format!("embeddings.{name}.weight"), &[rows, e], deviation)
        };
        let word = table("word_embeddings", config.vocab_size)?;
        let position = table("position_embeddings", config.max_position_embeddings)?;
        let token_type = match config.type_vocab_size {
            0 => None,
            types => Some(table("token_type_embeddings", types)?),
        };
        let norm = source.norm("embeddings.LayerNorm", e, eps)?;
        let projection = match e == h {
            true => None,
            false => Some(source.linear("embeddings_project", e, h, false, deviation)?),
        };
        let heads = config.num_attention_heads;
        let relative = match config.relative_buckets {
            0 => None,
            buckets => {
                let table = source.matrix(RELATIVE_BIAS, &[buckets, heads], deviation)?;
                Some(Relative { table, heads })
            }
        };
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
                heads,
                scale: 1.0 / (config.head_dim() as f32).sqrt(),
                activation: config.hidden_act.into(),
                attention_dropout: dropouts.attention,
                attention_output_dropout: attention_output_dropout(&config, dropouts),
                dropout: dropouts.hidden,
                site: 16 * (i as u64 + 1),
            });
        }
        let head = Head::new(source, &config, head, word, decoder_bias)?;
        Ok(Self {
            config,
            dropouts,
            word,
            position,
            token_type,
            norm,
            projection,
            relative,
            stack: Stack::new(blocks),
            head,
            loss: VocabularyLoss::default(),
            sum: Floats::default(),
            embedded: Floats::default(),
            stats: Floats::default(),
            dx: Floats::default(),
        })
    }

    /// The stack, and the linear layers of the head.
    pub fn linears_mut(&mut self) -> (&mut Stack, Vec<&mut Linear>) {
        let heads = match &mut self.head {
            Head::Sequence { dense, classifier, .. } => vec![dense, classifier],
            Head::Token { classifier, .. } => vec![classifier],
            Head::MaskedLm { dense, .. } => vec![dense],
            Head::Embedding => Vec::new(),
        };
        (&mut self.stack, heads)
    }

    /// Targets in these examples: rows, or tokens that have a label.
    pub fn targets(&self, examples: &[Example]) -> u64 {
        let of = |example: &Example| match &example.target {
            Target::Tokens(labels) => labels.iter().filter(|label| **label >= 0).count() as u64,
            _ => 1,
        };
        examples.iter().map(of).sum()
    }

    pub(super) fn batch<'a>(&self, examples: impl IntoIterator<Item = &'a Example>) -> Result<Batch> {
        let Config { vocab_size, type_vocab_size, .. } = self.config;
        let mut batch = Batch::new(examples, vocab_size, type_vocab_size, self.config.max_positions())?;
        if self.config.padding.is_some() {
            let texts = batch.starts.windows(2).map(|pair| &batch.ids[pair[0]..pair[1]]);
            batch.positions = texts.flat_map(|ids| self.config.positions(ids)).collect();
        }
        Ok(batch)
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
        let (e, rows) = (self.config.embedding_size, batch.rows());
        let sum = self.sum.at_least(rows * e);
        gather_rows(&cpu.pool, params.value(self.word), e, &batch.ids, sum);
        if let Some(token_type) = self.token_type {
            add_rows(&cpu.pool, params.value(token_type), e, &batch.types, sum);
        }
        add_rows(&cpu.pool, params.value(self.position), e, &batch.positions, sum);
        let normal = self.dx.at_least(rows * e.max(self.config.hidden_size));
        self.norm.forward(cpu, params, sum, self.stats.at_least(2 * rows), &mut normal[..rows * e]);
        let len = rows * self.config.hidden_size;
        let x = self.stack.input(len);
        let dropout = cpu.dropout(self.dropouts.hidden, 0);
        match &self.projection {
            None => dropout_forward(&cpu.pool, dropout, &normal[..len], x),
            Some(projection) => {
                let embedded = self.embedded.at_least(rows * e);
                dropout_forward(&cpu.pool, dropout, &normal[..rows * e], embedded);
                projection.forward(cpu, params, embedded, None, x);
            }
        }
        if let Some(relative) = &self.relative {
            relative.spread(params, &batch.starts, trains, self.stack.distances());
        }
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
        let (d, e, rows) = (self.config.hidden_size, self.config.embedding_size, batch.rows());
        self.stack.backward(cpu, params, &batch.starts, &mut self.dx[..rows * d], stop)?;
        if let Some(relative) = &self.relative {
            relative.gather(params, self.stack.distances());
        }
        if self.stack.lowest > 0 {
            return Ok(());
        }
        let mut projected = Floats::default();
        let dx = match &self.projection {
            None => &mut self.dx[..rows * d],
            Some(projection) => {
                let dembedded = projected.at_least(rows * e);
                let into = Some((&mut *dembedded, Start::Zero));
                let (x, dy) = (&self.embedded[..rows * e], &self.dx[..rows * d]);
                projection.backward(cpu, params, x, dy, None, into);
                dembedded
            }
        };
        dropout_backward(&cpu.pool, cpu.dropout(self.dropouts.hidden, 0), dx);
        let mut dsum = Floats::zeroed(rows * e);
        let stats = &self.stats[..2 * rows];
        self.norm.backward(cpu, params, dx, &self.sum[..rows * e], stats, Start::Zero, &mut dsum);
        let tables = [
            (Some(self.word), &batch.ids),
            (self.token_type, &batch.types),
            (Some(self.position), &batch.positions),
        ];
        for (table, ids) in tables {
            if let Some(gradient) = table.and_then(|table| params[table].gradient_to_add()) {
                scatter_add_rows(&cpu.pool, &dsum, e, ids, gradient);
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
        let [dropout, first_dropout] =
            [SITE_CLASSIFIER, SITE_FIRST].map(|site| cpu.dropout(self.dropouts.classifier, site));
        let classifier = match &self.head {
            Head::Sequence { dense, activation, classifier, drops_first, .. } => {
                let firsts: Vec<u32> =
                    batch.starts[..batch.starts.len() - 1].iter().map(|s| *s as u32).collect();
                let len = firsts.len() * d;
                out.first = Floats::zeroed(len);
                out.before = Floats::zeroed(len);
                out.input = Floats::zeroed(len);
                let mut pooled = Floats::zeroed(len);
                gather_rows(&cpu.pool, hidden, d, &firsts, &mut pooled);
                dropout_forward(&cpu.pool, first_dropout.filter(|_| *drops_first), &pooled, &mut out.first);
                dense.forward(cpu, params, &out.first, None, &mut out.before);
                activation_forward(&cpu.pool, *activation, &out.before, &mut pooled);
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
        let [dropout, first_dropout] =
            [SITE_CLASSIFIER, SITE_FIRST].map(|site| cpu.dropout(self.dropouts.classifier, site));
        match &self.head {
            Head::Sequence { dense, activation, classifier, drops_first, .. } => {
                let mut dpooled = Floats::zeroed(saved.input.len());
                let into = Some((&mut dpooled[..], Start::Zero));
                classifier.backward(cpu, params, &saved.input, dlogits, None, into);
                dropout_backward(&cpu.pool, dropout, &mut dpooled);
                activation_backward(&cpu.pool, *activation, &saved.before, &mut dpooled);
                let into = Some((&mut saved.input[..], Start::Zero));
                dense.backward(cpu, params, &saved.first, &dpooled, None, into);
                dropout_backward(&cpu.pool, first_dropout.filter(|_| *drops_first), &mut saved.input);
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
        let narrow = selected.rows.len() * self.config.decoder_input();
        let [mut before, mut after, mut normal] = [(); 3].map(|()| Floats::zeroed(narrow));
        let mut stats = Floats::zeroed(2 * selected.rows.len());
        dense.forward(cpu, params, &hidden, None, &mut before);
        activation_forward(&cpu.pool, *activation, &before, &mut after);
        norm.forward(cpu, params, &after, &mut stats, &mut normal);
        let targets = &selected.targets;
        let outcome = self.loss.run(cpu, params, *decoder, Some(*bias), targets, pass, &mut normal);
        if pass.trains() {
            let (mut dafter, mut dhidden) = (Floats::zeroed(narrow), Floats::zeroed(hidden.len()));
            norm.backward(cpu, params, &normal, &after, &stats, Start::Zero, &mut dafter);
            activation_backward(&cpu.pool, *activation, &before, &mut dafter);
            dense.backward(cpu, params, &hidden, &dafter, None, Some((&mut dhidden, Start::Zero)));
            selected.scatter(cpu, &dhidden, d, &mut self.dx[..len]);
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
