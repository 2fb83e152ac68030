//! The order of an epoch's batches: a pure function of seed, epoch, lengths and batch size, so that a position in the
//! data is two numbers, epoch and batch.

use super::random::{Stream, stream};

/// Rows are packed without padding, so equal lengths in a batch gain nothing; equal work per batch does: an even pace,
/// and memory that the first batches have already shown. Each batch draws one row from each of as many strata of length
/// as it has rows.
pub struct Plan {
    /// Row indices by length: shortest first.
    by_length: Vec<u32>,
    batch_size: usize,
    seed: Option<u64>,
}

impl Plan {
    pub fn new(seed: u64, lengths: &[u32], batch_size: usize) -> Self {
        let mut by_length: Vec<u32> = (0..lengths.len() as u32).collect();
        by_length.sort_by_key(|index| lengths[*index as usize]);
        // Rows of equal length are shuffled: the file may be sorted by class.
        let mut random = stream(seed, u64::MAX, 0);
        for group in by_length.chunk_by_mut(|a, b| lengths[*a as usize] == lengths[*b as usize]) {
            shuffle(group, &mut random);
        }
        Self { by_length, batch_size: batch_size.max(1), seed: Some(seed) }
    }

    /// The rows in file order, the same in every epoch.
    pub fn sequential(rows: usize, batch_size: usize) -> Self {
        Self { by_length: (0..rows as u32).collect(), batch_size: batch_size.max(1), seed: None }
    }

    pub fn batches(&self) -> usize {
        self.by_length.len().div_ceil(self.batch_size)
    }

    /// Every row once. The last batch may be short.
    pub fn epoch(&self, epoch: u64) -> Vec<Vec<u32>> {
        let Some(seed) = self.seed else {
            return self.by_length.chunks(self.batch_size).map(<[u32]>::to_vec).collect();
        };
        let (rows, count) = (self.by_length.len(), self.batches());
        if rows == 0 {
            return Vec::new();
        }
        let mut random = stream(seed, epoch, 1);
        let mut batches = vec![Vec::with_capacity(self.batch_size); count];
        // The short last batch takes one row from each of a random subset of the `batch_size` strata.
        let short = rows - (count - 1) * self.batch_size;
        let mut full: Vec<bool> = (0..self.batch_size).map(|stratum| stratum < short).collect();
        shuffle(&mut full, &mut random);
        let mut start = 0;
        for full in full {
            let end = start + count - usize::from(!full);
            let mut stratum = self.by_length[start..end].to_vec();
            shuffle(&mut stratum, &mut random);
            stratum.into_iter().zip(&mut batches).for_each(|(row, batch)| batch.push(row));
            start = end;
        }
        batches
    }
}

/// Fisher and Yates's.
fn shuffle<T>(items: &mut [T], random: &mut Stream) {
    for last in (1..items.len()).rev() {
        items.swap(last, random.below(last as u64 + 1) as usize);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_there_once_in_each_epoch_and_the_order_is_the_seeds() {
        for rows in [1usize, 2, 7, 8, 9, 64, 1000, 1023] {
            let lengths: Vec<u32> = (0..rows as u32).map(|row| row * 7919 % 101).collect();
            for batch_size in [1, 3, 8, 2000] {
                let plan = Plan::new(7, &lengths, batch_size);
                let mut orders = Vec::new();
                for epoch in 0..3 {
                    let batches = plan.epoch(epoch);
                    assert_eq!(batches.len(), rows.div_ceil(batch_size));
                    let (last, whole) = batches.split_last().unwrap();
                    assert!(whole.iter().all(|batch| batch.len() == batch_size));
                    assert!(!last.is_empty() && last.len() <= batch_size);
                    assert_eq!(batches, Plan::new(7, &lengths, batch_size).epoch(epoch));
                    let mut all: Vec<u32> = batches.concat();
                    orders.push(all.clone());
                    all.sort_unstable();
                    assert_eq!(all, (0..rows as u32).collect::<Vec<_>>());
                }
                if rows > 8 && batch_size < 2000 {
                    assert_ne!(orders[0], orders[1]);
                    assert_ne!(orders[0], Plan::new(8, &lengths, batch_size).epoch(0).concat());
                }
            }
        }
    }

    #[test]
    fn batches_have_nearly_equal_work_where_a_plain_shuffle_has_not() {
        let lengths: Vec<u32> = (0..3200).map(|row| 4 + (row * row) % 509).collect();
        let work = |batch: &Vec<u32>| batch.iter().map(|row| lengths[*row as usize]).sum::<u32>() as f64;
        let work: Vec<f64> = Plan::new(1, &lengths, 32).epoch(0).iter().map(work).collect();
        let mean = work.iter().sum::<f64>() / work.len() as f64;
        let worst = work.iter().map(|x| (x / mean - 1.0).abs()).fold(0.0, f64::max);
        assert!(worst < 0.05, "{worst}"); // a plain shuffle's worst of 100 batches is some 0.25
    }

    #[test]
    fn an_empty_plan_has_no_batches() {
        assert!(Plan::new(1, &[], 4).epoch(0).is_empty());
        assert_eq!(Plan::sequential(5, 2).epoch(3), [vec![0, 1], vec![2, 3], vec![4]]);
    }
}
