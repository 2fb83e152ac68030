//! out[M, N] (+)= A[M, K] · B[K, N] + bias, where both operands change at every step.
//!
//! Weights that change cannot be packed once, and need not be: a task packs the panels of B that it is about to use
//! into its own second-level cache (N × K moves for M × N × K multiply-adds), and takes all rows of A over them. Every
//! output is one accumulator that takes K in ascending order, as in the crate's other products; a block of K starts
//! from what the one before has left in `out`, so blocking changes no bit.
//!
//! In bf16 both operands are rounded on the way: B as it is packed, A before, into pairs along K ([`Pair`]), of which a
//! K that is odd fills the last with 0. What is in memory, and every sum, stays f32.

use std::marker::PhantomData;

use half::bf16;

use crate::Pool;
use crate::buffer::SharedMut;
use crate::pool::Claims;
use crate::simd::{Element, Kernel, Simd, Words};
use crate::tile::by_rows;
use crate::train::Floats;
use crate::types::{LANES, Pair};

/// A block of K, in elements of a panel: three panels of it are 192 KB.
const BLOCK_K: usize = 1024;

/// What a product's inputs are rounded to. Sums are f32.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Precision {
    #[default]
    F32,
    /// By [`to_bf16`](crate::bf16::to_bf16).
    Bf16,
}

impl Precision {
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        }
    }
}

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

/// out (+)= A · B + bias. `scratch` is grown to what the call needs: an A that is transposed or rounded goes there
/// first.
///
/// # Panics
/// If the shapes do not fit.
pub fn gemm(
    pool: &Pool,
    precision: Precision,
    a: View,
    b: View,
    options: Gemm,
    scratch: &mut Floats,
    out: &mut [f32],
) {
    let (m, k, n) = (a.rows, a.columns, b.columns);
    assert_eq!(b.rows, k, "A is [{m}, {k}], B has {} rows", b.rows);
    let (width, first) = options.columns.unwrap_or((n, 0));
    assert!(first + n <= width && out.len() == m * width, "out is [M, N] = [{m}, {n}], {width} wide");
    assert!(options.bias.is_none_or(|bias| bias.len() == n), "bias is [N] = [{n}]");
    if m == 0 || n == 0 {
        return;
    }
    // Elements along K of a panel of B, and of a row of A in `scratch`.
    let (depth, pitch) = match precision {
        Precision::F32 => (k, k),
        Precision::Bf16 => (k.div_ceil(2), k.div_ceil(2).next_multiple_of(LANES)),
    };
    let pack = 3 * LANES * depth.clamp(1, BLOCK_K);
    let in_place = precision == Precision::F32 && a.column_stride == 1;
    let scratch = scratch.at_least(pool.threads() * pack + if in_place { 0 } else { m * pitch });
    let (packs, rows) = scratch.split_at_mut(pool.threads() * pack);
    let source = if in_place {
        a.source()
    } else {
        match precision {
            Precision::F32 => transpose(pool, a.transposed(), rows),
            Precision::Bf16 => round(pool, a, pitch, rows),
        }
        Source { data: rows.as_ptr(), row: pitch, column: 1 }
    };
    let panels = n.div_ceil(LANES);
    let groups = panels.div_ceil(3);
    // Rows are split where columns are few, and where A would not stay in the cache from one group of panels to the
    // next. Each part packs for itself.
    let parts = (4 * pool.threads()).div_ceil(groups).min(m.div_ceil(64)).max(m.div_ceil(PART_ROWS));
    let product = Product {
        a: source,
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
    let (isa, product) = (pool.isa(), &product);
    pool.run_apart(groups * parts, |worker, claims| match precision {
        Precision::F32 => isa.launch(Share { product, worker, claims, of: PhantomData::<f32> }),
        Precision::Bf16 => isa.launch(Share { product, worker, claims, of: PhantomData::<Pair> }),
    });
}

/// x[R, C], in any strides, as bf16: `out` is [R, pitch] pairs; those beyond C hold 0, or nothing in particular where
/// they lie beyond the last pair of C.
fn round(pool: &Pool, x: View, pitch: usize, out: &mut [f32]) {
    /// Rows of a task, which share lines of a transposed x.
    const ROWS: usize = 4 * LANES;
    struct Round<'a> {
        source: Source,
        out: &'a SharedMut<f32>,
        rows: std::ops::Range<usize>,
        columns: usize,
        pitch: usize,
    }
    impl Kernel for Round<'_> {
        type Output = ();
        #[inline(always)]
        fn run<S: Simd>(self, s: S) {
            let to = |row: usize| self.out.0.wrapping_add(row * self.pitch).cast::<Pair>();
            for first in self.rows.clone().step_by(LANES) {
                let height = LANES.min(self.rows.end - first);
                for column in (0..self.columns).step_by(2 * LANES) {
                    let width = (2 * LANES).min(self.columns - column);
                    // SAFETY: the values lie inside x; 16 pairs from an even multiple of 16 values on inside a row of
                    // `out`, for the pitch is a multiple of 16; each task has its own rows.
                    unsafe {
                        if self.source.column == 1 {
                            for r in 0..height {
                                let words = pairs_along(s, self.source.at(first + r, column), width);
                                to(first + r).add(column / 2).cast::<[u32; LANES]>().write_unaligned(words);
                            }
                            continue;
                        }
                        let mut words = Words([[0; LANES]; LANES]);
                        for (pair, words) in words.0.iter_mut().enumerate().take(width.div_ceil(2)) {
                            let at = self.source.at(first, column + 2 * pair);
                            let second = (2 * pair + 1 < width).then(|| at.add(self.source.column));
                            *words = pairs_across(s, at, second, height);
                        }
                        s.transpose(&mut words);
                        for (r, words) in words.0.iter().enumerate().take(height) {
                            to(first + r).add(column / 2).cast::<[u32; LANES]>().write_unaligned(*words);
                        }
                    }
                }
            }
        }
    }
    let (isa, source, out) = (pool.isa(), x.source(), SharedMut(out.as_mut_ptr()));
    pool.run(x.rows.div_ceil(ROWS), |task| {
        let rows = task * ROWS..x.rows.min(task * ROWS + ROWS);
        isa.launch(Round { source, out: &out, rows, columns: x.columns, pitch });
    });
}

/// `count <= 32` neighbours as 16 pairs, what is missing 0.
///
/// # Safety
/// They can be read at `from`.
#[inline(always)]
unsafe fn pairs_along<S: Simd>(s: S, from: *const f32, count: usize) -> [u32; LANES] {
    let second = count.saturating_sub(LANES);
    // SAFETY: promised by the caller; 32 bf16 are 64 bytes.
    unsafe {
        let low = s.bf16(s.load_head(from, LANES.min(count), 0.0));
        let high =
            if second > 0 { s.bf16(s.load_head(from.add(LANES), second, 0.0)) } else { [bf16::ZERO; LANES] };
        std::mem::transmute::<[[bf16; LANES]; 2], [u32; LANES]>([low, high])
    }
}

/// `count <= 16` values of two rows as pairs, the first row's first; no second row is 0.
///
/// # Safety
/// They can be read.
#[inline(always)]
unsafe fn pairs_across<S: Simd>(
    s: S,
    first: *const f32,
    second: Option<*const f32>,
    count: usize,
) -> [u32; LANES] {
    // SAFETY: promised by the caller.
    unsafe {
        let low = s.load_head(first, count, 0.0);
        let high = second.map_or(s.zero(), |second| s.load_head(second, count, 0.0));
        s.join_bf16(low, high)
    }
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
pub(super) struct Source<T = f32> {
    pub data: *const T,
    pub row: usize,
    pub column: usize,
}
// SAFETY: only read, while the slice that it was made of is borrowed.
unsafe impl<T> Send for Source<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Source<T> {}

impl<T> Source<T> {
    #[inline(always)]
    pub fn at(&self, row: usize, column: usize) -> *const T {
        self.data.wrapping_add(row * self.row + column * self.column)
    }

    #[inline(always)]
    pub fn transposed(self) -> Self {
        Self { data: self.data, row: self.column, column: self.row }
    }
}

/// A product of either precision. What `a` and `packs` point at are elements of the precision, which are four bytes as
/// an f32 is: [`Share`] knows their type.
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

struct Share<'a, E> {
    product: &'a Product<'a>,
    worker: usize,
    claims: Claims<'a>,
    of: PhantomData<E>,
}

impl<E: Panel> Kernel for Share<'_, E> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let product = self.product;
        let panels = product.packs.0.wrapping_add(self.worker * product.pack).cast::<E>();
        let a =
            Source { data: product.a.data.cast::<E::Input>(), row: product.a.row, column: product.a.column };
        for task in self.claims {
            let (part, group) = (task / product.groups, task % product.groups);
            let first = group * 3 * LANES;
            let n = (3 * LANES).min(product.n - first);
            let rows = part * product.m / product.parts..(part + 1) * product.m / product.parts;
            let mut done = 0;
            // A K of 0 still sets the output.
            loop {
                let k = (BLOCK_K * E::DEPTH).min(product.k - done);
                let last = done + k == product.k;
                // SAFETY: rows, columns and the block of K lie inside the operands that `gemm` checked; the worker has
                // its panels to itself, the task its outputs.
                unsafe {
                    let b = Source { data: product.b.at(done, first), ..product.b };
                    E::pack(s, b, k, n, panels);
                    multiply(
                        s,
                        Operands {
                            a: Source { data: a.at(rows.start, done / E::DEPTH), ..a },
                            panels,
                            k: k.div_ceil(E::DEPTH),
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

/// An element of a panel of B.
pub(super) trait Panel: Element {
    /// B[k, n] into panels of 16 columns, each [k / DEPTH][16]; what a last panel lacks is 0.
    ///
    /// # Safety
    /// `b` has k × n elements, `panels` room for k × n, each rounded up.
    unsafe fn pack<S: Simd>(s: S, b: Source, k: usize, n: usize, panels: *mut Self);
}

impl Panel for f32 {
    #[inline(always)]
    unsafe fn pack<S: Simd>(s: S, b: Source, k: usize, n: usize, panels: *mut f32) {
        // SAFETY: promised by the caller.
        unsafe { pack(s, b, k, n, panels) }
    }
}

impl Panel for Pair {
    #[inline(always)]
    unsafe fn pack<S: Simd>(s: S, b: Source, k: usize, n: usize, panels: *mut Pair) {
        let depth = k.div_ceil(2);
        for (panel, first) in (0..n).step_by(LANES).enumerate() {
            let lanes = LANES.min(n - first);
            let to = panels.wrapping_add(panel * depth * LANES).cast::<[u32; LANES]>();
            // SAFETY: promised by the caller.
            unsafe {
                if b.column == 1 {
                    for pair in 0..depth {
                        let second = (2 * pair + 1 < k).then(|| b.at(2 * pair + 1, first));
                        to.add(pair).write_unaligned(pairs_across(s, b.at(2 * pair, first), second, lanes));
                    }
                    continue;
                }
                for from in (0..k).step_by(2 * LANES) {
                    let count = (2 * LANES).min(k - from);
                    let mut words = Words([[0; LANES]; LANES]);
                    for (lane, words) in words.0.iter_mut().enumerate().take(lanes) {
                        *words = pairs_along(s, b.at(from, first + lane), count);
                    }
                    s.transpose(&mut words);
                    for (pair, words) in words.0.iter().enumerate().take(count.div_ceil(2)) {
                        to.add(from / 2 + pair).write_unaligned(*words);
                    }
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

/// Operands of [`multiply`]: A in any strides, B as [`pack`] or [`Panel::pack`] left it.
#[derive(Clone, Copy)]
pub(super) struct Operands<E: Element = f32> {
    pub a: Source<E::Input>,
    pub panels: *const E,
    /// Elements along K.
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
pub(super) unsafe fn multiply<S: Simd, E: Element>(
    s: S,
    operands: Operands<E>,
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
                            tile::<S, E, $r, 1>(s, &at, lanes, out, width)
                        } else if S::FLOAT_TILE.1 == 3 {
                            tile::<S, E, $r, 3>(s, &at, lanes, out, width)
                        } else {
                            unreachable!()
                        }
                    }
                };
            }
            by_rows!(end - first, call);
        }
        panel += count;
    }
}

/// R rows × P panels, accumulators in registers; the last panel has `lanes` columns.
///
/// # Safety
/// As [`multiply`].
#[inline(always)]
unsafe fn tile<S: Simd, E: Element, const R: usize, const P: usize>(
    s: S,
    operands: &Operands<E>,
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
            let b = E::load_each::<S, P>(s, panel, k * LANES);
            for (r, acc) in acc.iter_mut().enumerate() {
                let x = E::splat(s, a.wrapping_add(r * row));
                for (acc, b) in acc.iter_mut().zip(b) {
                    *acc = E::fma(s, x, b, *acc);
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
