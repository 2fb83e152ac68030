//! Answers to questions, cut out of contexts.

use serde_json::json;

use super::context::{Context, Evaluation, Sample, loss, other_head, value};
use super::logits::cross_entropy;
use super::predictor::{Input, Predictor};
use crate::Result;
use crate::data::{Examples, QuestionWindow, Questions, Setup, Target};
use crate::metrics::answer_scores;

/// transformers' limit for the tokens of an answer.
const LONGEST: usize = 30;

/// The best answer of a row so far: its score and text, and the score of there being none.
#[derive(Debug, Clone)]
struct Best {
    score: f32,
    text: String,
    none: f32,
}

pub(super) fn run<P: Predictor>(
    mut context: Context<'_, P>,
    setup: &Setup<'_>,
) -> Result<Evaluation, P::Error> {
    let mut data = Questions::open(&context.options.data, setup)?;
    let none = Best { score: f32::NEG_INFINITY, text: String::new(), none: f32::INFINITY };
    let mut best = vec![none; data.rows()];
    let mut sum = 0.0;
    context.batches(data.len(), |predictor, range| {
        let mut windows = Vec::new();
        for index in range {
            let target = data.get(index)?.target;
            windows.push((data.window(index)?, target));
        }
        let inputs = windows.iter().map(|((window, _), _)| Input {
            ids: window.input_ids.clone(),
            type_ids: window.token_type_ids.clone(),
        });
        let logits = predictor.logits(inputs.collect())?;
        for (((window, question), target), logits) in windows.iter().zip(logits) {
            if logits.len() != 2 * window.input_ids.len() {
                return Err(other_head().into());
            }
            let side = |at: usize| logits.iter().skip(at).step_by(2).copied().collect::<Vec<f32>>();
            let (start, end) = (side(0), side(1));
            if let Target::Span { start: from, end: to } = target {
                sum += (cross_entropy(&start, *from as usize) + cross_entropy(&end, *to as usize)) / 2.0;
            }
            let best = &mut best[window.row];
            best.none = best.none.min(start[0] + end[0]);
            if let Some((score, from, to)) = span(window, &start, &end)
                && score > best.score
            {
                let units: Vec<u16> = question.context.encode_utf16().collect();
                *best = Best { score, text: String::from_utf16_lossy(&units[from..to]), none: best.none };
            }
        }
        Ok(())
    })?;
    let mut questions = Vec::with_capacity(data.rows());
    for row in 0..data.rows() {
        questions.push(data.question(row)?);
    }
    // If every question has an answer, "no answer" is never predicted.
    let silence = questions.iter().any(|question| question.answers.is_empty());
    let said =
        |best: &Best| if silence && best.none > best.score { String::new() } else { best.text.clone() };
    let said: Vec<String> = best.iter().map(said).collect();
    let wanted: Vec<Vec<String>> =
        questions.iter().map(|q| q.answers.iter().map(|(text, _)| text.clone()).collect()).collect();
    let scores = |has: Option<bool>| {
        let rows =
            said.iter().zip(&wanted).filter(|(_, wanted)| has.is_none_or(|has| has != wanted.is_empty()));
        answer_scores(rows.map(|(said, wanted)| (said.as_str(), wanted.as_slice())))
    };
    let mut metrics = vec![loss(sum, data.len()), value(&scores(None))?];
    if silence {
        metrics.push(
            json!({"withAnswer": value(&scores(Some(true)))?, "withoutAnswer": value(&scores(Some(false)))?}),
        );
    }
    let wrong = (0..said.len()).filter(|row| !wanted[*row].contains(&said[*row]));
    let sample =
        |row: usize| Sample::new(questions[row].question.clone(), json!(wanted[row]), said[row].clone());
    let samples = wrong.take(context.options.samples).map(sample).collect();
    Ok(Evaluation::new(data.rows(), &metrics, samples))
}

/// The best span of the context: its score, and where it is in UTF-16 units.
fn span(window: &QuestionWindow, start: &[f32], end: &[f32]) -> Option<(f32, usize, usize)> {
    let mut best: Option<(f32, usize, usize)> = None;
    for (first, from) in window.offsets.iter().enumerate().filter_map(|(at, o)| Some((at, o.as_ref()?.0))) {
        let ends = window.offsets[first..].iter().map_while(|offsets| offsets.as_ref()).zip(&end[first..]);
        for ((_, to), end) in ends.take(LONGEST) {
            let score = start[first] + end;
            if best.is_none_or(|(other, ..)| score > other) {
                best = Some((score, from as usize, *to as usize));
            }
        }
    }
    best
}
