//! Classes: their names by id, taken from the options, the checkpoint or the data.

use std::collections::{BTreeSet, HashMap};

use serde_json::Value;

use super::rows::Row;
use super::task::short;
use crate::{Result, TrainError};

/// With more distinct names than this the column holds texts, not classes.
const MOST: usize = 20_000;

#[derive(Debug, Clone, Default)]
pub struct Labels {
    names: Vec<String>,
    ids: HashMap<String, u32>,
}

impl Labels {
    pub fn new(names: Vec<String>) -> Result<Self> {
        let ids: HashMap<_, _> =
            names.iter().enumerate().map(|(id, name)| (name.clone(), id as u32)).collect();
        if ids.len() < names.len() {
            return Err(TrainError::option("labels", "a name stands there twice"));
        }
        Ok(Self { names, ids })
    }

    pub fn names(&self) -> &[String] {
        &self.names
    }

    pub fn len(&self) -> usize {
        self.names.len()
    }

    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// By name, else by number: data sets often hold the ids of classes whose names the checkpoint has.
    pub fn id(&self, label: &str, row: &Row) -> Result<u32> {
        if let Some(id) = self.ids.get(label) {
            return Ok(*id);
        }
        match label.parse::<u32>() {
            Ok(id) if (id as usize) < self.len() => Ok(id),
            _ => Err(TrainError::LabelUnknown {
                place: row.place(),
                label: label.to_string(),
                known: self.names.clone(),
            }),
        }
    }
}

/// The names that a data set uses.
#[derive(Debug, Clone, Default)]
pub struct Seen(BTreeSet<String>);

impl Seen {
    pub fn add(&mut self, label: &str, row: &Row) -> Result<()> {
        if !self.0.contains(label) {
            if self.0.len() == MOST {
                return Err(row.wrong(format!("more than {MOST} different labels")));
            }
            self.0.insert(label.to_string());
        }
        Ok(())
    }

    /// `checkpoint`: the classes of the model's head, if it has any.
    pub fn labels(self, checkpoint: &[String]) -> Result<Labels> {
        let numbers: Option<Vec<u32>> = self.0.iter().map(|name| name.parse().ok()).collect();
        let known = self.0.iter().all(|name| checkpoint.contains(name));
        let fits = |ids: &Vec<u32>| ids.iter().all(|id| (*id as usize) < checkpoint.len());
        if !checkpoint.is_empty() && (known || numbers.as_ref().is_some_and(fits)) {
            return Labels::new(checkpoint.to_vec());
        }
        match numbers {
            // Numbers sort as numbers (2 before 10), and a class that is missing from this split keeps its id.
            Some(ids) if ids.iter().max().is_some_and(|most| (*most as usize) < MOST) => {
                let most = ids.into_iter().max().unwrap_or(0);
                Labels::new((0..=most).map(|id| id.to_string()).collect())
            }
            _ => Labels::new(self.0.into_iter().collect()),
        }
    }
}

/// A label as its name: a string, an integer, or a truth value.
pub(super) fn label_name(value: &Value, row: &Row) -> Result<String> {
    match value {
        Value::String(name) if !name.is_empty() => Ok(name.clone()),
        Value::Number(number) if number.is_u64() => Ok(number.to_string()),
        Value::Number(number) if number.as_f64().is_some_and(|x| x >= 0.0 && x.fract() == 0.0) => {
            Ok(format!("{:.0}", number.as_f64().unwrap_or(0.0)))
        }
        Value::Bool(truth) => Ok(truth.to_string()),
        other => Err(row.wrong(format!("a label is a string or an integer from 0, got {}", short(other)))),
    }
}
