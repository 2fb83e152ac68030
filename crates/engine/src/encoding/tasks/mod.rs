//! What BERT is used for, where the work grows with a text's tokens or with the vocabulary. Each file is one task: its
//! options, what it keeps of the model's output, and the answer. Tasks with a few numbers for each text
//! (classification, reranking) have nothing to do here: they are in TypeScript, over the logits.

mod answer;
mod embed;
mod entities;
mod fill;
mod utf16;

pub use answer::{Answer, AnswerOptions, Question};
pub use embed::EmbedOptions;
pub use entities::{Aggregation, EntitiesOptions, Entity};
pub use fill::{Fill, FillOptions, Filled};

use candlewick_models::{EncoderInput, Window};

use crate::encoding::input::InputLimits;
use crate::error::Result;

/// The windows of a text, of each text, as inputs in one row.
fn inputs_of(windows: &[Vec<Window>], limits: &InputLimits) -> Result<Vec<EncoderInput>> {
    let input = |window: &Window| {
        let (ids, type_ids) = (window.ids.clone(), window.type_ids.clone());
        limits.accept(EncoderInput { ids, type_ids, ..EncoderInput::default() })
    };
    let mut inputs = Vec::new();
    for (index, windows) in windows.iter().enumerate() {
        for window in windows {
            inputs.push(input(window).map_err(|error| error.of_input(index))?);
        }
    }
    Ok(inputs)
}

/// softmax in place.
fn softmax(row: &mut [f32]) {
    let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    row.iter_mut().for_each(|x| *x = (*x - largest).exp());
    let sum: f32 = row.iter().sum();
    row.iter_mut().for_each(|x| *x /= sum);
}

/// The index of the largest number; the first of several.
fn argmax(row: &[f32]) -> usize {
    let mut best = 0;
    for (index, x) in row.iter().enumerate() {
        if *x > row[best] {
            best = index;
        }
    }
    best
}
