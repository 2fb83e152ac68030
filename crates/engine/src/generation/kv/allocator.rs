//! The free blocks. A block is a counted reference: it is free again when the last of its holders drops it, whatever
//! ended them, so no path through the engine can leak one or use one that is free.

use std::cell::RefCell;
use std::rc::Rc;

use candlewick_models::BlockId;

type Free = Rc<RefCell<Vec<BlockId>>>;

pub(crate) struct Allocator {
    free: Free,
}

impl Allocator {
    /// Ids 0 to `blocks` - 1, the lowest first.
    pub fn new(blocks: usize) -> Self {
        let ids = (0..blocks as BlockId).rev().collect();
        Self { free: Rc::new(RefCell::new(ids)) }
    }

    /// `None`: all blocks are held.
    pub fn take(&self) -> Option<Block> {
        let id = self.free.borrow_mut().pop()?;
        Some(Block(Rc::new(Lease { id, free: self.free.clone() })))
    }

    pub fn free(&self) -> usize {
        self.free.borrow().len()
    }
}

/// One holder's share of a block. A clone is another holder.
#[derive(Clone)]
pub(crate) struct Block(Rc<Lease>);

struct Lease {
    id: BlockId,
    free: Free,
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.free.borrow_mut().push(self.id);
    }
}

impl Block {
    pub fn id(&self) -> BlockId {
        self.0.id
    }

    /// Whether somebody else holds it too, so that it must not be written.
    pub fn is_shared(&self) -> bool {
        Rc::strong_count(&self.0) > 1
    }
}
