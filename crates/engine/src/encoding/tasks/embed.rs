//! A vector for each text, as sentence-transformers' `encode` makes it: token vectors, pooled, and scaled to length 1.

use candlewick_models::{EncoderInput, EncoderOutput, EncoderWant, ModelError, Pooling, PoolingMode};

use crate::encoding::handle::{Control, EncoderHandle};
use crate::encoding::input::{EncodeOptions, EncoderText, InputLimits};
use crate::error::EngineError;
use crate::runtime::reply::Done;

#[derive(Debug, Clone, Default)]
pub struct EmbedOptions {
    pub encode: EncodeOptions,
    /// `None`: the model's own.
    pub pooling: Option<PoolingMode>,
    /// `None`: if the model does.
    pub normalize: Option<bool>,
    /// Goes before every text.
    pub prompt: Option<String>,
}

impl EncoderHandle {
    /// The vectors of the texts, in their order.
    pub fn embed(
        &self,
        texts: Vec<EncoderText>,
        options: EmbedOptions,
        control: Control,
        done: Done<Vec<Vec<f32>>>,
    ) {
        let info = self.info().clone();
        let usage = info.usage.clone();
        let own = options.pooling.is_none();
        let mut pooling = usage.pooling.clone();
        if let Some(mode) = options.pooling {
            pooling.modes = vec![mode];
        }
        let normalize = options.normalize.unwrap_or(usage.normalize);
        let limits = InputLimits::of(&info, options.encode);
        let want = EncoderWant { last_hidden_state: true, ..EncoderWant::default() };
        let prepare = move |codec: &crate::runtime::codec::Codec, cancel: &_| {
            if let Some(module) = usage.unsupported_module.filter(|_| own) {
                let reason = format!("{module} follows its pooling; name a pooling for vectors without it");
                return Err(EngineError::Model(ModelError::UnsupportedModel(reason)));
            }
            let prompt = options.prompt.unwrap_or_default();
            // As sentence-transformers counts: the prompt alone, without the [SEP] that a text of its own would end
            // with.
            let skipped = match pooling.include_prompt || prompt.is_empty() {
                true => 0,
                false => codec.text.encode(&prompt, true)?.len().saturating_sub(1),
            };
            let read = |text: String| {
                let text = if prompt.is_empty() { text } else { format!("{prompt}{text}") };
                if usage.lower_case { text.chars().flat_map(char::to_lowercase).collect() } else { text }
            };
            let read = |text| match text {
                EncoderText::Single(text) => EncoderText::Single(read(text)),
                other => other,
            };
            let inputs = limits.inputs(Some(codec), texts.into_iter().map(read).collect(), cancel)?;
            Ok((inputs, Plan { pooling, normalize, skipped }))
        };
        let keep = |plan: &Plan, _, input: &EncoderInput, output: EncoderOutput| {
            Ok(plan.pool(&output.last_hidden_state, input.ids.len()))
        };
        self.task(want, control, prepare, keep, |_, _, rows| Ok(rows), done);
    }
}

struct Plan {
    pooling: Pooling,
    normalize: bool,
    /// The first tokens, which do not count.
    skipped: usize,
}

impl Plan {
    /// (T, H) → (H), or as many of them as there are modes.
    fn pool(&self, states: &[f32], tokens: usize) -> Vec<f32> {
        let h = states.len() / tokens;
        let skipped = if self.skipped < tokens { self.skipped } else { 0 };
        let rows = || states.chunks_exact(h).enumerate().skip(skipped);
        let count = (tokens - skipped) as f32;
        let mut vector = Vec::with_capacity(h * self.pooling.modes.len());
        for mode in &self.pooling.modes {
            let sum = |weight: fn(usize) -> f32| {
                let mut sum = vec![0.0; h];
                for (index, row) in rows() {
                    let weight = weight(index);
                    sum.iter_mut().zip(row).for_each(|(sum, x)| *sum += weight * x);
                }
                sum
            };
            let over = |mut sum: Vec<f32>, divisor: f32| {
                sum.iter_mut().for_each(|x| *x /= divisor);
                sum
            };
            vector.extend(match mode {
                PoolingMode::Cls => states[skipped * h..][..h].to_vec(),
                PoolingMode::Last => states[(tokens - 1) * h..].to_vec(),
                PoolingMode::Mean => over(sum(|_| 1.0), count),
                PoolingMode::MeanSqrtLength => over(sum(|_| 1.0), count.sqrt()),
                PoolingMode::WeightedMean => {
                    let weights = rows().map(|(index, _)| index as f32 + 1.0).sum();
                    over(sum(|index| index as f32 + 1.0), weights)
                }
                PoolingMode::Max => {
                    let mut most = vec![f32::NEG_INFINITY; h];
                    for (_, row) in rows() {
                        most.iter_mut().zip(row).for_each(|(most, x)| *most = most.max(*x));
                    }
                    most
                }
            });
        }
        if self.normalize {
            // torch's normalize: a vector of zeros stays one.
            let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt().max(1e-12);
            vector.iter_mut().for_each(|x| *x /= length);
        }
        vector
    }
}
