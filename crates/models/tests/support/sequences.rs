//! Sequences for tests that run a model without the engine: blocks are handed out in turn and never come back.
#![allow(dead_code)] // each test file uses a part

use candlewick_models::{BlockId, CausalBackend, Step};

/// Hands out a model's blocks, from the last to the first, so that none lies where a sequence's positions suggest.
pub struct Blocks {
    left: Vec<BlockId>,
    size: usize,
}

#[derive(Clone)]
pub struct Sequence {
    pub blocks: Vec<BlockId>,
    pub len: usize,
    pub adapter: Option<usize>,
}

impl Blocks {
    pub fn of(model: &dyn CausalBackend) -> Self {
        let spec = model.kv();
        Self { left: (0..spec.blocks as BlockId).collect(), size: spec.positions }
    }

    /// A sequence that may grow to `capacity` positions.
    pub fn sequence(&mut self, capacity: usize) -> Sequence {
        let blocks = (0..capacity.div_ceil(self.size)).map(|_| self.left.pop().expect("a block")).collect();
        Sequence { blocks, len: 0, adapter: None }
    }

    /// The same positions again: whole blocks are shared, the last one is copied.
    pub fn fork(&mut self, model: &mut dyn CausalBackend, of: &Sequence, capacity: usize) -> Sequence {
        let mut fork = self.sequence(capacity);
        let whole = of.len / self.size;
        fork.blocks[..whole].copy_from_slice(&of.blocks[..whole]);
        if whole * self.size < of.len {
            model.copy_blocks(&[(of.blocks[whole], fork.blocks[whole])]).unwrap();
        }
        Sequence { len: of.len, adapter: of.adapter, ..fork }
    }
}

/// One pass that extends each sequence by its tokens; the logits of the last so many of them.
pub fn pass(model: &mut dyn CausalBackend, parts: &mut [(&mut Sequence, &[u32], usize)]) -> Vec<Vec<f32>> {
    let steps: Vec<Step<'_>> = parts
        .iter()
        .map(|(sequence, tokens, logits)| Step {
            tokens,
            start: sequence.len,
            blocks: &sequence.blocks,
            adapter: sequence.adapter,
            logits: *logits,
        })
        .collect();
    let mut rows = model.forward(&steps, &|| false).unwrap();
    let mut next = 0;
    let mut found = Vec::new();
    for (_, _, logits) in parts.iter() {
        let mut own = Vec::new();
        for row in next..next + logits {
            own.extend_from_slice(rows.row(row).unwrap());
        }
        next += logits;
        found.push(own);
    }
    assert_eq!(rows.rows(), next);
    drop(rows);
    parts.iter_mut().for_each(|(sequence, tokens, _)| sequence.len += tokens.len());
    found
}

/// The same for one sequence.
pub fn step(
    model: &mut dyn CausalBackend,
    sequence: &mut Sequence,
    tokens: &[u32],
    logits: usize,
) -> Vec<f32> {
    pass(model, &mut [(sequence, tokens, logits)]).remove(0)
}

/// Logits of every token, from one pass over a new sequence.
pub fn all_logits(model: &mut dyn CausalBackend, ids: &[u32]) -> Vec<f32> {
    let mut sequence = Blocks::of(model).sequence(ids.len());
    step(model, &mut sequence, ids, ids.len())
}
