//! Pairs of texts: two that mean the same, or two and how alike they are.

use std::path::PathBuf;

use candlewick_models::Tokenizer;

use super::classification::number;
use super::task::Columns;
use super::{Example, Examples, Row, Rows, Setup, Target};
use crate::{Result, TrainError};

pub struct Pairs {
    rows: Rows,
    columns: Columns,
    tokenizer: Tokenizer,
    max_length: usize,
    prompt: String,
    lower_case: bool,
}

pub struct Pair {
    pub text: String,
    pub other: String,
    pub score: Option<f32>,
}

impl Pairs {
    pub fn open(paths: &[PathBuf], setup: &Setup<'_>) -> Result<Self> {
        let mut columns: Option<Columns> = None;
        let rows = Rows::open(paths, setup.options.format, setup.stop, &mut |row| {
            if columns.is_none() {
                columns = Some(Columns::find(setup.task, &setup.options.columns, row)?);
            }
            let Some(columns) = &columns else { return Ok(()) };
            columns.text(row, "text")?;
            columns.text(row, "textPair")?;
            match score(columns, row)? {
                Some(score) if setup.trains && score.abs() > 1.0 => {
                    Err(row.wrong(format!("a score is what a cosine should be, from -1 to 1, got {score}")))
                }
                _ => Ok(()),
            }
        })?;
        let Some(columns) = columns else { return Err(TrainError::Internal("rows without columns".into())) };
        let (prompt, lower_case) = (setup.options.prompt.clone(), setup.options.lower_case);
        let (tokenizer, max_length) = (setup.tokenizer.clone(), setup.length()?);
        Ok(Self { rows, columns, tokenizer, max_length, prompt, lower_case })
    }

    /// A text as the model reads it.
    fn read(&self, text: &str) -> String {
        let text = format!("{}{text}", self.prompt);
        if self.lower_case { text.chars().flat_map(char::to_lowercase).collect() } else { text }
    }

    pub fn has_scores(&self) -> bool {
        self.columns.has("score")
    }

    pub fn pair(&mut self, index: usize) -> Result<Pair> {
        let row = self.rows.get(index)?;
        Ok(Pair {
            text: self.columns.text(&row, "text")?.to_string(),
            other: self.columns.text(&row, "textPair")?.to_string(),
            score: score(&self.columns, &row)?,
        })
    }
}

/// Scores, if the rows have them: either all rows have one or none has.
fn score(columns: &Columns, row: &Row) -> Result<Option<f32>> {
    columns.has("score").then(|| number(columns.value(row, "score")?, row)).transpose()
}

impl Examples for Pairs {
    fn len(&self) -> usize {
        self.rows.len()
    }

    /// The score, if there is one, is the first text's target.
    fn get(&mut self, index: usize) -> Result<Example> {
        let Pair { text, other, score } = self.pair(index)?;
        let example = |text: &str, target, pair| -> Result<Example> {
            let encoded = self.tokenizer.encode_pair(&self.read(text), None, Some(self.max_length))?;
            Ok(Example { input_ids: encoded.ids, token_type_ids: encoded.type_ids, target, pair })
        };
        let other = example(&other, Target::None, None)?;
        let target = score.map_or(Target::None, |score| Target::Scores(vec![score]));
        example(&text, target, Some(Box::new(other)))
    }

    fn length_hint(&mut self, index: usize) -> Result<usize> {
        Ok(self.rows.bytes(index))
    }
}
