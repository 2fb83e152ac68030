//! Texts for causal language modelling: blocks of one length out of a stream for training, windows of each document for
//! evaluation.

use std::path::PathBuf;

use super::spool::Spool;
use super::texts::names;
use super::{Example, Examples, IGNORED, Setup, Target};
use crate::{Result, TrainError};

/// Documents, each followed by the end-of-text token, concatenated and cut into blocks. The last block may be shorter.
pub(super) struct Blocks {
    spool: Spool,
    /// Tokens before each document in the stream, and in all.
    starts: Vec<u64>,
    eos: Option<u32>,
    length: usize,
    /// From the start of a block to the start of the next.
    step: usize,
}

impl Blocks {
    pub fn open(paths: &[PathBuf], setup: &Setup<'_>) -> Result<Self> {
        let spool = Spool::fill(paths, setup, true)?;
        let length = setup.length()?;
        let step = length - shared(setup.options.stride.unwrap_or(0), length)?;
        let ends = u64::from(setup.eos.is_some());
        let starts = spool.starts.iter().enumerate().map(|(document, start)| start + document as u64 * ends);
        let blocks = Self { starts: starts.collect(), spool, eos: setup.eos, length, step };
        match blocks.len() {
            0 => Err(TrainError::DataEmpty(names(paths))),
            _ => Ok(blocks),
        }
    }

    fn total(&self) -> u64 {
        self.starts.last().copied().unwrap_or(0)
    }

    fn read(&mut self, from: u64, to: u64) -> Result<Vec<u32>> {
        let mut ids = Vec::with_capacity((to - from) as usize);
        let mut document = self.starts.partition_point(|start| *start <= from) - 1;
        while from + (ids.len() as u64) < to {
            let at = from + ids.len() as u64 - self.starts[document];
            let length = self.spool.length(document) as u64;
            let end = length.min(at + (to - from) - ids.len() as u64);
            if at < end {
                ids.extend(self.spool.read(document, at as usize, end as usize)?);
            }
            if from + (ids.len() as u64) < to {
                ids.extend(self.eos);
                document += 1;
            }
        }
        Ok(ids)
    }
}

/// The tokens that windows share, which must leave room for others.
pub(super) fn shared(stride: usize, length: usize) -> Result<usize> {
    if stride >= length {
        let reason = format!("expected less than the window's {length} tokens, got {stride}");
        return Err(TrainError::option("stride", reason));
    }
    Ok(stride)
}

impl Examples for Blocks {
    fn len(&self) -> usize {
        // A single token has no target.
        match self.total() {
            0 | 1 => 0,
            total if total <= self.length as u64 => 1,
            total => {
                1 + (total - self.length as u64)
                    .saturating_sub(u64::from(self.step == self.length))
                    .div_ceil(self.step as u64) as usize
            }
        }
    }

    fn get(&mut self, index: usize) -> Result<Example> {
        let from = index as u64 * self.step as u64;
        let ids = self.read(from, self.total().min(from + self.length as u64))?;
        let known = if index == 0 { 0 } else { self.length - self.step };
        let labels = ids.iter().enumerate().map(|(at, id)| if at < known { IGNORED } else { *id as i32 });
        let labels = labels.collect();
        Ok(Example { input_ids: ids, token_type_ids: Vec::new(), target: Target::Tokens(labels), pair: None })
    }

    fn length_hint(&mut self, index: usize) -> Result<usize> {
        let from = index as u64 * self.step as u64;
        Ok((self.total() - from).min(self.length as u64) as usize)
    }
}

/// Each document by itself, from the end-of-text token on if there is one, in windows that overlap; each token is
/// guessed once, with at least `stride` tokens before it where the document has them.
pub struct Windows {
    spool: Spool,
    eos: Option<u32>,
    length: usize,
    step: usize,
    /// Document, and number of the window in it.
    places: Vec<(u32, u32)>,
}

impl Windows {
    pub fn open(paths: &[PathBuf], setup: &Setup<'_>) -> Result<Self> {
        let spool = Spool::fill(paths, setup, true)?;
        let length = setup.length()?;
        let step = length - shared(setup.options.stride.unwrap_or(length / 2).max(1), length)?;
        let mut windows = Self { eos: setup.eos, length, step, places: Vec::new(), spool };
        for document in 0..windows.spool.documents() {
            let total = windows.total(document);
            let count = if total < 2 { 0 } else { 1 + total.saturating_sub(length).div_ceil(step) };
            windows.places.extend((0..count).map(|window| (document as u32, window as u32)));
        }
        match windows.places.is_empty() {
            true => Err(TrainError::DataEmpty(names(paths))),
            false => Ok(windows),
        }
    }

    fn total(&self, document: usize) -> usize {
        self.spool.length(document) + usize::from(self.eos.is_some())
    }

    /// Bytes of all text. Without an end-of-text token they include the bytes of each document's first token, which has
    /// no prediction.
    pub fn bytes(&self) -> u64 {
        self.spool.bytes.iter().sum()
    }

    pub fn documents(&self) -> usize {
        self.spool.documents()
    }
}

impl Examples for Windows {
    fn len(&self) -> usize {
        self.places.len()
    }

    fn get(&mut self, index: usize) -> Result<Example> {
        let (document, window) = self.places[index];
        let (document, from) = (document as usize, window as usize * self.step);
        let to = self.total(document).min(from + self.length);
        let offset = usize::from(self.eos.is_some());
        let mut ids: Vec<u32> = if from == 0 { self.eos.into_iter().collect() } else { Vec::new() };
        ids.extend(self.spool.read(document, from.saturating_sub(offset), to - offset)?);
        let known = if window == 0 { 1 } else { self.length - self.step };
        let labels = ids.iter().enumerate().map(|(at, id)| if at < known { IGNORED } else { *id as i32 });
        let labels = labels.collect();
        Ok(Example { input_ids: ids, token_type_ids: Vec::new(), target: Target::Tokens(labels), pair: None })
    }

    fn length_hint(&mut self, index: usize) -> Result<usize> {
        let (document, window) = self.places[index];
        Ok((self.total(document as usize) - window as usize * self.step).min(self.length))
    }
}
