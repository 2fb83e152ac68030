//! The order of batches.

/// A pure function of (seed, epoch, lengths, batch size), so that a position in the data is (epoch, batch).
#[derive(Debug, Clone)]
pub struct Plan {
    len: u32,
    batch_size: usize,
}

impl Plan {
    /// Every index once, in order.
    pub fn sequential(len: usize, batch_size: usize) -> Self {
        Self { len: len as u32, batch_size }
    }

    pub fn epoch(&self, _epoch: u64) -> Vec<Vec<u32>> {
        let all: Vec<u32> = (0..self.len).collect();
        all.chunks(self.batch_size).map(<[u32]>::to_vec).collect()
    }
}
