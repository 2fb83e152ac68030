//! What `config.json` says of a model's head and its classes, and of what no model of ours has.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::files::reading::{optional, short, wrong};
use crate::{ModelError, Result};

const FILE: &str = "config.json";

/// The classes that `id2label` names, by id; `None`: it is not there, or null.
fn named(config: &Value) -> Result<Option<BTreeMap<usize, String>>> {
    let refuse = |reason: String| Err(wrong(FILE, "id2label", &reason));
    let entries = match &config["id2label"] {
        Value::Null => return Ok(None),
        Value::Object(entries) => entries,
        other => return refuse(format!("{} is no object of names by id", short(other))),
    };
    let mut names = BTreeMap::new();
    for (key, value) in entries {
        let Ok(id) = key.parse::<usize>() else { return refuse(format!("{key:?} is no id of a class")) };
        let name = match value {
            Value::String(name) => name.clone(),
            // Who wrote {0: 0, 1: 1} in Python has numbers for names.
            Value::Number(number) => number.to_string(),
            other => return refuse(format!("the name of class {id} is {}", short(other))),
        };
        if names.insert(id, name).is_some() {
            return refuse(format!("class {id} stands there twice"));
        }
    }
    Ok(Some(names))
}

/// Refuses what contradicts itself, or is of another type than transformers gives it.
pub(crate) fn check(config: &Value) -> Result<()> {
    let names = named(config)?;
    if let Some(names) = &names
        && let Some(gap) = (0..names.len()).find(|id| !names.contains_key(id))
    {
        let reason = format!("it names {} classes, and none of the id {gap}", names.len());
        return Err(wrong(FILE, "id2label", &reason));
    }
    let ids: Option<BTreeMap<String, Value>> = optional(config, FILE, "label2id")?;
    let known: BTreeSet<&String> = names.iter().flat_map(BTreeMap::values).collect();
    for (name, id) in ids.iter().flatten() {
        // transformers takes an id as text too.
        let number = id.as_u64().or_else(|| id.as_str()?.parse().ok());
        let Some(id) = number.and_then(|id| usize::try_from(id).ok()) else {
            return Err(wrong(FILE, "label2id", &format!("the id of {name:?} is {}", short(id))));
        };
        // Names that id2label has not (LABEL_0 of before a renaming) are about and say nothing.
        let other = names.as_ref().map(|names| names.get(&id));
        if let Some(other) = other.filter(|other| known.contains(name) && *other != Some(name)) {
            let other = other.map_or("none".to_string(), |other| format!("{other:?}"));
            let what =
                format!("{FILE}: id2label says that class {id} is {other}, label2id that it is {name:?}");
            return Err(ModelError::Inconsistent(what));
        }
    }
    let count: Option<usize> = optional(config, FILE, "num_labels")?;
    if let (Some(count), Some(names)) = (count, &names)
        && count != names.len()
    {
        let what = format!("{FILE}: num_labels is {count}, and id2label names {} classes", names.len());
        return Err(ModelError::Inconsistent(what));
    }
    let problems = ["single_label_classification", "multi_label_classification", "regression"];
    match optional::<String>(config, FILE, "problem_type")?.as_deref() {
        Some("single_label_classification") if names.as_ref().map(BTreeMap::len).or(count) == Some(1) => {
            let what = format!("{FILE}: problem_type is single_label_classification, and there is one class");
            return Err(ModelError::Inconsistent(what));
        }
        Some(problem) if !problems.contains(&problem) => {
            let reason = format!("{problem:?} is not known; known are {}", problems.join(", "));
            return Err(wrong(FILE, "problem_type", &reason));
        }
        _ => {}
    }
    let architectures: Option<Vec<String>> = optional(config, FILE, "architectures")?;
    let distinct: BTreeSet<String> = architectures.into_iter().flatten().collect();
    if distinct.len() > 1 {
        let all = distinct.into_iter().collect::<Vec<_>>().join(", ");
        return Err(wrong(
            FILE,
            "architectures",
            &format!("several are named ({all}): keep the one that is meant"),
        ));
    }
    optional::<BTreeMap<String, serde_json::Map<String, Value>>>(config, FILE, "task_specific_params")?;
    refuse_foreign_weights(config)
}

/// Fields that change what the weights mean, where they say anything.
fn refuse_foreign_weights(config: &Value) -> Result<()> {
    for field in ["quantization_config", "pruned_heads", "add_cross_attention", "is_encoder_decoder"] {
        let says_nothing = match &config[field] {
            Value::Null | Value::Bool(false) => true,
            Value::Object(object) => object.is_empty(),
            _ => false,
        };
        if !says_nothing {
            return Err(ModelError::UnsupportedModel(format!(
                "{FILE}: {field} is {}",
                short(&config[field])
            )));
        }
    }
    Ok(())
}

/// The names of a head's `classes`, which is how many rows its weights have.
pub(crate) fn of_head(config: &Value, is_adapter: bool, classes: usize) -> Result<Vec<String>> {
    let names = named(config)?;
    let count: Option<usize> = optional(config, FILE, "num_labels")?;
    let said = names.as_ref().map(|names| ("id2label names", names.len()));
    match (said.or(count.map(|count| ("num_labels is", count))), names) {
        (Some((_, count)), Some(names)) if count == classes => Ok(names.into_values().collect()),
        // PEFT keeps an adapter's head and not the names of its classes: the configuration is the base's.
        (Some((what, count)), _) if count != classes && !is_adapter => Err(ModelError::Inconsistent(
            format!("{FILE}: {what} {count}, and the head in the weights is for {classes} classes"),
        )),
        _ => Ok(numbered(classes)),
    }
}

fn numbered(classes: usize) -> Vec<String> {
    (0..classes).map(|id| format!("LABEL_{id}")).collect()
}
