//! What is known of vectors: fields, column by column, so that a filter reads what it asks about and no more. A text
//! that several rows have is kept once.

use std::collections::HashMap;
use std::sync::Arc;

use candlewick_models::ModelError;
use serde_json::Value as Json;

use super::values::Value;
use crate::error::{EngineError, Result};

/// Fields of all rows together.
pub(super) const MOST_FIELDS: usize = 1024;

#[derive(Debug, Clone, Default, PartialEq)]
pub(super) enum Cell {
    #[default]
    Missing,
    Null,
    Bool(bool),
    Number(f64),
    /// Its place among the texts.
    Text(u32),
    /// Of cells that are no lists. (Boxed twice, so that a cell has 16 bytes.)
    #[allow(clippy::box_collection)]
    List(Box<Vec<Cell>>),
}

#[derive(Debug, Clone, Default)]
pub(super) struct Field {
    pub name: Arc<str>,
    /// Rows beyond the last lack it.
    pub cells: Vec<Cell>,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Texts {
    pub all: Vec<Arc<str>>,
    places: HashMap<Arc<str>, u32>,
}

impl Texts {
    pub fn place(&mut self, text: &str) -> u32 {
        if let Some(place) = self.places.get(text) {
            return *place;
        }
        let text: Arc<str> = text.into();
        let place = self.all.len() as u32;
        self.all.push(Arc::clone(&text));
        self.places.insert(text, place);
        place
    }

    pub fn find(&self, text: &str) -> Option<u32> {
        self.places.get(text).copied()
    }
}

#[derive(Debug, Clone, Default)]
pub(super) struct Metadata {
    pub fields: Vec<Field>,
    names: HashMap<Arc<str>, usize>,
    pub texts: Texts,
    pub rows: usize,
}

fn too_many(name: &str) -> EngineError {
    let name: String = name.chars().take(60).collect();
    let reason =
        format!("metadata: {name:?} is one field more than the {MOST_FIELDS} that an index may have");
    ModelError::Input(reason).into()
}

impl Metadata {
    /// Adds a row that has these fields; `Null` has none.
    ///
    /// # Errors
    /// `INPUT_INVALID` for more than [`MOST_FIELDS`] fields.
    pub fn push(&mut self, row: &Json) -> Result<()> {
        if let Some(row) = row.as_object() {
            for (name, value) in row {
                let value = self.cell(&Value::of(value)?);
                let field = self.field(name)?;
                self.put(field, self.rows, value);
            }
        }
        self.rows += 1;
        Ok(())
    }

    pub fn field(&mut self, name: &str) -> Result<usize> {
        if let Some(field) = self.names.get(name) {
            return Ok(*field);
        }
        if self.fields.len() == MOST_FIELDS {
            return Err(too_many(name));
        }
        let name: Arc<str> = name.into();
        self.fields.push(Field { name: Arc::clone(&name), cells: Vec::new() });
        self.names.insert(name, self.fields.len() - 1);
        Ok(self.fields.len() - 1)
    }

    /// Adds the fields of `from`, without which no [`copy`](Self::copy) of it fails.
    ///
    /// # Errors
    /// As of [`push`](Self::push), with nothing changed.
    pub fn make_room(&mut self, from: &Self) -> Result<()> {
        let new: Vec<_> = from.fields.iter().filter(|field| self.find(&field.name).is_none()).collect();
        if let Some(field) = new.get(MOST_FIELDS.saturating_sub(self.fields.len())) {
            return Err(too_many(&field.name));
        }
        new.into_iter().try_for_each(|field| self.field(&field.name).map(|_| ()))
    }

    pub fn find(&self, name: &str) -> Option<&Field> {
        self.names.get(name).map(|field| &self.fields[*field])
    }

    fn put(&mut self, field: usize, row: usize, cell: Cell) {
        let cells = &mut self.fields[field].cells;
        if cells.len() <= row {
            cells.resize(row + 1, Cell::Missing);
        }
        cells[row] = cell;
    }

    fn cell(&mut self, value: &Value) -> Cell {
        match value {
            Value::Null => Cell::Null,
            Value::Bool(value) => Cell::Bool(*value),
            Value::Number(number) => Cell::Number(*number),
            Value::Text(text) => Cell::Text(self.texts.place(text)),
            Value::List(list) => Cell::List(Box::new(list.iter().map(|value| self.cell(value)).collect())),
        }
    }

    /// Forgets what is known of a row.
    pub fn clear(&mut self, row: usize) {
        for field in &mut self.fields {
            if let Some(cell) = field.cells.get_mut(row) {
                *cell = Cell::Missing;
            }
        }
    }

    /// Row `row`, which may be the next one, becomes row `other` of `from`.
    ///
    /// # Errors
    /// As of [`push`](Self::push), with nothing changed.
    pub fn copy(&mut self, row: usize, from: &Self, other: usize) -> Result<()> {
        let names = from
            .fields
            .iter()
            .filter(|field| field.cells.get(other).is_some_and(|cell| *cell != Cell::Missing));
        let places = names.clone().map(|field| self.field(&field.name)).collect::<Result<Vec<_>>>()?;
        self.clear(row);
        for (field, place) in names.zip(places) {
            let cell = self.adopt(from, &field.cells[other]);
            self.put(place, row, cell);
        }
        self.rows = self.rows.max(row + 1);
        Ok(())
    }

    fn adopt(&mut self, from: &Self, cell: &Cell) -> Cell {
        match cell {
            Cell::Text(text) => Cell::Text(self.texts.place(&from.texts.all[*text as usize])),
            Cell::List(list) => {
                Cell::List(Box::new(list.iter().map(|cell| self.adopt(from, cell)).collect()))
            }
            cell => cell.clone(),
        }
    }

    /// The rows that are named, in that order, and the texts that they have.
    pub fn compacted(&self, rows: impl Iterator<Item = usize>) -> Self {
        let mut compacted = Self::default();
        for (to, row) in rows.enumerate() {
            // No more fields than there were.
            let _ = compacted.copy(to, self, row);
        }
        compacted
    }

    /// What is known of a row, as JSON: `null`, if nothing is.
    pub fn write(&self, row: usize, to: &mut String) {
        let mut begun = false;
        for field in &self.fields {
            let Some(cell) = field.cells.get(row).filter(|cell| **cell != Cell::Missing) else { continue };
            to.push(if begun { ',' } else { '{' });
            begun = true;
            to.push_str(&Json::from(&*field.name).to_string());
            to.push(':');
            self.write_cell(cell, to);
        }
        to.push_str(if begun { "}" } else { "null" });
    }

    fn write_cell(&self, cell: &Cell, to: &mut String) {
        match cell {
            Cell::Missing | Cell::Null => to.push_str("null"),
            Cell::Bool(value) => to.push_str(if *value { "true" } else { "false" }),
            Cell::Number(number) => to.push_str(&Json::from(*number).to_string()),
            Cell::Text(text) => to.push_str(&Json::from(&*self.texts.all[*text as usize]).to_string()),
            Cell::List(list) => {
                to.push('[');
                for (at, cell) in list.iter().enumerate() {
                    to.push_str(if at > 0 { "," } else { "" });
                    self.write_cell(cell, to);
                }
                to.push(']');
            }
        }
    }
}
