//! Many lists as one array and their lengths: a thousand texts' vectors cost JavaScript four arrays, not thousands.
//! Packing happens on the engine's threads, handing over on JavaScript's.

use candlewick_engine as engine;
use napi::bindgen_prelude::{Float32Array, Uint8Array, Uint32Array};
use napi_derive::napi;

pub struct Packed<T> {
    data: Vec<T>,
    lengths: Vec<u32>,
}

impl<T> Packed<T> {
    pub fn new(lists: impl IntoIterator<Item = Vec<T>>) -> Self {
        let (mut data, mut lengths) = (Vec::new(), Vec::new());
        for list in lists {
            lengths.push(list.len() as u32);
            // One list alone is handed over as it is.
            if data.is_empty() { data = list } else { data.extend(list) }
        }
        data.shrink_to_fit();
        Self { data, lengths }
    }
}

#[napi(object, object_from_js = false)]
pub struct PackedIds {
    pub data: Uint32Array,
    pub lengths: Uint32Array,
}

impl From<Packed<u32>> for PackedIds {
    fn from(packed: Packed<u32>) -> Self {
        Self { data: Uint32Array::new(packed.data), lengths: Uint32Array::new(packed.lengths) }
    }
}

#[napi(object, object_from_js = false)]
pub struct PackedBytes {
    pub data: Uint8Array,
    pub lengths: Uint32Array,
}

impl From<Packed<u8>> for PackedBytes {
    fn from(packed: Packed<u8>) -> Self {
        Self { data: Uint8Array::new(packed.data), lengths: Uint32Array::new(packed.lengths) }
    }
}

#[napi(object, object_from_js = false)]
pub struct PackedFloats {
    pub data: Float32Array,
    pub lengths: Uint32Array,
}

impl From<Packed<f32>> for PackedFloats {
    fn from(packed: Packed<f32>) -> Self {
        Self { data: Float32Array::new(packed.data), lengths: Uint32Array::new(packed.lengths) }
    }
}

/// Log-probabilities of the tokens of texts.
pub struct Scores {
    ids: Packed<u32>,
    logprobs: Vec<f32>,
    top: (Vec<u32>, Vec<f32>),
}

impl From<Vec<engine::Scores>> for Scores {
    fn from(scores: Vec<engine::Scores>) -> Self {
        let logprobs = scores.iter().flat_map(|scores| &scores.tokens).map(|token| token.logprob).collect();
        let top = scores.iter().flat_map(|scores| &scores.top).copied().unzip();
        Self { ids: Packed::new(scores.into_iter().map(|scores| scores.ids)), logprobs, top }
    }
}

#[napi(object, object_from_js = false)]
pub struct PackedScores {
    pub ids: PackedIds,
    /// Of each text's tokens but its first.
    pub logprobs: Float32Array,
    /// For each of these the likeliest tokens at its place, as many for each.
    pub top_ids: Uint32Array,
    pub top_logprobs: Float32Array,
}

impl From<Scores> for PackedScores {
    fn from(scores: Scores) -> Self {
        Self {
            ids: scores.ids.into(),
            logprobs: Float32Array::new(scores.logprobs),
            top_ids: Uint32Array::new(scores.top.0),
            top_logprobs: Float32Array::new(scores.top.1),
        }
    }
}

/// Ids and token types of texts.
pub struct Inputs {
    ids: Packed<u32>,
    type_ids: Packed<u32>,
}

impl From<Vec<engine::EncoderInput>> for Inputs {
    fn from(inputs: Vec<engine::EncoderInput>) -> Self {
        let (ids, type_ids): (Vec<_>, Vec<_>) =
            inputs.into_iter().map(|input| (input.ids, input.type_ids)).unzip();
        Self { ids: Packed::new(ids), type_ids: Packed::new(type_ids) }
    }
}

#[napi(object, object_from_js = false)]
pub struct PackedInputs {
    pub ids: PackedIds,
    pub type_ids: PackedIds,
}

impl From<Inputs> for PackedInputs {
    fn from(inputs: Inputs) -> Self {
        Self { ids: inputs.ids.into(), type_ids: inputs.type_ids.into() }
    }
}

/// What an encoder says of texts; what was not wanted has lengths of 0.
pub struct Outputs {
    last_hidden_state: Packed<f32>,
    hidden_states: Packed<f32>,
    attentions: Packed<f32>,
    pooled: Packed<f32>,
    logits: Packed<f32>,
}

impl From<Vec<engine::EncoderOutput>> for Outputs {
    fn from(mut outputs: Vec<engine::EncoderOutput>) -> Self {
        use std::mem::take;
        Self {
            last_hidden_state: Packed::new(
                outputs.iter_mut().map(|output| take(&mut output.last_hidden_state)),
            ),
            hidden_states: Packed::new(
                outputs.iter_mut().map(|output| take(&mut output.hidden_states).concat()),
            ),
            attentions: Packed::new(outputs.iter_mut().map(|output| take(&mut output.attentions).concat())),
            pooled: Packed::new(outputs.iter_mut().map(|output| take(&mut output.pooled))),
            logits: Packed::new(outputs.iter_mut().map(|output| take(&mut output.logits))),
        }
    }
}

#[napi(object, object_from_js = false)]
pub struct PackedOutputs {
    /// (T, H) of each text.
    pub last_hidden_state: PackedFloats,
    /// (layers, T, H) of each text, of the layers that were wanted.
    pub hidden_states: PackedFloats,
    /// (layers, heads, T, T) of each text, of the layers that were wanted.
    pub attentions: PackedFloats,
    /// (H) of each text.
    pub pooled: PackedFloats,
    /// Of each text what its head gives.
    pub logits: PackedFloats,
}

impl From<Outputs> for PackedOutputs {
    fn from(outputs: Outputs) -> Self {
        Self {
            last_hidden_state: outputs.last_hidden_state.into(),
            hidden_states: outputs.hidden_states.into(),
            attentions: outputs.attentions.into(),
            pooled: outputs.pooled.into(),
            logits: outputs.logits.into(),
        }
    }
}
