//! Evaluates completions: perplexity, and generated texts beside the references.

use serde_json::{Value, json};

use super::context::{Context, Evaluation, Sample, value};
use super::language::Foreseen;
use super::predictor::Predictor;
use crate::Result;
use crate::data::{Completion, Examples, Setup, Task, Turns};
use crate::metrics::{BleuTokenizer, Perplexity, bleu, chrf};

pub(super) fn run<P: Predictor>(
    mut context: Context<'_, P>,
    setup: &Setup<'_>,
) -> Result<Evaluation, P::Error> {
    let options = context.options;
    let mut data = Completion::open(&options.data, setup)?;
    let generate = options.generate.unwrap_or(options.task != Task::Dialogue);
    let positions = context.model.positions;
    // A prompt keeps at least half of the positions.
    let mut generation = options.generation;
    generation.max_new_tokens = generation.max_new_tokens.min(positions / 2).max(1);
    let room = (positions - generation.max_new_tokens).max(1);
    let (mut foreseen, mut bytes) = (Foreseen::default(), 0);
    let (mut written, mut wanted): (Vec<String>, Vec<[String; 1]>) = (Vec::new(), Vec::new());
    let mut samples = Vec::new();
    context.batches(data.len(), |predictor, range| {
        let examples = range.clone().map(|index| data.get(index)).collect::<Result<Vec<_>>>()?;
        let guesses =
            predictor.guesses(examples.iter().map(|example| example.input_ids.clone()).collect())?;
        examples.iter().zip(&guesses).for_each(|(example, guesses)| foreseen.add(example, guesses));
        let turns = range.map(|index| data.turns(index)).collect::<Result<Vec<_>>>()?;
        bytes += turns.iter().flatten().filter(|turn| turn.1).map(|turn| turn.0.len() as u64).sum::<u64>();
        if !generate && samples.len() >= options.samples {
            return Ok(());
        }
        // The last learned turn is what has to be written; the turns before it are given.
        let split: Vec<(Turns, String)> = turns.into_iter().filter_map(last_turn).collect();
        let shown = if generate { split.len() } else { split.len().min(options.samples - samples.len()) };
        let split = &split[..shown];
        let prompt = |(given, _): &(Turns, String)| -> Result<Vec<u32>> {
            let ids = data.prompt(given)?;
            Ok(ids[ids.len().saturating_sub(room)..].to_vec())
        };
        let prompts = split.iter().map(prompt).collect::<Result<Vec<_>>>()?;
        let texts = predictor.generate(prompts, generation)?;
        for ((given, reference), text) in split.iter().zip(texts) {
            let text = text.trim().to_string();
            if samples.len() < options.samples {
                samples.push(Sample::new(shown_prompt(given), reference.clone(), text.clone()));
            }
            if generate {
                written.push(text);
                wanted.push([reference.clone()]);
            }
        }
        Ok(())
    })?;
    let mut metrics = vec![value(&Perplexity::new(foreseen.nats, foreseen.tokens, foreseen.right, bytes))?];
    if generate {
        let tokenizer = options.bleu_tokenizer.unwrap_or_else(|| tokenizer_of(&wanted));
        let rows = || written.iter().map(String::as_str).zip(wanted.iter().map(|row| row.as_slice()));
        let exact = rows().filter(|(said, wanted)| *said == wanted[0].trim()).count();
        metrics.push(json!({
            "bleu": value(&bleu(rows(), tokenizer))?,
            "chrf": chrf(rows(), 0),
            "chrfPlusPlus": chrf(rows(), 2),
            "exactMatch": exact as f64 / written.len().max(1) as f64,
        }));
    }
    Ok(Evaluation::new(data.len(), &metrics, samples))
}

fn last_turn(mut turns: Turns) -> Option<(Turns, String)> {
    let last = turns.iter().rposition(|(_, learned)| *learned)?;
    turns.truncate(last + 1);
    let (reference, _) = turns.pop()?;
    Some((turns, reference))
}

fn shown_prompt(given: &Turns) -> Value {
    match given.as_slice() {
        [(prompt, _)] => prompt.clone().into(),
        turns => turns.iter().map(|(text, _)| text.clone()).collect::<Vec<_>>().into(),
    }
}

/// Chinese where most letters are.
fn tokenizer_of(references: &[[String; 1]]) -> BleuTokenizer {
    let chinese = |c: char| ('\u{3400}'..='\u{9fff}').contains(&c);
    let letters = references.iter().flat_map(|row| row[0].chars()).filter(|c| c.is_alphabetic());
    let (all, zh) = letters.fold((0, 0), |(all, zh), c| (all + 1, zh + usize::from(chinese(c))));
    if 2 * zh > all { BleuTokenizer::Zh } else { BleuTokenizer::V13a }
}
