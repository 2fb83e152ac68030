//! What a LoRA adds to a matrix, a row at a time: scale · B A, in the matrix's own orientation.

use std::borrow::Cow;

use candlewick_kernels::Layout;

use crate::files::adapter::LoraWeights;
use crate::files::floats::decode;
use crate::files::tensors::StoredTensor;
use crate::{ModelError, Result};

/// Values that are read, changed and handed on at once.
const PART: usize = 16 << 10;

/// scale · left · right, as PEFT adds it: the product first, then the scale.
pub(crate) struct Delta<'a> {
    /// (rows, rank)
    left: Cow<'a, [f32]>,
    /// (rank, columns)
    right: Cow<'a, [f32]>,
    rank: usize,
    columns: usize,
    scale: f32,
}

impl<'a> Delta<'a> {
    pub fn new(lora: &'a LoraWeights, layout: Layout) -> Self {
        let LoraWeights { rank, input, output, ref a, ref b, scale } = *lora;
        let (left, right, columns) = match layout {
            Layout::OutIn => (Cow::from(b), Cow::from(a), input),
            Layout::InOut => (transposed(a, input).into(), transposed(b, rank).into(), output),
        };
        Self { left, right, rank, columns, scale }
    }

    /// `values`, (n, columns), are the rows from `first` on.
    fn add(&self, first: usize, values: &mut [f32]) {
        let mut sum = vec![0f32; self.columns];
        for (row, left) in
            values.chunks_exact_mut(self.columns).zip(self.left[first * self.rank..].chunks_exact(self.rank))
        {
            sum.fill(0.0);
            for (left, right) in left.iter().zip(self.right.chunks_exact(self.columns)) {
                sum.iter_mut().zip(right).for_each(|(sum, right)| *sum += left * right);
            }
            row.iter_mut().zip(&sum).for_each(|(value, sum)| *value += self.scale * sum);
        }
    }

    /// Fills `buffer` with the f32 rows of `base` and this, from byte `at` of such rows on; both are whole rows.
    pub fn read(&self, base: &StoredTensor<'_>, at: usize, buffer: &mut [u8]) -> Result<()> {
        let row = 4 * self.columns;
        if !at.is_multiple_of(row) || !buffer.len().is_multiple_of(row) {
            return Err(ModelError::Internal(format!("a part of a row of {} is read", base.name)));
        }
        let base_row = base.source.row_bytes(self.columns);
        let part = (PART / self.columns).max(1);
        let (mut bytes, mut values) = (vec![0u8; part * base_row], Vec::with_capacity(part * self.columns));
        let mut first = at / row;
        for buffer in buffer.chunks_mut(part * row) {
            let rows = buffer.len() / row;
            let bytes = &mut bytes[..rows * base_row];
            base.read(first * base_row, bytes)?;
            values.clear();
            decode(base.source, bytes, &mut values);
            self.add(first, &mut values);
            buffer
                .as_chunks_mut()
                .0
                .iter_mut()
                .zip(&values)
                .for_each(|(to, value)| *to = value.to_le_bytes());
            first += rows;
        }
        Ok(())
    }
}

/// (rows, columns) as (columns, rows).
fn transposed(values: &[f32], columns: usize) -> Vec<f32> {
    let mut turned = Vec::with_capacity(values.len());
    for column in 0..columns {
        turned.extend(values.iter().skip(column).step_by(columns));
    }
    turned
}
