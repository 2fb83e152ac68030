//! Some thousand rows, column by column, and how a row is quantised.

use candlewick_kernels::{Line, LineBytes};

use super::shape::{VectorPrecision, VectorShape};
use crate::{ModelError, Result, Similarity};

/// Rows, R of them. What their shape does not keep is empty.
#[derive(Debug, Clone, Default)]
pub(super) struct Block {
    pub rows: usize,
    /// (R, W); for cosine of length 1.
    pub floats: Vec<f32>,
    /// (R, lines): bytes of which 128 is 0; what is behind a row's last number is 128 too.
    pub bytes: Vec<Line>,
    /// (R): what a byte stands for.
    pub scales: Vec<f32>,
    /// (R): the row's length.
    pub lengths: Vec<f32>,
    /// (R): at least the length of what the bytes lack of the f32 row.
    pub errors: Vec<f32>,
    /// (R, words): a number's bit is set if it is positive.
    pub bits: Vec<u64>,
}

/// Lengths above it are refused: of two such vectors every score is finite.
const LONGEST: f64 = 1e18;

/// The vector as it is kept and searched with: finite, for cosine of length 1 (one of zeros stays so). Returns its
/// length.
pub(super) fn prepare(similarity: Similarity, vector: &mut [f32]) -> Result<f32> {
    if let Some(at) = vector.iter().position(|x| !x.is_finite()) {
        return Err(ModelError::Input(format!("its number {at} is {}", vector[at])));
    }
    let length = vector.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>().sqrt();
    if similarity == Similarity::Cosine && length > 0.0 {
        vector.iter_mut().for_each(|x| *x = (f64::from(*x) / length) as f32);
        return Ok(1.0);
    }
    if length > LONGEST {
        return Err(ModelError::Input(format!(
            "its length is {length:.1e}, and scores hold {LONGEST:e} at most"
        )));
    }
    Ok(length as f32)
}

/// A vector in bytes.
pub(super) struct Bytes {
    pub scale: f32,
    /// At least the length of what it lacks.
    pub error: f32,
    /// The sum of the values' squares.
    pub square: f32,
}

/// Writes `vector` to `bytes`, each value plus `zero`: the nearest of 255 levels up to its largest number.
pub(super) fn quantise(vector: &[f32], zero: u8, bytes: &mut [u8]) -> Bytes {
    let most = vector.iter().fold(0.0f32, |most, x| if x.abs() > most { x.abs() } else { most });
    let factor = if most > 1e-30 { 127.0 / most } else { 0.0 };
    let scale = if factor > 0.0 { most / 127.0 } else { 0.0 };
    // 1.5 · 2²³: adding it rounds to an integer, half to even.
    const MAGIC: f32 = 12_582_912.0;
    let (mut lacks, mut squares) = ([0.0f32; 16], [0.0f32; 16]);
    for (vector, bytes) in vector.chunks(16).zip(bytes.chunks_mut(16)) {
        for (i, (x, byte)) in vector.iter().zip(bytes).enumerate() {
            let level = (x * factor + MAGIC) - MAGIC;
            let lack = x - level * scale;
            lacks[i] += lack * lack;
            squares[i] += level * level;
            *byte = (level as i32 + i32::from(zero)) as u8;
        }
    }
    // The factor covers what the sum itself lacks, the term squares that are too small for an f32.
    let error = lacks.iter().sum::<f32>().sqrt() * 1.001 + 4e-23 * (vector.len() as f32).sqrt();
    Bytes { scale, error, square: squares.iter().sum() }
}

impl Block {
    /// Adds a row that is prepared, of that length.
    pub fn push(&mut self, shape: &VectorShape, vector: &[f32], length: f32) {
        self.grow(shape, 1);
        self.set(shape, self.rows - 1, vector, length);
    }

    /// Adds rows of zeros.
    fn grow(&mut self, shape: &VectorShape, rows: usize) {
        /// Doubles up to a whole block, so that a small index is small and a block has nothing to spare.
        fn resize<T: Clone>(list: &mut Vec<T>, len: usize, whole: usize, value: T) {
            if len > list.capacity() {
                list.reserve_exact((2 * len).min(whole).max(len) - list.len());
            }
            list.resize(len, value);
        }
        self.rows += rows;
        let (rows, whole) = (self.rows, shape.block_rows());
        if shape.has_floats() {
            resize(&mut self.floats, rows * shape.width, whole * shape.width, 0.0);
        }
        if shape.has_bytes() {
            resize(&mut self.bytes, rows * shape.lines(), whole * shape.lines(), Line([128; 64]));
            for column in [&mut self.scales, &mut self.lengths, &mut self.errors] {
                resize(column, rows, whole, 0.0);
            }
        }
        if shape.has_bits() {
            resize(&mut self.bits, rows * shape.words(), whole * shape.words(), 0);
        }
    }

    pub fn set(&mut self, shape: &VectorShape, row: usize, vector: &[f32], length: f32) {
        if shape.has_floats() {
            self.floats[row * shape.width..][..shape.width].copy_from_slice(vector);
        }
        if shape.has_bytes() {
            let bytes = &mut self.bytes[row * shape.lines()..][..shape.lines()];
            let mut quants = quantise(vector, 128, &mut bytes.as_flattened_bytes_mut()[..shape.width]);
            let mut length = length;
            if shape.rescore == VectorPrecision::Int8 {
                // The bytes are the row: nothing is lacking, and for cosine its length is 1.
                let turned = shape.similarity == Similarity::Cosine && quants.square > 0.0;
                quants.scale = if turned { 1.0 / quants.square.sqrt() } else { quants.scale };
                quants.error = 0.0;
                length = quants.scale * quants.square.sqrt();
            }
            (self.scales[row], self.lengths[row], self.errors[row]) = (quants.scale, length, quants.error);
        }
        if shape.has_bits() {
            let words = &mut self.bits[row * shape.words()..][..shape.words()];
            for (word, vector) in words.iter_mut().zip(vector.chunks(64)) {
                *word = vector.iter().enumerate().fold(0, |word, (i, x)| word | u64::from(*x > 0.0) << i);
            }
        }
    }

    /// Adds rows of another block of the same shape.
    pub fn extend(&mut self, shape: &VectorShape, from: &Self, first: usize, count: usize) {
        let at = self.rows;
        self.grow(shape, count);
        fn copy<T: Copy>(to: &mut [T], from: &[T], at: usize, first: usize, count: usize, each: usize) {
            if !to.is_empty() {
                to[at * each..][..count * each].copy_from_slice(&from[first * each..][..count * each]);
            }
        }
        copy(&mut self.floats, &from.floats, at, first, count, shape.width);
        copy(&mut self.bytes, &from.bytes, at, first, count, shape.lines());
        copy(&mut self.scales, &from.scales, at, first, count, 1);
        copy(&mut self.lengths, &from.lengths, at, first, count, 1);
        copy(&mut self.errors, &from.errors, at, first, count, 1);
        copy(&mut self.bits, &from.bits, at, first, count, shape.words());
    }

    /// Rows of zeros, to be filled through [`sections_mut`](Self::sections_mut).
    pub fn zeroed(shape: &VectorShape, rows: usize) -> Self {
        let mut block = Self { rows, ..Self::default() };
        if shape.has_floats() {
            block.floats = vec![0.0; rows * shape.width];
        }
        if shape.has_bytes() {
            block.bytes = vec![Line([0; 64]); rows * shape.lines()];
            [block.scales, block.lengths, block.errors] = [vec![0.0; rows], vec![0.0; rows], vec![0.0; rows]];
        }
        if shape.has_bits() {
            block.bits = vec![0; rows * shape.words()];
        }
        block
    }

    /// The columns as bytes (little-endian, as all machines of ours are), in a fixed order.
    pub fn sections(&self) -> [&[u8]; 6] {
        const { assert!(cfg!(target_endian = "little")) };
        let bytes = |floats: &[f32]| {
            // SAFETY: an f32 is four bytes without padding.
            unsafe { std::slice::from_raw_parts(floats.as_ptr().cast::<u8>(), size_of_val(floats)) }
        };
        // SAFETY: as above; a u64 is eight bytes.
        let bits = unsafe {
            std::slice::from_raw_parts(self.bits.as_ptr().cast::<u8>(), size_of_val(&self.bits[..]))
        };
        let columns = [bytes(&self.scales), bytes(&self.lengths), bytes(&self.errors)];
        [bytes(&self.floats), self.bytes.as_flattened_bytes(), columns[0], columns[1], columns[2], bits]
    }

    pub fn sections_mut(&mut self) -> [&mut [u8]; 6] {
        fn bytes(floats: &mut [f32]) -> &mut [u8] {
            // SAFETY: an f32 is four bytes without padding, and any four bytes are one.
            unsafe { std::slice::from_raw_parts_mut(floats.as_mut_ptr().cast::<u8>(), size_of_val(floats)) }
        }
        let bits = &mut self.bits[..];
        // SAFETY: as above; a u64 is eight bytes.
        let bits = unsafe { std::slice::from_raw_parts_mut(bits.as_mut_ptr().cast(), size_of_val(bits)) };
        let [scales, lengths, errors] =
            [&mut self.scales, &mut self.lengths, &mut self.errors].map(|column| bytes(&mut column[..]));
        [bytes(&mut self.floats), self.bytes.as_flattened_bytes_mut(), scales, lengths, errors, bits]
    }

    /// Whether every number of it is finite: of what comes from a file.
    pub fn is_finite(&self) -> bool {
        // Without an early exit inside, so that it vectorises.
        let odd = |x: &f32| u32::from(!x.is_finite());
        let columns = [&self.floats, &self.scales, &self.lengths, &self.errors];
        columns
            .iter()
            .all(|column| column.chunks(256).all(|part| part.iter().map(odd).fold(0, |a, b| a | b) == 0))
    }
}
