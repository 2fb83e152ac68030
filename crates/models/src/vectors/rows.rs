//! Rows in blocks, one behind the other. Blocks are shared until one of their owners changes them, so that a copy (what
//! a file is written from while searches go on) is a list of pointers.

use std::sync::{Arc, Mutex, PoisonError};

use super::block::{Block, prepare};
use super::pool::VectorPool;
use super::set::RowSet;
use super::shape::VectorShape;
use crate::Result;

#[derive(Debug, Clone)]
pub struct VectorRows {
    pub(super) shape: VectorShape,
    /// Each has `shape.block_rows()`, but for the last one, which may have fewer.
    pub(super) blocks: Vec<Arc<Block>>,
    len: usize,
}

impl VectorRows {
    pub fn new(shape: VectorShape) -> Self {
        Self { shape, blocks: Vec::new(), len: 0 }
    }

    pub fn shape(&self) -> VectorShape {
        self.shape
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds a vector of `width` numbers.
    ///
    /// # Errors
    /// `INPUT_INVALID` for one that is not finite, or so long that its scores would not be.
    pub fn push(&mut self, vector: &mut [f32]) -> Result<()> {
        let length = prepare(self.shape.similarity, vector)?;
        let shape = self.shape;
        self.last().push(&shape, vector, length);
        self.len += 1;
        Ok(())
    }

    /// Another vector in a row's place.
    ///
    /// # Errors
    /// As of [`push`](Self::push); the row is then as it was.
    pub fn replace(&mut self, row: usize, vector: &mut [f32]) -> Result<()> {
        let length = prepare(self.shape.similarity, vector)?;
        let each = self.shape.block_rows();
        let shape = self.shape;
        Arc::make_mut(&mut self.blocks[row / each]).set(&shape, row % each, vector, length);
        Ok(())
    }

    /// Row `row` becomes row `other` of `from`, which has the same shape.
    pub fn replace_from(&mut self, row: usize, from: &Self, other: usize) {
        let shape = self.shape;
        let each = shape.block_rows();
        let mut one = Block::default();
        one.extend(&shape, &from.blocks[other / each], other % each, 1);
        let block = Arc::make_mut(&mut self.blocks[row / each]);
        for (to, from) in block.sections_mut().into_iter().zip(one.sections()) {
            let at = row % each * from.len();
            to[at..at + from.len()].copy_from_slice(from);
        }
    }

    /// Adds the rows of `from`, which has the same shape and is freed on the way.
    pub fn append(&mut self, from: Self) {
        for block in from.blocks {
            self.extend(&block, 0, block.rows);
        }
    }

    /// Row `row` of `from` alone.
    pub fn append_row(&mut self, from: &Self, row: usize) {
        let each = self.shape.block_rows();
        self.extend(&from.blocks[row / each], row % each, 1);
    }

    /// Keeps the rows that are in `kept`, in their order.
    pub fn compact(&mut self, kept: &RowSet) {
        let each = self.shape.block_rows();
        let old = std::mem::replace(self, Self::new(self.shape));
        for (at, block) in old.blocks.into_iter().enumerate() {
            let mut row = 0;
            while row < block.rows {
                let run = (row..block.rows).take_while(|row| kept.contains(at * each + row)).count();
                if run > 0 {
                    self.extend(&block, row, run);
                }
                row += run.max(1);
            }
        }
    }

    fn extend(&mut self, from: &Arc<Block>, mut first: usize, mut count: usize) {
        let (shape, each) = (self.shape, self.shape.block_rows());
        if count == each && self.len.is_multiple_of(each) {
            self.blocks.push(Arc::clone(from));
            self.len += count;
            return;
        }
        while count > 0 {
            let last = self.last();
            let part = count.min(each - last.rows);
            last.extend(&shape, from, first, part);
            self.len += part;
            (first, count) = (first + part, count - part);
        }
    }

    /// A block with room for a row.
    fn last(&mut self) -> &mut Block {
        let each = self.shape.block_rows();
        if self.len == self.blocks.len() * each {
            self.blocks.push(Arc::default());
        }
        Arc::make_mut(self.blocks.last_mut().expect("there is one"))
    }

    /// Rows of each block of a list of `len`.
    pub fn block_lengths(shape: &VectorShape, len: usize) -> impl Iterator<Item = usize> + use<> {
        let each = shape.block_rows();
        (0..len.div_ceil(each)).map(move |at| each.min(len - at * each))
    }

    /// Each block's bytes, of which several slices are to follow each other.
    pub fn blocks(&self) -> impl Iterator<Item = [&[u8]; 6]> {
        self.blocks.iter().map(|block| block.sections())
    }

    /// Rows that were written through [`blocks`](Self::blocks): `fill` writes the bytes of the block of that place.
    /// They are read by all threads of `pool`; what is kept of them is all the memory that it takes.
    ///
    /// # Errors
    /// What `fill` says; `None` if a number is not finite.
    pub fn read<E: Send>(
        shape: VectorShape,
        len: usize,
        pool: &VectorPool,
        fill: impl Fn(usize, [&mut [u8]; 6]) -> std::result::Result<(), E> + Sync,
    ) -> std::result::Result<Self, Option<E>> {
        let lengths: Vec<usize> = Self::block_lengths(&shape, len).collect();
        let blocks: Vec<Mutex<Option<Arc<Block>>>> = lengths.iter().map(|_| Mutex::default()).collect();
        let failed = Mutex::new(None);
        let locked = |failed: &Mutex<Option<Option<E>>>| {
            failed.lock().unwrap_or_else(PoisonError::into_inner).is_some()
        };
        pool.run(lengths.len(), |at| {
            if locked(&failed) {
                return;
            }
            let mut block = Block::zeroed(&shape, lengths[at]);
            let error = match fill(at, block.sections_mut()) {
                Err(error) => Some(Some(error)),
                Ok(()) if !block.is_finite() => Some(None),
                Ok(()) => None,
            };
            match error {
                Some(error) => *failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(error),
                None => *blocks[at].lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(block)),
            }
        });
        if let Some(error) = failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
            return Err(error);
        }
        let block =
            |block: Mutex<Option<Arc<Block>>>| block.into_inner().unwrap_or_else(PoisonError::into_inner);
        Ok(Self { shape, blocks: blocks.into_iter().filter_map(block).collect(), len })
    }
}
