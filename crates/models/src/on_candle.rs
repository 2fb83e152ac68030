//! The Candle models behind the engine's traits: what runs on CUDA, and the reference on the CPU.

use std::any::Any;

use candle_core::{Device, Tensor};

use crate::input_checks::{check_input, check_tokens};
use crate::layers::ids_tensor;
use crate::{
    Bert, Cache, CausalInfo, CausalLm, Dtype, Encoder, EncoderHead, EncoderInfo, EncoderInput, EncoderOutput,
    EncoderWant, Gpt2, Layers, LoadOptions, LogitsOf, ModelError, Past, Result, SequenceStep,
};

/// Keys and values as tensors, which grow by concatenation. Cloning shares them.
struct CandleCache {
    layers: Vec<Past>,
    len: usize,
    capacity: usize,
}

impl Cache for CandleCache {
    fn len(&self) -> usize {
        self.len
    }

    fn capacity(&self) -> usize {
        self.capacity
    }

    fn truncate(&mut self, len: usize) {
        self.len = len.min(self.len);
        for past in &mut self.layers {
            let cut = |t: &Tensor| t.narrow(2, 0, self.len).expect("a shorter past");
            *past = past.take().filter(|_| self.len > 0).map(|(k, v)| (cut(&k), cut(&v)));
        }
    }

    fn fork(&self, capacity: usize) -> Result<Box<dyn Cache>> {
        if capacity < self.len {
            return Err(ModelError::Internal(format!("a fork of {} into {capacity} positions", self.len)));
        }
        Ok(Box::new(Self { layers: self.layers.clone(), len: self.len, capacity }))
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }
}

/// GPT-2 on Candle. Sequences of a batch run one after the other: each has a past of its own length.
pub struct CandleGpt2 {
    model: Gpt2,
    info: CausalInfo,
}

impl CandleGpt2 {
    pub fn new(model: Gpt2, info: CausalInfo) -> Self {
        Self { model, info }
    }
}

impl CausalLm for CandleGpt2 {
    fn info(&self) -> &CausalInfo {
        &self.info
    }

    fn new_cache(&self, capacity: usize) -> Result<Box<dyn Cache>> {
        Ok(Box::new(CandleCache { layers: vec![None; self.info.n_layer], len: 0, capacity }))
    }

    fn forward(&mut self, batch: &mut [SequenceStep<'_>], stop: &dyn Fn() -> bool) -> Result<()> {
        let before: Vec<usize> = batch.iter().map(|step| step.cache.len()).collect();
        for i in 0..batch.len() {
            if let Err(error) = self.extend(&mut batch[i], stop) {
                // Some layers of the failed sequence may be ahead of others: all are truncated to the length before the
                // step.
                for (step, &len) in batch.iter_mut().zip(&before) {
                    if let Some(cache) = step.cache.as_any_mut().downcast_mut::<CandleCache>() {
                        cache.len = cache.len.max(len);
                        cache.truncate(len);
                    }
                }
                return Err(error);
            }
        }
        Ok(())
    }
}

impl CandleGpt2 {
    fn extend(&self, step: &mut SequenceStep<'_>, stop: &dyn Fn() -> bool) -> Result<()> {
        let foreign = || ModelError::Internal("a cache of another model".into());
        let cache = step.cache.as_any_mut().downcast_mut::<CandleCache>().ok_or_else(foreign)?;
        let (seen, t) = (cache.len, step.tokens.len());
        check_tokens(step.tokens, self.info.vocab_size)?;
        if seen + t > cache.capacity {
            return Err(ModelError::Input(format!(
                "{} positions in a cache of {}",
                seen + t,
                cache.capacity
            )));
        }
        let ids = ids_tensor(&[step.tokens], self.model.device())?;
        let x = self.model.extend(&ids, seen, &mut cache.layers, stop)?;
        cache.len = seen + t;
        step.logits.clear();
        let first = match step.want {
            LogitsOf::None => return Ok(()),
            LogitsOf::Last => t - 1,
            LogitsOf::All => 0,
        };
        let logits = self.model.logits(&x.narrow(1, first, t - first)?.contiguous()?)?;
        step.logits.extend(logits.flatten_all()?.to_vec1::<f32>()?);
        Ok(())
    }
}

/// BERT on Candle, one text after the other, so that nothing is padded.
pub struct CandleBert {
    model: Bert,
    info: EncoderInfo,
}

impl CandleBert {
    pub fn new(model: Bert, info: EncoderInfo) -> Self {
        Self { model, info }
    }

    fn one(
        &self,
        input: &EncoderInput,
        want: &EncoderWant,
        stop: &dyn Fn() -> bool,
    ) -> Result<EncoderOutput> {
        let device = self.model.device();
        let (ids, types) = (ids_tensor(&[&input.ids], device)?, ids_tensor(&[&input.type_ids], device)?);
        let states = self.model.hidden_states(&ids, &types, None, stop)?;
        let last = &states[states.len() - 1];
        let values = |t: &Tensor| -> Result<Vec<f32>> { Ok(t.flatten_all()?.to_vec1()?) };
        let mut output = EncoderOutput::default();
        if want.last_hidden_state {
            output.last_hidden_state = values(last)?;
        }
        let chosen = states.iter().enumerate().filter(|(index, _)| want.hidden_states.contains(*index));
        output.hidden_states = chosen.map(|(_, state)| values(state)).collect::<Result<_>>()?;
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
        for input in batch {
            check_input(input, &self.info)?;
        }
        if want.attentions != Layers::None {
            return Err(ModelError::UnsupportedDevice(format!("attention weights on {}", self.info.device)));
        }
        batch.iter().map(|input| self.one(input, want, stop)).collect()
    }
}

/// The device to load on, and its name. What CUDA cannot take is said before a GPU is looked for, and with
/// `Device::Auto` goes to the CPU.
pub(crate) fn open_device(options: &LoadOptions, is_gguf: bool) -> Result<(Device, &'static str)> {
    let cuda = || {
        candle_takes(options, is_gguf, "cuda")?;
        if cfg!(feature = "cuda") {
            Device::new_cuda(0).map_err(|error| {
                // With RUST_BACKTRACE a trace follows the first line.
                let text = error.to_string();
                ModelError::UnsupportedDevice(format!("cuda: {}", text.lines().next().unwrap_or_default()))
            })
        } else {
            Err(ModelError::UnsupportedDevice("cuda: this build runs on the CPU only".into()))
        }
    };
    match options.device {
        crate::Device::Cpu => Ok((Device::Cpu, "cpu")),
        crate::Device::Cuda => Ok((cuda()?, "cuda")),
        crate::Device::Auto => Ok(cuda().map_or((Device::Cpu, "cpu"), |device| (device, "cuda"))),
    }
}

/// The Candle models compute in f32, from a folder, without adapters.
pub(crate) fn candle_takes(options: &LoadOptions, is_gguf: bool, device: &str) -> Result<()> {
    match options.dtype {
        _ if is_gguf => Err(ModelError::UnsupportedDevice(format!("a GGUF file on {device}"))),
        _ if !options.adapters.is_empty() => {
            Err(ModelError::UnsupportedDevice(format!("adapters on {device}")))
        }
        None | Some(Dtype::F32) => Ok(()),
        Some(dtype) => Err(ModelError::UnsupportedDtype(format!("{dtype:?} on {device}"))),
    }
}
