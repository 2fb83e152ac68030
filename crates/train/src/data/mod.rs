//! Rows of a file become examples, examples become batches.
//!
//! - `rows.rs`: JSON lines, CSV, TSV and plain text, read where they lie. `task.rs`: tasks, options, which column is
//!   what. `setup.rs`: what a data set is opened for.
//! - From a row to an example, a file for each kind: `completion.rs`, `classification.rs`, `token_labels.rs`,
//!   `questions.rs`, `pairs.rs`; of the texts of a corpus (`texts.rs`), through tokens kept in a temporary file
//!   (`spool.rs`): `blocks.rs` (causal), `masked.rs`.
//! - `labels.rs`: classes. `plan.rs`: the order of batches. `random.rs`: numbers that are a function of what they are
//!   for.
//!
//! [`open`] reads a file once from end to end, so that whatever is wrong with it is known before the first step.

mod blocks;
mod classification;
mod completion;
mod example;
mod frame;
mod labels;
mod masked;
mod pairs;
mod plan;
mod questions;
mod random;
mod rows;
mod setup;
mod spool;
mod task;
mod texts;
mod token_labels;

use std::path::PathBuf;

pub use blocks::Windows;
pub use classification::{Classification, ClassificationRow};
pub use completion::{Completion, Turns};
pub use example::{Example, Examples, IGNORED, Target};
pub use labels::Labels;
pub use pairs::{Pair, Pairs};
pub use plan::Plan;
pub use questions::{Question, QuestionWindow, Questions};
pub use random::{Stream, stream};
pub use rows::{Format, Row, Rows};
pub use setup::Setup;
pub use task::{By, DataOptions, ProblemType, Task};
pub use texts::{Piece, texts};
pub use token_labels::TokenLabels;

use crate::Result;

/// A data set that was read through once.
pub struct Opened {
    pub examples: Box<dyn Examples>,
    /// The classes' names by id; none for a task without classes.
    pub labels: Vec<String>,
    /// How the data refers to them; `None`: there are none.
    pub label_by: Option<By>,
    /// What was inferred from the data, in a line each.
    pub notes: Vec<String>,
    /// Of text classification.
    pub problem_type: Option<ProblemType>,
    /// Of a completion, a translation, a dialogue: what was put after a prompt, or between turns.
    pub separator: Option<String>,
}

impl Opened {
    fn plain(examples: impl Examples + 'static) -> Self {
        let (labels, notes) = (Vec::new(), Vec::new());
        Self {
            examples: Box::new(examples),
            labels,
            label_by: None,
            notes,
            problem_type: None,
            separator: None,
        }
    }
}

/// Opens the files of one split. For a validation split, put what the training split had into `options.labels`,
/// `options.label_by` and `options.problem_type`: a label that it has not is then a `LABEL_UNKNOWN`.
pub fn open(paths: &[PathBuf], setup: &Setup<'_>) -> Result<Opened> {
    match setup.task {
        Task::TextGeneration => blocks::Blocks::open(paths, setup).map(Opened::plain),
        Task::FillMask => masked::Masked::open(paths, setup).map(Opened::plain),
        Task::Completion | Task::Translation | Task::Dialogue => {
            let examples = Completion::open(paths, setup)?;
            let separator = Some(examples.separator().to_string());
            Ok(Opened { separator, ..Opened::plain(examples) })
        }
        Task::FeatureExtraction => Pairs::open(paths, setup).map(Opened::plain),
        Task::QuestionAnswering => Questions::open(paths, setup).map(Opened::plain),
        Task::TextClassification => {
            let examples = Classification::open(paths, setup)?;
            let (labels, problem_type) = (examples.labels().to_vec(), Some(examples.problem_type()));
            let (label_by, notes) = (Some(examples.label_by()), vec![examples.note().to_string()]);
            Ok(Opened { labels, label_by, notes, problem_type, ..Opened::plain(examples) })
        }
        Task::TokenClassification => {
            let examples = TokenLabels::open(paths, setup)?;
            let labels = examples.labels().to_vec();
            let (label_by, notes) = (Some(examples.label_by()), vec![examples.note().to_string()]);
            Ok(Opened { labels, label_by, notes, ..Opened::plain(examples) })
        }
    }
}
