//! A vector for each text, as sentence-transformers' `encode` makes it: token vectors, pooled, through the layers that
//! stand behind the pooling, and scaled to length 1.

use std::sync::Arc;

use candlewick_models::{
    EncoderInput, EncoderOutput, EncoderWant, ModelError, PooledWant, PoolingMode, VectorLayer, check_finite,
    normalize,
};

use crate::encoding::handle::{Control, EncoderHandle};
use crate::encoding::input::{EncodeOptions, EncoderText, InputLimits};
use crate::error::EngineError;
use crate::runtime::codec::Codec;
use crate::runtime::reply::Done;

#[derive(Debug, Clone, Default)]
pub struct EmbedOptions {
    pub encode: EncodeOptions,
    /// `None`: the model's own, and what stands behind it.
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
        let finish = Finish {
            layers: if own { usage.layers.clone() } else { [].into() },
            normalize: options.normalize.unwrap_or(usage.normalize),
            dimensions: usage.dimensions,
            again: options.normalize == Some(true),
        };
        let limits = InputLimits::of(&info, options.encode);
        let prepare = move |codec: &Codec, cancel: &_, want: &mut EncoderWant| {
            if let Some(module) = usage.unsupported_module.filter(|_| own) {
                let reason = format!("{module}; name a pooling for vectors without it");
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
            want.embedding = Some(PooledWant { modes: pooling.modes, normalize: finish.at_once(), skipped });
            Ok((inputs, finish))
        };
        let keep =
            |finish: &Finish, _, _: &EncoderInput, output: EncoderOutput| Ok(finish.apply(output.embedding)?);
        self.task(EncoderWant::default(), control, prepare, keep, |_, _, rows| Ok(rows), done);
    }
}

/// From a pooled vector to the text's.
struct Finish {
    layers: Arc<[VectorLayer]>,
    normalize: bool,
    /// Dimensions that are kept.
    dimensions: Option<usize>,
    /// Whether what is kept is scaled anew: as in sentence-transformers only where the caller asks.
    again: bool,
}

impl Finish {
    /// Whether the backend may scale the vector where it pools.
    fn at_once(&self) -> bool {
        self.normalize && self.layers.is_empty()
    }

    /// A dense layer of 768 × 768 takes some tenths of a millisecond of the model's thread, where a text takes some
    /// milliseconds.
    fn apply(&self, mut vector: Vec<f32>) -> Result<Vec<f32>, ModelError> {
        for layer in self.layers.iter() {
            layer.apply(&mut vector)?;
        }
        if self.normalize && !self.at_once() {
            normalize(&mut vector);
        }
        if let Some(kept) = self.dimensions.filter(|kept| *kept < vector.len()) {
            vector.truncate(kept);
            if self.again {
                normalize(&mut vector);
            }
        }
        check_finite(&vector)?;
        Ok(vector)
    }
}
