//! What an adapter changes of a tensor, as it is read, some rows at a time: scale · B A in the matrix's own
//! orientation, with DoRA's magnitudes (Liu et al., "DoRA: Weight-Decomposed Low-Rank Adaptation", 2024), rows of an
//! embedding, a bias.

use std::borrow::Cow;
use std::collections::BTreeMap;

use candlewick_kernels::Layout;

use crate::files::adapter::LoraWeights;
use crate::files::floats::decode;
use crate::files::tensors::StoredTensor;
use crate::{ModelError, Result};

/// Values that are read, changed and handed on at once.
const PART: usize = 16 << 10;

pub(crate) enum Change<'a> {
    Delta(Delta<'a>),
    /// Rows that are others: by row, the place of its values in (rows, columns).
    Rows {
        places: &'a BTreeMap<usize, usize>,
        values: &'a [f32],
        columns: usize,
    },
    /// scale · values, of one row.
    Bias {
        values: &'a [f32],
        scale: f32,
    },
}

impl Change<'_> {
    fn columns(&self) -> usize {
        match self {
            Self::Delta(delta) => delta.columns,
            Self::Rows { columns, .. } => *columns,
            Self::Bias { values, .. } => values.len(),
        }
    }

    /// `values`, (n, columns), are the rows from `first` on.
    fn apply(&self, first: usize, values: &mut [f32]) {
        match self {
            Self::Delta(delta) => {
                delta.add(first, values);
                delta.stretch(first, values);
            }
            Self::Rows { places, values: rows, columns } => {
                for (row, place) in places.range(first..first + values.len() / columns) {
                    values[(row - first) * columns..][..*columns]
                        .copy_from_slice(&rows[place * columns..][..*columns]);
                }
            }
            Self::Bias { values: bias, scale } => {
                values.iter_mut().zip(*bias).for_each(|(value, bias)| *value += scale * bias);
            }
        }
    }

    /// Fills `buffer` with the f32 rows of `base` as this changes them, from byte `at` of such rows on; both are whole
    /// rows.
    pub fn read(&self, base: &StoredTensor<'_>, at: usize, buffer: &mut [u8]) -> Result<()> {
        let row = 4 * self.columns();
        if !at.is_multiple_of(row) || !buffer.len().is_multiple_of(row) {
            return Err(ModelError::Internal(format!("a part of a row of {} is read", base.name)));
        }
        let mut buffer = buffer.as_chunks_mut::<4>().0.iter_mut();
        each_part(base, self.columns(), at / row, buffer.len() / self.columns(), |first, values| {
            self.apply(first, values);
            buffer.by_ref().zip(values).for_each(|(to, value)| *to = value.to_le_bytes());
        })
    }
}

/// Hands on `rows` rows of `base` from row `first` on, some at a time: the number of the first of them, (n, columns).
fn each_part(
    base: &StoredTensor<'_>,
    columns: usize,
    mut first: usize,
    rows: usize,
    mut take: impl FnMut(usize, &mut [f32]),
) -> Result<()> {
    let base_row = base.source.row_bytes(columns);
    let part = (PART / columns).max(1);
    let (mut bytes, mut values) = (vec![0u8; part * base_row], Vec::with_capacity(part * columns));
    let end = first + rows;
    while first < end {
        let rows = part.min(end - first);
        let bytes = &mut bytes[..rows * base_row];
        base.read(first * base_row, bytes)?;
        values.clear();
        decode(base.source, bytes, &mut values);
        take(first, &mut values);
        first += rows;
    }
    Ok(())
}

/// scale · left · right, as PEFT adds it: the product first, then the scale.
pub(crate) struct Delta<'a> {
    /// (rows, rank)
    left: Cow<'a, [f32]>,
    /// (rank, columns)
    right: Cow<'a, [f32]>,
    rank: usize,
    columns: usize,
    scale: f32,
    /// DoRA: what each output is multiplied by.
    factors: Vec<f32>,
    layout: Layout,
}

impl<'a> Delta<'a> {
    /// Of a matrix that lies as `layout` says: an embedding's (vocabulary, width) is as `InOut`.
    ///
    /// DoRA reads `base` once more: an output's factor is its magnitude over the norm of all that makes it.
    ///
    /// # Errors
    /// `NotFinite`: an output without any weight has no direction.
    pub fn new(lora: &'a LoraWeights, layout: Layout, base: &StoredTensor<'_>) -> Result<Self> {
        let LoraWeights { rank, input, output, ref a, ref b, scale, .. } = *lora;
        let (left, right, rows, columns) = match layout {
            Layout::OutIn => (Cow::from(b), Cow::from(a), output, input),
            Layout::InOut => (transposed(a, input).into(), transposed(b, rank).into(), input, output),
        };
        let mut delta = Self { left, right, rank, columns, scale, factors: Vec::new(), layout };
        let Some(magnitudes) = &lora.magnitude else { return Ok(delta) };
        let mut squares = vec![0f64; output];
        each_part(base, columns, 0, rows, |first, values| {
            delta.add(first, values);
            for (row, values) in values.chunks_exact(columns).enumerate() {
                let each = values.iter().map(|value| f64::from(*value).powi(2));
                match layout {
                    Layout::OutIn => squares[first + row] = each.sum(),
                    Layout::InOut => squares.iter_mut().zip(each).for_each(|(sum, square)| *sum += square),
                }
            }
        })?;
        let factor = |(magnitude, square): (&f32, &f64)| (f64::from(*magnitude) / square.sqrt()) as f32;
        delta.factors = magnitudes.iter().zip(&squares).map(factor).collect();
        match delta.factors.iter().all(|factor| factor.is_finite()) {
            true => Ok(delta),
            false => Err(ModelError::not_finite(&format!("{} with DoRA's magnitudes", base.name))),
        }
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

    /// DoRA's last step, over the sum.
    fn stretch(&self, first: usize, values: &mut [f32]) {
        if self.factors.is_empty() {
            return;
        }
        for (row, values) in values.chunks_exact_mut(self.columns).enumerate() {
            match self.layout {
                Layout::OutIn => values.iter_mut().for_each(|value| *value *= self.factors[first + row]),
                Layout::InOut => values.iter_mut().zip(&self.factors).for_each(|(value, f)| *value *= f),
            }
        }
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
