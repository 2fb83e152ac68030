//! Examples side by side: sequences one after the other, without padding.

use candlewick_models::ModelError;

use crate::Result;
use crate::data::Example;

/// Whether gradients are wanted, and what they are multiplied by: 1 / the targets of the whole step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Pass {
    Train { scale: f32, smoothing: f32 },
    Evaluate,
}

impl Pass {
    pub fn trains(self) -> bool {
        matches!(self, Self::Train { .. })
    }

    /// What a loss needs: the gradients' scale, and label smoothing.
    pub fn factors(self) -> (f32, f32) {
        match self {
            Self::Train { scale, smoothing } => (scale, smoothing),
            Self::Evaluate => (0.0, 0.0),
        }
    }
}

#[derive(Debug, Default)]
pub struct Batch {
    /// (rows)
    pub ids: Vec<u32>,
    pub types: Vec<u32>,
    pub positions: Vec<u32>,
    /// First row of each sequence, and the number of rows.
    pub starts: Vec<usize>,
}

impl Batch {
    /// Checks ids, types and lengths against the model's tables. `types`: 0 of a model that reads none.
    pub fn new<'a>(
        examples: impl IntoIterator<Item = &'a Example>,
        vocabulary: usize,
        types: usize,
        positions: usize,
    ) -> Result<Self> {
        let mut batch = Self { starts: vec![0], ..Self::default() };
        for example in examples {
            let len = example.input_ids.len();
            if len == 0 || len > positions {
                let reason = format!("a text of {len} tokens; the model has {positions} positions");
                return Err(ModelError::Input(reason).into());
            }
            batch.ids.extend(&example.input_ids);
            batch.positions.extend(0..len as u32);
            if example.token_type_ids.is_empty() {
                batch.types.resize(batch.ids.len(), 0);
            } else if example.token_type_ids.len() == len {
                batch.types.extend(&example.token_type_ids);
            } else {
                return Err(ModelError::Input("as many token types as ids".into()).into());
            }
            batch.starts.push(batch.ids.len());
        }
        let below = |ids: &[u32], limit: usize| ids.iter().all(|id| (*id as usize) < limit);
        if !below(&batch.ids, vocabulary) || (types > 0 && !below(&batch.types, types)) {
            return Err(ModelError::Input("an id that the model does not have".into()).into());
        }
        Ok(batch)
    }

    pub fn rows(&self) -> usize {
        self.ids.len()
    }
}
