//! Questions about a context (SQuAD's rows): a long context is read in windows that overlap, and the answer is where a
//! window has it.

use std::path::PathBuf;

use candlewick_models::{Cut, Tokenizer, Truncation, Window};
use serde_json::Value;

use super::blocks::shared;
use super::task::{Columns, short};
use super::{Example, Examples, Row, Rows, Setup, Target};
use crate::{Result, TrainError};

pub struct Questions {
    rows: Rows,
    columns: Columns,
    tokenizer: Tokenizer,
    cut: Cut,
    /// Row and window of each example.
    places: Vec<(u32, u32)>,
    /// The row that was read last, since its windows are next to each other.
    last: Option<(u32, Question, Vec<Window>)>,
}

#[derive(Debug, Clone)]
pub struct Question {
    pub question: String,
    pub context: String,
    /// Text, and where it starts in the context, in UTF-16 units; none: the question has no answer there.
    pub answers: Vec<(String, u32)>,
}

/// A window with where its tokens are in the context, in UTF-16 units; `None`: not the context's.
pub struct QuestionWindow {
    pub row: usize,
    pub input_ids: Vec<u32>,
    pub token_type_ids: Vec<u32>,
    pub offsets: Vec<Option<(u32, u32)>>,
}

impl Questions {
    pub fn open(paths: &[PathBuf], setup: &Setup<'_>) -> Result<Self> {
        let length = setup.length()?;
        let stride = Some(shared(setup.options.stride.unwrap_or(length / 4), length)?);
        let cut = Cut { max_length: Some(length), truncation: Truncation::Second, stride };
        let mut columns: Option<Columns> = None;
        let mut places = Vec::new();
        let mut number = 0;
        let rows = Rows::open(paths, setup.options.format, setup.stop, &mut |row| {
            if columns.is_none() {
                columns = Some(Columns::find(setup.task, &setup.options.columns, row)?);
            }
            let Some(columns) = &columns else { return Ok(()) };
            let question = read(columns, row)?;
            let windows = setup
                .tokenizer
                .windows(&question.question, Some(&question.context), &cut)
                .map_err(|error| row.wrong(error.to_string()))?;
            if windows.iter().any(|window| window.ids.len() > length) {
                return Err(row.wrong(format!("the question alone has more than {length} tokens")));
            }
            places.extend((0..windows.len()).map(|window| (number, window as u32)));
            number += 1;
            Ok(())
        })?;
        let Some(columns) = columns else { return Err(TrainError::Internal("rows without columns".into())) };
        Ok(Self { rows, columns, tokenizer: setup.tokenizer.clone(), cut, places, last: None })
    }

    pub fn rows(&self) -> usize {
        self.rows.len()
    }

    pub fn question(&mut self, row: usize) -> Result<Question> {
        let row = self.rows.get(row)?;
        read(&self.columns, &row)
    }

    /// The window of an example, and its question.
    pub fn window(&mut self, index: usize) -> Result<(QuestionWindow, Question)> {
        let (row, number) = self.places[index];
        if self.last.as_ref().is_none_or(|(last, ..)| *last != row) {
            let question = self.question(row as usize)?;
            let windows = self.tokenizer.windows(&question.question, Some(&question.context), &self.cut)?;
            self.last = Some((row, question, windows));
        }
        let Some((_, question, windows)) = &self.last else { return Err(gone()) };
        let window = windows.get(number as usize).ok_or_else(gone)?;
        let place = |(text, offsets): (&Option<u8>, &(u32, u32))| (*text == Some(1)).then_some(*offsets);
        let window = QuestionWindow {
            row: row as usize,
            input_ids: window.ids.clone(),
            token_type_ids: window.type_ids.clone(),
            offsets: window.texts.iter().zip(&window.offsets).map(place).collect(),
        };
        Ok((window, question.clone()))
    }
}

fn gone() -> TrainError {
    TrainError::Internal("a window that was there is gone".into())
}

/// Tokens of the first answer; (0, 0): the window has not all of it.
fn span(window: &QuestionWindow, question: &Question) -> (u32, u32) {
    let Some((text, start)) = question.answers.first() else { return (0, 0) };
    let end = start + text.encode_utf16().count() as u32;
    let inside = |&(from, to): &(u32, u32)| from < end && to > *start;
    let first = window.offsets.iter().position(|offsets| offsets.as_ref().is_some_and(inside));
    let last = window.offsets.iter().rposition(|offsets| offsets.as_ref().is_some_and(inside));
    let (Some(first), Some(last)) = (first, last) else { return (0, 0) };
    let context = || window.offsets.iter().flatten();
    let whole = context().any(|(from, _)| from <= start) && context().any(|(_, to)| *to >= end);
    if whole { (first as u32, last as u32) } else { (0, 0) }
}

fn read(columns: &Columns, row: &Row) -> Result<Question> {
    let text = |role| columns.text(row, role).map(str::to_string);
    let (question, context) = (text("question")?, text("context")?);
    if question.trim().is_empty() || context.trim().is_empty() {
        return Err(row.wrong("an empty question or context"));
    }
    let answers = answers(&columns.structured(row, "answers")?, &context, row)?;
    Ok(Question { question, context, answers })
}

/// `[{text, answerStart}, …]`, one such object, or one with two lists, as SQuAD has it. `answer_start`, Python's,
/// counts characters, `answerStart` UTF-16 units. An empty list: impossible.
fn answers(value: &Value, context: &str, row: &Row) -> Result<Vec<(String, u32)>> {
    let one = |text: &Value, units: &Value, characters: &Value| {
        let given = text.as_str().zip(units.as_u64().or_else(|| characters.as_u64()));
        let Some((text, start)) = given.filter(|(text, _)| !text.is_empty()) else {
            return Err(row.wrong(format!("an answer is {{text, answerStart}}, got {}", short(value))));
        };
        let before = context.chars().take(start as usize).map(|c| c.len_utf16() as u64).sum();
        let start = if units.is_u64() { start } else { before };
        let there: Vec<u16> =
            context.encode_utf16().skip(start as usize).take(text.encode_utf16().count()).collect();
        match String::from_utf16(&there) {
            Ok(there) if there == text => Ok((text.to_string(), start as u32)),
            _ => Err(row.wrong(format!("the context has not the answer {text:?} at {start}"))),
        }
    };
    match value {
        Value::Array(list) => {
            list.iter().map(|a| one(&a["text"], &a["answerStart"], &a["answer_start"])).collect()
        }
        Value::Object(fields) if fields.get("text").is_some_and(Value::is_array) => {
            let list = |key: &str| fields.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
            let (texts, units, characters) = (list("text"), list("answerStart"), list("answer_start"));
            let at = |list: &[Value], index: usize| list.get(index).cloned().unwrap_or_default();
            (0..texts.len()).map(|i| one(&texts[i], &at(&units, i), &at(&characters, i))).collect()
        }
        Value::Object(_) => Ok(vec![one(&value["text"], &value["answerStart"], &value["answer_start"])?]),
        other => Err(row.wrong(format!("answers must be a list or an object, got {}", short(other)))),
    }
}

impl Examples for Questions {
    fn len(&self) -> usize {
        self.places.len()
    }

    fn get(&mut self, index: usize) -> Result<Example> {
        let (window, question) = self.window(index)?;
        let (start, end) = span(&window, &question);
        let QuestionWindow { input_ids, token_type_ids, .. } = window;
        Ok(Example { input_ids, token_type_ids, target: Target::Span { start, end }, pair: None })
    }

    fn length_hint(&mut self, index: usize) -> Result<usize> {
        Ok(self.rows.bytes(self.places[index].0 as usize))
    }
}
