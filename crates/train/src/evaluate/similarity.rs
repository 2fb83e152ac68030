//! Whether vectors are near where texts are alike: Spearman's correlation with scores, or which of all texts is found
//! for each.

use serde_json::json;

use super::context::{Context, Evaluation, Sample};
use super::predictor::{Input, Predictor};
use crate::data::{Examples, Pairs, Setup, Target};
use crate::metrics::{pearson, spearman};
use crate::{Result, TrainError};

/// Every first text is compared with every second one.
const MOST_TO_SEARCH: usize = 20_000;

pub(super) fn run<P: Predictor>(
    mut context: Context<'_, P>,
    setup: &Setup<'_>,
) -> Result<Evaluation, P::Error> {
    let mut data = Pairs::open(&context.options.data, setup)?;
    if !data.has_scores() && data.len() > MOST_TO_SEARCH {
        let reason =
            format!("pairs without scores are compared each with each: {MOST_TO_SEARCH} at the most");
        return Err(TrainError::option("data", reason).into());
    }
    let (mut first, mut second, mut scores) = (Vec::new(), Vec::new(), Vec::new());
    context.batches(data.len(), |predictor, range| {
        let examples = range.map(|index| data.get(index)).collect::<Result<Vec<_>>>()?;
        let input = |ids: &[u32], type_ids: &[u32]| Input { ids: ids.to_vec(), type_ids: type_ids.to_vec() };
        let here = examples.iter().map(|example| input(&example.input_ids, &example.token_type_ids));
        let there = examples.iter().filter_map(|example| example.pair.as_deref());
        let there = there.map(|pair| input(&pair.input_ids, &pair.token_type_ids));
        let mut vectors = predictor.embeddings(here.chain(there).collect())?;
        second.extend(vectors.split_off(examples.len()));
        first.extend(vectors);
        scores.extend(examples.iter().filter_map(|example| match &example.target {
            Target::Scores(scores) => Some(scores[0]),
            _ => None,
        }));
        Ok(())
    })?;
    [&mut first, &mut second].into_iter().flatten().for_each(|vector| normalise(vector));
    let alike: Vec<f32> = first.iter().zip(&second).map(|(a, b)| dot(a, b)).collect();
    let most = context.options.samples.min(data.len());
    let (metrics, samples) = if data.has_scores() {
        let samples = (0..most).map(|index| {
            let pair = data.pair(index)?;
            Ok(Sample::new(json!([pair.text, pair.other]), scores[index], alike[index]))
        });
        let metrics = json!({"spearman": spearman(&scores, &alike), "pearson": pearson(&scores, &alike)});
        (metrics, samples.collect::<Result<Vec<_>>>()?)
    } else {
        (retrieval(&first, &second), Vec::new())
    };
    Ok(Evaluation::new(data.len(), &[metrics], samples))
}

fn normalise(vector: &mut [f32]) {
    let length = dot(vector, vector).sqrt();
    if length > 0.0 {
        vector.iter_mut().for_each(|x| *x /= length);
    }
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

/// How often a text's own partner is the nearest of all, and the mean reciprocal of its rank. Equally near ones count
/// as nearer.
fn retrieval(first: &[Vec<f32>], second: &[Vec<f32>]) -> serde_json::Value {
    let rank = |(index, vector): (usize, &Vec<f32>)| {
        let own = dot(vector, &second[index]);
        let nearer = |(other, candidate): (usize, &Vec<f32>)| other != index && dot(vector, candidate) >= own;
        1 + second.iter().enumerate().filter(|candidate| nearer(*candidate)).count()
    };
    let ranks: Vec<usize> = first.iter().enumerate().map(rank).collect();
    let mean = |score: fn(usize) -> f64| {
        ranks.iter().map(|rank| score(*rank)).sum::<f64>() / ranks.len().max(1) as f64
    };
    json!({
        "accuracy": mean(|rank| f64::from(u8::from(rank == 1))),
        "meanReciprocalRank": mean(|rank| 1.0 / rank as f64),
    })
}
