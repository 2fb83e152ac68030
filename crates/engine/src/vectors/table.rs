//! Vectors by id. Rows stay in the order of adding: one that is deleted is passed over until there are more of these
//! than of the others, and one that is replaced keeps its place.

use std::collections::{HashMap, HashSet};

use candlewick_models::{ModelError, RowSet, VectorRows, VectorShape};

use super::filter::Filter;
use super::metadata::{Cell, Metadata};
use super::values::{VectorId, parse};
use crate::error::{EngineError, Result};

/// Rows that are gone, or have been replaced, before it pays to copy the others.
const STALE: usize = 4096;

/// What rows are called.
#[derive(Debug, Clone)]
pub(super) enum Naming {
    /// Nothing was added yet.
    Open,
    /// By the order of adding.
    Order,
    Own {
        ids: Vec<VectorId>,
        /// Of those that are not deleted.
        rows: HashMap<VectorId, u32>,
    },
}

#[derive(Debug, Clone)]
pub(super) struct Table {
    pub rows: VectorRows,
    pub live: RowSet,
    /// Of each row its place in the order of adding, ascending.
    pub places: Vec<u32>,
    /// The next one's.
    pub next: u64,
    pub naming: Naming,
    pub metadata: Metadata,
    /// Rows that were replaced: their texts may be used no more.
    replaced: usize,
}

/// Vectors that are to be added together or not at all.
pub(super) struct Batch {
    pub rows: VectorRows,
    pub ids: Option<Vec<VectorId>>,
    pub metadata: Metadata,
}

fn input(at: usize, reason: String) -> EngineError {
    EngineError::from(ModelError::Input(reason)).of_input(at)
}

impl Batch {
    pub fn new(shape: VectorShape) -> Self {
        Self { rows: VectorRows::new(shape), ids: None, metadata: Metadata::default() }
    }

    /// Adds vectors, one behind the other in `data`, and what JavaScript says of them: `{"ids", "metadata"}`.
    pub fn push(&mut self, mut data: Vec<f32>, said: Option<&str>) -> Result<()> {
        let first = self.rows.len();
        for (at, row) in data.chunks_exact_mut(self.rows.shape().width).enumerate() {
            self.rows.push(row).map_err(|error| EngineError::from(error).of_input(first + at))?;
        }
        let said = said.map_or(Ok(serde_json::Value::Null), parse)?;
        if let Some(ids) = said["ids"].as_array() {
            let ids = ids.iter().map(VectorId::of).collect::<Result<Vec<_>>>()?;
            self.ids.get_or_insert_default().extend(ids);
        }
        for at in first..self.rows.len() {
            let row = &said["metadata"][at - first];
            self.metadata.push(row).map_err(|error| error.of_input(at))?;
        }
        match &self.ids {
            Some(ids) if ids.len() != self.rows.len() => Err(EngineError::Internal("ids are missing".into())),
            _ => Ok(()),
        }
    }
}

impl Table {
    pub fn new(shape: VectorShape) -> Self {
        Self {
            rows: VectorRows::new(shape),
            live: RowSet::default(),
            places: Vec::new(),
            next: 0,
            naming: Naming::Open,
            metadata: Metadata::default(),
            replaced: 0,
        }
    }

    /// Vectors that are in.
    pub fn len(&self) -> usize {
        self.live.count()
    }

    /// What is whole comes from a file.
    pub fn restored(mut self) -> Self {
        self.live = RowSet::new(self.rows.len(), true);
        self
    }

    fn find(&self, id: &VectorId) -> Option<usize> {
        match (&self.naming, id) {
            (Naming::Own { rows, .. }, id) => rows.get(id).map(|row| *row as usize),
            (Naming::Order, VectorId::Number(place)) => {
                let row = self.places.binary_search(&u32::try_from(*place).ok()?).ok()?;
                self.live.contains(row).then_some(row)
            }
            _ => None,
        }
    }

    /// The id of a row.
    pub fn id(&self, row: usize) -> VectorId {
        match &self.naming {
            Naming::Own { ids, .. } => ids[row].clone(),
            _ => VectorId::Number(self.places[row].into()),
        }
    }

    /// Adds a batch; with `replace` a vector whose id is known takes the place of that one.
    ///
    /// # Errors
    /// `INPUT_INVALID`, with nothing changed.
    pub fn commit(&mut self, batch: Batch, replace: bool) -> Result<()> {
        if batch.rows.is_empty() {
            return Ok(());
        }
        let targets = self.targets(&batch, replace)?;
        let added = targets.iter().filter(|target| target.is_none()).count();
        if self.next + added as u64 > u64::from(u32::MAX) {
            return Err(EngineError::option("vectors", "an index numbers no more than 2^32 of them"));
        }
        self.metadata.make_room(&batch.metadata)?;
        let mut next = self.rows.len();
        for (at, target) in targets.iter().enumerate() {
            let row = target.unwrap_or(next);
            next += usize::from(target.is_none());
            self.metadata.copy(row, &batch.metadata, at)?;
        }
        if let (Naming::Open, own) = (&self.naming, batch.ids.is_some()) {
            self.naming = match own {
                true => Naming::Own { ids: Vec::new(), rows: HashMap::new() },
                false => Naming::Order,
            };
        }
        let all_new = added == targets.len();
        let mut ids = batch.ids.into_iter().flatten();
        for (at, target) in targets.into_iter().enumerate() {
            let id = ids.next();
            if let Some(row) = target {
                self.rows.replace_from(row, &batch.rows, at);
                self.replaced += 1;
                continue;
            }
            let row = self.live.len();
            if let (Naming::Own { ids, rows }, Some(id)) = (&mut self.naming, id) {
                ids.push(id.clone());
                rows.insert(id, row as u32);
            }
            if !all_new {
                self.rows.append_row(&batch.rows, at);
            }
            self.live.push();
            self.places.push(self.next as u32);
            self.next += 1;
        }
        if all_new {
            self.rows.append(batch.rows);
        }
        self.tidy();
        Ok(())
    }

    /// For each vector of a batch the row that it replaces.
    fn targets(&self, batch: &Batch, replace: bool) -> Result<Vec<Option<usize>>> {
        let Some(ids) = &batch.ids else {
            return match self.naming {
                Naming::Own { .. } => Err(input(0, "it has no id, and the others of this index have".into())),
                _ => Ok(vec![None; batch.rows.len()]),
            };
        };
        let mut seen = HashSet::with_capacity(ids.len());
        let mut targets = Vec::with_capacity(ids.len());
        for (at, id) in ids.iter().enumerate() {
            if !seen.insert(id) {
                return Err(input(at, format!("the id {} is given twice", id.show())));
            }
            let found = self.find(id);
            match (found, replace, &self.naming) {
                (Some(_), false, Naming::Own { .. } | Naming::Open) => {
                    let reason =
                        format!("the id {} is in the index already; update() replaces it", id.show());
                    return Err(input(at, reason));
                }
                (_, false, Naming::Order) => {
                    return Err(input(at, "it has an id, and the others of this index have none".into()));
                }
                (None, true, Naming::Order) => {
                    let reason = format!("there is no vector {}, and this index numbers its own", id.show());
                    return Err(input(at, reason));
                }
                _ => targets.push(found),
            }
        }
        Ok(targets)
    }

    /// The rows of these ids, of those that are in.
    pub fn rows_of(&self, ids: &[VectorId]) -> RowSet {
        let rows: HashSet<usize> = ids.iter().filter_map(|id| self.find(id)).collect();
        RowSet::of(self.live.len(), |row| rows.contains(&row))
    }

    /// The rows that a filter holds for.
    pub fn rows_where(&self, filter: &Filter) -> RowSet {
        let mut rows = filter.rows(&self.metadata);
        rows.and(&self.live);
        rows
    }

    /// Takes rows out. How many were in.
    pub fn delete(&mut self, rows: &RowSet) -> usize {
        let mut deleted = 0;
        for row in rows.iter() {
            if !self.live.remove(row) {
                continue;
            }
            deleted += 1;
            self.metadata.clear(row);
            if let Naming::Own { ids, rows } = &mut self.naming {
                rows.remove(&ids[row]);
            }
        }
        self.tidy();
        deleted
    }

    fn tidy(&mut self) {
        let gone = self.live.len() - self.live.count();
        if gone + self.replaced > STALE.max(self.live.count()) {
            self.compact();
        }
    }

    /// Leaves what is deleted behind.
    pub fn compact(&mut self) {
        self.rows.compact(&self.live);
        self.metadata = self.metadata.compacted(self.live.iter());
        self.metadata.rows = self.live.count();
        self.places = self.live.iter().map(|row| self.places[row]).collect();
        if let Naming::Own { ids, rows } = &mut self.naming {
            *ids = self.live.iter().map(|row| ids[row].clone()).collect();
            *rows = ids.iter().cloned().zip(0..).collect();
        }
        self.live = RowSet::new(self.live.count(), true);
        self.replaced = 0;
    }

    /// Whether there is more to say of a row than its place.
    pub fn says_more(&self) -> bool {
        matches!(self.naming, Naming::Own { .. }) || !self.metadata.fields.is_empty()
    }

    /// `[id, metadata]` of a row, as JSON.
    pub fn write(&self, row: usize, to: &mut String) {
        to.push('[');
        self.id(row).write(to);
        to.push(',');
        self.metadata.write(row, to);
        to.push(']');
    }

    /// Cells of a file, which has no texts beyond `texts`.
    pub fn is_cell(cell: &Cell, texts: usize) -> bool {
        match cell {
            Cell::Text(text) => (*text as usize) < texts,
            Cell::List(list) => list.iter().all(|cell| Self::is_cell(cell, texts)),
            _ => true,
        }
    }
}
