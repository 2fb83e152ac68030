//! GPT-2 on packed CPU kernels: the same checkpoint and mathematics as `gpt2.rs`, for generation.
//!
//! A step is one batch of rows, M = all sequences' new tokens, without padding. Rows never mix outside attention, and
//! every kernel reduces in an order that does not depend on M, so a sequence gets the same bits alone and in any batch.

use std::any::Any;
use std::ops::Range;

use candlewick_kernels::{
    AttentionJob, Epilogue, KV_BLOCK, KvPool, KvShape, KvSource, KvType, KvWrite, Layout, PackedMatrix,
    attention, matmul,
};

use crate::contract::causal::check_steps;
use crate::cpu::gpt2_block::{Around, Block, Part, Space};
use crate::cpu::packed::{Cpu, Loader, Norm, PackedLora, space};
use crate::memory::kv_spec;
use crate::reference::gpt2::Config;
use crate::{
    Adapter, BlockId, CausalBackend, CausalInfo, Dtype, KvSpec, LoadObserver, LoadOptions, LogitRows,
    ModelError, Result, Step, StepLogits, Weights,
};

/// What one adapter adds to a block's linear layers.
#[derive(Default)]
struct BlockAdapter {
    c_attn: Option<PackedLora>,
    attn_c_proj: Option<PackedLora>,
    c_fc: Option<PackedLora>,
    mlp_c_proj: Option<PackedLora>,
}

/// Rows of a step that have an adapter.
type AdaptedRows = (usize, Range<usize>);

pub struct CpuGpt2 {
    info: CausalInfo,
    cpu: Cpu,
    /// (V, D): looked up, and the head where it is tied.
    wte: PackedMatrix,
    /// (n_positions, D)
    wpe: Vec<f32>,
    h: Vec<Block>,
    /// By adapter, by block.
    adapters: Vec<Vec<BlockAdapter>>,
    ln_f: Norm,
    lm_head: Option<PackedMatrix>,
    kv: KvPool,
    spec: KvSpec,
    space: Space,
    /// (rows that want logits, V)
    logits: Vec<f32>,
}

impl CpuGpt2 {
    pub fn load(
        weights: &Weights,
        config: &Config,
        mut info: CausalInfo,
        options: &LoadOptions,
        observer: &dyn LoadObserver,
    ) -> Result<Self> {
        let (v, d) = (config.vocab_size, config.n_embd);
        let cpu = Cpu::new(options.threads)?;
        let dtype = options.dtype.unwrap_or_else(|| weights.main_dtype());
        let load = Loader::new(weights, &cpu.pool, options.dtype, observer);
        let wte = load.matrix("wte.weight", Layout::OutIn, v, d)?;
        let wpe = load.vector("wpe.weight", &[config.n_positions, d])?;
        let h = (0..config.n_layer).map(|i| Block::load(&load, config, i)).collect::<Result<_>>()?;
        let ln_f = load.norm("ln_f", d, config.layer_norm_epsilon)?;
        let lm_head = if config.tie_word_embeddings {
            None
        } else {
            Some(load.matrix("lm_head.weight", Layout::OutIn, v, d)?)
        };
        let adapters = options
            .adapters
            .iter()
            .map(|(_, folder)| load_adapter(folder, weights, &cpu, config))
            .collect::<Result<Vec<_>>>()?;
        let blocks = adapters.iter().flatten().flat_map(BlockAdapter::all);
        let held = load.held() + blocks.map(|lora| lora.bytes() as u64).sum::<u64>();
        (info.dtype, info.weight_bytes, info.threads) = (dtype, held, cpu.pool.threads());
        info.instruction_set = cpu.pool.isa().to_string();
        let shape = KvShape {
            layers: config.n_layer,
            heads: config.n_head,
            head_dim: d / config.n_head,
            kv_type: match dtype {
                Dtype::F32 => KvType::F32,
                Dtype::Bf16 | Dtype::Int8 => KvType::Bf16,
                Dtype::F16 | Dtype::Q8_0 | Dtype::Q4_0 => KvType::F16,
            },
        };
        let spec = kv_spec(options.kv_cache_bytes, KV_BLOCK, shape.block_bytes(), config.n_positions)?;
        Ok(Self {
            info,
            cpu,
            wte,
            wpe,
            h,
            adapters,
            ln_f,
            lm_head,
            kv: KvPool::new(shape, spec.blocks),
            spec,
            space: Space::default(),
            logits: Vec::new(),
        })
    }

    /// Runs the blocks over all `m` rows; the result is in `space.x`.
    fn blocks(&mut self, steps: &[Step<'_>], m: usize, stop: &dyn Fn() -> bool) -> Result<()> {
        let d = self.info.hidden_size;
        let mut rows = space(&mut self.space.x, m * d).chunks_exact_mut(d);
        for step in steps {
            for (t, &token) in step.tokens.iter().enumerate() {
                let row = rows.next().expect("a row for every token");
                self.wte.dequantize_row(token as usize, row);
                let position = &self.wpe[(step.start + t) * d..][..d];
                row.iter_mut().zip(position).for_each(|(x, p)| *x += p);
            }
        }
        let adapted = adapted_rows(steps);
        for (layer, block) in self.h.iter().enumerate() {
            if stop() {
                return Err(ModelError::Stopped);
            }
            let (kv, adapters) = (&mut self.kv, &self.adapters[..]);
            let (scale, heads) = (block.scale, self.info.heads);
            let mut cached = Cached { steps, layer, m, heads, scale, kv, adapters, adapted: &adapted };
            block.forward(&mut self.cpu, &mut self.space, m, &mut cached)?;
        }
        Ok(())
    }

    /// ln_f and the head for the rows that want logits, which are in `logits` then; returns how many.
    fn head(&mut self, steps: &[Step<'_>]) -> usize {
        let (d, v, cpu) = (self.info.hidden_size, self.info.vocab_size, &mut self.cpu);
        let rows = steps.iter().map(|step| step.logits).sum();
        let gathered = space(&mut self.space.y, rows * d);
        let (mut gather, mut end) = (gathered.chunks_exact_mut(d), 0);
        for step in steps {
            end += step.tokens.len();
            for (from, row) in (end - step.logits..end).zip(&mut gather) {
                row.copy_from_slice(&self.space.x[from * d..][..d]);
            }
        }
        let normal = space(&mut self.space.normal, rows * d);
        self.ln_f.forward(cpu, gathered, normal);
        let logits = space(&mut self.logits, rows * v);
        let head = self.lm_head.as_ref().unwrap_or(&self.wte);
        matmul(&cpu.pool, &*normal, rows, head, Epilogue::default(), &mut cpu.scratch, logits);
        rows
    }
}

impl CausalBackend for CpuGpt2 {
    fn info(&self) -> &CausalInfo {
        &self.info
    }

    fn kv(&self) -> KvSpec {
        self.spec
    }

    fn copy_blocks(&mut self, pairs: &[(BlockId, BlockId)]) -> Result<()> {
        for (from, to) in pairs {
            self.kv.copy_block(*from, *to)?;
        }
        Ok(())
    }

    fn forward<'a>(
        &'a mut self,
        steps: &[Step<'_>],
        stop: &dyn Fn() -> bool,
    ) -> Result<Box<dyn StepLogits + 'a>> {
        check_steps(steps, &self.info, &self.spec)?;
        self.blocks(steps, steps.iter().map(|step| step.tokens.len()).sum(), stop)?;
        let rows = self.head(steps);
        let vocab_size = self.info.vocab_size;
        Ok(Box::new(LogitRows::new(&mut self.logits[..rows * vocab_size], vocab_size)))
    }

    fn active(&self) -> Box<dyn Any> {
        self.cpu.awake()
    }
}

/// One block's part of a step: keys and values are in the pool, and some rows have adapters.
struct Cached<'a> {
    steps: &'a [Step<'a>],
    layer: usize,
    m: usize,
    heads: usize,
    scale: f32,
    kv: &'a mut KvPool,
    adapters: &'a [Vec<BlockAdapter>],
    adapted: &'a [AdaptedRows],
}

impl<'a> Around for Cached<'a> {
    fn attend(&mut self, cpu: &mut Cpu, qkv: &[f32], out: &mut [f32]) -> Result<()> {
        let (layer, d) = (self.layer, out.len() / self.m);
        let mut rest = qkv;
        let write = |step: &'a Step<'a>| {
            let (blocks, start, rows) = (step.blocks, step.start, step.tokens.len());
            let write = KvWrite { blocks, start, rows, k: &rest[d..], v: &rest[2 * d..], stride: 3 * d };
            rest = &rest[rows * 3 * d..];
            write
        };
        let writes: Vec<_> = self.steps.iter().map(write).collect();
        self.kv.write(&cpu.pool, layer, &writes)?;
        let mut jobs = Vec::with_capacity(self.steps.len());
        let (mut q, mut out) = (qkv, out);
        for step in self.steps {
            let (rows, start) = (step.tokens.len(), step.start);
            let (this, rest) = out.split_at_mut(rows * d);
            let kv = KvSource::Blocks { pool: &*self.kv, layer, blocks: step.blocks, len: start + rows };
            let (q_stride, bias, this) = (3 * d, None, this.into());
            jobs.push(AttentionJob { q: q.into(), q_stride, rows, start, kv, bias, out: this });
            (q, out) = (&q[rows * 3 * d..], rest);
        }
        attention(&cpu.pool, &mut jobs, self.heads, d / self.heads, self.scale, true, &mut cpu.scratch)?;
        Ok(())
    }

    fn adapts(&self) -> bool {
        !self.adapted.is_empty()
    }

    fn adapt(&self, cpu: &mut Cpu, part: Part, x: &[f32], out: &mut [f32]) {
        let (input, output) = (x.len() / self.m, out.len() / self.m);
        for (adapter, rows) in self.adapted {
            if let Some(lora) = self.adapters[*adapter][self.layer].of(part) {
                let x = &x[rows.start * input..rows.end * input];
                lora.add(cpu, x, &mut out[rows.start * output..rows.end * output]);
            }
        }
    }
}

impl BlockAdapter {
    fn of(&self, part: Part) -> Option<&PackedLora> {
        match part {
            Part::AttentionInput => self.c_attn.as_ref(),
            Part::AttentionOutput => self.attn_c_proj.as_ref(),
            Part::Fc => self.c_fc.as_ref(),
            Part::Proj => self.mlp_c_proj.as_ref(),
        }
    }

    fn all(&self) -> impl Iterator<Item = &PackedLora> {
        [&self.c_attn, &self.attn_c_proj, &self.c_fc, &self.mlp_c_proj].into_iter().flatten()
    }
}

fn load_adapter(folder: &str, weights: &Weights, cpu: &Cpu, config: &Config) -> Result<Vec<BlockAdapter>> {
    let adapter = Adapter::open(folder.as_ref(), None)?;
    if let Some(error) = adapter.not_beside() {
        return Err(error);
    }
    weights.check_names(&adapter)?;
    let (d, inner) = (config.n_embd, config.n_inner());
    let mut blocks: Vec<_> = (0..config.n_layer).map(|_| BlockAdapter::default()).collect();
    for (name, lora) in &adapter.modules {
        let unknown = || ModelError::UnsupportedModel(format!("{folder}: an adapter of {name}"));
        let (index, part) =
            name.strip_prefix("h.").and_then(|rest| rest.split_once('.')).ok_or_else(unknown)?;
        let block = index.parse().ok().and_then(|i: usize| blocks.get_mut(i)).ok_or_else(unknown)?;
        let (place, output, input) = match part {
            "attn.c_attn" => (&mut block.c_attn, 3 * d, d),
            "attn.c_proj" => (&mut block.attn_c_proj, d, d),
            "mlp.c_fc" => (&mut block.c_fc, inner, d),
            "mlp.c_proj" => (&mut block.mlp_c_proj, d, inner),
            _ => return Err(unknown()),
        };
        if (lora.output, lora.input) != (output, input) {
            return Err(ModelError::TensorShape {
                name: name.clone(),
                expected: vec![output, input],
                found: vec![lora.output, lora.input],
            });
        }
        *place = Some(PackedLora::new(&cpu.pool, lora)?);
    }
    Ok(blocks)
}

/// Which rows of a step have which adapter; neighbours with the same one are taken together.
fn adapted_rows(steps: &[Step<'_>]) -> Vec<AdaptedRows> {
    let mut ranges: Vec<AdaptedRows> = Vec::new();
    let mut first = 0;
    for step in steps {
        let end = first + step.tokens.len();
        if let Some(adapter) = step.adapter {
            match ranges.last_mut() {
                Some((last, rows)) if *last == adapter && rows.end == first => rows.end = end,
                _ => ranges.push((adapter, first..end)),
            }
        }
        first = end;
    }
    ranges
}
