//! Fill-mask: what may stand for each `[MASK]` of a text, as transformers' pipeline says it.

use candlewick_models::family::{bert::BERT, known};
use candlewick_models::{EncoderHead, EncoderInput, EncoderOutput, EncoderWant, ModelError};

use crate::encoding::handle::{Control, EncoderHandle};
use crate::encoding::input::{EncodeOptions, EncoderText, InputLimits};
use crate::error::{EngineError, Result};
use crate::logits;
use crate::runtime::codec::Codec;
use crate::runtime::reply::Done;

#[derive(Debug, Clone)]
pub struct FillOptions {
    pub encode: EncodeOptions,
    /// Tokens for each mask.
    pub top_k: usize,
    /// Only these are looked at, if there are any.
    pub targets: Vec<String>,
}

/// A token for a mask.
#[derive(Debug, Clone)]
pub struct Fill {
    pub token: u32,
    /// Of all of the vocabulary, targets or not.
    pub score: f32,
    pub text: String,
    /// The whole text with it.
    pub sequence: String,
}

/// For each mask of a text the best tokens, best first.
pub type Filled = Vec<Vec<Fill>>;

struct Plan {
    /// Their ids; empty: the whole vocabulary.
    targets: Vec<u32>,
    top_k: usize,
    inputs: Vec<EncoderInput>,
    pad: Option<u32>,
}

impl EncoderHandle {
    pub fn fill(
        &self,
        texts: Vec<EncoderText>,
        options: FillOptions,
        control: Control,
        done: Done<Vec<Filled>>,
    ) {
        let info = self.info().clone();
        let limits = InputLimits::of(&info, options.encode);
        let want = EncoderWant { logits: true, ..EncoderWant::default() };
        let prepare = move |codec: &Codec, cancel: &_, _: &mut EncoderWant| {
            debug_assert_eq!(info.head, EncoderHead::MaskedLm);
            let family = known::of(info.model_type).unwrap_or(&BERT);
            let mask = info.usage.mask_token.as_deref().unwrap_or(family.mask_token);
            let id = codec.text.token_to_id(mask);
            let id = id.ok_or_else(|| refuse(format!("the tokenizer has no {mask}")))?;
            let targets = target_ids(codec, &options.targets)?;
            let mut inputs = limits.inputs(Some(codec), texts, cancel)?;
            for (index, input) in inputs.iter_mut().enumerate() {
                let masks = input.ids.iter().enumerate().filter(|(_, token)| **token == id);
                input.logits_at = masks.map(|(at, _)| at as u32).collect();
                if input.logits_at.is_empty() {
                    return Err(refuse(format!("the text has no {mask}, or it was cut off")).of_input(index));
                }
            }
            let pad = codec.text.token_to_id(family.pad_token);
            let plan = Plan { targets, top_k: options.top_k, inputs: inputs.clone(), pad };
            Ok((inputs, plan))
        };
        let keep = |plan: &Plan, _, input: &EncoderInput, output: EncoderOutput| {
            let width = output.logits.len() / input.logits_at.len();
            Ok(output.logits.chunks_exact(width).map(|row| plan.best(row)).collect::<Vec<_>>())
        };
        let finish = |codec: &Codec, plan: Plan, kept: Vec<Vec<Vec<(u32, f32)>>>| {
            plan.inputs.iter().zip(kept).map(|(input, masks)| plan.write(codec, input, masks)).collect()
        };
        self.task(want, control, prepare, keep, finish, done);
    }
}

/// The vocabulary's entry for each target, else the first token of it, as transformers takes it.
fn target_ids(codec: &Codec, targets: &[String]) -> Result<Vec<u32>> {
    let mut ids = Vec::with_capacity(targets.len());
    for target in targets {
        let id = match codec.text.token_to_id(target) {
            Some(id) => Some(id),
            None => codec.text.encode(target, false)?.first().copied(),
        };
        ids.push(id.ok_or_else(|| EngineError::option("targets", format!("{target:?} is no token")))?);
    }
    ids.sort_unstable();
    ids.dedup();
    Ok(ids)
}

impl Plan {
    /// The best tokens and their probabilities, of logits (V).
    fn best(&self, row: &[f32]) -> Vec<(u32, f32)> {
        let whole = logits::log_sum_exp(row);
        let probability = |id: u32| (f64::from(row[id as usize]) - whole).exp() as f32;
        if self.targets.is_empty() {
            let best = logits::largest(row, self.top_k);
            return best.into_iter().map(|entry| (entry.id, probability(entry.id))).collect();
        }
        let mut ids = self.targets.clone();
        ids.sort_by(|a, b| row[*b as usize].total_cmp(&row[*a as usize]));
        ids.into_iter().take(self.top_k).map(|id| (id, probability(id))).collect()
    }

    fn write(&self, codec: &Codec, input: &EncoderInput, masks: Vec<Vec<(u32, f32)>>) -> Result<Filled> {
        // With other masks left, special tokens stay, so that one sees where they are.
        let skip_special = masks.len() == 1;
        let mut ids = input.ids.clone();
        let mut filled = Vec::with_capacity(masks.len());
        for (best, at) in masks.into_iter().zip(&input.logits_at) {
            let mut fills = Vec::with_capacity(best.len());
            for (token, score) in best {
                let mask = std::mem::replace(&mut ids[*at as usize], token);
                let shown: Vec<u32> = ids.iter().copied().filter(|id| Some(*id) != self.pad).collect();
                let sequence = codec.text.decode(&shown, skip_special)?;
                ids[*at as usize] = mask;
                fills.push(Fill { token, score, text: codec.text.decode(&[token], false)?, sequence });
            }
            filled.push(fills);
        }
        Ok(filled)
    }
}

fn refuse(message: String) -> EngineError {
    EngineError::Model(ModelError::Input(message))
}
