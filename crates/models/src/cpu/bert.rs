//! The encoders of BERT's family on packed CPU kernels: one forward pass, which the architecture's description
//! (`family/`) makes that of each. The same checkpoints and mathematics as `reference/` has, for reading texts.
//!
//! A batch is one list of rows, M = all texts' tokens, without padding: a text costs what it is long, and gets the same
//! bits alone and in any batch.

use std::any::Any;
use std::sync::{Mutex, PoisonError};

use candlewick_kernels::{Activation as Act, AttentionJob, DistanceBias, Input, KvSource, Layout, attention};
use half::bf16;
use half::slice::HalfFloatSliceExt;

use crate::contract::encoder::split;
use crate::contract::input::check_batch;
use crate::cpu::packed::{Cpu, Loader, Norm, PackedLinear, Rows, Table, space};
use crate::family::architecture::POOLER;
use crate::family::config::{Config, WORD_EMBEDDINGS};
use crate::family::heads::{QA_OUTPUTS, TOKEN_CLASSIFIER, classifier_of};
use crate::family::relative::bucket;
use crate::{
    Dtype, Encoder, EncoderHead, EncoderInfo, EncoderInput, EncoderOutput, EncoderWant, LoadObserver,
    LoadOptions, ModelError, Result, Weights,
};

struct Layer {
    /// query, key and value as one product: (H) → (3 H); or query and key, and the value by itself
    qkv: PackedLinear,
    value: Option<PackedLinear>,
    attention_output: PackedLinear,
    attention_norm: Norm,
    intermediate: PackedLinear,
    output: PackedLinear,
    output_norm: Norm,
}

enum Head {
    None,
    MaskedLm {
        dense: PackedLinear,
        activation: Act,
        norm: Norm,
        decoder: PackedLinear,
    },
    /// From the first token: by a dense layer of its own, or by the pooler.
    Sequence {
        dense: Option<PackedLinear>,
        activation: Act,
        classifier: PackedLinear,
    },
    /// From every token.
    Token(PackedLinear),
}

#[derive(Default)]
struct Space {
    /// (M, H): the states, before and after a residual sum.
    x: Vec<f32>,
    y: Vec<f32>,
    /// (M, H): the states once more, where products take them in bf16.
    rounded: Vec<bf16>,
    /// (M, 3 H), or (M, 2 H) and (M, H)
    qkv: Rows,
    value: Rows,
    /// (M, H)
    mixed: Rows,
    /// (M, inner)
    inner: Rows,
}

pub struct CpuBert {
    info: EncoderInfo,
    config: Config,
    cpu: Cpu,
    word_embeddings: Table,
    position_embeddings: Table,
    token_type_embeddings: Option<Table>,
    norm: Norm,
    /// From the embeddings' width to that of the layers, where they differ.
    projection: Option<PackedLinear>,
    layers: Vec<Layer>,
    pooler: Option<PackedLinear>,
    head: Head,
    activation: Act,
    scale: f32,
    /// Added to all layers' scores.
    bias: Option<DistanceBias>,
    /// Whether what products read is kept in bf16 between them.
    rounded: bool,
    space: Space,
}

impl CpuBert {
    pub fn load(
        weights: &Weights,
        config: &Config,
        mut info: EncoderInfo,
        options: &LoadOptions,
        observer: &dyn LoadObserver,
    ) -> Result<Self> {
        let (e, h, eps) = (config.embedding_size, config.hidden_size, config.layer_norm_eps);
        let architecture = config.architecture;
        let cpu = Cpu::new(options.threads)?;
        let dtype = options.dtype.unwrap_or_else(|| weights.native_dtype(WORD_EMBEDDINGS));
        let load = Loader::new(weights, &cpu.pool, options.dtype, observer);
        let table = |name: &str, rows: usize| load.table(&format!("embeddings.{name}.weight"), rows, e);
        let linear =
            |name: &str, input: usize, output: usize| load.linear(name, Layout::OutIn, input, output);
        let layer = |i: usize| -> Result<Layer> {
            let name = |part: &str| format!("encoder.layer.{i}.{part}");
            let inner = config.intermediate_size;
            let parts = ["query", "key", "value"].map(|part| name(&format!("attention.self.{part}")));
            let (qkv, value) = load.attention_input(parts.each_ref().map(String::as_str), h, h)?;
            Ok(Layer {
                qkv,
                value,
                attention_output: linear(&name("attention.output.dense"), h, h)?,
                attention_norm: load.norm(&name("attention.output.LayerNorm"), h, eps)?,
                intermediate: linear(&name("intermediate.dense"), h, inner)?,
                output: linear(&name("output.dense"), inner, h)?,
                output_norm: load.norm(&name("output.LayerNorm"), h, eps)?,
            })
        };
        let classes = info.labels.len();
        let head = match info.head {
            EncoderHead::None => Head::None,
            EncoderHead::MaskedLm => Head::MaskedLm {
                dense: linear(architecture.masked_lm.dense, h, e)?,
                activation: config.masked_lm_activation().into(),
                norm: load.norm(architecture.masked_lm.norm, e, eps)?,
                decoder: load.linear_named(
                    &config.decoder_weight(),
                    &config.decoder_bias(Some(weights)),
                    Layout::OutIn,
                    e,
                    config.vocab_size,
                )?,
            },
            EncoderHead::SequenceClassification => {
                let head = &architecture.sequence;
                let name = classifier_of(architecture, weights).unwrap_or(head.classifier);
                let own = !architecture.classifies_pooled();
                Head::Sequence {
                    dense: own.then(|| load.head(head.dense, h, h)).transpose()?,
                    activation: head.activation.into(),
                    classifier: load.head(name, h, classes)?,
                }
            }
            EncoderHead::TokenClassification => Head::Token(load.head(TOKEN_CLASSIFIER, h, classes)?),
            EncoderHead::QuestionAnswering => Head::Token(load.head(QA_OUTPUTS, h, 2)?),
        };
        // Pairs of neighbours: an odd width has none of its own.
        let even = [config.head_dim(), config.intermediate_size].iter().all(|width| width.is_multiple_of(2));
        let rounded = matches!(dtype, Dtype::Bf16 | Dtype::Int8) && even;
        let model = Self {
            word_embeddings: table("word_embeddings", config.vocab_size)?,
            position_embeddings: table("position_embeddings", config.max_position_embeddings)?,
            token_type_embeddings: (config.type_vocab_size > 0)
                .then(|| table("token_type_embeddings", config.type_vocab_size))
                .transpose()?,
            norm: load.norm("embeddings.LayerNorm", e, eps)?,
            projection: (e != h).then(|| load.head("embeddings_project", e, h)).transpose()?,
            layers: (0..config.num_hidden_layers).map(layer).collect::<Result<_>>()?,
            pooler: if info.has_pooler { Some(load.head(POOLER, h, h)?) } else { None },
            head,
            activation: config.hidden_act.into(),
            scale: crate::reference::layers::softmax_scale(config.head_dim(), true) as f32,
            bias: (config.relative_buckets > 0).then(|| distance_bias(&load, config)).transpose()?,
            space: Space {
                qkv: Rows::new(rounded),
                value: Rows::new(rounded),
                mixed: Rows::new(rounded),
                inner: Rows::new(rounded),
                ..Space::default()
            },
            rounded,
            info: {
                (info.dtype, info.weight_bytes, info.threads) = (dtype, load.held(), cpu.pool.threads());
                info.instruction_set = cpu.pool.isa().to_string();
                info
            },
            config: config.clone(),
            cpu,
        };
        Ok(model)
    }

    /// The embeddings' output of all texts, in `space.x`.
    fn embed(&mut self, batch: &[EncoderInput], m: usize) {
        let (e, h) = (self.config.embedding_size, self.info.hidden_size);
        let y = space(&mut self.space.y, m * e);
        y.fill(0.0);
        // Texts side by side: each has its rows to itself, and no lock waits.
        let mut rest = &mut *y;
        let texts: Vec<_> = batch
            .iter()
            .map(|input| {
                let (rows, others) = std::mem::take(&mut rest).split_at_mut(input.ids.len() * e);
                rest = others;
                Mutex::new((input, rows))
            })
            .collect();
        self.cpu.pool.run(texts.len(), |text| {
            let mut text = texts[text].lock().unwrap_or_else(PoisonError::into_inner);
            let (input, rows) = &mut *text;
            let positions = self.config.positions(&input.ids);
            for (i, row) in rows.chunks_exact_mut(e).enumerate() {
                self.word_embeddings.add_row(input.ids[i] as usize, row);
                if let Some(token_types) = &self.token_type_embeddings {
                    token_types.add_row(input.type_ids[i] as usize, row);
                }
                self.position_embeddings.add_row(positions[i] as usize, row);
            }
        });
        drop(texts);
        let rounded = if self.rounded { Some(space(&mut self.space.rounded, m * h)) } else { None };
        let x = space(&mut self.space.x, m * e.max(h));
        let Some(projection) = &self.projection else {
            return self.norm.forward_rounded(&self.cpu, y, &mut x[..m * e], rounded);
        };
        self.norm.forward(&self.cpu, y, &mut x[..m * e]);
        let y = space(&mut self.space.y, m * h);
        projection.forward(&mut self.cpu, &x[..m * e], None, None, &mut *y);
        x[..m * h].copy_from_slice(y);
        if let Some(rounded) = rounded {
            rounded.convert_from_f32_slice(y);
        }
    }

    /// One layer, from `space.x` to `space.x`.
    fn layer(&mut self, index: usize, batch: &[EncoderInput], m: usize) -> Result<()> {
        let (h, heads, cpu) = (self.info.hidden_size, self.info.heads, &mut self.cpu);
        let layer = &self.layers[index];
        let width = layer.intermediate.output();
        let Space { x, y, rounded, qkv, value, mixed, inner } = &mut self.space;
        let (x, y) = (space(x, m * h), space(y, m * h));
        let mut rounded = if self.rounded { Some(space(rounded, m * h)) } else { None };

        let stride = layer.qkv.output();
        layer.qkv.forward(cpu, states(x, &rounded), None, None, qkv.space(m * stride));
        if let Some(linear) = &layer.value {
            linear.forward(cpu, states(x, &rounded), None, None, value.space(m * h));
        }
        let mut jobs = Vec::with_capacity(batch.len());
        let (mut row, mut out) = (0, mixed.space(m * h));
        for input in batch {
            let rows = input.ids.len();
            let (this, others) = out.split_at(rows * h);
            let q = qkv.first(m * stride).from(row * stride);
            let (v, v_stride) = match layer.value {
                Some(_) => (value.first(m * h).from(row * h), h),
                None => (q.from(2 * h), stride),
            };
            let kv = KvSource::Rows { k: q.from(h), k_stride: stride, v, v_stride, len: rows };
            jobs.push(AttentionJob {
                q,
                q_stride: stride,
                rows,
                start: 0,
                kv,
                bias: self.bias.as_ref(),
                out: this,
            });
            (row, out) = (row + rows, others);
        }
        attention(&cpu.pool, &mut jobs, heads, h / heads, self.scale, false, &mut cpu.scratch)?;
        layer.attention_output.forward(cpu, mixed.first(m * h), None, Some(x), &mut *y);
        layer.attention_norm.forward_rounded(cpu, y, x, rounded.as_deref_mut());
        let activation = Some(self.activation);
        layer.intermediate.forward(cpu, states(x, &rounded), activation, None, inner.space(m * width));
        layer.output.forward(cpu, inner.first(m * width), None, Some(x), &mut *y);
        layer.output_norm.forward_rounded(cpu, y, x, rounded);
        Ok(())
    }

    /// The states (B, H) of each text's first token, of the states (M, H).
    fn firsts(&self, batch: &[EncoderInput]) -> Vec<f32> {
        let h = self.info.hidden_size;
        let mut firsts = Vec::with_capacity(batch.len() * h);
        let mut row = 0;
        for input in batch {
            firsts.extend_from_slice(&self.space.x[row * h..][..h]);
            row += input.ids.len();
        }
        firsts
    }

    /// The pooled outputs (B, H) of the states (M, H).
    fn pool(&mut self, batch: &[EncoderInput]) -> Result<Vec<f32>> {
        let firsts = self.firsts(batch);
        let pooler =
            self.pooler.as_ref().ok_or_else(|| ModelError::Input("the model has no pooler".into()))?;
        let mut pooled = vec![0.0; firsts.len()];
        pooler.forward(&mut self.cpu, &firsts, Some(Act::Tanh), None, &mut pooled);
        Ok(pooled)
    }

    /// What a text's classifier reads (B, H), where the head has a dense layer of its own over the first tokens.
    fn classified(&mut self, batch: &[EncoderInput]) -> Vec<f32> {
        let firsts = self.firsts(batch);
        let Head::Sequence { dense: Some(dense), activation, .. } = &self.head else { return Vec::new() };
        let mut classified = vec![0.0; firsts.len()];
        dense.forward(&mut self.cpu, &firsts, Some(*activation), None, &mut classified);
        classified
    }

    /// Moves the states whose logits are wanted to the front of `space.x`; how many they are, of each text.
    fn gather(&mut self, batch: &[EncoderInput]) -> Vec<usize> {
        let h = self.info.hidden_size;
        let (mut from, mut to) = (0, 0);
        let mut counts = Vec::with_capacity(batch.len());
        for input in batch {
            let length = input.ids.len();
            let all = input.logits_at.is_empty();
            let count = if all { length } else { input.logits_at.len() };
            for i in 0..count {
                // Ascending, so that nothing is overwritten before it was moved.
                let row = from + if all { i } else { input.logits_at[i] as usize };
                self.space.x.copy_within(row * h..(row + 1) * h, to * h);
                to += 1;
            }
            from += length;
            counts.push(count);
        }
        counts
    }

    /// The head's logits: (B, C) from `classified`, or (M, C) from the first M states.
    fn logits(&mut self, m: usize, classified: &[f32]) -> Result<Vec<f32>> {
        let h = self.info.hidden_size;
        let (cpu, x) = (&mut self.cpu, &self.space.x[..m * h]);
        match &self.head {
            Head::None => Err(ModelError::Input("the model has no head".into())),
            Head::MaskedLm { dense, activation, norm, decoder } => {
                let e = dense.output();
                let y = space(&mut self.space.y, m * e);
                dense.forward(cpu, x, Some(*activation), None, &mut *y);
                let normal = space(&mut self.space.x, m * e);
                norm.forward(cpu, y, normal);
                let mut logits = vec![0.0; m * decoder.output()];
                decoder.forward(cpu, &*normal, None, None, &mut logits);
                Ok(logits)
            }
            Head::Sequence { classifier, .. } => {
                let mut logits = vec![0.0; classified.len() / h * classifier.output()];
                classifier.forward(cpu, classified, None, None, &mut logits);
                Ok(logits)
            }
            Head::Token(classifier) => {
                let mut logits = vec![0.0; m * classifier.output()];
                classifier.forward(cpu, x, None, None, &mut logits);
                Ok(logits)
            }
        }
    }
}

impl Encoder for CpuBert {
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
        let h = self.info.hidden_size;
        let lengths: Vec<usize> = batch.iter().map(|input| input.ids.len()).collect();
        let m = lengths.iter().sum();
        let mut outputs = vec![EncoderOutput::default(); batch.len()];

        self.embed(batch, m);
        for index in 0..=self.info.layers {
            if want.hidden_states.contains(index) {
                for (output, state) in outputs.iter_mut().zip(split(&self.space.x, &lengths, h)) {
                    output.hidden_states.push(state.to_vec());
                }
            }
            // A norm makes a whole row of NaN from one value that is not finite: a glance at each row finds it.
            for (output, state) in outputs.iter_mut().zip(split(&self.space.x, &lengths, h)) {
                let broken = state.iter().step_by(h).any(|first| !first.is_finite());
                output.broken_state = output.broken_state.or(broken.then_some(index));
            }
            if index == self.info.layers {
                break;
            }
            if stop() {
                return Err(ModelError::Stopped);
            }
            self.layer(index, batch, m)?;
            if want.attentions.contains(index) {
                let (heads, scale, stride) = (self.info.heads, self.scale, self.layers[index].qkv.output());
                let qkv = self.space.qkv.to_f32(m * stride);
                for (output, qkv) in outputs.iter_mut().zip(split(&qkv, &lengths, stride)) {
                    let bias = self.bias.as_ref();
                    let added =
                        |head: usize, i: usize, j: usize| bias.map_or(0.0, |bias| bias.of(head, i)[j]);
                    output.attentions.push(attention_weights(qkv, stride, h, heads, scale, added));
                }
            }
        }
        if want.last_hidden_state {
            for (output, state) in outputs.iter_mut().zip(split(&self.space.x, &lengths, h)) {
                output.last_hidden_state = state.to_vec();
            }
        }
        if let Some(pooled) = &want.embedding {
            for (output, state) in outputs.iter_mut().zip(split(&self.space.x, &lengths, h)) {
                output.embedding = pooled.apply(state, state.len() / h);
            }
        }
        let sequence_head = want.logits && matches!(self.head, Head::Sequence { .. });
        let reads_pooled = sequence_head && self.config.architecture.classifies_pooled();
        let pooled = if want.pooled || reads_pooled { self.pool(batch)? } else { Vec::new() };
        if want.logits {
            let chosen = batch.iter().any(|input| !input.logits_at.is_empty());
            let masked = chosen && matches!(self.head, Head::MaskedLm { .. });
            let counts = if masked { self.gather(batch) } else { lengths };
            let classified = match sequence_head {
                true if reads_pooled => &pooled,
                true => &self.classified(batch),
                false => &Vec::new(),
            };
            let logits = self.logits(counts.iter().sum(), classified)?;
            let ones = vec![1; batch.len()];
            let rows = if sequence_head { &ones } else { &counts };
            let width = logits.len() / rows.iter().sum::<usize>().max(1);
            for (output, logits) in outputs.iter_mut().zip(split(&logits, rows, width)) {
                output.logits = logits.to_vec();
            }
        }
        if want.pooled {
            for (output, pooled) in outputs.iter_mut().zip(pooled.chunks_exact(h)) {
                output.pooled = pooled.to_vec();
            }
        }
        Ok(outputs)
    }

    fn active(&self) -> Box<dyn Any> {
        self.cpu.awake()
    }
}

/// What a product takes of the states: bf16 where there is one.
fn states<'a>(x: &'a [f32], rounded: &'a Option<&mut [bf16]>) -> Input<'a> {
    match rounded {
        Some(rounded) => Input::Bf16(rounded),
        None => Input::F32(x),
    }
}

/// What attention adds by distance, of as many positions as a text may have.
fn distance_bias(load: &Loader<'_>, config: &Config) -> Result<DistanceBias> {
    let (rows, heads) = (config.relative_buckets, config.num_attention_heads);
    let table = load.vector("encoder.relative_attention_bias.weight", &[rows, heads])?;
    let value = |head: usize, ahead: isize| table[bucket(ahead) * heads + head];
    Ok(DistanceBias::new(heads, config.max_positions(), value))
}

/// softmax(q kᵀ · scale + added) of one text, (heads, T, T), from its rows `qkv` (T, stride), which begin with query
/// and key. `added`: of a head, a query and a key; minus infinity hides the key. The kernel does not keep these
/// weights; when they are asked for, they are computed again, by the definition.
pub(crate) fn attention_weights(
    qkv: &[f32],
    stride: usize,
    h: usize,
    heads: usize,
    scale: f32,
    added: impl Fn(usize, usize, usize) -> f32,
) -> Vec<f32> {
    let (t, d) = (qkv.len() / stride, h / heads);
    let mut weights = Vec::with_capacity(heads * t * t);
    for head in 0..heads {
        let part = |row: usize, which: usize| &qkv[row * stride + which * h + head * d..][..d];
        for i in 0..t {
            let q = part(i, 0);
            let first = weights.len();
            let score = |j: usize| q.iter().zip(part(j, 1)).map(|(q, k)| q * k).sum::<f32>() * scale;
            weights.extend((0..t).map(|j| score(j) + added(head, i, j)));
            let row = &mut weights[first..];
            let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            row.iter_mut().for_each(|x| *x = (*x - largest).exp());
            let sum: f32 = row.iter().sum();
            row.iter_mut().for_each(|x| *x /= sum);
        }
    }
    weights
}
