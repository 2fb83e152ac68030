//! The events of a run.

use std::path::PathBuf;

use serde::Serialize;
use serde_json::{Map, Value};

#[derive(Debug, Clone, Serialize)]
#[serde(tag = "type", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Event {
    /// Before the first step.
    Start {
        /// Optimiser steps in all, and those of the checkpoint that this run goes on from.
        total_steps: u64,
        step: u64,
        steps_per_epoch: u64,
        parameters: u64,
        trainable_parameters: u64,
        /// Examples of the training set.
        examples: u64,
        /// `"f32"` or `"bf16"`: what the inputs of products are rounded to.
        precision: &'static str,
        /// What products are computed with.
        instruction_set: String,
        /// Share of its tokens that the tokenizer does not know, in a sample; `None` for a vocabulary that knows every
        /// text.
        unknown_tokens: Option<f64>,
        /// Parameters that the checkpoint lacks, initialised at random.
        new_parameters: Vec<String>,
        /// What was inferred from the data, in a line each.
        notes: Vec<String>,
        resumed_from: Option<PathBuf>,
        /// Checkpoints that could not be used.
        skipped: Vec<Skipped>,
    },
    /// After an optimiser step.
    Step {
        /// From 1.
        step: u64,
        total_steps: u64,
        /// Epochs done, with a fraction.
        epoch: f64,
        /// The mean over the targets of the step.
        loss: f64,
        learning_rate: f64,
        /// Before clipping.
        gradient_norm: f64,
        /// Input tokens of the step.
        tokens: u64,
        /// Since the step before.
        seconds: f64,
    },
    Evaluation {
        step: u64,
        epoch: f64,
        loss: f64,
        metrics: Map<String, Value>,
        /// It is the best so far.
        best: bool,
        seconds: f64,
    },
    Checkpoint {
        step: u64,
        path: PathBuf,
    },
    /// The last: the output holds the model.
    Done {
        step: u64,
        epoch: f64,
        finish_reason: Finish,
        /// The mean over the last steps of this run, at most a hundred.
        loss: Option<f64>,
        best_step: Option<u64>,
        best_metric: Option<f64>,
        output: PathBuf,
        tokens: u64,
        seconds: f64,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Finish {
    Completed,
    EarlyStopping,
    /// A checkpoint was written; the output has no model of this run yet.
    Cancelled,
}

/// A checkpoint that could not be used, and why.
#[derive(Debug, Clone, Serialize)]
pub struct Skipped {
    pub path: PathBuf,
    pub reason: String,
}

/// Receives the events of a run, on its thread.
pub trait TrainObserver {
    /// May block: the run continues when it returns.
    fn event(&self, event: Event);
    /// Asked between layers; `true` ends the run with a checkpoint.
    fn stop(&self) -> bool {
        false
    }
}
