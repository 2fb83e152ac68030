//! GPT-2 with gradients. Names mirror the checkpoint's.

use candlewick_kernels::train::{
    Floats, Start, add_rows, dropout_backward, dropout_forward, gather_rows, scatter_add_rows,
};
use candlewick_models::gpt2::Config;

use super::batch::{Batch, Pass};
use super::block::{Block, Norm};
use super::cpu::Cpu;
use super::load::Source;
use super::loss::{Outcome, Selected, VocabularyLoss};
use super::params::{Id, Params};
use super::stack::Stack;
use crate::data::{Example, Target};
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
    /// `wte` where it is tied.
    lm_head: Id,
    pub(super) loss: VocabularyLoss,
    dx: Floats,
}

impl Gpt2 {
    pub fn new(source: &mut Source, config: Config, dropouts: Dropouts) -> Result<Self> {
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
                dropout: dropouts.residual,
                site: 16 * (i as u64 + 1),
            });
        }
        let ln_f = source.norm("ln_f", d, eps)?;
        let lm_head = if config.tie_word_embeddings {
            wte
        } else {
            source.matrix("lm_head.weight", &[config.vocab_size, d], deviation)?
        };
        let loss = VocabularyLoss::default();
        let stack = Stack::new(blocks);
        Ok(Self { config, dropouts, wte, wpe, stack, ln_f, lm_head, loss, dx: Floats::default() })
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

    pub fn targets(examples: &[Example]) -> Result<u64> {
        Ok(Self::select(examples)?.rows.len() as u64)
    }

    pub fn run(
        &mut self,
        cpu: &mut Cpu,
        params: &mut Params,
        examples: &[Example],
        pass: Pass,
        stop: &dyn Fn() -> bool,
    ) -> Result<Outcome> {
        let d = self.config.n_embd;
        let batch = Batch::new(examples, self.config.vocab_size, 1, self.config.n_positions)?;
        let selected = Self::select(examples)?;
        let len = batch.rows() * d;

        let embedding_dropout = cpu.dropout(self.dropouts.embedding, 0);
        let dx = self.dx.at_least(len);
        let x = self.stack.input(len);
        gather_rows(&cpu.pool, params.value(self.wte), d, &batch.ids, dx);
        add_rows(&cpu.pool, params.value(self.wpe), d, &batch.positions, dx);
        dropout_forward(&cpu.pool, embedding_dropout, dx, x);
        self.stack.forward(cpu, params, &batch.starts, len, pass.trains(), stop)?;

        let last = selected.gather(cpu, &self.stack.output[..len], d);
        let (mut normal, mut stats) = (Floats::zeroed(last.len()), Floats::zeroed(2 * selected.rows.len()));
        self.ln_f.forward(cpu, params, &last, &mut stats, &mut normal);
        let outcome = self.loss.run(cpu, params, self.lm_head, None, &selected.targets, pass, &mut normal);
        if !pass.trains() {
            return Ok(outcome);
        }
        let mut dlast = Floats::zeroed(last.len());
        self.ln_f.backward(cpu, params, &normal, &last, &stats, Start::Zero, &mut dlast);
        selected.scatter(cpu, &dlast, d, dx);
        self.stack.backward(cpu, params, &batch.starts, dx, stop)?;
        if self.stack.lowest == 0 {
            dropout_backward(&cpu.pool, embedding_dropout, dx);
            for (table, ids) in [(self.wte, &batch.ids), (self.wpe, &batch.positions)] {
                if let Some(gradient) = params[table].gradient_to_add() {
                    scatter_add_rows(&cpu.pool, dx, d, ids, gradient);
                }
            }
        }
        Ok(outcome)
    }
}
