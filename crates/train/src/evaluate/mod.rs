//! A model measured on a data set.
//!
//! [`evaluate`] reads rows, asks a [`Predictor`] and scores what it says; the model behind it may be one that the
//! engine serves or one in training. A file for each kind of task: `language.rs` (perplexity), `completions.rs` (what
//! is generated beside what should have been), `classification.rs`, `tagging.rs`, `answers.rs`, `masked.rs`,
//! `similarity.rs`. What a model has to answer is in `predictor.rs`; what the kinds share, in `context.rs`.

mod answers;
mod classification;
mod completions;
mod context;
mod language;
mod logits;
mod masked;
mod predictor;
mod similarity;
mod tagging;

pub use context::{EvaluateOptions, Evaluation, Model, Sample};
pub use predictor::{Generation, Guess, Input, Predictor};

use context::Context;

use crate::data::{Setup, Task};
use crate::unknown::Watching;
use crate::{Observer, Result, TrainError};

/// Reads the rows, asks `predictor` and scores what it says.
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
