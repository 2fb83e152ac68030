//! What MPNet's attention adds to scores by head and distance: one small table for all layers, which attention reads
//! spread over distances.

use candlewick_kernels::train::{Bias, Floats};
use candlewick_models::family::relative::bucket;

use super::params::{Id, Params};

/// The table spread over the distances of one pass, and the gradient of that.
#[derive(Default)]
pub struct Distances {
    /// (heads, 2 · reach + 1)
    values: Floats,
    reach: usize,
    heads: usize,
    sequences: usize,
    /// (sequences, heads, 2 · reach + 1): the sum over the layers.
    gradient: Floats,
    used: bool,
    trains: bool,
}

impl Distances {
    fn count(&self) -> usize {
        2 * self.reach + 1
    }

    /// As attention reads it; `None` of models that add nothing.
    pub fn bias(&self) -> Option<Bias<'_>> {
        let values = &self.values[..if self.used { self.heads * self.count() } else { 0 }];
        self.used.then_some(Bias { values, reach: self.reach })
    }

    /// The bias, and where its gradient is added up.
    pub fn for_backward(&mut self) -> (Option<Bias<'_>>, Option<&mut [f32]>) {
        if !self.used {
            return (None, None);
        }
        let count = self.count();
        let bias = Bias { values: &self.values[..self.heads * count], reach: self.reach };
        let gradient = &mut self.gradient;
        let all = self.sequences * self.heads * count;
        (Some(bias), self.trains.then(|| &mut gradient[..all]))
    }
}

/// `encoder.relative_attention_bias`: (buckets, heads).
pub struct Relative {
    pub table: Id,
    pub heads: usize,
}

impl Relative {
    /// Spreads the table over the distances of sequences that begin at `starts`.
    pub fn spread(&self, params: &Params, starts: &[usize], trains: bool, into: &mut Distances) {
        let longest = starts.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(1);
        into.reach = longest.saturating_sub(1);
        (into.heads, into.sequences) = (self.heads, starts.len() - 1);
        (into.used, into.trains) = (true, trains && params[self.table].trainable);
        let (count, table) = (into.count(), params.value(self.table));
        let reach = into.reach as isize;
        for (head, values) in into.values.at_least(self.heads * count).chunks_exact_mut(count).enumerate() {
            for (at, value) in values.iter_mut().enumerate() {
                *value = table[bucket(at as isize - reach) * self.heads + head];
            }
        }
        if into.trains {
            into.gradient.at_least(into.sequences * self.heads * count).fill(0.0);
        }
    }

    /// Adds what attention has added up to the table's gradient: each bucket's distances in one order.
    pub fn gather(&self, params: &mut Params, from: &Distances) {
        let Some(gradient) = params[self.table].gradient_to_add().filter(|_| from.trains) else { return };
        let (count, reach) = (from.count(), from.reach as isize);
        let mut sums = vec![0f64; gradient.len()];
        for (i, list) in from.gradient[..from.sequences * self.heads * count].chunks_exact(count).enumerate()
        {
            let head = i % self.heads;
            for (at, x) in list.iter().enumerate() {
                sums[bucket(at as isize - reach) * self.heads + head] += f64::from(*x);
            }
        }
        gradient.iter_mut().zip(sums).for_each(|(to, sum)| *to += sum as f32);
    }
}
