//! Words with a tag each, or a text with the spans of its entities. The first token of a word has its label, the others
//! have none.

use std::path::PathBuf;

use candlewick_models::{Cut, Tokenizer};
use serde_json::Value;

use super::frame::Frame;
use super::labels::{Labels, Seen, label_name};
use super::task::{By, Columns, short};
use super::{Example, Examples, IGNORED, Row, Rows, Setup, Target};
use crate::{Result, TrainError};

pub struct TokenLabels {
    rows: Rows,
    columns: Columns,
    tokenizer: Tokenizer,
    frame: Frame,
    max_length: usize,
    labels: Labels,
    note: String,
}

/// The tag of tokens outside of entities.
const OUTSIDE: &str = "O";

/// Where an entity is in its text, in UTF-16 code units.
struct Entity {
    start: u32,
    end: u32,
    label: String,
}

impl TokenLabels {
    pub fn open(paths: &[PathBuf], setup: &Setup<'_>) -> Result<Self> {
        let options = setup.options;
        let mut seen = Seen::default();
        let mut columns: Option<Columns> = None;
        let rows = Rows::open(paths, options.format, setup.stop, &mut |row| {
            if columns.is_none() {
                columns = Some(Columns::find(setup.task, &options.columns, row)?);
            }
            let Some(columns) = &columns else { return Ok(()) };
            let mut add = |label: &str| seen.add(label, row);
            if columns.has("tokens") {
                words(columns, row)?.1.iter().for_each(|tag| add(tag));
                return Ok(());
            }
            add(OUTSIDE);
            let begins_and_goes_on =
                |entity: &Entity| ["B", "I"].map(|part| format!("{part}-{}", entity.label));
            entities(columns, row)?.iter().flat_map(begins_and_goes_on).for_each(|label| add(&label));
            Ok(())
        })?;
        let Some(columns) = columns else { return Err(TrainError::Internal("rows without columns".into())) };
        let labels = match &options.labels {
            Some(names) => seen.among(names.clone(), options.label_by)?,
            None => seen.labels(setup.checkpoint_labels)?,
        };
        if setup.trains && labels.len() < 2 {
            return Err(TrainError::option("labels", "there is one tag only: nothing to learn"));
        }
        let note = seen.note(&labels, setup.checkpoint_labels);
        let (tokenizer, frame) = (setup.tokenizer.clone(), Frame::of(setup.tokenizer)?);
        Ok(Self { rows, columns, tokenizer, frame, max_length: setup.length()?, labels, note })
    }

    pub fn labels(&self) -> &[String] {
        self.labels.names()
    }

    pub fn label_by(&self) -> By {
        self.labels.by()
    }

    /// What the labels were taken for, in a line.
    pub fn note(&self) -> &str {
        &self.note
    }

    /// Each word is tokenised by itself, as transformers does with words.
    fn of_words(&self, row: &Row) -> Result<Example> {
        let (mut ids, mut labels) = (Vec::new(), Vec::new());
        let (words, tags) = words(&self.columns, row)?;
        for (word, tag) in words.iter().zip(tags) {
            let tokens = self.tokenizer.encode(word, false)?;
            let first = self.labels.id(&tag, row)? as i32;
            labels.extend((0..tokens.len()).map(|at| if at == 0 { first } else { IGNORED }));
            ids.extend(tokens);
        }
        let room = self.max_length - self.frame.len();
        ids.truncate(room);
        labels.truncate(room);
        Ok(example(self.frame.around(ids, |id| id), self.frame.around(labels, |_| IGNORED)))
    }

    fn of_text(&self, row: &Row) -> Result<Example> {
        let entities = entities(&self.columns, row)?;
        let cut = Cut::from(Some(self.max_length));
        let text = self.columns.text(row, "text")?;
        let Some(window) = self.tokenizer.windows(text, None, &cut)?.into_iter().next() else {
            return Err(row.wrong("a text without tokens"));
        };
        let mut labels = vec![IGNORED; window.ids.len()];
        let (mut word, mut inside) = (None, None);
        for (at, label) in labels.iter_mut().enumerate() {
            if window.texts[at].is_none() || (window.words[at].is_some() && window.words[at] == word) {
                continue;
            }
            word = window.words[at];
            let (start, end) = window.offsets[at];
            let entity = entities.iter().position(|entity| start < entity.end && end > entity.start);
            let name = match entity {
                Some(index) if inside == entity => format!("I-{}", entities[index].label),
                Some(index) => format!("B-{}", entities[index].label),
                None => OUTSIDE.into(),
            };
            inside = entity;
            *label = self.labels.id(&name, row)? as i32;
        }
        Ok(example(window.ids, labels))
    }
}

fn example(input_ids: Vec<u32>, labels: Vec<i32>) -> Example {
    Example { input_ids, token_type_ids: Vec::new(), target: Target::Tokens(labels), pair: None }
}

/// Lists, or strings split at white space.
fn words(columns: &Columns, row: &Row) -> Result<(Vec<String>, Vec<String>)> {
    let list = |role: &'static str| -> Result<Vec<Value>> {
        match columns.structured(row, role)? {
            Value::Array(list) => Ok(list),
            Value::String(text) => Ok(text.split_whitespace().map(Value::from).collect()),
            other => Err(row.wrong(format!("{role} must be a list, got {}", short(&other)))),
        }
    };
    let word = |word: Value| match word {
        Value::String(word) => Ok(word),
        other => Err(row.wrong(format!("a token must be a string, got {}", short(&other)))),
    };
    let words = list("tokens")?.into_iter().map(word).collect::<Result<Vec<_>>>()?;
    let tag = |tag: &Value| match tag {
        // What PyTorch's loss leaves out; as a class it would be learned.
        Value::Number(number) if number.as_i64() == Some(-100) => {
            Err(row.wrong("the tag -100 marks a token without a tag, and each word here has one"))
        }
        tag => label_name(tag, row),
    };
    let tags = list("tags")?.iter().map(tag).collect::<Result<Vec<_>>>()?;
    if words.len() != tags.len() {
        return Err(row.wrong(format!("{} tokens, but {} tags", words.len(), tags.len())));
    }
    Ok((words, tags))
}

/// `[{start, end, label}, …]`; the end is the first unit after the entity.
fn entities(columns: &Columns, row: &Row) -> Result<Vec<Entity>> {
    let length = columns.text(row, "text")?.encode_utf16().count() as u64;
    let list = columns.structured(row, "entities")?;
    let Value::Array(list) = list else {
        return Err(row.wrong(format!("entities must be a list, got {}", short(&list))));
    };
    let entity = |value: &Value| {
        let place = |key: &str| value[key].as_u64().filter(|at| *at <= length);
        match (place("start"), place("end"), value["label"].as_str().or_else(|| value["entity"].as_str())) {
            (Some(start), Some(end), Some(label)) if start < end => {
                Ok(Entity { start: start as u32, end: end as u32, label: label.to_string() })
            }
            _ => Err(row.wrong(format!(
                "an entity is {{start, end, label}} inside the text's {length} UTF-16 units, got {}",
                short(value)
            ))),
        }
    };
    list.iter().map(entity).collect()
}

impl Examples for TokenLabels {
    fn len(&self) -> usize {
        self.rows.len()
    }

    fn get(&mut self, index: usize) -> Result<Example> {
        let row = self.rows.get(index)?;
        if self.columns.has("tokens") { self.of_words(&row) } else { self.of_text(&row) }
    }

    fn length_hint(&mut self, index: usize) -> Result<usize> {
        Ok(self.rows.bytes(index))
    }
}
