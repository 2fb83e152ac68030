//! Named entities, and whatever else a head says of tokens. The rules, oddities included, are those of transformers'
//! `TokenClassificationPipeline`, whose names the functions have.

use candlewick_models::{EncoderInput, EncoderOutput, EncoderWant, Window};

use super::utf16::Utf16;
use super::{argmax, inputs_of, softmax};
use crate::encoding::handle::{Control, EncoderHandle};
use crate::encoding::input::{EncodeOptions, InputLimits};
use crate::error::{EngineError, Result};
use crate::runtime::codec::{Codec, read_each};
use crate::runtime::reply::Done;

/// How tokens become entities.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aggregation {
    /// One entity for each token.
    None,
    /// Neighbouring tokens with the same label form one entity.
    Simple,
    /// As `Simple`; a word takes the label of its first token.
    First,
    /// As `Simple`; a word takes the label of the mean of its tokens' scores.
    Average,
    /// As `Simple`; a word takes the label of its token with the highest score.
    Max,
}

#[derive(Debug, Clone)]
pub struct EntitiesOptions {
    pub encode: EncodeOptions,
    pub aggregation: Aggregation,
    /// Labels that are left out.
    pub ignore: Vec<String>,
    /// Long texts are read in windows that overlap by so many tokens; `None`: they are cut.
    pub stride: Option<usize>,
}

#[derive(Debug, Clone)]
pub struct Entity {
    /// The head's; without `B-` or `I-` where tokens were put together.
    pub label: String,
    pub score: f32,
    /// Of the token in its text, special tokens counted; where tokens were not put together.
    pub index: Option<u32>,
    /// The tokens' text; lower case where the tokenizer makes it so.
    pub word: String,
    /// UTF-16 code units of the text.
    pub start: u32,
    pub end: u32,
}

struct Plan {
    texts: Vec<String>,
    windows: Vec<Vec<Window>>,
    labels: Vec<String>,
    aggregation: Aggregation,
    ignore: Vec<String>,
}

impl EncoderHandle {
    pub fn entities(
        &self,
        texts: Vec<String>,
        options: EntitiesOptions,
        control: Control,
        done: Done<Vec<Vec<Entity>>>,
    ) {
        let info = self.info().clone();
        let limits = InputLimits::of(&info, options.encode);
        let want = EncoderWant { logits: true, ..EncoderWant::default() };
        let prepare = move |codec: &Codec, cancel: &crate::CancelToken, _: &mut EncoderWant| {
            limits.check()?;
            let EntitiesOptions { aggregation, ignore, stride, .. } = options;
            if stride.is_some() && aggregation == Aggregation::None {
                return Err(EngineError::option("stride", "needs an aggregation other than none"));
            }
            let cut = limits.cut(stride);
            let windows_of = |text: &String| codec.text.windows(text, None, &cut).map_err(EngineError::from);
            let windows = read_each(&texts, cancel, windows_of)?;
            let inputs = inputs_of(&windows, &limits)?;
            Ok((inputs, Plan { texts, windows, labels: info.labels, aggregation, ignore }))
        };
        let keep = |plan: &Plan, _, _: &EncoderInput, output: EncoderOutput| {
            let mut scores = output.logits;
            scores.chunks_exact_mut(plan.labels.len()).for_each(softmax);
            Ok(scores)
        };
        let finish = |codec: &Codec, plan: Plan, kept: Vec<Vec<f32>>| {
            let mut kept = kept.into_iter();
            let of_text = |(text, windows): (&String, &Vec<Window>)| {
                plan.entities(codec, text, windows, kept.by_ref().take(windows.len()).collect())
            };
            plan.texts.iter().zip(&plan.windows).map(of_text).collect()
        };
        self.task(want, control, prepare, keep, finish, done);
    }
}

/// A token or a word: what is known before neighbours are put together.
struct Part<'a> {
    /// Its tokens by name.
    tokens: Vec<String>,
    scores: &'a [f32],
    index: u32,
    start: u32,
    end: u32,
    continues: bool,
}

struct Labelled {
    label: usize,
    score: f32,
    index: u32,
    /// A token, or the text of a word's tokens.
    word: String,
    start: u32,
    end: u32,
}

impl Plan {
    fn entities(
        &self,
        codec: &Codec,
        text: &str,
        windows: &[Window],
        scores: Vec<Vec<f32>>,
    ) -> Result<Vec<Entity>> {
        let slices = Utf16::new(text);
        let mut entities = Vec::new();
        for (window, scores) in windows.iter().zip(&scores) {
            let parts = self.gather(codec, &slices, window, scores);
            entities.extend(self.aggregate(codec, parts)?);
        }
        entities.retain(|entity| !self.ignore.contains(&entity.label));
        Ok(if windows.len() > 1 { without_overlaps(entities) } else { entities })
    }

    /// The tokens of a window that are text.
    fn gather<'a>(
        &self,
        codec: &Codec,
        slices: &Utf16<'_>,
        window: &Window,
        scores: &'a [f32],
    ) -> Vec<Part<'a>> {
        let mut parts = Vec::with_capacity(window.ids.len());
        for (at, scores) in scores.chunks_exact(self.labels.len()).enumerate() {
            if window.texts[at].is_none() {
                continue;
            }
            let (start, end) = window.offsets[at];
            let mut token = codec.text.id_to_token(window.ids[at]).unwrap_or_default();
            if codec.text.named_unknown() == Some(token.as_str()) {
                token = slices.slice(start, end).to_string();
            }
            let continues = window.continues[at];
            parts.push(Part { tokens: vec![token], scores, index: at as u32, start, end, continues });
        }
        parts
    }

    fn aggregate(&self, codec: &Codec, parts: Vec<Part>) -> Result<Vec<Entity>> {
        let of_token = |mut part: Part| {
            let label = argmax(part.scores);
            let Part { index, start, end, .. } = part;
            let word = part.tokens.pop().unwrap_or_default();
            Labelled { label, score: part.scores[label], index, word, start, end }
        };
        let labelled = match self.aggregation {
            Aggregation::None | Aggregation::Simple => parts.into_iter().map(of_token).collect(),
            _ => self.aggregate_words(codec, parts)?,
        };
        if self.aggregation != Aggregation::None {
            return self.group(codec, labelled);
        }
        let entity = |Labelled { label, score, index, word, start, end }| {
            let (label, index) = (self.labels[label].clone(), Some(index));
            Entity { label, score, index, word, start, end }
        };
        Ok(labelled.into_iter().map(entity).collect())
    }

    fn aggregate_words(&self, codec: &Codec, parts: Vec<Part>) -> Result<Vec<Labelled>> {
        let mut words: Vec<Vec<Part>> = Vec::new();
        for part in parts {
            match words.last_mut().filter(|_| part.continues) {
                Some(word) => word.push(part),
                None => words.push(vec![part]),
            }
        }
        words.into_iter().map(|word| self.aggregate_word(codec, word)).collect()
    }

    fn aggregate_word(&self, codec: &Codec, parts: Vec<Part>) -> Result<Labelled> {
        let (first, last) = (&parts[0], &parts[parts.len() - 1]);
        let (index, start, end) = (first.index, first.start, last.end);
        let scores: Vec<f32> = match self.aggregation {
            Aggregation::Average => {
                let mean = |label: usize| {
                    parts.iter().map(|part| part.scores[label]).sum::<f32>() / parts.len() as f32
                };
                (0..self.labels.len()).map(mean).collect()
            }
            Aggregation::Max => {
                let surest: Vec<f32> = parts.iter().map(|part| part.scores[argmax(part.scores)]).collect();
                parts[argmax(&surest)].scores.to_vec()
            }
            _ => first.scores.to_vec(),
        };
        let label = argmax(&scores);
        let word = codec.text.join(parts.into_iter().flat_map(|part| part.tokens).collect())?;
        Ok(Labelled { label, score: scores[label], index, word, start, end })
    }

    /// Puts neighbours with the same tag together, unless the second begins an entity of its own (`B-`).
    fn group(&self, codec: &Codec, labelled: Vec<Labelled>) -> Result<Vec<Entity>> {
        let mut groups: Vec<Vec<Labelled>> = Vec::new();
        for one in labelled {
            let (begins, tag) = self.tag(one.label);
            match groups.last_mut() {
                Some(group) if !begins && self.tag(group[group.len() - 1].label).1 == tag => group.push(one),
                _ => groups.push(vec![one]),
            }
        }
        let entity = |group: Vec<Labelled>| {
            let (first, last) = (&group[0], &group[group.len() - 1]);
            let (start, end) = (first.start, last.end);
            let label = &self.labels[first.label];
            let label = label.split_once('-').map_or(label.as_str(), |(_, tag)| tag).to_string();
            let score = group.iter().map(|one| one.score).sum::<f32>() / group.len() as f32;
            let word = codec.text.join(group.into_iter().map(|one| one.word).collect())?;
            Ok(Entity { label, score, index: None, word, start, end })
        };
        groups.into_iter().map(entity).collect()
    }

    /// Whether a label begins an entity, and of what kind.
    fn tag(&self, label: usize) -> (bool, &str) {
        let label = &self.labels[label];
        match (label.strip_prefix("B-"), label.strip_prefix("I-")) {
            (Some(tag), _) => (true, tag),
            (_, Some(tag)) => (false, tag),
            _ => (false, label),
        }
    }
}

/// Of entities that overlap, because windows do, the longest, and of those as long the surest.
fn without_overlaps(mut entities: Vec<Entity>) -> Vec<Entity> {
    entities.sort_by_key(|entity| entity.start);
    let mut kept: Vec<Entity> = Vec::new();
    for entity in entities {
        match kept.last_mut() {
            Some(before) if entity.start < before.end => {
                let length = |entity: &Entity| entity.end - entity.start;
                let longer = length(&entity) > length(before);
                if longer || length(&entity) == length(before) && entity.score > before.score {
                    *before = entity;
                }
            }
            _ => kept.push(entity),
        }
    }
    kept
}
