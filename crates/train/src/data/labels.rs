//! Classes: their names by id, taken from the options, the checkpoint or the data.
//!
//! A data set is surveyed as a whole before any of its labels becomes an id, so that all of them are read in one way.

use std::collections::{BTreeSet, HashMap};

use serde_json::Value;

use super::rows::{Row, RowPlace};
use super::task::{By, short};
use crate::{Result, TrainError};

/// With more distinct names than this the column holds texts, not classes.
const MOST: usize = 20_000;
/// Names that a note shows.
const SHOWN: usize = 12;

#[derive(Debug, Clone, Default)]
pub struct Labels {
    names: Vec<String>,
    ids: HashMap<String, u32>,
    by: By,
}

impl Labels {
    /// By name.
    pub fn new(names: Vec<String>) -> Result<Self> {
        let ids: HashMap<_, _> =
            names.iter().enumerate().map(|(id, name)| (name.clone(), id as u32)).collect();
        if ids.len() < names.len() {
            return Err(TrainError::option("labels", "a name stands there twice"));
        }
        Ok(Self { names, ids, by: By::Name })
    }

    pub fn names(&self) -> &[String] {
        &self.names
    }

    pub fn by(&self) -> By {
        self.by
    }

    pub fn len(&self) -> usize {
        self.names.len()
    }

    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    pub fn id(&self, label: &str, row: &Row) -> Result<u32> {
        self.find(label).ok_or_else(|| self.unknown(label, row.place()))
    }

    fn find(&self, label: &str) -> Option<u32> {
        // "01" and "+1" are names, not ways to write 1.
        let number =
            || label.parse::<u32>().ok().filter(|id| (*id as usize) < self.len() && id.to_string() == label);
        match self.by {
            By::Name => self.ids.get(label).copied(),
            By::Id => number(),
            By::Either => self.ids.get(label).copied().or_else(number),
        }
    }

    fn unknown(&self, label: &str, place: String) -> TrainError {
        TrainError::LabelUnknown { place, label: label.to_string(), known: self.names.clone() }
    }
}

/// The names that a data set uses, each with the first row that has it.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    names: HashMap<String, (usize, RowPlace)>,
    /// The row of the first name above the most: an error unless they turn out to be no classes.
    beyond: Option<RowPlace>,
}

impl Seen {
    pub fn add(&mut self, label: &str, row: &Row) {
        if self.names.contains_key(label) {
        } else if self.names.len() < MOST {
            self.names.insert(label.to_string(), (self.names.len(), row.at()));
        } else if self.beyond.is_none() {
            self.beyond = Some(row.at());
        }
    }

    fn few(&self) -> Result<()> {
        let Some(place) = &self.beyond else { return Ok(()) };
        let reason = format!("more than {MOST} different labels");
        Err(TrainError::DataInvalid { place: place.to_string(), reason })
    }

    /// `names` as the classes. `by`: as another split of the data was read; `None`: all labels by name if all are
    /// names, else all by number if all are ids, else either, if no name could be taken for a number.
    ///
    /// # Errors
    /// `LabelUnknown`, with the first row whose label is no class.
    pub fn among(&self, names: Vec<String>, by: Option<By>) -> Result<Labels> {
        let mut labels = Labels::new(names)?;
        let numbers = labels.names.iter().any(|name| name.parse::<u32>().is_ok());
        let ways = match by {
            Some(by) => vec![by],
            None if numbers => vec![By::Name, By::Id],
            None => vec![By::Name, By::Id, By::Either],
        };
        for way in &ways {
            labels.by = *way;
            if self.beyond.is_none() && self.names.keys().all(|name| labels.find(name).is_some()) {
                return Ok(labels);
            }
        }
        // What is said of a label that is unknown does not depend on the rows that are by number.
        labels.by = by.unwrap_or(if numbers { By::Name } else { By::Either });
        let unknown = self.names.iter().filter(|(name, _)| labels.find(name).is_none());
        match unknown.min_by_key(|(_, (order, _))| *order) {
            Some((name, (_, place))) => Err(labels.unknown(name, place.to_string())),
            None => self.few().map(|()| labels),
        }
    }

    /// `checkpoint`: the classes of the model's head, if it has any. They are the data's if all labels are names of
    /// them, or all are ids.
    pub fn labels(&self, checkpoint: &[String]) -> Result<Labels> {
        self.few()?;
        if !checkpoint.is_empty() && checkpoint.iter().collect::<BTreeSet<_>>().len() == checkpoint.len() {
            for by in [By::Name, By::Id] {
                if let Ok(labels) = self.among(checkpoint.to_vec(), Some(by)) {
                    return Ok(labels);
                }
            }
        }
        let mut names: Vec<String> = self.names.keys().cloned().collect();
        names.sort();
        let ids: Option<Vec<usize>> = names
            .iter()
            .map(|name| name.parse().ok().filter(|id: &usize| *id < MOST && id.to_string() == *name))
            .collect();
        if let Some(most) = ids.and_then(|ids| ids.into_iter().max()) {
            // A class that is missing from this split keeps its id.
            return Labels::new((0..=most).map(|id| id.to_string()).collect());
        }
        let value = |name: &String| name.trim().parse::<f64>().unwrap_or(f64::NAN);
        if names.iter().all(|name| value(name).is_finite()) {
            // Numbers sort as numbers: -2 before -1, 2 before 10.
            names.sort_by(|a, b| value(a).total_cmp(&value(b)));
        }
        Labels::new(names)
    }

    /// What the labels were taken for, in a line: "labels: 3 classes (-2, 2, n/a)".
    pub fn note(&self, labels: &Labels, checkpoint: &[String]) -> String {
        let names = labels.names();
        let listed = |names: &[&String]| {
            let more = if names.len() > SHOWN { ", …" } else { "" };
            let shown = names.iter().take(SHOWN).map(|name| name.as_str()).collect::<Vec<_>>();
            format!("{}{more}", shown.join(", "))
        };
        let mut note =
            format!("labels: {} classes ({})", names.len(), listed(&names.iter().collect::<Vec<_>>()));
        let used: BTreeSet<u32> = self.names.keys().filter_map(|label| labels.find(label)).collect();
        let unused: Vec<&String> = names
            .iter()
            .enumerate()
            .filter(|(id, _)| !used.contains(&(*id as u32)))
            .map(|(_, name)| name)
            .collect();
        if !unused.is_empty() {
            note += &format!(", of which no row has {}", listed(&unused));
        }
        note += match labels.by {
            By::Name => "",
            By::Id => ", by number",
            By::Either => ", by name or number",
        };
        if !checkpoint.is_empty() && checkpoint != names {
            note += &format!(", in place of the model's {}", checkpoint.len());
        }
        note
    }
}

/// A label as its name: a string as it is, a truth value, a number as JavaScript writes it, to which 1 and 1.0 are one.
pub(super) fn label_name(value: &Value, row: &Row) -> Result<String> {
    match value {
        Value::String(name) if !name.is_empty() => Ok(name.clone()),
        Value::Number(number) => Ok(match number.as_f64() {
            // Above 2^53 JavaScript's integers have gaps; JSON's own text is kept there.
            Some(x) if x.fract() == 0.0 && x.abs() < 9e15 => format!("{}", x as i64),
            _ => number.to_string(),
        }),
        Value::Bool(truth) => Ok(truth.to_string()),
        other => Err(row.wrong(format!(
            "a label is a string that is not empty, a number, or true or false, got {}",
            short(other)
        ))),
    }
}
