//! SQuAD's exact match and F1 (Rajpurkar et al. 2018): over normalised texts, against the nearest of the answers.

use std::collections::HashMap;

use serde::Serialize;

use super::ratio;

/// Means over questions, from 0 to 1.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Answers {
    pub exact_match: f64,
    pub f1: f64,
    /// F1 where each Chinese character is a word (MLQA's for Chinese); the same as `f1` for texts without any.
    pub character_f1: f64,
}

/// What was answered, "" for nothing, and the answers that are right, none for a question without an answer.
pub fn answer_scores<'a>(pairs: impl Iterator<Item = (&'a str, &'a [String])>) -> Answers {
    let (mut sum, mut count) = (Answers::default(), 0);
    for (predicted, answers) in pairs {
        let nothing = [String::new()];
        // As in SQuAD's script, an answer that normalises to nothing is none.
        let given: Vec<&String> = answers.iter().filter(|answer| !normalise(answer).is_empty()).collect();
        let answers = if given.is_empty() { nothing.iter().collect() } else { given };
        let best =
            |score: &dyn Fn(&str) -> f64| answers.iter().map(|answer| score(answer)).fold(0.0, f64::max);
        sum.exact_match += best(&|answer| f64::from(u8::from(normalise(predicted) == normalise(answer))));
        sum.f1 += best(&|answer| f1(&words(predicted), &words(answer)));
        sum.character_f1 += best(&|answer| f1(&characters(predicted), &characters(answer)));
        count += 1;
    }
    let mean = |sum| ratio(sum, f64::from(count));
    Answers { exact_match: mean(sum.exact_match), f1: mean(sum.f1), character_f1: mean(sum.character_f1) }
}

/// Lower case, without ASCII punctuation, articles and superfluous space.
fn normalise(text: &str) -> String {
    words(text).join(" ")
}

fn words(text: &str) -> Vec<String> {
    let text: String = text.to_lowercase().chars().filter(|c| !c.is_ascii_punctuation()).collect();
    // `\b(a|an|the)\b`: an article stands between characters that are no letters, not just between spaces.
    let mut plain = String::with_capacity(text.len());
    let mut word = String::new();
    for c in text.chars().chain([' ']) {
        if c.is_alphanumeric() || c == '_' {
            word.push(c);
            continue;
        }
        plain.push_str(if matches!(word.as_str(), "a" | "an" | "the") { " " } else { &word });
        word.clear();
        plain.push(c);
    }
    plain.split_whitespace().map(str::to_string).collect()
}

fn characters(text: &str) -> Vec<String> {
    let mut spread = String::new();
    for c in normalise(text).chars() {
        match c {
            '\u{4e00}'..='\u{9fff}' | '\u{3400}'..='\u{4dbf}' => spread.extend([' ', c, ' ']),
            c if is_chinese_punctuation(c) => spread.push(' '),
            c => spread.push(c),
        }
    }
    spread.split_whitespace().map(str::to_string).collect()
}

fn is_chinese_punctuation(c: char) -> bool {
    matches!(c, '\u{3000}'..='\u{303f}' | '\u{ff01}'..='\u{ff0f}' | '\u{ff1a}'..='\u{ff20}' | '\u{ff3b}'..='\u{ff40}' | '\u{ff5b}'..='\u{ff65}' | '\u{2010}'..='\u{2027}')
}

fn f1(predicted: &[String], answer: &[String]) -> f64 {
    if predicted.is_empty() || answer.is_empty() {
        return f64::from(u8::from(predicted.len() == answer.len()));
    }
    let mut left: HashMap<&str, usize> = HashMap::new();
    for word in answer {
        *left.entry(word).or_default() += 1;
    }
    let mut same = 0.0;
    for word in predicted {
        if let Some(count) = left.get_mut(word.as_str()).filter(|count| **count > 0) {
            *count -= 1;
            same += 1.0;
        }
    }
    2.0 * same / (predicted.len() + answer.len()) as f64
}
