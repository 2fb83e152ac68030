//! Texts, or pairs of texts, with one class, several classes, or a number.

use std::path::PathBuf;

use candlewick_models::Tokenizer;
use serde_json::Value;

use super::labels::{Labels, Seen, label_name};
use super::task::{Columns, short};
use super::{Example, Examples, ProblemType, Row, Rows, Setup, Target};
use crate::{Result, TrainError};

pub struct Classification {
    rows: Rows,
    columns: Columns,
    tokenizer: Tokenizer,
    max_length: usize,
    labels: Labels,
    problem: ProblemType,
}

/// A row with its label as the loss takes it.
pub struct ClassificationRow {
    pub text: String,
    pub pair: Option<String>,
    pub target: Target,
}

/// What the first pass over the file finds out about the labels.
#[derive(Default)]
struct Survey {
    seen: Seen,
    lists: bool,
    fractions: bool,
    /// Whether a label is not a number.
    names: bool,
}

impl Classification {
    pub fn open(paths: &[PathBuf], setup: &Setup<'_>) -> Result<Self> {
        let options = setup.options;
        let fixed = options.labels.clone().map(Labels::new).transpose()?;
        let one_output = fixed.is_none() && setup.checkpoint_labels.len() == 1;
        let problem = options.problem_type.or(one_output.then_some(ProblemType::Regression));
        let mut columns: Option<Columns> = None;
        let mut survey = Survey::default();
        let rows = Rows::open(paths, options.format, setup.stop, &mut |row| {
            if columns.is_none() {
                columns = Some(Columns::find(setup.task, &options.columns, row)?);
            }
            let Some(columns) = &columns else { return Ok(()) };
            columns.text(row, "text")?;
            if columns.has("textPair") {
                columns.text(row, "textPair")?;
            }
            let label = columns.value(row, "label")?;
            match (problem, &fixed) {
                (Some(ProblemType::Regression), _) => number(label, row).map(drop),
                // Known beforehand, so that a label outside of them is found here.
                (_, Some(labels)) => {
                    survey.lists |= list(label, row)?.is_some();
                    names(label, row)?.iter().try_for_each(|name| labels.id(name, row).map(drop))
                }
                _ => survey.add(label, row),
            }
        })?;
        let Some(columns) = columns else { return Err(TrainError::Internal("rows without columns".into())) };
        let problem = problem.unwrap_or(survey.problem(fixed.is_some()));
        let labels = match fixed {
            Some(labels) => labels,
            None if problem == ProblemType::Regression => {
                let name = columns.name("label").unwrap_or("score").to_string();
                Labels::new(vec![setup.checkpoint_labels.first().cloned().unwrap_or(name)])?
            }
            None => survey.seen.labels(setup.checkpoint_labels)?,
        };
        if problem == ProblemType::Regression && labels.len() != 1 {
            let reason = format!("a regression has one output; there are {} classes", labels.len());
            return Err(TrainError::option("problemType", reason));
        }
        if problem == ProblemType::SingleLabelClassification && labels.len() < 2 {
            return Err(TrainError::option("labels", "there is one class only: nothing to learn"));
        }
        let tokenizer = setup.tokenizer.clone();
        Ok(Self { rows, columns, tokenizer, max_length: setup.length()?, labels, problem })
    }

    pub fn labels(&self) -> &[String] {
        self.labels.names()
    }

    pub fn problem_type(&self) -> ProblemType {
        self.problem
    }

    pub fn row(&mut self, index: usize) -> Result<ClassificationRow> {
        let row = self.rows.get(index)?;
        let text = self.columns.text(&row, "text")?.to_string();
        let pair = match self.columns.has("textPair") {
            true => Some(self.columns.text(&row, "textPair")?.to_string()),
            false => None,
        };
        let label = self.columns.value(&row, "label")?;
        let target = match self.problem {
            ProblemType::Regression => Target::Scores(vec![number(label, &row)?]),
            ProblemType::SingleLabelClassification => {
                Target::Class(self.labels.id(&label_name(label, &row)?, &row)?)
            }
            ProblemType::MultiLabelClassification => {
                let mut scores = vec![0.0; self.labels.len()];
                for name in names(label, &row)? {
                    scores[self.labels.id(&name, &row)? as usize] = 1.0;
                }
                Target::Scores(scores)
            }
        };
        Ok(ClassificationRow { text, pair, target })
    }
}

impl Survey {
    fn add(&mut self, label: &Value, row: &Row) -> Result<()> {
        match list(label, row)? {
            Some(list) => {
                self.lists = true;
                list.iter().try_for_each(|label| self.seen.add(&label_name(label, row)?, row))
            }
            None => match number(label, row) {
                Ok(number) if number.fract() != 0.0 || number < 0.0 => {
                    self.fractions = true;
                    Ok(())
                }
                is_number => {
                    self.names |= is_number.is_err();
                    self.seen.add(&label_name(label, row)?, row)
                }
            },
        }
    }

    fn problem(&self, has_labels: bool) -> ProblemType {
        match self {
            Self { lists: true, .. } => ProblemType::MultiLabelClassification,
            Self { fractions: true, names: false, .. } if !has_labels => ProblemType::Regression,
            _ => ProblemType::SingleLabelClassification,
        }
    }
}

/// The labels of a row that has several; in CSV they are JSON.
fn list(label: &Value, row: &Row) -> Result<Option<Vec<Value>>> {
    match label {
        Value::Array(list) => Ok(Some(list.clone())),
        Value::String(text) if text.starts_with('[') => serde_json::from_str(text)
            .map(Some)
            .map_err(|error| row.wrong(format!("the label looks like a list but is none: {error}"))),
        _ => Ok(None),
    }
}

fn names(label: &Value, row: &Row) -> Result<Vec<String>> {
    match list(label, row)? {
        Some(list) => list.iter().map(|label| label_name(label, row)).collect(),
        None => Ok(vec![label_name(label, row)?]),
    }
}

pub(super) fn number(value: &Value, row: &Row) -> Result<f32> {
    let number = match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    };
    let number = number.map(|number| number as f32).filter(|number| number.is_finite());
    number.ok_or_else(|| row.wrong(format!("expected a number, got {}", short(value))))
}

impl Examples for Classification {
    fn len(&self) -> usize {
        self.rows.len()
    }

    fn get(&mut self, index: usize) -> Result<Example> {
        let row = self.row(index)?;
        let encoded = self.tokenizer.encode_pair(&row.text, row.pair.as_deref(), Some(self.max_length))?;
        let (input_ids, token_type_ids) = (encoded.ids, encoded.type_ids);
        Ok(Example { input_ids, token_type_ids, target: row.target, pair: None })
    }

    fn length_hint(&mut self, index: usize) -> Result<usize> {
        Ok(self.rows.bytes(index))
    }
}
