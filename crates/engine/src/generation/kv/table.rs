//! A sequence's blocks, and how many of its positions are computed.

use candlewick_models::BlockId;

use super::allocator::Block;

/// A block that is copied before a pass, and the block that it becomes.
pub(crate) type Copies = Vec<(BlockId, BlockId)>;

pub(crate) struct Table {
    /// Positions a block.
    size: usize,
    blocks: Vec<Block>,
    /// The blocks' ids, as a step of the model names them.
    ids: Vec<BlockId>,
    len: usize,
}

impl Table {
    pub fn new(size: usize) -> Self {
        Self { size, blocks: Vec::new(), ids: Vec::new(), len: 0 }
    }

    /// Positions whose keys and values are computed.
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn ids(&self) -> &[BlockId] {
        &self.ids
    }

    /// Positions a block.
    pub fn size(&self) -> usize {
        self.size
    }

    pub fn block(&self, index: usize) -> &Block {
        &self.blocks[index]
    }

    /// The same positions for another sequence. Nothing is copied until one of the two writes.
    pub fn fork(&self) -> Self {
        let used = self.len.div_ceil(self.size);
        Self {
            size: self.size,
            blocks: self.blocks[..used].to_vec(),
            ids: self.ids[..used].to_vec(),
            len: self.len,
        }
    }

    /// Goes on from whole blocks that somebody has computed. Only after whole blocks of its own.
    pub fn share(&mut self, blocks: impl IntoIterator<Item = Block>) {
        debug_assert!(self.len.is_multiple_of(self.size));
        self.keep(self.len / self.size);
        for block in blocks {
            self.ids.push(block.id());
            self.blocks.push(block);
            self.len += self.size;
        }
    }

    /// The same with the first `tokens` positions of one more block, which is copied when it is written to.
    pub fn share_part(&mut self, block: Block, tokens: usize) {
        self.share([block]);
        self.len -= self.size - tokens;
    }

    /// Holds `block` in place of its own, which has the same contents.
    pub fn replace(&mut self, index: usize, block: Block) {
        self.ids[index] = block.id();
        self.blocks[index] = block;
    }

    /// Gives everything back.
    pub fn clear(&mut self) {
        self.keep(0);
        self.len = 0;
    }

    fn keep(&mut self, blocks: usize) {
        self.blocks.truncate(blocks);
        self.ids.truncate(blocks);
    }

    /// Blocks that [`prepare`](Self::prepare) would take.
    pub fn missing(&self, end: usize) -> usize {
        (self.len / self.size..end.div_ceil(self.size)).filter(|index| !self.is_own(*index)).count()
    }

    fn is_own(&self, index: usize) -> bool {
        self.blocks.get(index).is_some_and(|block| !block.is_shared())
    }

    /// Makes positions `len()..end` writable: takes the blocks that are missing, and one in place of a block that
    /// somebody else holds too, whose positions so far are to be copied. `false`: there were too few; what was taken is
    /// kept.
    pub fn prepare(
        &mut self,
        end: usize,
        mut take: impl FnMut() -> Option<Block>,
        copies: &mut Copies,
    ) -> bool {
        for index in self.len / self.size..end.div_ceil(self.size) {
            if self.is_own(index) {
                continue;
            }
            let Some(block) = take() else { return false };
            if index == self.blocks.len() {
                self.ids.push(block.id());
                self.blocks.push(block);
                continue;
            }
            if index * self.size < self.len {
                copies.push((self.ids[index], block.id()));
            }
            self.replace(index, block);
        }
        true
    }

    /// So many positions are computed by now: more than before after a pass, fewer if some are taken back.
    pub fn set_len(&mut self, len: usize) {
        debug_assert!(len <= self.blocks.len() * self.size);
        self.len = len;
    }
}
