//! Texts, or pairs of texts, with one class, several classes, or a number.

use std::collections::BTreeSet;
use std::path::PathBuf;

use candlewick_models::Tokenizer;
use serde_json::{Value, json};

use super::labels::{Labels, Seen, label_name};
use super::task::{By, Columns, short};
use super::{Example, Examples, ProblemType, Row, Rows, Setup, Target};
use crate::{Result, TrainError};

pub struct Classification {
    rows: Rows,
    columns: Columns,
    tokenizer: Tokenizer,
    max_length: usize,
    labels: Labels,
    problem: ProblemType,
    note: String,
}

/// A row with its label as the loss takes it.
pub struct ClassificationRow {
    pub text: String,
    pub pair: Option<String>,
    pub target: Target,
}

/// What the first pass over all rows finds out about the labels.
struct Survey {
    seen: Seen,
    lists: bool,
    /// All labels are finite numbers, in JSON or as text.
    numbers: bool,
    /// One of them is no whole number.
    fractions: bool,
    least: f32,
    most: f32,
}

impl Classification {
    pub fn open(paths: &[PathBuf], setup: &Setup<'_>) -> Result<Self> {
        let options = setup.options;
        let one_output = options.labels.is_none() && setup.checkpoint_labels.len() == 1;
        let asked = options.problem_type.or(one_output.then_some(ProblemType::Regression));
        let mut columns: Option<Columns> = None;
        let mut survey = Survey::new();
        let rows = Rows::open(paths, options.format, setup.stop, &mut |row| {
            if columns.is_none() {
                columns = Some(Columns::find(setup.task, &options.columns, row)?);
            }
            let Some(columns) = &columns else { return Ok(()) };
            columns.text(row, "text")?;
            if columns.has("textPair") {
                columns.text(row, "textPair")?;
            }
            survey.add(columns.value(row, "label")?, row, asked)
        })?;
        let Some(columns) = columns else { return Err(TrainError::Internal("rows without columns".into())) };
        let problem = asked.unwrap_or(survey.problem(options.labels.is_some()));
        let checkpoint = setup.checkpoint_labels;
        let labels = match &options.labels {
            Some(names) if problem == ProblemType::Regression => Labels::new(names.clone())?,
            Some(names) => survey.seen.among(names.clone(), options.label_by)?,
            None if problem == ProblemType::Regression => {
                let name = columns.name("label").unwrap_or("score").to_string();
                Labels::new(vec![checkpoint.first().cloned().unwrap_or(name)])?
            }
            None => survey.seen.labels(checkpoint)?,
        };
        if problem == ProblemType::Regression && labels.len() != 1 {
            let reason = format!("a regression has one output; there are {} classes", labels.len());
            return Err(TrainError::option("problemType", reason));
        }
        if problem == ProblemType::SingleLabelClassification && labels.len() < 2 {
            return Err(TrainError::option("labels", "there is one class only: nothing to learn"));
        }
        let note = survey.note(problem, asked.is_none(), &labels, checkpoint);
        let tokenizer = setup.tokenizer.clone();
        Ok(Self { rows, columns, tokenizer, max_length: setup.length()?, labels, problem, note })
    }

    pub fn labels(&self) -> &[String] {
        self.labels.names()
    }

    pub fn label_by(&self) -> By {
        self.labels.by()
    }

    pub fn problem_type(&self) -> ProblemType {
        self.problem
    }

    /// What the labels were taken for, in a line.
    pub fn note(&self) -> &str {
        &self.note
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
    fn new() -> Self {
        let (least, most) = (f32::INFINITY, f32::NEG_INFINITY);
        Self { seen: Seen::default(), lists: false, numbers: true, fractions: false, least, most }
    }

    /// `asked`: the problem that is known beforehand, whose labels are then checked as such.
    fn add(&mut self, label: &Value, row: &Row, asked: Option<ProblemType>) -> Result<()> {
        if asked == Some(ProblemType::Regression) {
            self.value(number(label, row)?);
            return Ok(());
        }
        let single = asked == Some(ProblemType::SingleLabelClassification);
        match list(label, row)?.filter(|_| !single) {
            Some(_) => {
                (self.lists, self.numbers) = (true, false);
                names(label, row)?.iter().for_each(|name| self.seen.add(name, row));
            }
            None => {
                match number(label, row) {
                    Ok(number) => self.value(number),
                    Err(_) => self.numbers = false,
                }
                self.seen.add(&label_name(label, row)?, row);
            }
        }
        Ok(())
    }

    fn value(&mut self, number: f32) {
        self.fractions |= number.fract() != 0.0;
        (self.least, self.most) = (self.least.min(number), self.most.max(number));
    }

    /// As scikit-learn's `type_of_target`: numbers of which some are no whole ones are values, whatever their sign;
    /// what is not all numbers, or all whole, are classes.
    fn problem(&self, has_labels: bool) -> ProblemType {
        match self {
            Self { lists: true, .. } => ProblemType::MultiLabelClassification,
            Self { fractions: true, numbers: true, .. } if !has_labels => ProblemType::Regression,
            _ => ProblemType::SingleLabelClassification,
        }
    }

    fn note(&self, problem: ProblemType, inferred: bool, labels: &Labels, checkpoint: &[String]) -> String {
        let labels = match problem {
            ProblemType::Regression => format!("labels: numbers from {} to {}", self.least, self.most),
            _ => self.seen.note(labels, checkpoint),
        };
        let problem = json!(problem);
        let inferred = if inferred { ", inferred" } else { "" };
        format!("{labels}; problem type {}{inferred}", problem.as_str().unwrap_or_default())
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
    let Some(list) = list(label, row)? else { return Ok(vec![label_name(label, row)?]) };
    let names = list.iter().map(|label| label_name(label, row)).collect::<Result<Vec<_>>>()?;
    let mut seen = BTreeSet::new();
    match names.iter().find(|name| !seen.insert(*name)) {
        // A 0 or 1 for each class, as other libraries have it, would otherwise become the classes 0 and 1.
        Some(name) => Err(row.wrong(format!(
            "the list of labels names {name} twice; it holds the names of a row's classes, not a number for each class"
        ))),
        None => Ok(names),
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
