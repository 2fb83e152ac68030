//! A prompt and its completion; the loss covers the completion only. Translations and conversations work alike.
//!
//! Prompt and completion are tokenised apart from each other, as they are when a prompt is continued. A conversation is
//! its turns, each followed by the end of text, as in DialoGPT (Zhang et al. 2019); the assistant's turns are learned.

use std::path::PathBuf;

use candlewick_models::Tokenizer;
use serde_json::Value;

use super::task::{Columns, short};
use super::{Example, Examples, IGNORED, Row, Rows, Setup, Target, Task};
use crate::{Result, TrainError};

pub struct Completion {
    rows: Rows,
    reader: Reader,
    tokenizer: Tokenizer,
    max_length: usize,
}

struct Reader {
    task: Task,
    columns: Columns,
    /// After a prompt, and between turns.
    separator: String,
    eos: Option<u32>,
}

/// A row: its texts in order, and whether each is a target.
pub type Turns = Vec<(String, bool)>;

impl Completion {
    pub fn open(paths: &[PathBuf], setup: &Setup<'_>) -> Result<Self> {
        let mut reader: Option<Reader> = None;
        let rows = Rows::open(paths, setup.options.format, setup.stop, &mut |row| {
            if reader.is_none() {
                reader = Some(Reader::new(setup, row)?);
            }
            reader.as_ref().map_or(Ok(()), |reader| reader.turns(row).map(drop))
        })?;
        let Some(reader) = reader else { return Err(TrainError::Internal("rows without columns".into())) };
        let tokenizer = setup.tokenizer.clone();
        Ok(Self { rows, reader, tokenizer, max_length: setup.length()? })
    }

    /// What stands after a prompt, or between turns.
    pub fn separator(&self) -> &str {
        &self.reader.separator
    }

    pub fn turns(&mut self, index: usize) -> Result<Turns> {
        let row = self.rows.get(index)?;
        self.reader.turns(&row)
    }

    /// The ids of a prompt as training has seen it: what to generate from.
    pub fn prompt(&self, turns: &[(String, bool)]) -> Result<Vec<u32>> {
        Ok(turns.iter().map(|turn| self.ids(turn)).collect::<Result<Vec<_>>>()?.concat())
    }

    /// A turn with its end token.
    fn ids(&self, (text, learned): &(String, bool)) -> Result<Vec<u32>> {
        let Reader { task, separator, eos, .. } = &self.reader;
        let ends = *task == Task::Dialogue && separator.is_empty();
        let text = if *learned || ends { text.clone() } else { format!("{text}{separator}") };
        let mut ids = self.tokenizer.encode(&text, false)?;
        if *learned || ends {
            ids.extend(*eos);
        }
        Ok(ids)
    }
}

impl Reader {
    fn new(setup: &Setup<'_>, first: &Row) -> Result<Self> {
        let separator = setup.options.separator.clone().unwrap_or_else(|| match (setup.task, setup.eos) {
            (Task::Completion, _) | (Task::Dialogue, Some(_)) => String::new(),
            _ => "\n".into(),
        });
        let columns = Columns::find(setup.task, &setup.options.columns, first)?;
        Ok(Self { task: setup.task, columns, separator, eos: setup.eos })
    }

    fn turns(&self, row: &Row) -> Result<Turns> {
        let (prompt, completion) = match self.task {
            Task::Translation => ("source", "target"),
            Task::Dialogue => return self.conversation(row),
            _ => ("prompt", "completion"),
        };
        let text = |role| self.columns.text(row, role).map(str::to_string);
        Ok(vec![(text(prompt)?, false), (text(completion)?, true)])
    }

    /// `[{role, content}, …]`, or texts in turn, the first the user's.
    fn conversation(&self, row: &Row) -> Result<Turns> {
        let messages = self.columns.structured(row, "messages")?;
        let Value::Array(messages) = messages else {
            return Err(row.wrong(format!("messages must be a list, got {}", short(&messages))));
        };
        let turn = |(index, message): (usize, Value)| match &message {
            Value::String(text) => Ok((text.clone(), index % 2 == 1)),
            Value::Object(fields) => {
                let text = |key: &str| fields.get(key).and_then(Value::as_str);
                match (text("role"), text("content")) {
                    (Some("assistant"), Some(content)) => Ok((content.to_string(), true)),
                    (Some("user" | "system"), Some(content)) => Ok((content.to_string(), false)),
                    _ => Err(row.wrong(format!(
                        "a message has a role (user, assistant or system) and a content, got {}",
                        short(&message)
                    ))),
                }
            }
            other => Err(row.wrong(format!("a message is an object or a string, got {}", short(other)))),
        };
        let turns: Turns = messages.into_iter().enumerate().map(turn).collect::<Result<_>>()?;
        if !turns.iter().any(|(_, learned)| *learned) {
            return Err(row.wrong("the conversation has no turn of the assistant"));
        }
        Ok(turns)
    }
}

impl Examples for Completion {
    fn len(&self) -> usize {
        self.rows.len()
    }

    /// Truncates: a conversation loses its oldest turns, a prompt its beginning, then a completion its end.
    fn get(&mut self, index: usize) -> Result<Example> {
        let turns = self.turns(index)?;
        let mut parts = Vec::with_capacity(turns.len());
        for turn in &turns {
            parts.push((self.ids(turn)?, turn.1));
        }
        let length = |parts: &[(Vec<u32>, bool)]| parts.iter().map(|(ids, _)| ids.len()).sum::<usize>();
        let mut first = 0;
        while length(&parts[first..]) > self.max_length
            && parts[first + 1..].iter().any(|part| part.1)
            && parts.len() - first > 2
        {
            first += 1;
        }
        let (mut ids, mut labels) = (Vec::new(), Vec::new());
        for (part, learned) in &parts[first..] {
            labels.extend(part.iter().map(|id| if *learned { *id as i32 } else { IGNORED }));
            ids.extend(part);
        }
        let excess = ids.len().saturating_sub(self.max_length);
        let prompt = labels.iter().take_while(|label| **label == IGNORED).count();
        // The first target token is predicted from the tokens before it, so at least one of them is kept.
        let cut = excess.min(prompt.saturating_sub(1));
        ids.drain(..cut);
        labels.drain(..cut);
        ids.truncate(self.max_length);
        labels.truncate(self.max_length);
        Ok(Example { input_ids: ids, token_type_ids: Vec::new(), target: Target::Tokens(labels), pair: None })
    }

    fn length_hint(&mut self, index: usize) -> Result<usize> {
        Ok(self.rows.bytes(index))
    }
}
