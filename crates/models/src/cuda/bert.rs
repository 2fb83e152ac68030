//! The encoders of BERT's family on a GPU: the rows of all texts of a batch as one pass, without padding. A bias of
//! attention and embeddings of a width of their own are not here.

use std::sync::Arc;

use cudarc::driver::CudaFunction;

use crate::contract::encoder::split;
use crate::contract::input::check_batch;
use crate::cuda::gpu::{Arg, Buffer, Gpu, Type, failed};
use crate::cuda::layers::{Attention, Loader, Norm, Runner, check_shape};
use crate::cuda::linear::{Linear, Output};
use crate::family::architecture::POOLER;
use crate::family::config::{Config, WORD_EMBEDDINGS};
use crate::family::heads::{QA_OUTPUTS, TOKEN_CLASSIFIER, classifier_of};
use crate::reference::layers::{Activation, softmax_scale};
use crate::{
    Encoder, EncoderHead, EncoderInfo, EncoderInput, EncoderOutput, EncoderWant, Layers, LoadObserver,
    LoadOptions, ModelError, PooledWant, PoolingMode, Result, Weights,
};

struct Layer {
    qkv: Linear,
    attention_output: Linear,
    attention_norm: Norm,
    intermediate: Linear,
    output: Linear,
    output_norm: Norm,
}

#[allow(clippy::large_enum_variant)] // a model has one
enum Head {
    None,
    MaskedLm {
        dense: Linear,
        norm: Norm,
        decoder: Linear,
    },
    /// From the first token: by a dense layer of its own, or by the pooler.
    Sequence {
        dense: Option<Linear>,
        classifier: Linear,
    },
    Token(Linear),
}

#[derive(Default)]
struct Space {
    /// (M, H) floats: the states.
    x: Option<Buffer>,
    /// (M, H): the same in the type of the weights.
    same: Option<Buffer>,
    qkv: Option<Buffer>,
    mixed: Option<Buffer>,
    inner: Option<Buffer>,
    numbers: Option<Buffer>,
    /// What a head reads and writes: rows in the type of the weights, and floats.
    chosen: Option<Buffer>,
    floats: Option<Buffer>,
    logits: Option<Buffer>,
}

pub(crate) struct CudaBert {
    info: EncoderInfo,
    config: Config,
    runner: Runner,
    pooling: CudaFunction,
    words: Buffer,
    positions: Buffer,
    kinds: Option<Buffer>,
    norm: Norm,
    layers: Vec<Layer>,
    pooler: Option<Linear>,
    head: Head,
    inner: usize,
    scale: f32,
    space: Space,
}

impl CudaBert {
    pub fn load(
        weights: &Weights,
        config: &Config,
        mut info: EncoderInfo,
        options: &LoadOptions,
        observer: &dyn LoadObserver,
        gpu: Gpu,
    ) -> Result<Self> {
        let (h, inner, eps) = (config.hidden_size, config.intermediate_size, config.layer_norm_eps);
        let architecture = config.architecture;
        refuse(config)?;
        check_shape(h, config.num_attention_heads)?;
        let asked = options.dtype.unwrap_or_else(|| weights.native_dtype(WORD_EMBEDDINGS));
        let (kind, dtype) = Type::of(asked);
        let runner = Runner::new(Arc::new(gpu), kind, config.head_dim())?;
        let load = Loader::new(weights, &runner, observer);
        let table = |name: &str, rows: usize| load.table(&format!("embeddings.{name}.weight"), &[rows, h]);
        let layer = |i: usize| -> Result<Layer> {
            let name = |part: &str| format!("encoder.layer.{i}.{part}");
            let parts = ["query", "key", "value"].map(|part| name(&format!("attention.self.{part}")));
            Ok(Layer {
                qkv: load.fused(&parts, (h, h), Output::Same)?,
                attention_output: load.linear(
                    &name("attention.output.dense"),
                    (h, h),
                    false,
                    Output::Added,
                    None,
                )?,
                attention_norm: load.norm(&name("attention.output.LayerNorm"), h, eps)?,
                intermediate: load.linear(
                    &name("intermediate.dense"),
                    (h, inner),
                    false,
                    Output::Same,
                    Some(config.hidden_act),
                )?,
                output: load.linear(&name("output.dense"), (inner, h), false, Output::Added, None)?,
                output_norm: load.norm(&name("output.LayerNorm"), h, eps)?,
            })
        };
        let float = |name: &str, output: usize, activation: Option<Activation>| {
            load.linear(name, (h, output), false, Output::F32, activation)
        };
        let classes = info.labels.len();
        let head = match info.head {
            EncoderHead::None => Head::None,
            EncoderHead::MaskedLm => Head::MaskedLm {
                dense: float(architecture.masked_lm.dense, h, Some(config.masked_lm_activation()))?,
                norm: load.norm(architecture.masked_lm.norm, h, eps)?,
                decoder: load.named(
                    &config.decoder_weight(),
                    &config.decoder_bias(Some(weights)),
                    (h, config.vocab_size),
                )?,
            },
            EncoderHead::SequenceClassification => {
                let head = &architecture.sequence;
                let name = classifier_of(architecture, weights).unwrap_or(head.classifier);
                let own = !architecture.classifies_pooled();
                Head::Sequence {
                    dense: own.then(|| float(head.dense, h, Some(head.activation))).transpose()?,
                    classifier: float(name, classes, None)?,
                }
            }
            EncoderHead::TokenClassification => Head::Token(float(TOKEN_CLASSIFIER, classes, None)?),
            EncoderHead::QuestionAnswering => Head::Token(float(QA_OUTPUTS, 2, None)?),
        };
        let tanh = Some(Activation::Tanh);
        let pooler = if info.has_pooler { Some(float(POOLER, h, tanh)?) } else { None };
        let (words, positions) = (
            table("word_embeddings", config.vocab_size)?,
            table("position_embeddings", config.max_position_embeddings)?,
        );
        let kinds = (config.type_vocab_size > 0)
            .then(|| table("token_type_embeddings", config.type_vocab_size))
            .transpose()?;
        let norm = load.norm("embeddings.LayerNorm", h, eps)?;
        let layers = (0..config.num_hidden_layers).map(layer).collect::<Result<_>>()?;
        (info.dtype, info.weight_bytes) = (dtype, load.held());
        info.instruction_set.clone_from(&runner.gpu.capability);
        Ok(Self {
            pooling: runner.gpu.function("pool_f32")?,
            scale: softmax_scale(config.head_dim(), true) as f32,
            info,
            config: config.clone(),
            runner,
            words,
            positions,
            kinds,
            norm,
            layers,
            pooler,
            head,
            inner,
            space: Space::default(),
        })
    }

    fn read(&self, from: &Option<Buffer>, rows: usize, stride: usize, width: usize) -> Result<Vec<f32>> {
        let mut values = vec![0f32; rows * stride];
        if let Some(buffer) = from.as_ref().filter(|_| rows > 0) {
            self.runner.gpu.download(buffer, &mut values)?;
        }
        if stride == width {
            return Ok(values);
        }
        Ok(values.chunks_exact(stride).flat_map(|row| &row[..width]).copied().collect())
    }

    /// Each text's vector, of means and first rows that are made on the GPU.
    fn embed(&mut self, pooled: &PooledWant, texts: u64, outputs: &mut [EncoderOutput]) -> Result<()> {
        let (h, count) = (self.info.hidden_size, outputs.len());
        let x = address(&self.space.x);
        for mode in &pooled.modes {
            let out = self.runner.gpu.grow(&mut self.space.floats, 4 * count * h)?;
            let mean = i32::from(*mode == PoolingMode::Mean);
            let args = [
                Arg::At(out),
                Arg::At(x),
                Arg::At(texts),
                Arg::Int(h as i32),
                Arg::Int(mean),
                Arg::Int(pooled.skipped.min(i32::MAX as usize) as i32),
            ];
            self.runner.gpu.launch(&self.pooling, [count, 1, 1], 128, 0, &args)?;
            let vectors = self.read(&self.space.floats, count, h, h)?;
            for (output, vector) in outputs.iter_mut().zip(vectors.chunks_exact(h)) {
                output.embedding.extend(vector);
            }
        }
        outputs.iter_mut().for_each(|output| pooled.scale(&mut output.embedding));
        Ok(())
    }

    /// The outputs (B, H) of the pooler, or of the head's own dense layer, of the rows `firsts`, left in
    /// `space.floats`.
    fn pool(&mut self, firsts: u64, texts: usize, own: bool) -> Result<Vec<f32>> {
        let h = self.info.hidden_size;
        let pooler = match &self.head {
            Head::Sequence { dense: Some(dense), .. } if own => Some(dense),
            _ => self.pooler.as_ref(),
        };
        let pooler = pooler.ok_or_else(|| ModelError::Input("the model has no pooler".into()))?;
        let states = address(&self.space.x);
        let space = &mut self.space;
        project(&self.runner, pooler, (states, h), firsts, texts, &mut space.chosen, &mut space.floats)?;
        self.read(&self.space.floats, texts, pooler.stride, h)
    }

    /// The head's logits of `rows` rows (the states' `from`, or what the pooler has left), and their width.
    fn logits(&mut self, from: u64, rows: usize) -> Result<(Vec<f32>, usize)> {
        let (runner, space, h) = (&self.runner, &mut self.space, self.info.hidden_size);
        let states = address(&space.x);
        let linear = match &self.head {
            Head::None => return Err(ModelError::Input("the model has no head".into())),
            Head::Token(linear) => {
                project(runner, linear, (states, h), from, rows, &mut space.chosen, &mut space.logits)?;
                linear
            }
            Head::Sequence { dense, classifier: linear } => {
                let before = dense.as_ref().or(self.pooler.as_ref());
                let pooled = (address(&space.floats), before.map_or(h, |before| before.stride));
                project(runner, linear, pooled, 0, rows, &mut space.chosen, &mut space.logits)?;
                linear
            }
            Head::MaskedLm { dense, norm, decoder } => {
                let dense_out =
                    project(runner, dense, (states, h), from, rows, &mut space.chosen, &mut space.floats)?;
                let chosen = address(&space.chosen);
                runner.norm_apart(norm, dense_out, dense.stride, 0, rows, chosen, 0)?;
                let out = runner.gpu.grow(&mut space.logits, 4 * rows * decoder.stride)?;
                decoder.forward(&runner.products, rows, chosen, out)?;
                decoder
            }
        };
        Ok((self.read(&self.space.logits, rows, linear.stride, linear.output)?, linear.output))
    }
}

/// What this pass does not have.
fn refuse(config: &Config) -> Result<()> {
    let name = config.architecture.model_type;
    if config.relative_buckets > 0 {
        return Err(ModelError::UnsupportedModel(format!("the attention bias of a {name}, on a GPU")));
    }
    if config.embedding_size != config.hidden_size {
        let what = "embeddings of another width than the layers";
        return Err(ModelError::UnsupportedModel(format!("a {name} with {what}, on a GPU")));
    }
    Ok(())
}

fn address(buffer: &Option<Buffer>) -> u64 {
    buffer.as_ref().map_or(0, |buffer| buffer.at)
}

/// Rows `from` (0: the first ones) of the floats `x`, so many elements apart, through `linear`, as floats in `out`, by
/// way of `chosen`, which holds the rows in the type of the weights; where they are.
fn project(
    runner: &Runner,
    linear: &Linear,
    (x, pitch): (u64, usize),
    from: u64,
    rows: usize,
    chosen: &mut Option<Buffer>,
    out: &mut Option<Buffer>,
) -> Result<u64> {
    let chosen = runner.gpu.grow(chosen, runner.kind.bytes() * rows * linear.input)?;
    runner.gather(x, pitch, from, rows, linear.input, chosen)?;
    let out = runner.gpu.grow(out, 4 * rows * linear.stride)?;
    linear.forward(&runner.products, rows, chosen, out)?;
    Ok(out)
}

impl Encoder for CudaBert {
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
        if want.attentions != Layers::None {
            return Err(ModelError::UnsupportedDevice(format!("attention weights on {}", self.info.device)));
        }
        let (h, heads) = (self.info.hidden_size, self.info.heads);
        let lengths: Vec<usize> = batch.iter().map(|input| input.ids.len()).collect();
        let m: usize = lengths.iter().sum();
        let chosen = want.logits
            && matches!(self.head, Head::MaskedLm { .. })
            && batch.iter().any(|input| !input.logits_at.is_empty());
        let numbers = Numbers::of(batch, &self.config, chosen, self.runner.rows);
        let (gpu, e) = (self.runner.gpu.clone(), self.runner.kind.bytes());
        let space = &mut self.space;
        let x = gpu.grow(&mut space.x, 4 * m * h)?;
        let same = gpu.grow(&mut space.same, e * m * h)?;
        let qkv = gpu.grow(&mut space.qkv, e * m * 3 * h)?;
        let mixed = gpu.grow(&mut space.mixed, e * m * h)?;
        let inner = gpu.grow(&mut space.inner, e * m * self.inner)?;
        let at = gpu.grow(&mut space.numbers, 4 * numbers.values.len())?;
        if let Some(buffer) = &mut space.numbers {
            gpu.upload(&numbers.values, buffer)?;
        }
        let place = |offset: usize| at + 4 * offset as u64;
        let embed = [
            Arg::At(x),
            Arg::At(self.words.at),
            Arg::At(self.positions.at),
            Arg::At(address(&self.kinds)),
            Arg::At(place(numbers.ids)),
            Arg::At(place(numbers.ids + m)),
            Arg::At(place(numbers.ids + 2 * m)),
            Arg::Int(h as i32),
        ];
        let runner = &self.runner;
        gpu.launch(&runner.kernels.embed, [m, 1, 1], 128, 0, &embed)?;
        runner.norm(&self.norm, x, 0, m, same, x)?;
        let mut outputs = vec![EncoderOutput::default(); batch.len()];
        let items = numbers.ids / 4;
        for index in 0..=self.layers.len() {
            if want.hidden_states.contains(index) {
                let states = self.read(&self.space.x, m, h, h)?;
                for (output, state) in outputs.iter_mut().zip(split(&states, &lengths, h)) {
                    output.hidden_states.push(state.to_vec());
                }
            }
            let Some(layer) = self.layers.get(index) else { break };
            if stop() {
                return Err(ModelError::Stopped);
            }
            layer.qkv.forward(&runner.products, m, same, qkv)?;
            runner.attention(&Attention {
                out: mixed,
                qkv,
                cache: 0,
                block_stride: 0,
                items: at,
                count: items,
                rows: runner.rows,
                tables: 0,
                table_stride: 0,
                heads,
                dim: h / heads,
                scale: self.scale,
                parts: None,
            })?;
            layer.attention_output.forward(&runner.products, m, mixed, x)?;
            runner.norm(&layer.attention_norm, x, 0, m, same, x)?;
            layer.intermediate.forward(&runner.products, m, same, inner)?;
            layer.output.forward(&runner.products, m, inner, x)?;
            runner.norm(&layer.output_norm, x, 0, m, same, x)?;
        }
        let pooled_here = want.embedding.as_ref().filter(|pooled| {
            pooled.modes.iter().all(|mode| matches!(mode, PoolingMode::Cls | PoolingMode::Mean))
        });
        if let Some(pooled) = pooled_here {
            self.embed(pooled, place(numbers.texts), &mut outputs)?;
        }
        let elsewhere = want.embedding.as_ref().filter(|_| pooled_here.is_none());
        if want.last_hidden_state || elsewhere.is_some() {
            let states = self.read(&self.space.x, m, h, h)?;
            for (output, state) in outputs.iter_mut().zip(split(&states, &lengths, h)) {
                if let Some(pooled) = elsewhere {
                    output.embedding = pooled.apply(state, state.len() / h);
                }
                if want.last_hidden_state {
                    output.last_hidden_state = state.to_vec();
                }
            }
        }
        let sequence_head = want.logits && matches!(self.head, Head::Sequence { .. });
        let reads_pooled = sequence_head && self.config.architecture.classifies_pooled();
        if want.pooled || reads_pooled {
            let pooled = self.pool(place(numbers.firsts), batch.len(), false)?;
            for (output, pooled) in outputs.iter_mut().zip(pooled.chunks_exact(h)) {
                if want.pooled {
                    output.pooled = pooled.to_vec();
                }
            }
        }
        if sequence_head && !reads_pooled {
            self.pool(place(numbers.firsts), batch.len(), true)?;
        }
        if want.logits {
            let (from, counts) = match (sequence_head, chosen) {
                (true, _) => (0, vec![1; batch.len()]),
                (_, true) => (place(numbers.chosen), numbers.counts),
                _ => (0, lengths),
            };
            let (logits, width) = self.logits(from, counts.iter().sum())?;
            for (output, logits) in outputs.iter_mut().zip(split(&logits, &counts, width)) {
                output.logits = logits.to_vec();
            }
        }
        gpu.stream.synchronize().map_err(failed)?;
        Ok(outputs)
    }
}

/// What a pass reads besides weights, and where each part begins: attention's items, then ids, positions and types.
struct Numbers {
    values: Vec<i32>,
    ids: usize,
    /// Each text's first row.
    firsts: usize,
    /// Of each text its first row, and how many it has.
    texts: usize,
    /// The rows whose logits are wanted, and how many of each text.
    chosen: usize,
    counts: Vec<usize>,
}

impl Numbers {
    fn of(batch: &[EncoderInput], config: &Config, some: bool, most: usize) -> Self {
        let (mut values, mut firsts, mut chosen, mut counts) =
            (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let mut first = 0;
        for input in batch {
            let length = input.ids.len();
            for from in (0..length).step_by(most) {
                values.extend([first, first + from, length, most.min(length - from)].map(|n| n as i32));
            }
            let before = chosen.len();
            match input.logits_at.as_slice() {
                [] => chosen.extend((first..first + length).map(|row| row as i32)),
                at => chosen.extend(at.iter().map(|at| (first + *at as usize) as i32)),
            }
            counts.push(chosen.len() - before);
            firsts.push(first as i32);
            first += length;
        }
        let ids = values.len();
        values.extend(batch.iter().flat_map(|input| input.ids.iter().map(|id| *id as i32)));
        values.extend(batch.iter().flat_map(|input| config.positions(&input.ids)).map(|row| row as i32));
        values.extend(batch.iter().flat_map(|input| input.type_ids.iter().map(|id| *id as i32)));
        let from = values.len();
        values.extend(&firsts);
        values.resize(values.len().next_multiple_of(2), 0); // a kernel reads pairs
        let texts = values.len();
        for (first, input) in firsts.iter().zip(batch) {
            values.extend([*first, input.ids.len() as i32]);
        }
        let wanted = values.len();
        if some {
            values.extend(chosen);
        }
        Self { values, ids, firsts: from, texts, chosen: wanted, counts }
    }
}
