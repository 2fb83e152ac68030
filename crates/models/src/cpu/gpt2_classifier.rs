//! GPT-2 with a classifier on packed CPU kernels: the blocks of `gpt2_block.rs` over whole texts, and the scores of
//! each text's last token.
//!
//! A batch is one list of rows, M = all texts' tokens, without padding: a text gets the same bits alone and in any
//! batch. It reads its own keys and values and keeps none, so there is no cache.

use std::any::Any;

use candlewick_kernels::{AttentionJob, KvSource, attention};

use crate::contract::encoder::split;
use crate::contract::input::check_batch;
use crate::cpu::bert::attention_weights;
use crate::cpu::gpt2_block::{Around, Block, Space};
use crate::cpu::packed::{Cpu, Loader, Norm, PackedLinear, Table, space};
use crate::reference::gpt2::{Config, SCORE, last_token};
use crate::{
    Encoder, EncoderInfo, EncoderInput, EncoderOutput, EncoderWant, LoadObserver, LoadOptions, ModelError,
    Result, Weights,
};

pub struct CpuGpt2Classifier {
    info: EncoderInfo,
    cpu: Cpu,
    wte: Table,
    wpe: Table,
    h: Vec<Block>,
    ln_f: Norm,
    score: PackedLinear,
    /// The token that does not count at a text's end.
    padding: Option<u32>,
    space: Space,
}

impl CpuGpt2Classifier {
    pub fn load(
        weights: &Weights,
        config: &Config,
        padding: Option<u32>,
        mut info: EncoderInfo,
        options: &LoadOptions,
        observer: &dyn LoadObserver,
    ) -> Result<Self> {
        let d = config.n_embd;
        let cpu = Cpu::new(options.threads)?;
        let dtype = options.dtype.unwrap_or_else(|| weights.native_dtype("h.0.attn.c_attn.weight"));
        let load = Loader::new(weights, &cpu.pool, options.dtype, observer);
        let wte = load.table("wte.weight", config.vocab_size, d)?;
        let wpe = load.table("wpe.weight", config.n_positions, d)?;
        let h = (0..config.n_layer).map(|i| Block::load(&load, config, i)).collect::<Result<_>>()?;
        let ln_f = load.norm("ln_f", d, config.layer_norm_epsilon)?;
        let score = load.head_without_bias(SCORE, d, info.labels.len())?;
        (info.dtype, info.weight_bytes, info.threads) = (dtype, load.held(), cpu.pool.threads());
        info.instruction_set = cpu.pool.isa().to_string();
        Ok(Self { info, cpu, wte, wpe, h, ln_f, score, padding, space: Space::default() })
    }

    /// The embeddings of all texts, in `space.x`.
    fn embed(&mut self, batch: &[EncoderInput], m: usize) {
        let d = self.info.hidden_size;
        let x = space(&mut self.space.x, m * d);
        x.fill(0.0);
        let tokens = batch.iter().flat_map(|input| input.ids.iter().enumerate());
        for (row, (position, id)) in x.chunks_exact_mut(d).zip(tokens) {
            self.wte.add_row(*id as usize, row);
            self.wpe.add_row(position, row);
        }
    }

    /// The scores of each text's last token, (B, C), from the states after `ln_f`.
    fn logits(&mut self, batch: &[EncoderInput]) -> Vec<f32> {
        let d = self.info.hidden_size;
        let mut lasts = Vec::with_capacity(batch.len() * d);
        let mut first = 0;
        for input in batch {
            let row = first + last_token(&input.ids, self.padding);
            lasts.extend_from_slice(&self.space.x[row * d..][..d]);
            first += input.ids.len();
        }
        let mut logits = vec![0.0; batch.len() * self.score.output()];
        self.score.forward(&mut self.cpu, &lasts, None, None, &mut logits);
        logits
    }
}

/// One block's attention over texts side by side.
struct Texts<'a> {
    batch: &'a [EncoderInput],
    heads: usize,
    scale: f32,
}

impl Around for Texts<'_> {
    fn attend(&mut self, cpu: &mut Cpu, qkv: &[f32], out: &mut [f32]) -> Result<()> {
        let m: usize = self.batch.iter().map(|input| input.ids.len()).sum();
        let d = out.len() / m;
        let mut jobs = Vec::with_capacity(self.batch.len());
        let (mut q, mut out) = (qkv, out);
        for input in self.batch {
            let rows = input.ids.len();
            let (this, rest) = out.split_at_mut(rows * d);
            let (k, v) = ((&q[d..]).into(), (&q[2 * d..]).into());
            let kv = KvSource::Rows { k, k_stride: 3 * d, v, v_stride: 3 * d, len: rows };
            let (q_stride, bias, this) = (3 * d, None, this.into());
            jobs.push(AttentionJob { q: q.into(), q_stride, rows, start: 0, kv, bias, out: this });
            (q, out) = (&q[rows * 3 * d..], rest);
        }
        attention(&cpu.pool, &mut jobs, self.heads, d / self.heads, self.scale, true, &mut cpu.scratch)?;
        Ok(())
    }
}

impl Encoder for CpuGpt2Classifier {
    fn info(&self) -> &EncoderInfo {
        &self.info
    }

    fn forward(
        &mut self,
        batch: &[EncoderInput],
        want: &EncoderWant,
        stop: &dyn Fn() -> bool,
    ) -> Result<Vec<EncoderOutput>> {
        check_batch(batch, &self.info)?;
        let (d, heads, layers) = (self.info.hidden_size, self.info.heads, self.info.layers);
        let lengths: Vec<usize> = batch.iter().map(|input| input.ids.len()).collect();
        let m: usize = lengths.iter().sum();
        let mut outputs = vec![EncoderOutput::default(); batch.len()];
        self.embed(batch, m);
        for index in 0..=layers {
            if index == layers {
                // transformers' last hidden state is that behind the last norm.
                let (x, normal) = (&mut self.space.x[..m * d], space(&mut self.space.normal, m * d));
                self.ln_f.forward(&self.cpu, x, normal);
                x.copy_from_slice(normal);
            }
            let keeps = want.hidden_states.contains(index);
            for (output, state) in outputs.iter_mut().zip(split(&self.space.x, &lengths, d)) {
                if keeps {
                    output.hidden_states.push(state.to_vec());
                }
                // No norm has spread it over its row yet, so every value is looked at.
                if output.broken_state.is_none() && state.iter().any(|x| !x.is_finite()) {
                    output.broken_state = Some(index);
                }
            }
            let Some(block) = self.h.get(index) else { break };
            if stop() {
                return Err(ModelError::Stopped);
            }
            let scale = block.scale;
            block.forward(&mut self.cpu, &mut self.space, m, &mut Texts { batch, heads, scale })?;
            if want.attentions.contains(index) {
                let seen = |_, i: usize, j: usize| if j > i { f32::NEG_INFINITY } else { 0.0 };
                for (output, qkv) in outputs.iter_mut().zip(split(&self.space.qkv, &lengths, 3 * d)) {
                    output.attentions.push(attention_weights(qkv, 3 * d, d, heads, scale, seen));
                }
            }
        }
        for (output, state) in outputs.iter_mut().zip(split(&self.space.x, &lengths, d)) {
            if want.last_hidden_state {
                output.last_hidden_state = state.to_vec();
            }
            if let Some(pooled) = &want.embedding {
                output.embedding = pooled.apply(state, state.len() / d);
            }
        }
        if want.pooled {
            return Err(ModelError::Input("the model has no pooler".into()));
        }
        if want.logits {
            let logits = self.logits(batch);
            for (output, logits) in outputs.iter_mut().zip(logits.chunks_exact(self.score.output())) {
                output.logits = logits.to_vec();
            }
        }
        Ok(outputs)
    }

    fn active(&self) -> Box<dyn Any> {
        self.cpu.awake()
    }
}
