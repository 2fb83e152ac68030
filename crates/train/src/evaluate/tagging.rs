//! Tags of words, scored as entities.

use serde_json::json;

use super::context::{Context, Evaluation, Sample, loss, other_head, value};
use super::logits::{argmax, cross_entropy};
use super::predictor::{Input, Predictor};
use crate::data::{Examples, IGNORED, Setup, Target, TokenLabels};
use crate::metrics::entities;
use crate::{Result, TrainError};

pub(super) fn run<P: Predictor>(
    mut context: Context<'_, P>,
    setup: &Setup<'_>,
) -> Result<Evaluation, P::Error> {
    let mut data = TokenLabels::open(&context.options.data, setup)?;
    let labels = data.labels().to_vec();
    let (mut sum, mut tokens) = (0.0, 0);
    let (mut truth, mut predicted): (Vec<Vec<usize>>, Vec<Vec<usize>>) = (Vec::new(), Vec::new());
    let mut samples = Vec::new();
    let (most, tokenizer) = (context.options.samples, context.model.tokenizer);
    context.batches(data.len(), |predictor, range| {
        let examples = range.map(|index| data.get(index)).collect::<Result<Vec<_>>>()?;
        let inputs =
            examples.iter().map(|example| Input { ids: example.input_ids.clone(), type_ids: Vec::new() });
        let logits = predictor.logits(inputs.collect())?;
        for (example, logits) in examples.iter().zip(logits) {
            if logits.len() != labels.len() * example.input_ids.len() {
                return Err(other_head().into());
            }
            let Target::Tokens(tags) = &example.target else { continue };
            let counted = logits.chunks(labels.len()).zip(tags).filter(|(_, tag)| **tag != IGNORED);
            let (mut row, mut said) = (Vec::new(), Vec::new());
            for (logits, tag) in counted {
                sum += cross_entropy(logits, *tag as usize);
                tokens += 1;
                row.push(*tag as usize);
                said.push(argmax(logits));
            }
            if samples.len() < most && row != said {
                let text = tokenizer.decode(&example.input_ids, true).map_err(TrainError::from)?;
                let names = |tags: &[usize]| json!(tags.iter().map(|tag| &labels[*tag]).collect::<Vec<_>>());
                samples.push(Sample::new(text, names(&row), names(&said)));
            }
            truth.push(row);
            predicted.push(said);
        }
        Ok(())
    })?;
    let names = |rows: &[Vec<usize>]| -> Vec<Vec<&str>> {
        rows.iter().map(|row| row.iter().map(|tag| labels[*tag].as_str()).collect()).collect()
    };
    let metrics = value(&entities(&names(&truth), &names(&predicted)))?;
    let facts = json!({"labels": labels, "notes": [data.note()]});
    Ok(Evaluation::new(data.len(), &[loss(sum, tokens), facts, metrics], samples))
}
