//! seqeval's entity scores in its default, conlleval's, reading of tags: `B-`, `I-`, `E-`, `S-`, `O`; an entity is
//! right if its kind, start and end are.

use std::collections::{BTreeMap, HashSet};

use serde::Serialize;

use super::{ClassScores, Counts, Scores, averages, class_scores};

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EntityMetrics {
    /// Over all entities (seqeval's micro average).
    #[serde(flatten)]
    pub scores: Scores,
    /// The mean over the kinds.
    #[serde(rename = "macro")]
    pub macro_average: Scores,
    pub weighted: Scores,
    /// Share of tokens whose tag is right.
    pub accuracy: f64,
    pub per_class: Vec<ClassScores>,
}

/// Sentences of tags, both of the same shape.
pub fn entities(truth: &[Vec<&str>], predicted: &[Vec<&str>]) -> EntityMetrics {
    let (actual, found) = (spans(truth), spans(predicted));
    let kinds: std::collections::BTreeSet<&str> = actual.keys().chain(found.keys()).copied().collect();
    let none = HashSet::new();
    let count = |kind: &&str| {
        let (actual, found) = (actual.get(kind).unwrap_or(&none), found.get(kind).unwrap_or(&none));
        Counts {
            right: actual.intersection(found).count() as u64,
            predicted: found.len() as u64,
            actual: actual.len() as u64,
        }
    };
    let counts: Vec<Counts> = kinds.iter().map(count).collect();
    let labels: Vec<String> = kinds.iter().map(|kind| kind.to_string()).collect();
    let tags = || truth.iter().flatten().zip(predicted.iter().flatten());
    let averages = averages(&counts);
    EntityMetrics {
        scores: averages.micro,
        macro_average: averages.macro_average,
        weighted: averages.weighted,
        accuracy: super::ratio(tags().filter(|(a, b)| a == b).count() as f64, tags().count() as f64),
        per_class: class_scores(&labels, &counts),
    }
}

/// Entities by kind: first and last token, counted over all sentences.
fn spans<'a>(sentences: &[Vec<&'a str>]) -> BTreeMap<&'a str, HashSet<(usize, usize)>> {
    let mut spans: BTreeMap<&str, HashSet<(usize, usize)>> = BTreeMap::new();
    let (mut before, mut kind_before) = ('O', "");
    let mut begin = 0;
    // An `O` after each sentence ends what is open there.
    let tags = sentences.iter().flat_map(|tags| tags.iter().copied().chain(["O"]));
    for (at, tag) in tags.enumerate() {
        let (prefix, kind) = split(tag);
        if ends(before, prefix, kind_before, kind) {
            spans.entry(kind_before).or_default().insert((begin, at - 1));
        }
        if starts(before, prefix, kind_before, kind) {
            begin = at;
        }
        (before, kind_before) = (prefix, kind);
    }
    spans
}

/// `B-PER` → (B, PER); what has no kind is of the kind "_", as in seqeval.
fn split(tag: &str) -> (char, &str) {
    let prefix = tag.chars().next().unwrap_or('O');
    let rest = &tag[prefix.len_utf8().min(tag.len())..];
    let kind = rest.split_once('-').map_or(rest, |(_, kind)| kind);
    (prefix, if kind.is_empty() { "_" } else { kind })
}

fn ends(before: char, now: char, kind_before: &str, kind: &str) -> bool {
    matches!(before, 'E' | 'S')
        || (matches!(before, 'B' | 'I') && matches!(now, 'B' | 'S' | 'O'))
        || (before != 'O' && before != '.' && kind_before != kind)
}

fn starts(before: char, now: char, kind_before: &str, kind: &str) -> bool {
    matches!(now, 'B' | 'S')
        || (matches!(before, 'E' | 'S' | 'O') && matches!(now, 'E' | 'I'))
        || (now != 'O' && now != '.' && kind_before != kind)
}
