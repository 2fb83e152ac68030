//! GPT-2 with gradients. Names mirror the checkpoint's.

use candlewick_kernels::train::{
    Floats, Start, add_rows, dropout_backward, dropout_forward, gather_rows, scatter_add_rows,
};
use candlewick_models::gpt2::{Config, last_token};

use super::batch::{Batch, Pass};
use super::block::{Block, Norm};
use super::cpu::Cpu;
use super::linear::Linear;
use super::load::Source;
use super::loss::{self, Outcome, Selected, VocabularyLoss};
use super::params::{Id, Params};
use super::stack::Stack;
use crate::data::{Example, ProblemType, Target};
use crate::{Result, TrainError};

/// Of the embeddings, attention's probabilities, and what is added to the residual stream.
#[derive(Debug, Clone, Copy)]
pub struct Dropouts {
    pub embedding: f32,
    pub attention: f32,
    pub residual: f32,
}

pub struct Gpt2 {
    config: Config,
    dropouts: Dropouts,
    wte: Id,
    wpe: Id,
    pub stack: Stack,
    ln_f: Norm,
    head: Head,
    pub(super) loss: VocabularyLoss,
    dx: Floats,
}

enum Head {
    /// Of every token; `wte` where it is tied.
    Language { lm_head: Id },
    /// Of the last token that is not `padding`.
    Classes { score: Linear, problem: ProblemType, padding: Option<u32> },
}

/// The classes of a text: how many, of which kind, and the token that does not count at a text's end.
#[derive(Debug, Clone, Copy)]
pub struct Classes {
    pub count: usize,
    pub problem: ProblemType,
    pub padding: Option<u32>,
}

/// Chosen states, (n, D), before and after `ln_f`, and that norm's statistics.
struct Chosen {
    states: Floats,
    normal: Floats,
    stats: Floats,
}

impl Gpt2 {
    /// A language model.
    pub fn new(source: &mut Source, config: Config, dropouts: Dropouts) -> Result<Self> {
        Self::with_head(source, config, dropouts, None)
    }

    /// `GPT2ForSequenceClassification`.
    pub fn classifier(
        source: &mut Source,
        config: Config,
        dropouts: Dropouts,
        classes: Classes,
    ) -> Result<Self> {
        Self::with_head(source, config, dropouts, Some(classes))
    }

    fn with_head(
        source: &mut Source,
        config: Config,
        dropouts: Dropouts,
        classes: Option<Classes>,
    ) -> Result<Self> {
        let (d, inner, eps) = (config.n_embd, config.n_inner(), config.layer_norm_epsilon);
        let deviation = source.deviation;
        // Radford et al.: what is added to the residual stream is scaled by 1 / √N, N additions in all.
        let added = deviation / (2.0 * config.n_layer as f32).sqrt();
        let wte = source.matrix("wte.weight", &[config.vocab_size, d], deviation)?;
        let wpe = source.matrix("wpe.weight", &[config.n_positions, d], deviation)?;
        let mut blocks = Vec::new();
        for i in 0..config.n_layer {
            let name = |part: &str| format!("h.{i}.{part}");
            blocks.push(Block {
                norm_first: true,
                ln_1: source.norm(&name("ln_1"), d, eps)?,
                qkv: vec![source.linear(&name("attn.c_attn"), d, 3 * d, true, deviation)?],
                proj: source.linear(&name("attn.c_proj"), d, d, true, added)?,
                ln_2: source.norm(&name("ln_2"), d, eps)?,
                fc: source.linear(&name("mlp.c_fc"), d, inner, true, deviation)?,
                out: source.linear(&name("mlp.c_proj"), inner, d, true, added)?,
                heads: config.n_head,
                scale: config.attention_scale(i) as f32,
                activation: config.activation_function.into(),
                attention_dropout: dropouts.attention,
                attention_output_dropout: dropouts.residual,
                dropout: dropouts.residual,
                site: 16 * (i as u64 + 1),
            });
        }
        let ln_f = source.norm("ln_f", d, eps)?;
        let head = match classes {
            Some(Classes { count, problem, padding }) => {
                source.may_be_new = true;
                let score = source.linear_without_bias("score", d, count, deviation)?;
                Head::Classes { score, problem, padding }
            }
            None if config.tie_word_embeddings => Head::Language { lm_head: wte },
            None => Head::Language {
                lm_head: source.matrix("lm_head.weight", &[config.vocab_size, d], deviation)?,
            },
        };
        let loss = VocabularyLoss::default();
        let stack = Stack::new(blocks);
        Ok(Self { config, dropouts, wte, wpe, stack, ln_f, head, loss, dx: Floats::default() })
    }

    /// Each label is compared with the logits of the position before it; the first token is not predicted.
    fn select(examples: &[Example]) -> Result<Selected> {
        let mut selected = Selected { rows: Vec::new(), targets: Vec::new() };
        let mut first = 0;
        for example in examples {
            let Target::Tokens(labels) = &example.target else {
                return Err(TrainError::Internal(
                    "a language model's target is a label for each token".into(),
                ));
            };
            for (t, label) in labels.iter().enumerate().skip(1) {
                if *label >= 0 {
                    selected.rows.push((first + t - 1) as u32);
                    selected.targets.push(*label as u32);
                }
            }
            first += example.input_ids.len();
        }
        Ok(selected)
    }

    /// Of a language model: labels that count.
    pub fn targets(examples: &[Example]) -> Result<u64> {
        Ok(Self::select(examples)?.rows.len() as u64)
    }

    /// The stack, and the linear layer of a classifier's head.
    pub fn linears_mut(&mut self) -> (&mut Stack, Vec<&mut Linear>) {
        let heads = match &mut self.head {
            Head::Classes { score, .. } => vec![score],
            Head::Language { .. } => Vec::new(),
        };
        (&mut self.stack, heads)
    }

    /// As `targets`; of a classifier: texts.
    pub fn targets_of(&self, examples: &[Example]) -> Result<u64> {
        match self.head {
            Head::Language { .. } => Self::targets(examples),
            Head::Classes { .. } => Ok(examples.len() as u64),
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
        let batch = self.batch(examples)?;
        let selected = match self.head {
            Head::Language { .. } => Self::select(examples)?,
            Head::Classes { padding, .. } => lasts(&batch, padding),
        };
        let (d, len) = (self.config.n_embd, batch.rows() * self.config.n_embd);
        self.blocks(cpu, params, &batch, pass.trains(), stop)?;
        let mut chosen = self.chosen(cpu, params, &selected, len);
        let outcome = match &self.head {
            Head::Language { lm_head } => {
                let (targets, normal) = (&selected.targets, &mut chosen.normal);
                self.loss.run(cpu, params, *lm_head, None, targets, pass, normal)
            }
            Head::Classes { score, problem, .. } => {
                let mut logits = Floats::zeroed(selected.rows.len() * score.output);
                score.forward(cpu, params, &chosen.normal, None, &mut logits);
                let (problem, classes) = (*problem, score.output);
                let outcome = loss::of_classes(cpu, examples, &batch, problem, classes, pass, &mut logits)?;
                if pass.trains() {
                    let mut dnormal = Floats::zeroed(chosen.normal.len());
                    let into = Some((&mut dnormal[..], Start::Zero));
                    score.backward(cpu, params, &chosen.normal, &logits, None, into);
                    chosen.normal = dnormal;
                }
                outcome
            }
        };
        if !pass.trains() {
            return Ok(outcome);
        }
        let Chosen { states, normal, stats } = chosen;
        let mut dlast = Floats::zeroed(states.len());
        self.ln_f.backward(cpu, params, &normal, &states, &stats, Start::Zero, &mut dlast);
        let dx = &mut self.dx[..len];
        selected.scatter(cpu, &dlast, d, dx);
        self.stack.backward(cpu, params, &batch.starts, dx, stop)?;
        if self.stack.lowest == 0 {
            dropout_backward(&cpu.pool, cpu.dropout(self.dropouts.embedding, 0), dx);
            for (table, ids) in [(self.wte, &batch.ids), (self.wpe, &batch.positions)] {
                if let Some(gradient) = params[table].gradient_to_add() {
                    scatter_add_rows(&cpu.pool, dx, d, ids, gradient);
                }
            }
        }
        Ok(outcome)
    }

    /// A classifier's logits of each text, (B, C).
    pub(super) fn classify(
        &mut self,
        cpu: &mut Cpu,
        params: &Params,
        examples: &[Example],
        stop: &dyn Fn() -> bool,
    ) -> Result<Vec<Vec<f32>>> {
        let Head::Classes { padding, .. } = self.head else {
            return Err(TrainError::Internal("the head has no classes".into()));
        };
        let batch = self.batch(examples)?;
        self.blocks(cpu, params, &batch, false, stop)?;
        let chosen = self.chosen(cpu, params, &lasts(&batch, padding), batch.rows() * self.config.n_embd);
        let Head::Classes { score, .. } = &self.head else { unreachable!("as above") };
        let mut logits = Floats::zeroed(examples.len() * score.output);
        score.forward(cpu, params, &chosen.normal, None, &mut logits);
        Ok(logits.chunks_exact(score.output).map(<[f32]>::to_vec).collect())
    }

    fn batch(&self, examples: &[Example]) -> Result<Batch> {
        Batch::new(examples, self.config.vocab_size, 0, self.config.n_positions)
    }

    /// The residual stream behind the last block, in `stack.output`.
    fn blocks(
        &mut self,
        cpu: &mut Cpu,
        params: &Params,
        batch: &Batch,
        trains: bool,
        stop: &dyn Fn() -> bool,
    ) -> Result<()> {
        let d = self.config.n_embd;
        let len = batch.rows() * d;
        let embedding_dropout = cpu.dropout(self.dropouts.embedding, 0);
        let sum = self.dx.at_least(len);
        gather_rows(&cpu.pool, params.value(self.wte), d, &batch.ids, sum);
        add_rows(&cpu.pool, params.value(self.wpe), d, &batch.positions, sum);
        dropout_forward(&cpu.pool, embedding_dropout, sum, self.stack.input(len));
        self.stack.forward(cpu, params, &batch.starts, len, trains, stop)
    }

    fn chosen(&self, cpu: &Cpu, params: &Params, selected: &Selected, len: usize) -> Chosen {
        let states = selected.gather(cpu, &self.stack.output[..len], self.config.n_embd);
        let (mut normal, mut stats) = (Floats::zeroed(states.len()), Floats::zeroed(2 * selected.rows.len()));
        self.ln_f.forward(cpu, params, &states, &mut stats, &mut normal);
        Chosen { states, normal, stats }
    }
}

/// The row of each text's last token that is not padding.
fn lasts(batch: &Batch, padding: Option<u32>) -> Selected {
    let last = |pair: &[usize]| (pair[0] + last_token(&batch.ids[pair[0]..pair[1]], padding)) as u32;
    Selected { rows: batch.starts.windows(2).map(last).collect(), targets: Vec::new() }
}
