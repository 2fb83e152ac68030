//! The encoders that run, by what a configuration calls them.

use super::architecture::Architecture;
use super::{bert, distilbert, electra, mpnet, roberta};

pub static ALL: [&Architecture; 7] = [
    &bert::BERT,
    &distilbert::DISTILBERT,
    &roberta::ROBERTA,
    &roberta::XLM_ROBERTA,
    &roberta::CAMEMBERT,
    &electra::ELECTRA,
    &mpnet::MPNET,
];

/// That of a `model_type`, if it is an encoder of ours.
pub fn of(model_type: &str) -> Option<&'static Architecture> {
    ALL.into_iter().find(|one| one.model_type == model_type)
}

/// The task of a transformers class: `Some("MaskedLM")` for `DistilBertForMaskedLM`, `Some("")` for a bare model,
/// `None` for a class of no encoder of ours.
pub fn task_of(class: &str) -> Option<&str> {
    ALL.into_iter().find_map(|one| task_for(one, class))
}

/// That of a transformers class.
pub fn of_class(class: &str) -> Option<&'static Architecture> {
    ALL.into_iter().find(|one| task_for(one, class).is_some())
}

fn task_for<'a>(one: &Architecture, class: &'a str) -> Option<&'a str> {
    let rest = class.strip_prefix(one.class)?;
    if rest == "Model" { Some("") } else { rest.strip_prefix("For") }
}
