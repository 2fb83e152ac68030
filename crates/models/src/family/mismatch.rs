//! Finds a configuration beside another model's weights, before a tensor is missed by a name that tells nobody why.

use super::architecture::Architecture;
use super::config::WORD_EMBEDDINGS;
use super::known;
use crate::files::folder::ModelFolder;
use crate::files::names::Names;
use crate::files::weights::Weights;
use crate::{ModelError, Result};

/// A module of every layer, as the scheme calls it.
const QUERY: &str = "encoder.layer.0.attention.self.query.weight";

/// # Errors
/// `Config`: `weights` are those of another model than config.json says; both files are named.
pub fn check_model(folder: &ModelFolder, weights: &Weights) -> Result<()> {
    let named = folder.encoder()?;
    let asked = match named {
        None => ["wte.weight", "h.0.attn.c_attn.weight"],
        Some(_) => [WORD_EMBEDDINGS, QUERY],
    };
    if asked.iter().all(|name| weights.contains(name)) {
        return Ok(());
    }
    let names = weights.names();
    let has = |own: Names, name: &str| {
        let own_name = own.own(name);
        let prefixed = format!("{}.{own_name}", own.prefix);
        names.iter().find(|found| **found == prefixed || **found == own_name)
    };
    let holds = |one: &&'static Architecture| has(one.names, WORD_EMBEDDINGS).and(has(one.names, QUERY));
    let (other, example) = match known::ALL.into_iter().find_map(|one| Some((one, holds(&one)?))) {
        Some((one, example)) => (one.model_type, example),
        None => match has("transformer".into(), "wte.weight") {
            Some(example) => ("gpt2", example),
            // No model of ours: the first tensor that is missed is named.
            None => return Ok(()),
        },
    };
    if folder.model_type()? == other {
        return Ok(());
    }
    let (config, said) = (folder.file("config.json"), folder.model_type()?);
    Err(ModelError::Config(format!(
        "{} says model_type {said:?}, but {} holds a {other:?} (it has the tensor {example})",
        config.display(),
        weights.file().display(),
    )))
}
