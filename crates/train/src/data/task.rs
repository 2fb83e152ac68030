//! Tasks, and which columns of a data set they read.

use std::collections::HashMap;

pub(super) use candlewick_models::short_value as short;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::rows::{Format, Row};
use crate::{Result, TrainError};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Task {
    /// Concatenated texts: causal language modelling.
    TextGeneration,
    /// A prompt and its completion.
    Completion,
    /// A text and its translation.
    Translation,
    /// The turns of a conversation.
    Dialogue,
    #[serde(alias = "sentiment-analysis")]
    TextClassification,
    TokenClassification,
    QuestionAnswering,
    /// Masked language modelling.
    FillMask,
    /// Pairs of texts that mean the same, or that a score compares.
    #[serde(alias = "sentence-similarity")]
    FeatureExtraction,
}

impl Task {
    /// Whether the model is a GPT-2; the others' is a BERT.
    pub fn is_causal(self) -> bool {
        matches!(self, Self::TextGeneration | Self::Completion | Self::Translation | Self::Dialogue)
    }

    /// What a row may hold, each by the names that its column usually has, the first of which is also the role's.
    fn roles(self) -> &'static [&'static [&'static str]] {
        const TEXT: &[&str] = &["text", "sentence", "content"];
        const FIRST: &[&str] = &["text", "sentence", "sentence1", "anchor", "query", "premise", "content"];
        const SECOND: &[&str] =
            &["textPair", "text_pair", "sentence2", "positive", "passage", "hypothesis", "document"];
        const ANSWERS: &[&str] = &["answers", "answer"];
        match self {
            Self::TextGeneration | Self::FillMask => &[TEXT],
            Self::Completion => &[&["prompt", "input", "instruction"], &["completion", "output", "response"]],
            Self::Translation => &[&["source", "src", "en"], &["target", "tgt", "zh"]],
            Self::Dialogue => &[&["messages", "turns", "conversation"]],
            Self::TextClassification => {
                &[FIRST, SECOND, &["label", "labels", "class", "category", "sentiment", "score"]]
            }
            Self::TokenClassification => &[
                &["tokens", "words"],
                &["tags", "ner_tags", "labels", "pos_tags"],
                TEXT,
                &["entities", "spans"],
            ],
            Self::QuestionAnswering => &[&["question"], &["context"], ANSWERS, &["id"]],
            Self::FeatureExtraction => &[FIRST, SECOND, &["score", "similarity", "label"]],
        }
    }
}

/// `transformers`' names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ProblemType {
    SingleLabelClassification,
    MultiLabelClassification,
    Regression,
}

impl ProblemType {
    /// `problem_type` of a configuration.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "single_label_classification" => Some(Self::SingleLabelClassification),
            "multi_label_classification" => Some(Self::MultiLabelClassification),
            "regression" => Some(Self::Regression),
            _ => None,
        }
    }
}

/// How a data set refers to classes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum By {
    #[default]
    Name,
    /// By number: data sets often hold the ids of classes whose names the checkpoint has.
    Id,
    /// Some rows by name, some by number; no name is a number.
    Either,
}

/// What a user may say about a data set.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct DataOptions {
    /// `None`: by the file's ending.
    pub format: Option<Format>,
    /// Role → name of the column.
    pub columns: HashMap<String, String>,
    /// Tokens in an example, special ones included. `None`: the model's positions.
    pub max_length: Option<usize>,
    /// Tokens that neighbouring windows of a long text share. `None`: a quarter of the window for questions, else none
    /// in training and half in evaluation.
    pub stride: Option<usize>,
    /// Names of the classes by id. `None`: the checkpoint's if the data's are among them, else the data's own, sorted.
    pub labels: Option<Vec<String>>,
    /// How another split of the same data refers to them; `None`: as this one's own labels say.
    #[serde(skip)]
    pub label_by: Option<By>,
    /// As a model of embeddings reads texts: a prompt before each, and all in lower case.
    #[serde(skip)]
    pub prompt: String,
    #[serde(skip)]
    pub lower_case: bool,
    pub problem_type: Option<ProblemType>,
    /// Between a prompt and its completion. `None`: a line feed for a translation, nothing for a completion, the end of
    /// text for turns.
    pub separator: Option<String>,
    /// Share of the tokens that a masked language model predicts. `None`: 0.15.
    pub masking: Option<f32>,
}

/// Where a task's roles are in the rows of one data set.
#[derive(Debug, Clone)]
pub(super) struct Columns {
    names: HashMap<&'static str, String>,
    given: Vec<String>,
}

impl Columns {
    /// Decided by the first row: what the user named has to be there; of what was not named, what has a usual name is.
    pub fn find(task: Task, named: &HashMap<String, String>, first: &Row) -> Result<Self> {
        let roles = task.roles();
        if let Some(role) = named.keys().find(|role| !roles.iter().any(|names| names[0] == role.as_str())) {
            let known: Vec<_> = roles.iter().map(|names| names[0]).collect();
            let reason = format!("this task has no {role}, but {}", known.join(", "));
            return Err(TrainError::option("columns", reason));
        }
        let mut columns = Self { names: HashMap::new(), given: first.fields.keys().cloned().collect() };
        for candidates in roles {
            let role = candidates[0];
            let there = |name: &&str| first.fields.contains_key(*name);
            let name = match named.get(role) {
                Some(name) if first.fields.contains_key(name) => Some(name.clone()),
                Some(name) => return Err(columns.missing(first, name)),
                None => candidates.iter().copied().find(there).map(str::to_string),
            };
            if let Some(name) = name.filter(|name| !columns.names.values().any(|taken| taken == name)) {
                columns.names.insert(role, name);
            }
        }
        Ok(columns)
    }

    pub fn has(&self, role: &str) -> bool {
        self.names.contains_key(role)
    }

    fn missing(&self, row: &Row, wanted: &str) -> TrainError {
        TrainError::ColumnUnknown {
            place: row.place(),
            wanted: wanted.to_string(),
            known: self.given.clone(),
        }
    }

    pub fn name(&self, role: &'static str) -> Option<&str> {
        self.names.get(role).map(String::as_str)
    }

    /// A value that must be there.
    pub fn value<'r>(&self, row: &'r Row, role: &'static str) -> Result<&'r Value> {
        let name = self.names.get(role).ok_or_else(|| self.missing(row, role))?;
        match row.fields.get(name) {
            Some(Value::Null) | None => Err(row.wrong(format!("{name} is missing"))),
            Some(value) => Ok(value),
        }
    }

    pub fn text<'r>(&self, row: &'r Row, role: &'static str) -> Result<&'r str> {
        let value = self.value(row, role)?;
        value.as_str().ok_or_else(|| row.wrong(format!("{role} must be a string, got {}", short(value))))
    }

    /// A list or an object, which CSV holds as JSON.
    pub fn structured(&self, row: &Row, role: &'static str) -> Result<Value> {
        match self.value(row, role)? {
            Value::String(text) if text.trim_start().starts_with(['[', '{']) => serde_json::from_str(text)
                .map_err(|error| row.wrong(format!("{role} looks like JSON but is not: {error}"))),
            value => Ok(value.clone()),
        }
    }
}
