//! A model measured on a data set.
//!
//! [`evaluate`] reads rows, asks a [`Predictor`] and scores what it says; the model behind it may be one that the
//! engine serves or one in training. A file for each kind of task: `language.rs` (perplexity), `completions.rs` (what
//! is generated beside what should have been), `classification.rs`, `tagging.rs`, `answers.rs`, `masked.rs`,
//! `similarity.rs`.

mod answers;
mod classification;
mod completions;
mod language;
mod logits;
mod masked;
mod similarity;
mod tagging;

use std::path::PathBuf;

use candlewick_models::Tokenizer;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::data::{DataOptions, ProblemType, Setup, Task};
use crate::metrics::BleuTokenizer;
use crate::unknown::Watching;
use crate::{Observer, Result, TrainError};

/// Ids and their token types (T); empty types are zeros.
#[derive(Debug, Clone, Default)]
pub struct Input {
    pub ids: Vec<u32>,
    pub type_ids: Vec<u32>,
}

/// A token of a text as a language model saw it coming.
#[derive(Debug, Clone, Copy)]
pub struct Guess {
    /// Natural logarithm of its probability.
    pub logprob: f32,
    /// No other token was likelier.
    pub best: bool,
}

/// What a language model is asked to write.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Generation {
    pub max_new_tokens: usize,
    pub num_beams: usize,
    pub length_penalty: f32,
    pub repetition_penalty: f32,
    pub no_repeat_ngram_size: usize,
}

impl Default for Generation {
    fn default() -> Self {
        Self {
            max_new_tokens: 128,
            num_beams: 1,
            length_penalty: 1.0,
            repetition_penalty: 1.0,
            no_repeat_ngram_size: 0,
        }
    }
}

/// What evaluation asks of a model. A model has the answers of its kind; the others are an error.
pub trait Predictor {
    type Error: From<TrainError>;

    /// The head's logits of each input: (C); token classification (T, C); question answering (T, 2).
    fn logits(&mut self, inputs: Vec<Input>) -> Result<Vec<Vec<f32>>, Self::Error>;

    /// A masked language model's logits at some tokens of each input: (n, V).
    fn logits_at(&mut self, inputs: Vec<Input>, places: &[Vec<usize>]) -> Result<Vec<Vec<f32>>, Self::Error>;

    /// One vector for each input.
    fn embeddings(&mut self, inputs: Vec<Input>) -> Result<Vec<Vec<f32>>, Self::Error>;

    /// How each token of each sequence was seen coming, from the second on: (T − 1).
    fn guesses(&mut self, sequences: Vec<Vec<u32>>) -> Result<Vec<Vec<Guess>>, Self::Error>;

    /// The likeliest continuation of each prompt, to its end.
    fn generate(
        &mut self,
        prompts: Vec<Vec<u32>>,
        generation: Generation,
    ) -> Result<Vec<String>, Self::Error>;
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EvaluateOptions {
    pub task: Task,
    pub data: Vec<PathBuf>,
    /// Rows that the model sees at once.
    #[serde(default = "batch")]
    pub batch_size: usize,
    /// Rows that are shown with what the model said.
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
    /// How sure the model was of what it predicted, 0 to 1, where it says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub score: Option<f64>,
}

impl Sample {
    fn new(input: impl Into<Value>, expected: impl Into<Value>, predicted: impl Into<Value>) -> Self {
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
    fn new(examples: usize, metrics: &[Value], samples: Vec<Sample>) -> Self {
        let objects = metrics.iter().filter_map(Value::as_object).cloned();
        Self { examples: examples as u64, metrics: objects.flatten().collect(), samples }
    }
}

fn value(metrics: &impl Serialize) -> Result<Value> {
    serde_json::to_value(metrics).map_err(|error| TrainError::Internal(error.to_string()))
}

/// The logits are not as many as the task asks for.
fn other_head() -> TrainError {
    TrainError::option("task", "the model's head is not that of this task")
}

fn loss(sum: f64, count: usize) -> Value {
    json!({ "loss": if count == 0 { 0.0 } else { sum / count as f64 } })
}

/// What each kind of task needs.
struct Context<'a, P> {
    predictor: &'a mut P,
    options: &'a EvaluateOptions,
    model: &'a Model<'a>,
    observer: &'a dyn Observer,
}

pub fn evaluate<P: Predictor>(
    predictor: &mut P,
    model: &Model<'_>,
    options: &EvaluateOptions,
    observer: &dyn Observer,
) -> Result<Evaluation, P::Error> {
    let mut data = options.options.clone();
    data.problem_type = data.problem_type.or(model.problem_type);
    // The classes are the model's: a label outside of them is an error.
    if data.labels.is_none() && !model.labels.is_empty() {
        data.labels = Some(model.labels.to_vec());
    } else if let Some(labels) = &data.labels
        && matches!(options.task, Task::TextClassification | Task::TokenClassification)
        && labels.len() != model.labels.len()
    {
        let reason = format!("the model has {} classes, not {}", model.labels.len(), labels.len());
        return Err(TrainError::option("labels", reason).into());
    }
    let stop = || observer.stop();
    let setup = Setup {
        task: options.task,
        options: &data,
        tokenizer: model.tokenizer,
        positions: model.positions,
        eos: model.eos,
        checkpoint_labels: model.labels,
        seed: options.seed,
        trains: false,
        stop: &stop,
    };
    let predictor = &mut Watching::new(predictor, model.tokenizer, observer);
    let context = Context { predictor, options, model, observer };
    match options.task {
        Task::TextGeneration => language::run(context, &setup),
        Task::Completion | Task::Translation | Task::Dialogue => completions::run(context, &setup),
        Task::TextClassification => classification::run(context, &setup),
        Task::TokenClassification => tagging::run(context, &setup),
        Task::QuestionAnswering => answers::run(context, &setup),
        Task::FillMask => masked::run(context, &setup),
        Task::FeatureExtraction => similarity::run(context, &setup),
    }
}

impl<P: Predictor> Context<'_, P> {
    /// Calls `each` with ranges of indices, in order; asks before each whether to stop.
    fn batches(
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
