//! Evaluates a causal language model: perplexity.

use serde_json::json;

use super::context::{Context, Evaluation, value};
use super::predictor::{Guess, Predictor};
use crate::Result;
use crate::data::{Example, Examples, IGNORED, Setup, Target, Windows};
use crate::metrics::Perplexity;

/// Sums over predicted tokens.
#[derive(Default)]
pub(super) struct Foreseen {
    pub nats: f64,
    pub tokens: u64,
    pub right: u64,
}

impl Foreseen {
    /// Adds the predictions of the tokens that have a label.
    pub fn add(&mut self, example: &Example, guesses: &[Guess]) {
        let Target::Tokens(labels) = &example.target else { return };
        for (guess, _) in guesses.iter().zip(&labels[1..]).filter(|(_, label)| **label != IGNORED) {
            self.nats -= f64::from(guess.logprob);
            self.tokens += 1;
            self.right += u64::from(guess.best);
        }
    }
}

pub(super) fn run<P: Predictor>(
    mut context: Context<'_, P>,
    setup: &Setup<'_>,
) -> Result<Evaluation, P::Error> {
    let mut windows = Windows::open(&context.options.data, setup)?;
    let mut sum = Foreseen::default();
    context.batches(windows.len(), |predictor, range| {
        let examples = range.map(|index| windows.get(index)).collect::<Result<Vec<_>>>()?;
        let sequences = examples.iter().map(|example| example.input_ids.clone()).collect();
        let guesses = predictor.guesses(sequences)?;
        examples.iter().zip(&guesses).for_each(|(example, guesses)| sum.add(example, guesses));
        Ok(())
    })?;
    let metrics = value(&Perplexity::new(sum.nats, sum.tokens, sum.right, windows.bytes()))?;
    Ok(Evaluation::new(windows.documents(), &[metrics, json!({"windows": windows.len()})], Vec::new()))
}
