//! Words with a tag each. The first token of a word has its label, the others have none.

use std::path::PathBuf;

use candlewick_models::Tokenizer;
use serde_json::Value;

use super::frame::Frame;
use super::labels::{Labels, Seen, label_name};
use super::task::{Columns, short};
use super::{Example, Examples, IGNORED, Row, Rows, Setup, Target};
use crate::{Result, TrainError};

pub struct TokenLabels {
    rows: Rows,
    columns: Columns,
    tokenizer: Tokenizer,
    frame: Frame,
    max_length: usize,
    labels: Labels,
}

impl TokenLabels {
    pub fn open(paths: &[PathBuf], setup: &Setup<'_>) -> Result<Self> {
        let options = setup.options;
        let fixed = options.labels.clone().map(Labels::new).transpose()?;
        let mut seen = Seen::default();
        let mut columns: Option<Columns> = None;
        let rows = Rows::open(paths, options.format, setup.stop, &mut |row| {
            if columns.is_none() {
                columns = Some(Columns::find(setup.task, &options.columns, row)?);
            }
            let Some(columns) = &columns else { return Ok(()) };
            words(columns, row)?.1.iter().try_for_each(|tag| match &fixed {
                Some(labels) => labels.id(tag, row).map(drop),
                None => seen.add(tag, row),
            })
        })?;
        let Some(columns) = columns else { return Err(TrainError::Internal("rows without columns".into())) };
        let labels = match fixed {
            Some(labels) => labels,
            None => seen.labels(setup.checkpoint_labels)?,
        };
        let (tokenizer, frame) = (setup.tokenizer.clone(), Frame::of(setup.tokenizer)?);
        Ok(Self { rows, columns, tokenizer, frame, max_length: setup.length()?, labels })
    }

    pub fn labels(&self) -> &[String] {
        self.labels.names()
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
    let tags = list("tags")?.iter().map(|tag| label_name(tag, row)).collect::<Result<Vec<_>>>()?;
    if words.len() != tags.len() {
        return Err(row.wrong(format!("{} tokens, but {} tags", words.len(), tags.len())));
    }
    Ok((words, tags))
}

impl Examples for TokenLabels {
    fn len(&self) -> usize {
        self.rows.len()
    }

    fn get(&mut self, index: usize) -> Result<Example> {
        let row = self.rows.get(index)?;
        self.of_words(&row)
    }

    fn length_hint(&mut self, index: usize) -> Result<usize> {
        Ok(self.rows.bytes(index))
    }
}
