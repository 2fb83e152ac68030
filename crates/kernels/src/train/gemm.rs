//! out[M, N] (+)= A[M, K] · B[K, N] + bias, where both operands change at every step.
//!
//! Weights that change cannot be packed once, and need not be: a task packs the panels of B that it is about to use
//! into its own second-level cache (N × K moves for M × N × K multiply-adds), and takes all rows of A over them. Every
//! output is one accumulator that takes K in ascending order, as in the crate's other products; a block of K starts
//! from what the one before has left in `out`, so blocking changes no bit.

use crate::Pool;
use crate::buffer::SharedMut;
use crate::pool::Claims;
use crate::simd::{Kernel, Simd};
use crate::train::Floats;
use crate::types::LANES;

/// A block of K: three panels of it are 192 KB.
const BLOCK_K: usize = 1024;

/// Rows of A that go with one packing at most: then packing is 1.6% of the work.
const PART_ROWS: usize = 1024;

/// A matrix in memory: element (r, c) is `data[r * row_stride + c * column_stride]`, and one of the strides is 1.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    data: &'a [f32],
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
}

impl<'a> View<'a> {
    /// [rows, columns], row-major.
    pub fn new(data: &'a [f32], rows: usize, columns: usize) -> Self {
        assert_eq!(data.len(), rows * columns, "a matrix is [rows, columns] = [{rows}, {columns}]");
        Self { data, rows, columns, row_stride: columns, column_stride: 1 }
    }

    /// Columns `first..first + count` of a row-major matrix of `width` columns.
    pub fn columns(data: &'a [f32], rows: usize, width: usize, first: usize, count: usize) -> Self {
        assert!(first + count <= width && data.len() == rows * width, "columns of [{rows}, {width}]");
        let data = if rows == 0 { data } else { &data[first..] };
        Self { data, rows, columns: count, row_stride: width, column_stride: 1 }
    }

    pub fn transposed(self) -> Self {
        Self {
            data: self.data,
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
        }
    }

    fn source(&self) -> Source {
        Source { data: self.data.as_ptr(), row: self.row_stride, column: self.column_stride }
    }
}

/// What an output starts from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// out = …
    Zero,
    /// out += …
    Add,
}

/// What else goes into a product, and where it goes.
#[derive(Debug, Clone, Copy)]
pub struct Gemm<'a> {
    pub start: Start,
    /// [N], added last.
    pub bias: Option<&'a [f32]>,
    /// Row-major `out` may be wider than N: its width, and the first column that is written. `None`: exactly [M, N].
    pub columns: Option<(usize, usize)>,
}

impl Gemm<'_> {
    pub const SET: Self = Self { start: Start::Zero, bias: None, columns: None };
    pub const ADD: Self = Self { start: Start::Add, ..Self::SET };
}

/// out (+)= A · B + bias. `scratch` is grown to what the call needs: a transposed A is turned there first.
///
/// # Panics
/// If the shapes do not fit.
pub fn gemm(pool: &Pool, a: View, b: View, options: Gemm, scratch: &mut Floats, out: &mut [f32]) {
    let (m, k, n) = (a.rows, a.columns, b.columns);
    assert_eq!(b.rows, k, "A is [{m}, {k}], B has {} rows", b.rows);
    let (width, first) = options.columns.unwrap_or((n, 0));
    assert!(first + n <= width && out.len() == m * width, "out is [M, N] = [{m}, {n}], {width} wide");
    assert!(options.bias.is_none_or(|bias| bias.len() == n), "bias is [N] = [{n}]");
    if m == 0 || n == 0 {
        return;
    }
    let pack = 3 * LANES * k.clamp(1, BLOCK_K);
    let turn = a.column_stride != 1;
    let scratch = scratch.at_least(pool.threads() * pack + if turn { m * k } else { 0 });
    let (packs, turned) = scratch.split_at_mut(pool.threads() * pack);
    let a = if turn {
        transpose(pool, a.transposed(), turned);
        View { data: turned, rows: m, columns: k, row_stride: k, column_stride: 1 }
    } else {
        a
    };
    let panels = n.div_ceil(LANES);
    let groups = panels.div_ceil(3);
    // Rows are split where columns are few, and where A would not stay in the cache from one group of panels to the
    // next. Each part packs for itself.
    let parts = (4 * pool.threads()).div_ceil(groups).min(m.div_ceil(64)).max(m.div_ceil(PART_ROWS));
    let product = Product {
        a: a.source(),
        b: b.source(),
        m,
        k,
        n,
        bias: options.bias,
        add: options.start == Start::Add,
        out: SharedMut(out[first..].as_mut_ptr()),
        width,
        packs: SharedMut(packs.as_mut_ptr()),
        pack,
        parts,
        groups,
    };
    let isa = pool.isa();
    pool.run_shares(groups * parts, |worker, claims| isa.launch(Share { product: &product, worker, claims }));
}

/// out[C, R] = x[R, C] transposed, in blocks of 16 × 16.
fn transpose(pool: &Pool, x: View, out: &mut [f32]) {
    let (rows, columns, stride) = (x.rows, x.columns, x.row_stride);
    let (source, out) =
        (Source { data: x.data.as_ptr(), row: stride, column: 1 }, SharedMut(out.as_mut_ptr()));
    struct Turn<'a> {
        source: &'a Source,
        out: &'a SharedMut<f32>,
        rows: usize,
        columns: std::ops::Range<usize>,
    }
    impl Kernel for Turn<'_> {
        type Output = ();
        #[inline(always)]
        fn run<S: Simd>(self, s: S) {
            for r in (0..self.rows).step_by(LANES) {
                for c in self.columns.clone().step_by(LANES) {
                    let (height, width) = (LANES.min(self.rows - r), LANES.min(self.columns.end - c));
                    // SAFETY: the block lies inside x and, turned, inside out; each task has its own columns of x.
                    unsafe {
                        let from = self.source.at(r, c);
                        let to = self.out.0.add(c * self.rows + r);
                        turn_block(s, from, self.source.row, height, width, to, self.rows);
                    }
                }
            }
        }
    }
    let isa = pool.isa();
    pool.run(columns.div_ceil(64), |task| {
        let range = task * 64..columns.min(task * 64 + 64);
        isa.launch(Turn { source: &source, out: &out, rows, columns: range });
    });
}

/// to[c, r] = from[r, c] for a block of at most 16 × 16.
///
/// # Safety
/// The block can be read from `from` (rows `stride` apart) and written to `to` (rows `to_stride` apart).
#[inline(always)]
unsafe fn turn_block<S: Simd>(
    s: S,
    from: *const f32,
    stride: usize,
    height: usize,
    width: usize,
    to: *mut f32,
    to_stride: usize,
) {
    let mut block = [[0f32; LANES]; LANES];
    for (r, row) in block.iter_mut().enumerate().take(height) {
        // SAFETY: `width` values of row r < height.
        unsafe { s.store(row.as_mut_ptr(), s.load_head(from.add(r * stride), width, 0.0)) };
    }
    for c in 0..width {
        let mut column = [0f32; LANES];
        for (value, row) in column.iter_mut().zip(&block) {
            *value = row[c];
        }
        // SAFETY: `height` values of column c < width.
        unsafe { s.store_head(to.add(c * to_stride), height, s.load(column.as_ptr())) };
    }
}

/// A matrix's address and strides.
#[derive(Clone, Copy)]
pub(super) struct Source {
    pub data: *const f32,
    pub row: usize,
    pub column: usize,
}
// SAFETY: only read, while the slice that it was made of is borrowed.
unsafe impl Send for Source {}
// SAFETY: as above.
unsafe impl Sync for Source {}

impl Source {
    #[inline(always)]
    pub fn at(&self, row: usize, column: usize) -> *const f32 {
        self.data.wrapping_add(row * self.row + column * self.column)
    }

    #[inline(always)]
    pub fn transposed(self) -> Self {
        Self { data: self.data, row: self.column, column: self.row }
    }
}

struct Product<'a> {
    a: Source,
    b: Source,
    m: usize,
    k: usize,
    n: usize,
    bias: Option<&'a [f32]>,
    add: bool,
    out: SharedMut<f32>,
    width: usize,
    /// Room for three panels of a block of K, for each thread.
    packs: SharedMut<f32>,
    pack: usize,
    /// Into how many parts the rows are split, and the columns.
    parts: usize,
    groups: usize,
}

struct Share<'a> {
    product: &'a Product<'a>,
    worker: usize,
    claims: Claims<'a>,
}

impl Kernel for Share<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let product = self.product;
        let panels = product.packs.0.wrapping_add(self.worker * product.pack);
        for task in self.claims {
            let (part, group) = (task / product.groups, task % product.groups);
            let first = group * 3 * LANES;
            let n = (3 * LANES).min(product.n - first);
            let rows = part * product.m / product.parts..(part + 1) * product.m / product.parts;
            let mut done = 0;
            // A K of 0 still sets the output.
            loop {
                let k = BLOCK_K.min(product.k - done);
                let last = done + k == product.k;
                // SAFETY: rows, columns and the block of K lie inside the operands that `gemm` checked; the worker has
                // its panels to itself, the task its outputs.
                unsafe {
                    let b = Source { data: product.b.at(done, first), ..product.b };
                    pack(s, b, k, n, panels);
                    multiply(
                        s,
                        Operands {
                            a: Source { data: product.a.at(rows.start, done), ..product.a },
                            panels,
                            k,
                            bias: product
                                .bias
                                .filter(|_| last)
                                .map_or(std::ptr::null(), |b| b[first..].as_ptr()),
                            add: product.add || done > 0,
                        },
                        rows.len(),
                        n,
                        product.out.0.add(rows.start * product.width + first),
                        product.width,
                    );
                }
                done += k;
                if last {
                    break;
                }
            }
        }
    }
}

/// B[k, n] into panels of 16 columns, each [k][16]; what a last panel lacks is 0.
///
/// # Safety
/// `b` has k × n elements, `panels` room for k × n rounded up to 16.
#[inline(always)]
pub(super) unsafe fn pack<S: Simd>(s: S, b: Source, k: usize, n: usize, panels: *mut f32) {
    for (panel, first) in (0..n).step_by(LANES).enumerate() {
        let lanes = LANES.min(n - first);
        let to = panels.wrapping_add(panel * k * LANES);
        // SAFETY: promised by the caller.
        unsafe {
            if b.column == 1 {
                for i in 0..k {
                    s.store(to.add(i * LANES), s.load_head(b.at(i, first), lanes, 0.0));
                }
            } else {
                for i in (0..k).step_by(LANES) {
                    let width = LANES.min(k - i);
                    if lanes < LANES {
                        for j in 0..width {
                            s.store(to.add((i + j) * LANES), s.zero());
                        }
                    }
                    turn_block(s, b.at(i, first), b.column, lanes, width, to.add(i * LANES), LANES);
                }
            }
        }
    }
}

/// Operands of [`multiply`]: A in any strides, B as [`pack`] left it.
#[derive(Clone, Copy)]
pub(super) struct Operands {
    pub a: Source,
    pub panels: *const f32,
    pub k: usize,
    /// [n] or null.
    pub bias: *const f32,
    pub add: bool,
}

/// out[m, n] (+)= A[m, k] · panels + bias, rows of `out` `width` apart.
///
/// # Safety
/// The operands have the sizes given, and so has `out`, which nobody else touches.
#[inline(always)]
pub(super) unsafe fn multiply<S: Simd>(
    s: S,
    operands: Operands,
    m: usize,
    n: usize,
    out: *mut f32,
    width: usize,
) {
    let (height, together) = S::FLOAT_TILE;
    let panels = n.div_ceil(LANES);
    let blocks = m.div_ceil(height);
    let mut panel = 0;
    while panel < panels {
        let count = if together == 3 && panels - panel >= 3 { 3 } else { 1 };
        let lanes = LANES.min(n - (panel + count - 1) * LANES);
        let at = Operands {
            panels: operands.panels.wrapping_add(panel * operands.k * LANES),
            bias: if operands.bias.is_null() {
                operands.bias
            } else {
                operands.bias.wrapping_add(panel * LANES)
            },
            ..operands
        };
        for block in 0..blocks {
            let (first, end) = (block * m / blocks, (block + 1) * m / blocks);
            let at = Operands { a: Source { data: at.a.at(first, 0), ..at.a }, ..at };
            let out = out.wrapping_add(first * width + panel * LANES);
            macro_rules! call {
                ($r:literal) => {
                    // SAFETY: promised by the caller.
                    unsafe {
                        if $r > S::FLOAT_TILE.0 {
                            unreachable!()
                        } else if count == 1 {
                            tile::<S, $r, 1>(s, &at, lanes, out, width)
                        } else if S::FLOAT_TILE.1 == 3 {
                            tile::<S, $r, 3>(s, &at, lanes, out, width)
                        } else {
                            unreachable!()
                        }
                    }
                };
            }
            match end - first {
                1 => call!(1),
                2 => call!(2),
                3 => call!(3),
                4 => call!(4),
                5 => call!(5),
                6 => call!(6),
                7 => call!(7),
                8 => call!(8),
                _ => unreachable!("a block has at most 8 rows"),
            }
        }
        panel += count;
    }
}

/// R rows × P panels, accumulators in registers; the last panel has `lanes` columns.
///
/// # Safety
/// As [`multiply`].
#[inline(always)]
unsafe fn tile<S: Simd, const R: usize, const P: usize>(
    s: S,
    operands: &Operands,
    lanes: usize,
    out: *mut f32,
    width: usize,
) {
    let (k, row, column) = (operands.k, operands.a.row, operands.a.column);
    let lanes_of = |p: usize| if p + 1 == P { lanes } else { LANES };
    let mut acc = [[s.zero(); P]; R];
    // SAFETY: promised by the caller: R rows of P panels, the last with `lanes` columns.
    unsafe {
        if operands.add {
            for (r, acc) in acc.iter_mut().enumerate() {
                for (p, acc) in acc.iter_mut().enumerate() {
                    *acc = s.load_head(out.add(r * width + p * LANES), lanes_of(p), 0.0);
                }
            }
        }
        let mut a = operands.a.data;
        let mut panel = operands.panels;
        for _ in 0..k {
            let mut b = [s.zero(); P];
            for (p, b) in b.iter_mut().enumerate() {
                *b = s.load(panel.wrapping_add(p * k * LANES));
            }
            for (r, acc) in acc.iter_mut().enumerate() {
                let x = s.splat(*a.wrapping_add(r * row));
                for (acc, b) in acc.iter_mut().zip(b) {
                    *acc = s.fma(x, b, *acc);
                }
            }
            a = a.wrapping_add(column);
            panel = panel.wrapping_add(LANES);
        }
        for p in 0..P {
            let lanes = lanes_of(p);
            let bias = if operands.bias.is_null() {
                None
            } else {
                Some(s.load_head(operands.bias.add(p * LANES), lanes, 0.0))
            };
            for (r, acc) in acc.iter().enumerate() {
                let y = bias.map_or(acc[p], |bias| s.add(acc[p], bias));
                s.store_head(out.add(r * width + p * LANES), lanes, y);
            }
        }
    }
}
