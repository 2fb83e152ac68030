//! What an evaluation is asked for, what it gives, and what the kinds of tasks share.

use std::path::PathBuf;

use candlewick_models::{EncoderUsage, Tokenizer};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::predictor::{Generation, Predictor};
use crate::data::{DataOptions, ProblemType, Task};
use crate::metrics::BleuTokenizer;
use crate::{Observer, Result, TrainError};

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EvaluateOptions {
    pub task: Task,
    pub data: Vec<PathBuf>,
    /// Rows that the model sees at once.
    #[serde(default = "batch")]
    pub batch_size: usize,
    /// Number of sample rows with predictions in the result.
    #[serde(default = "samples")]
    pub samples: usize,
    /// Of a task that is scored by what the model writes; `None`: yes for a completion and a translation, no for a
    /// dialogue.
    pub generate: Option<bool>,
    #[serde(default)]
    pub generation: Generation,
    /// `None`: by the language of the references.
    pub bleu_tokenizer: Option<BleuTokenizer>,
    /// For masks.
    #[serde(default)]
    pub seed: u64,
    #[serde(default)]
    pub options: DataOptions,
}

impl EvaluateOptions {
    /// Vectors are measured of what `embed` would read: texts cut at the length that the files say, in lower case if
    /// they say so, behind the default prompt.
    pub fn read_as(&mut self, usage: &EncoderUsage, positions: usize) {
        if self.task != Task::FeatureExtraction {
            return;
        }
        let length = usage.sentence_max_length.or(usage.tokenizer_max_length);
        let data = &mut self.options;
        data.max_length = data.max_length.or(length.map(|length| length.clamp(4, positions)));
        data.prompt = usage.prompt().unwrap_or_default().to_string();
        data.lower_case = usage.lower_case;
    }
}

fn batch() -> usize {
    32
}

fn samples() -> usize {
    20
}

/// What is known about the model.
pub struct Model<'a> {
    pub tokenizer: &'a Tokenizer,
    pub positions: usize,
    pub eos: Option<u32>,
    pub labels: &'a [String],
    /// As the configuration says; `None`: it does not.
    pub problem_type: Option<ProblemType>,
}

/// A row and what the model made of it.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Sample {
    pub input: Value,
    pub expected: Value,
    pub predicted: Value,
    /// The prediction's probability, 0 to 1, for tasks that have one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub score: Option<f64>,
}

impl Sample {
    pub(super) fn new(
        input: impl Into<Value>,
        expected: impl Into<Value>,
        predicted: impl Into<Value>,
    ) -> Self {
        Self { input: input.into(), expected: expected.into(), predicted: predicted.into(), score: None }
    }
}

/// The metrics of the task, by their public names, and some samples.
#[derive(Debug, Clone, Serialize)]
pub struct Evaluation {
    /// Examples that were scored.
    pub examples: u64,
    #[serde(flatten)]
    pub metrics: Map<String, Value>,
    pub samples: Vec<Sample>,
}

impl Evaluation {
    /// `metrics`: what serialises to an object. Later ones overwrite.
    pub(super) fn new(examples: usize, metrics: &[Value], samples: Vec<Sample>) -> Self {
        let objects = metrics.iter().filter_map(Value::as_object).cloned();
        Self { examples: examples as u64, metrics: objects.flatten().collect(), samples }
    }
}

pub(super) fn value(metrics: &impl Serialize) -> Result<Value> {
    serde_json::to_value(metrics).map_err(|error| TrainError::Internal(error.to_string()))
}

/// The logits are not as many as the task asks for.
pub(super) fn other_head() -> TrainError {
    TrainError::option("task", "the model's head is not that of this task")
}

pub(super) fn loss(sum: f64, count: usize) -> Value {
    json!({ "loss": if count == 0 { 0.0 } else { sum / count as f64 } })
}

/// What each kind of task needs.
pub(super) struct Context<'a, P> {
    pub predictor: &'a mut P,
    pub options: &'a EvaluateOptions,
    pub model: &'a Model<'a>,
    pub observer: &'a dyn Observer,
}

impl<P: Predictor> Context<'_, P> {
    /// Calls `each` with ranges of indices, in order; asks before each whether to stop.
    pub(super) fn batches(
        &mut self,
        count: usize,
        mut each: impl FnMut(&mut P, std::ops::Range<usize>) -> Result<(), P::Error>,
    ) -> Result<(), P::Error> {
        let size = self.options.batch_size.max(1);
        for start in (0..count).step_by(size) {
            if self.observer.stop() {
                return Err(TrainError::Aborted.into());
            }
            let end = count.min(start + size);
            each(self.predictor, start..end)?;
            self.observer.progress(end as u64, count as u64);
        }
        Ok(())
    }
}
