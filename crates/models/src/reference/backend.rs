//! The Candle models behind the engine's traits: the reference, on the CPU.

use candle_core::Tensor;

use crate::contract::causal::check_steps;
use crate::contract::input::check_batch;
use crate::family::config::Config;
use crate::memory::kv_spec;
use crate::reference::bert::Bert;
use crate::reference::distilbert::DistilBert;
use crate::reference::electra::Electra;
use crate::reference::encoder::{EncoderModel, Parts};
use crate::reference::layers::ids_tensor;
use crate::reference::mpnet::MpNet;
use crate::reference::roberta::Roberta;
use crate::{
    BlockId, CausalBackend, CausalInfo, Dtype, Encoder, EncoderHead, EncoderInfo, EncoderInput,
    EncoderOutput, EncoderWant, Gpt2, Gpt2Classifier, KvSpec, Layers, LoadOptions, LogitRows, ModelError,
    Params, Past, Result, Step, StepLogits,
};

/// Positions of a block.
const BLOCK: usize = 64;

/// GPT-2 on Candle. Sequences of a pass run one after the other: each has a past of its own length.
pub struct CandleGpt2 {
    model: Gpt2,
    info: CausalInfo,
    spec: KvSpec,
    /// By block, by layer: keys and values of as many positions as were written. Copies share them.
    blocks: Vec<Vec<Past>>,
    /// Logits of the last pass, on the CPU.
    logits: Vec<f32>,
}

impl CandleGpt2 {
    pub fn new(model: Gpt2, info: CausalInfo, options: &LoadOptions) -> Result<Self> {
        let bytes = 2 * size_of::<f32>() * BLOCK * info.layers * info.hidden_size;
        let spec = kv_spec(options.kv_cache_bytes, BLOCK, bytes, info.n_positions)?;
        Ok(Self { model, info, spec, blocks: vec![Vec::new(); spec.blocks], logits: Vec::new() })
    }

    /// Keys and values of the first `len` positions, by layer.
    fn past(&self, blocks: &[BlockId], len: usize) -> Result<Vec<Past>> {
        let layer = |layer: usize| -> Result<Past> {
            let (mut keys, mut values) = (Vec::new(), Vec::new());
            for (index, id) in blocks.iter().take(len.div_ceil(BLOCK)).enumerate() {
                let count = BLOCK.min(len - index * BLOCK);
                let block = self.blocks[*id as usize].get(layer).and_then(Option::as_ref);
                let (k, v) = block.ok_or_else(|| ModelError::Internal(format!("block {id} is empty")))?;
                keys.push(k.narrow(2, 0, count)?);
                values.push(v.narrow(2, 0, count)?);
            }
            Ok(if keys.is_empty() { None } else { Some((Tensor::cat(&keys, 2)?, Tensor::cat(&values, 2)?)) })
        };
        (0..self.info.layers).map(layer).collect()
    }

    /// Puts the positions from `start` on into their blocks, with those before them in the first block.
    fn keep(&mut self, past: &[Past], blocks: &[BlockId], start: usize, end: usize) -> Result<()> {
        for (index, id) in blocks.iter().enumerate().take(end.div_ceil(BLOCK)).skip(start / BLOCK) {
            let (from, to) = (index * BLOCK, end.min((index + 1) * BLOCK));
            let cut = |past: &Past| -> Result<Past> {
                let part = |t: &Tensor| t.narrow(2, from, to - from)?.contiguous();
                Ok(past
                    .as_ref()
                    .map(|(k, v)| Ok::<_, candle_core::Error>((part(k)?, part(v)?)))
                    .transpose()?)
            };
            self.blocks[*id as usize] = past.iter().map(cut).collect::<Result<_>>()?;
        }
        Ok(())
    }

    fn extend(&mut self, step: &Step<'_>, stop: &dyn Fn() -> bool) -> Result<()> {
        let (start, t) = (step.start, step.tokens.len());
        let mut past = self.past(step.blocks, start)?;
        let ids = ids_tensor(&[step.tokens], self.model.device())?;
        let x = self.model.extend(&ids, start, &mut past, stop)?;
        self.keep(&past, step.blocks, start, start + t)?;
        if step.logits > 0 {
            let last = x.narrow(1, t - step.logits, step.logits)?.contiguous()?;
            self.logits.extend(self.model.logits(&last)?.flatten_all()?.to_vec1::<f32>()?);
        }
        Ok(())
    }
}

impl CausalBackend for CandleGpt2 {
    fn info(&self) -> &CausalInfo {
        &self.info
    }

    fn kv(&self) -> KvSpec {
        self.spec
    }

    fn copy_blocks(&mut self, pairs: &[(BlockId, BlockId)]) -> Result<()> {
        for (from, to) in pairs {
            self.blocks[*to as usize] = self.blocks[*from as usize].clone();
        }
        Ok(())
    }

    fn forward<'a>(
        &'a mut self,
        steps: &[Step<'_>],
        stop: &dyn Fn() -> bool,
    ) -> Result<Box<dyn StepLogits + 'a>> {
        self.logits.clear();
        check_steps(steps, &self.info, &self.spec)?;
        steps.iter().try_for_each(|step| self.extend(step, stop))?;
        Ok(Box::new(LogitRows::new(&mut self.logits, self.info.vocab_size)))
    }
}

fn values(t: &Tensor) -> Result<Vec<f32>> {
    Ok(t.flatten_all()?.to_vec1()?)
}

/// Of what is wanted of one text, what is made of its hidden states, each (1, T, H).
fn of_states(states: &[Tensor], want: &EncoderWant) -> Result<EncoderOutput> {
    let last = &states[states.len() - 1];
    let mut output = EncoderOutput::default();
    if want.last_hidden_state {
        output.last_hidden_state = values(last)?;
    }
    let chosen = states.iter().enumerate().filter(|(index, _)| want.hidden_states.contains(*index));
    output.hidden_states = chosen.map(|(_, state)| values(state)).collect::<Result<_>>()?;
    if let Some(pooled) = &want.embedding {
        output.embedding = pooled.apply(&values(last)?, last.dim(1)?);
    }
    Ok(output)
}

/// An encoder of BERT's family on Candle, one text after the other, so that nothing is padded.
pub struct CandleBert {
    model: Box<dyn EncoderModel>,
    info: EncoderInfo,
}

impl CandleBert {
    pub fn load(params: &Params, config: &Config, info: EncoderInfo) -> Result<Self> {
        let parts = Parts { pooler: info.has_pooler, head: info.head, classes: info.labels.len() };
        let model: Box<dyn EncoderModel> = match config.architecture.model_type {
            "bert" => Box::new(Bert::load(params, config, parts)?),
            "distilbert" => Box::new(DistilBert::load(params, config, parts)?),
            "electra" => Box::new(Electra::load(params, config, parts)?),
            "mpnet" => Box::new(MpNet::load(params, config, parts)?),
            _ => Box::new(Roberta::load(params, config, parts)?),
        };
        Ok(Self { model, info })
    }

    fn one(
        &self,
        input: &EncoderInput,
        want: &EncoderWant,
        stop: &dyn Fn() -> bool,
    ) -> Result<EncoderOutput> {
        let device = &self.model.body().device;
        let (ids, types) = (ids_tensor(&[&input.ids], device)?, ids_tensor(&[&input.type_ids], device)?);
        let states = self.model.hidden_states(&ids, &types, None, stop)?;
        let last = &states[states.len() - 1];
        let mut output = of_states(&states, want)?;
        if want.pooled {
            output.pooled = values(&self.model.pooled(last)?)?;
        }
        if want.logits {
            let masked = self.info.head == EncoderHead::MaskedLm && !input.logits_at.is_empty();
            let at = Tensor::new(input.logits_at.as_slice(), device)?;
            let rows = if masked { &last.index_select(&at, 1)? } else { last };
            output.logits = values(&self.model.logits(rows)?)?;
        }
        Ok(output)
    }
}

impl Encoder for CandleBert {
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
        batch.iter().map(|input| self.one(input, want, stop)).collect()
    }
}

/// A classifying GPT-2 on Candle, one text after the other.
pub struct CandleGpt2Classifier {
    model: Gpt2Classifier,
    info: EncoderInfo,
}

impl CandleGpt2Classifier {
    pub fn new(model: Gpt2Classifier, info: EncoderInfo) -> Self {
        Self { model, info }
    }

    fn one(&self, input: &EncoderInput, want: &EncoderWant) -> Result<EncoderOutput> {
        let states = self.model.body.hidden_states(&ids_tensor(&[&input.ids], self.model.body.device())?)?;
        let mut output = of_states(&states, want)?;
        if want.logits {
            output.logits = values(&self.model.logits(&input.ids, &states[states.len() - 1])?)?;
        }
        Ok(output)
    }
}

impl Encoder for CandleGpt2Classifier {
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
        let next = |input| if stop() { Err(ModelError::Stopped) } else { self.one(input, want) };
        batch.iter().map(next).collect()
    }
}

/// The Candle models compute in f32, from a folder, without adapters.
pub(crate) fn candle_takes(options: &LoadOptions, is_gguf: bool) -> Result<()> {
    match options.dtype {
        _ if is_gguf => Err(ModelError::UnsupportedDevice("a GGUF file on the reference".into())),
        _ if !options.adapters.is_empty() => {
            Err(ModelError::UnsupportedDevice("adapters on the reference".into()))
        }
        None | Some(Dtype::F32) => Ok(()),
        Some(dtype) => Err(ModelError::UnsupportedDtype(format!("{dtype:?} on the reference"))),
    }
}
