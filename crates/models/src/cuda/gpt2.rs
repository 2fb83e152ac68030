//! GPT-2 on a GPU: one pass over the rows of all steps, without padding, keys and values in blocks of 32 positions. A
//! pass in which every sequence has one row is replayed as a graph, for 1, 2, 4 … sequences.

use std::collections::BTreeMap;
use std::sync::Arc;

use cudarc::driver::{CudaFunction, CudaGraph, sys};

use crate::contract::causal::check_steps;
use crate::cuda::gpu::{Arg, Buffer, Gpu, Type, failed};
use crate::cuda::layers::{Attention, Loader, Norm, Runner, SPLIT, TILE, check_shape};
use crate::cuda::linear::{Append, Linear, Output};
use crate::reference::gpt2::Config;
use crate::{
    BlockId, CausalBackend, CausalInfo, KvSpec, LoadObserver, LoadOptions, ModelError, Result, Step,
    StepLogits, Weights,
};

/// Sequences of a step, and the rows of one pass.
const LANES: usize = 512;
const MOST_ROWS: usize = 8192;
/// Whole sequences that the cache holds by default, within half of the free memory.
const SEQUENCES: usize = 64;
/// Blocks of threads for each multiprocessor, below which keys are divided between blocks.
const FEW: usize = 2;

struct Block {
    ln_1: Norm,
    c_attn: Linear,
    attn_c_proj: Linear,
    ln_2: Norm,
    c_fc: Linear,
    mlp_c_proj: Linear,
    scale: f32,
}

/// Activations of one pass; each grows to the largest and stays. A graph that names one that has grown is dropped.
#[derive(Default)]
struct Space {
    /// (M, D) floats: the residual stream.
    x: Option<Buffer>,
    /// (M, D)
    normal: Option<Buffer>,
    /// (M, 3 D)
    qkv: Option<Buffer>,
    /// (M, D)
    mixed: Option<Buffer>,
    /// (M, inner)
    inner: Option<Buffer>,
    parts: Option<Buffer>,
    /// (rows, stride) floats
    logits: Option<Buffer>,
    best: Option<Buffer>,
    numbers: Option<Buffer>,
}

/// Where things lie that a pass reads and writes.
#[derive(Clone, Copy, PartialEq)]
struct Places {
    x: u64,
    normal: u64,
    qkv: u64,
    mixed: u64,
    inner: u64,
    parts: u64,
    logits: u64,
    best: u64,
    numbers: u64,
}

/// The sizes of a pass: what a graph is made for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Shape {
    rows: usize,
    items: usize,
    /// Sequences, each with a row of block ids in the table.
    sequences: usize,
    logits: usize,
    /// Parts of the keys; 0: not divided.
    parts: usize,
}

pub(crate) struct CudaGpt2 {
    info: CausalInfo,
    spec: KvSpec,
    runner: Runner,
    argmax: CudaFunction,
    wte: Buffer,
    wpe: Buffer,
    h: Vec<Block>,
    ln_f: Norm,
    head: Linear,
    inner: usize,
    cache: Buffer,
    space: Space,
    graphs: BTreeMap<Shape, (Places, CudaGraph)>,
    /// Logits on the CPU, where they are asked for.
    logits: Vec<f32>,
}

// SAFETY: CUDA's graphs may be used from any thread, one at a time, and only the model's owner uses them.
unsafe impl Send for CudaGpt2 {}

impl CudaGpt2 {
    pub fn load(
        weights: &Weights,
        config: &Config,
        mut info: CausalInfo,
        options: &LoadOptions,
        observer: &dyn LoadObserver,
        gpu: Gpu,
    ) -> Result<Self> {
        let (v, d, inner) = (config.vocab_size, config.n_embd, config.n_inner());
        check_shape(d, config.n_head)?;
        let asked = options.dtype.unwrap_or_else(|| weights.main_dtype());
        let (kind, dtype) = Type::of(asked);
        let runner = Runner::new(Arc::new(gpu), kind, d / config.n_head)?;
        let load = Loader::new(weights, &runner, observer);
        let wte = load.table("wte.weight", &[v, d])?;
        let wpe = load.table("wpe.weight", &[config.n_positions, d])?;
        let eps = config.layer_norm_epsilon;
        let block = |i: usize| -> Result<Block> {
            let name = |part: &str| format!("h.{i}.{part}");
            Ok(Block {
                ln_1: load.norm(&name("ln_1"), d, eps)?,
                c_attn: load.linear(&name("attn.c_attn"), (d, 3 * d), true, Output::Same, None)?,
                attn_c_proj: load.linear(&name("attn.c_proj"), (d, d), true, Output::Added, None)?,
                ln_2: load.norm(&name("ln_2"), d, eps)?,
                c_fc: load.linear(
                    &name("mlp.c_fc"),
                    (d, inner),
                    true,
                    Output::Same,
                    Some(config.activation_function),
                )?,
                mlp_c_proj: load.linear(&name("mlp.c_proj"), (inner, d), true, Output::Added, None)?,
                scale: config.attention_scale(i) as f32,
            })
        };
        let h = (0..config.n_layer).map(block).collect::<Result<Vec<_>>>()?;
        let ln_f = load.norm("ln_f", d, eps)?;
        let head = match config.tie_word_embeddings {
            true => load.tied(&wte, (d, v))?,
            false => load.tied(&load.raw("lm_head.weight", &[v, d])?, (d, v))?,
        };
        let bytes = 2 * kind.bytes() * TILE * config.n_layer * d;
        let spec = cache_spec(&runner.gpu, options.kv_cache_bytes, bytes, config.n_positions)?;
        info.dtype = dtype;
        info.weight_bytes = load.held();
        info.instruction_set.clone_from(&runner.gpu.capability);
        (info.lanes, info.step_tokens) = (LANES, MOST_ROWS);
        Ok(Self {
            argmax: runner.gpu.function("argmax_f32")?,
            cache: runner.gpu.buffer(spec.blocks * spec.bytes)?,
            info,
            spec,
            runner,
            wte,
            wpe,
            h,
            ln_f,
            head,
            inner,
            space: Space::default(),
            graphs: BTreeMap::new(),
            logits: Vec::new(),
        })
    }

    /// Blocks of a sequence of all positions.
    fn table_stride(&self) -> usize {
        self.info.n_positions.div_ceil(TILE)
    }

    fn places(&mut self, shape: Shape) -> Result<Places> {
        let numbers = 4 * Numbers::len(shape, self.table_stride());
        let (d, e) = (self.info.hidden_size, self.runner.kind.bytes());
        let (gpu, space, m) = (&self.runner.gpu, &mut self.space, shape.rows);
        let heads = self.info.heads;
        let parts = Runner::parts_bytes(m, heads, shape.parts, d / heads);
        Ok(Places {
            x: gpu.grow(&mut space.x, 4 * m * d)?,
            normal: gpu.grow(&mut space.normal, e * m.max(shape.logits) * d)?,
            qkv: gpu.grow(&mut space.qkv, e * m * 3 * d)?,
            mixed: gpu.grow(&mut space.mixed, e * m * d)?,
            inner: gpu.grow(&mut space.inner, e * m * self.inner)?,
            parts: gpu.grow(&mut space.parts, parts)?,
            logits: gpu.grow(&mut space.logits, 4 * shape.logits * self.head.stride)?,
            best: gpu.grow(&mut space.best, 4 * shape.logits)?,
            numbers: gpu.grow(&mut space.numbers, numbers)?,
        })
    }

    /// Launches everything of a pass whose numbers are on the GPU.
    fn launch(&self, shape: Shape, p: Places, stop: &dyn Fn() -> bool) -> Result<()> {
        let (d, heads, m) = (self.info.hidden_size, self.info.heads, shape.rows);
        let (runner, gpu) = (&self.runner, &*self.runner.gpu);
        let n = Numbers::new(shape, p.numbers);
        let e = runner.kind.bytes();
        let block_stride = self.spec.bytes / e;
        let embed = [
            Arg::At(p.x),
            Arg::At(self.wte.at),
            Arg::At(self.wpe.at),
            Arg::At(0),
            Arg::At(n.ids),
            Arg::At(n.positions),
            Arg::At(0),
            Arg::Int(d as i32),
        ];
        gpu.launch(&runner.kernels.embed, [m, 1, 1], 128, 0, &embed)?;
        for (layer, block) in self.h.iter().enumerate() {
            if stop() {
                return Err(ModelError::Stopped);
            }
            let cache = self.cache.at + (layer * 2 * TILE * d * e) as u64;
            runner.norm(&block.ln_1, p.x, 0, m, p.normal, 0)?;
            let append = Append { cache, slots: n.slots, stride: block_stride, dim: d / heads };
            block.c_attn.forward_append(&runner.products, m, p.normal, p.qkv, append)?;
            runner.attention(&Attention {
                out: p.mixed,
                qkv: p.qkv,
                cache,
                block_stride,
                items: n.items,
                count: shape.items,
                rows: if shape.items == shape.rows { 1 } else { runner.rows },
                tables: n.tables,
                table_stride: self.table_stride(),
                heads,
                dim: d / heads,
                scale: block.scale,
                parts: (shape.parts > 0).then_some((p.parts, shape.parts)),
            })?;
            block.attn_c_proj.forward(&runner.products, m, p.mixed, p.x)?;
            runner.norm(&block.ln_2, p.x, 0, m, p.normal, 0)?;
            block.c_fc.forward(&runner.products, m, p.normal, p.inner)?;
            block.mlp_c_proj.forward(&runner.products, m, p.inner, p.x)?;
        }
        runner.norm(&self.ln_f, p.x, n.wanted, shape.logits, p.normal, 0)?;
        self.head.forward(&runner.products, shape.logits, p.normal, p.logits)?;
        let best = [
            Arg::At(p.best),
            Arg::At(p.logits),
            Arg::Int(self.info.vocab_size as i32),
            Arg::Int(self.head.stride as i32),
        ];
        gpu.launch(&self.argmax, [shape.logits, 1, 1], 1024, 0, &best)
    }

    /// One pass over `steps`; what it gives is in `space.logits` and `space.best`.
    fn pass(&mut self, steps: &[Step<'_>], stop: &dyn Fn() -> bool) -> Result<()> {
        let rows: usize = steps.iter().map(|step| step.tokens.len()).sum();
        let items: usize = steps.iter().map(|step| step.tokens.len().div_ceil(self.runner.rows)).sum();
        let wanted: usize = steps.iter().map(|step| step.logits).sum();
        let decode = steps.iter().all(|step| step.tokens.len() == 1 && step.logits == 1) && rows <= LANES;
        let longest = steps.iter().map(|step| step.start + step.tokens.len()).max().unwrap_or(0);
        let blocks = FEW * self.runner.gpu.multiprocessors;
        let few = |items: usize| items * self.info.heads < blocks && longest > SPLIT;
        let shape = if decode {
            let rows = rows.next_power_of_two();
            // Of the keys' parts a power of two too, so that there are few graphs.
            let parts = if few(rows) { longest.div_ceil(SPLIT).next_power_of_two() } else { 0 };
            let parts = parts.min(self.info.n_positions.div_ceil(SPLIT));
            Shape { rows, items: rows, sequences: rows, logits: rows, parts }
        } else {
            let parts = if few(items) { longest.div_ceil(SPLIT) } else { 0 };
            Shape { rows, items, sequences: steps.len(), logits: wanted, parts }
        };
        let places = self.places(shape)?;
        let numbers = Numbers::fill(shape, steps, self.table_stride(), self.runner.rows);
        if let Some(buffer) = &mut self.space.numbers {
            self.runner.gpu.upload(&numbers, buffer)?;
        }
        if !decode {
            return self.launch(shape, places, stop);
        }
        if self.graphs.get(&shape).is_none_or(|(made_for, _)| *made_for != places) {
            self.graphs.remove(&shape);
            let stream = self.runner.gpu.stream.clone();
            stream
                .begin_capture(sys::CUstreamCaptureMode_enum::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL)
                .map_err(failed)?;
            let launched = self.launch(shape, places, &|| false);
            let flags = sys::CUgraphInstantiate_flags_enum::CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH;
            let graph = stream.end_capture(flags);
            launched?; // the cause, where the capture failed too
            let graph =
                graph.map_err(failed)?.ok_or_else(|| ModelError::Internal("cuda: an empty graph".into()))?;
            self.graphs.insert(shape, (places, graph));
        }
        if let Some((_, graph)) = self.graphs.get(&shape) {
            graph.launch().map_err(failed)?;
        }
        Ok(())
    }
}

/// The numbers of a pass, all in one buffer: where each part lies on the GPU.
struct Numbers {
    items: u64,
    ids: u64,
    positions: u64,
    slots: u64,
    wanted: u64,
    tables: u64,
}

impl Numbers {
    fn len(shape: Shape, stride: usize) -> usize {
        4 * shape.items + 3 * shape.rows + shape.logits + shape.sequences * stride
    }

    fn new(shape: Shape, at: u64) -> Self {
        let after = |at: u64, count: usize| at + 4 * count as u64;
        let ids = after(at, 4 * shape.items);
        let positions = after(ids, shape.rows);
        let slots = after(positions, shape.rows);
        let wanted = after(slots, shape.rows);
        Self { items: at, ids, positions, slots, wanted, tables: after(wanted, shape.logits) }
    }

    /// In the order of the fields. What a shape has beyond the steps writes nothing.
    fn fill(shape: Shape, steps: &[Step<'_>], stride: usize, most: usize) -> Vec<i32> {
        let mut items = Vec::with_capacity(Self::len(shape, stride));
        let (mut ids, mut positions, mut slots) = (Vec::new(), Vec::new(), Vec::new());
        let (mut wanted, mut tables) = (Vec::new(), Vec::new());
        for (sequence, step) in steps.iter().enumerate() {
            let (first, count) = (ids.len(), step.tokens.len());
            for from in (0..count).step_by(most) {
                let part = most.min(count - from);
                items.extend([sequence, first + from, step.start + from, part].map(|n| n as i32));
            }
            ids.extend(step.tokens.iter().map(|id| *id as i32));
            for position in step.start..step.start + count {
                positions.push(position as i32);
                slots.push((step.blocks[position / TILE] as usize * TILE + position % TILE) as i32);
            }
            wanted.extend((first + count - step.logits..first + count).map(|row| row as i32));
            let used = step.blocks.len().min(stride);
            tables.extend(step.blocks[..used].iter().map(|id| *id as i32));
            tables.resize((sequence + 1) * stride, 0);
        }
        items.resize(4 * shape.items, 0);
        ids.resize(shape.rows, 0);
        positions.resize(shape.rows, 0);
        slots.resize(shape.rows, -1);
        wanted.resize(shape.logits, 0);
        tables.resize(shape.sequences * stride, 0);
        [ids, positions, slots, wanted, tables].iter().for_each(|part| items.extend(part));
        items
    }
}

impl CausalBackend for CudaGpt2 {
    fn info(&self) -> &CausalInfo {
        &self.info
    }

    fn kv(&self) -> KvSpec {
        self.spec
    }

    fn copy_blocks(&mut self, pairs: &[(BlockId, BlockId)]) -> Result<()> {
        if let Some(id) = pairs.iter().flat_map(|(a, b)| [a, b]).find(|id| **id as usize >= self.spec.blocks)
        {
            return Err(ModelError::Internal(format!("block {id} of {}", self.spec.blocks)));
        }
        let at = |id: BlockId| self.cache.at + id as u64 * self.spec.bytes as u64;
        pairs.iter().try_for_each(|(from, to)| self.runner.gpu.copy(at(*from), at(*to), self.spec.bytes))
    }

    fn forward<'a>(
        &'a mut self,
        steps: &[Step<'_>],
        stop: &dyn Fn() -> bool,
    ) -> Result<Box<dyn StepLogits + 'a>> {
        check_steps(steps, &self.info, &self.spec)?;
        if stop() {
            return Err(ModelError::Stopped);
        }
        self.pass(steps, stop)?;
        self.logits.clear();
        let rows = steps.iter().map(|step| step.logits).sum();
        // The ids come back now: whoever reads a row later finds the pass done, and its faults have been reported.
        let mut best = vec![0i32; rows];
        if let Some(buffer) = self.space.best.as_ref().filter(|_| rows > 0) {
            self.runner.gpu.download(buffer, &mut best)?;
        } else {
            self.runner.gpu.stream.synchronize().map_err(failed)?;
        }
        Ok(Box::new(CudaLogits { model: self, rows, best }))
    }
}

/// The logits of a pass, on the GPU until a row of them is read.
struct CudaLogits<'a> {
    model: &'a mut CudaGpt2,
    rows: usize,
    /// The likeliest token of each row; -1: its logits are not numbers.
    best: Vec<i32>,
}

impl StepLogits for CudaLogits<'_> {
    fn rows(&self) -> usize {
        self.rows
    }

    fn row(&mut self, index: usize) -> Result<&mut [f32]> {
        if index >= self.rows {
            return Err(ModelError::Internal(format!("row {index} of {}", self.rows)));
        }
        let stride = self.model.head.stride;
        if self.model.logits.is_empty() {
            self.model.logits.resize(self.rows * stride, 0.0);
            if let Some(buffer) = &self.model.space.logits {
                let read = self.model.runner.gpu.download(buffer, &mut self.model.logits);
                if read.is_err() {
                    self.model.logits.clear(); // not zeros for whoever asks again
                }
                read?;
            }
        }
        Ok(&mut self.model.logits[index * stride..][..self.model.info.vocab_size])
    }

    fn best(&mut self, index: usize) -> Result<Option<u32>> {
        Ok(self.best.get(index).and_then(|id| u32::try_from(*id).ok()))
    }
}

/// Blocks of `bytes` bytes within `asked`; by default what `SEQUENCES` sequences of all positions need, in half of the
/// free memory.
fn cache_spec(gpu: &Gpu, asked: Option<u64>, bytes: usize, n_positions: usize) -> Result<KvSpec> {
    let (free, _) = gpu.context.mem_get_info().map_err(failed)?;
    let one = n_positions.div_ceil(TILE);
    let budget = asked.unwrap_or((free / 2) as u64).min(usize::MAX as u64) as usize;
    if budget / bytes < one {
        let reason =
            format!("{budget} bytes, but one sequence of the model's positions needs {}", one * bytes);
        return Err(match asked {
            Some(_) => ModelError::Option { option: "kvCacheBytes", reason },
            None => ModelError::OutOfMemory(format!("keys and values: {reason}; {free} bytes are free")),
        });
    }
    let most = if asked.is_some() { 8 * SEQUENCES } else { SEQUENCES };
    let blocks = (budget / bytes).min(most * one);
    if blocks * bytes > free {
        return Err(ModelError::OutOfMemory(format!(
            "kvCacheBytes: {} bytes are needed, {free} are free on the GPU",
            blocks * bytes
        )));
    }
    Ok(KvSpec { positions: TILE, blocks, bytes })
}
