//! Evaluates a masked language model.

use serde_json::json;

use super::context::{Context, Evaluation, loss, other_head};
use super::logits::{argmax, cross_entropy};
use super::predictor::{Input, Predictor};
use crate::Result;
use crate::data::{IGNORED, Setup, Target};

pub(super) fn run<P: Predictor>(
    mut context: Context<'_, P>,
    setup: &Setup<'_>,
) -> Result<Evaluation, P::Error> {
    let mut data = crate::data::open(&context.options.data, setup)?.examples;
    let (mut sum, mut tokens, mut right) = (0.0, 0, 0);
    context.batches(data.len(), |predictor, range| {
        let examples = range.map(|index| data.get(index)).collect::<Result<Vec<_>>>()?;
        let masked = examples.iter().map(|example| match &example.target {
            Target::Tokens(labels) => (0..labels.len()).filter(|at| labels[*at] != IGNORED).collect(),
            _ => Vec::new(),
        });
        let places: Vec<Vec<usize>> = masked.collect();
        let inputs =
            examples.iter().map(|example| Input { ids: example.input_ids.clone(), type_ids: Vec::new() });
        let logits = predictor.logits_at(inputs.collect(), &places)?;
        for ((example, places), logits) in examples.iter().zip(&places).zip(logits) {
            let Target::Tokens(labels) = &example.target else { continue };
            let vocabulary = logits.len() / places.len().max(1);
            // Another head has its few logits wherever the masks are.
            if vocabulary < setup.tokenizer.vocab_size() || logits.len() != vocabulary * places.len() {
                return Err(other_head().into());
            }
            for (logits, at) in logits.chunks(vocabulary).zip(places) {
                let label = labels[*at] as usize;
                sum += cross_entropy(logits, label);
                tokens += 1;
                right += usize::from(argmax(logits) == label);
            }
        }
        Ok(())
    })?;
    let mean = sum / tokens.max(1) as f64;
    let accuracy = right as f64 / tokens.max(1) as f64;
    let metrics = json!({"perplexity": mean.exp(), "tokenAccuracy": accuracy, "tokens": tokens});
    Ok(Evaluation::new(data.len(), &[loss(sum, tokens), metrics], Vec::new()))
}
