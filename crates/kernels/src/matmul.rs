//! x[M, K] · wᵀ[K, N], for one row and for many, with what follows it fused.
//!
//! Tasks are ranges of panels, so each weight is read from memory once, by one thread, whatever M is; a group of panels then
//! stays in the cache for all rows, which are taken in blocks of what the registers hold.
//!
//! For few rows memory is the limit, and the hardware's prefetcher wants long streams: the four panels that a tile takes at
//! once (one would be bound by the latency of its additions) are a quarter of the task's range apart. Neighbours instead,
//! four streams that jump at each panel's end, cost up to 40% for the small q4_0 panels; software prefetch on top of it gained
//! nothing.

use crate::buffer::SharedMut;
use crate::quant::BLOCK;
use crate::quantize::quantize_rows;
use crate::simd::{Element, Kernel, Simd, math};
use crate::tile::{self, MAX_PANELS, MAX_ROWS, QuantRows, Sums};
use crate::weights::LANES;
use crate::{PackedMatrix, Pool, Scratch, WeightType};
use half::f16;

/// What is applied to an output, element by element.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Activation {
    /// GPT-2's `gelu_new`, the tanh form.
    GeluNew,
    /// BERT's `gelu`, by erf.
    Gelu,
    Relu,
    Silu,
    Tanh,
}

/// out = activation(x · wᵀ + bias) + residual; what is `None` is left out.
#[derive(Debug, Clone, Copy, Default)]
pub struct Epilogue<'a> {
    /// [N]
    pub bias: Option<&'a [f32]>,
    pub activation: Option<Activation>,
    /// [M, N]
    pub residual: Option<&'a [f32]>,
}

/// Up to so many rows, memory is the limit.
const FEW: usize = 8;

/// out[M, N] = activation(x[M, K] · wᵀ + bias) + residual.
///
/// An output's bits depend on its row of x, on w and on the epilogue: not on M, on the other rows, or on the threads.
///
/// # Panics
/// If a slice does not have the length that its shape asks for.
pub fn matmul(
    pool: &Pool,
    x: &[f32],
    m: usize,
    w: &PackedMatrix,
    ep: Epilogue,
    scratch: &mut Scratch,
    out: &mut [f32],
) {
    let (n, k) = (w.n(), w.k());
    assert_eq!(x.len(), m * k, "x is [M, K] = [{m}, {k}]");
    assert_eq!(out.len(), m * n, "out is [M, N] = [{m}, {n}]");
    assert!(ep.bias.is_none_or(|bias| bias.len() == n), "bias is [N] = [{n}]");
    assert!(ep.residual.is_none_or(|residual| residual.len() == m * n), "residual is [M, N] = [{m}, {n}]");
    if m == 0 || n == 0 {
        return;
    }
    let (rows, panels) = pool.isa().tile(w.weight_type(), m);
    let blocks = RowBlocks::new(m, rows);
    let input = if w.weight_type().is_block_quantized() {
        Input::Quants(quantize_rows(pool, x, &blocks, w, scratch))
    } else {
        Input::Floats(x.as_ptr())
    };
    // Four tasks a thread, so that one that loses its core does not hold up the rest.
    let per_task = w.panels().div_ceil(pool.threads() * 4);
    let per_task = if per_task > panels { per_task.next_multiple_of(panels) } else { per_task };
    let spread = m <= FEW;
    let product = Product {
        w,
        ep: &ep,
        input: &input,
        blocks: &blocks,
        panels,
        spread,
        out: SharedMut(out.as_mut_ptr()),
    };
    pool.run(w.panels().div_ceil(per_task), |task| {
        let first = task * per_task;
        pool.isa().launch(Task { product: &product, first, last: w.panels().min(first + per_task) });
    });
}

/// M rows in blocks of almost equal height, none above the tile's.
pub(crate) struct RowBlocks {
    m: usize,
    count: usize,
}

impl RowBlocks {
    fn new(m: usize, most: usize) -> Self {
        Self { m, count: m.div_ceil(most) }
    }

    pub fn count(&self) -> usize {
        self.count
    }

    /// First row and number of rows of a block.
    pub fn get(&self, block: usize) -> (usize, usize) {
        let start = |block: usize| block * self.m / self.count;
        (start(block), start(block + 1) - start(block))
    }
}

enum Input<'a> {
    /// [M, K]
    Floats(*const f32),
    Quants(QuantInput<'a>),
}

// SAFETY: the pointer is read only, and lives as long as the call that made it.
unsafe impl Sync for Input<'_> {}

/// The quantised input; the rows of a block are interleaved as [`QuantRows`] says, and blocks follow each other.
pub(crate) struct QuantInput<'a> {
    pub quants: &'a [i8],
    pub scales: &'a [f32],
    pub sums: &'a [i32],
}

impl QuantInput<'_> {
    fn rows(&self, first: usize, k: usize) -> QuantRows {
        QuantRows {
            quants: self.quants[first * k..].as_ptr(),
            scales: self.scales[first * (k / BLOCK)..].as_ptr(),
            sums: self.sums[first * (k / BLOCK)..].as_ptr(),
        }
    }
}

struct Product<'a> {
    w: &'a PackedMatrix,
    ep: &'a Epilogue<'a>,
    input: &'a Input<'a>,
    blocks: &'a RowBlocks,
    /// Panels that a tile takes at once.
    panels: usize,
    /// Whether these lie apart, so that each of them is one long stream from memory; else they follow each other.
    spread: bool,
    out: SharedMut<f32>,
}

/// Panels `first..last` for all rows.
struct Task<'a> {
    product: &'a Product<'a>,
    first: usize,
    last: usize,
}

impl Kernel for Task<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let product = self.product;
        let mut sums = Sums([0.0; MAX_ROWS * MAX_PANELS * LANES]);
        let (len, panels) = (self.last - self.first, product.panels);
        let groups = len / panels;
        let (next, apart) = if product.spread { (1, groups) } else { (panels, 1) };
        for group in 0..groups {
            product.rows(s, Group { first: self.first + group * next, panels, apart }, &mut sums);
        }
        for panel in self.first + groups * panels..self.last {
            product.rows(s, Group { first: panel, panels: 1, apart: 1 }, &mut sums);
        }
    }
}

/// Panels that a tile takes at once: `first`, `first + apart`, ….
#[derive(Clone, Copy)]
struct Group {
    first: usize,
    panels: usize,
    apart: usize,
}

impl Product<'_> {
    #[inline(always)]
    fn rows<S: Simd>(&self, s: S, group: Group, sums: &mut Sums) {
        for block in 0..self.blocks.count() {
            let (first_row, rows) = self.blocks.get(block);
            // SAFETY: the product's slices have the sizes that `matmul` checked; rows and panels are inside.
            unsafe {
                self.sums(s, group, first_row, rows, sums);
                self.finish(s, group, first_row, rows, sums);
            }
        }
    }

    /// # Safety
    /// Rows and panels exist, and the input is that of `w`'s type.
    #[inline(always)]
    unsafe fn sums<S: Simd>(&self, s: S, group: Group, first_row: usize, rows: usize, sums: &mut Sums) {
        let (k, weights) = (self.w.k(), self.w.panel(group.first).as_ptr());
        let (panels, bytes) = (group.panels, group.apart * self.w.panel(group.first).len());
        // SAFETY: promised by the caller; the packed layout is what the tiles expect.
        unsafe {
            match (self.w.weight_type(), self.input) {
                (WeightType::F32, Input::Floats(x)) => {
                    let x = x.add(first_row * k);
                    float_rows::<S, f32>(s, weights.cast(), bytes / 4, panels, k, x, rows, sums);
                }
                (WeightType::F16, Input::Floats(x)) => {
                    let x = x.add(first_row * k);
                    float_rows::<S, f16>(s, weights.cast(), bytes / 2, panels, k, x, rows, sums);
                }
                (WeightType::Q8_0, Input::Quants(x)) => {
                    quant_rows::<S, false>(s, weights, bytes, panels, k, x.rows(first_row, k), rows, sums);
                }
                (WeightType::Q4_0, Input::Quants(x)) => {
                    quant_rows::<S, true>(s, weights, bytes, panels, k, x.rows(first_row, k), rows, sums);
                }
                _ => unreachable!("the input is made for the weight type"),
            }
        }
    }

    /// Bias, activation and residual, and out.
    ///
    /// # Safety
    /// Rows and panels exist, and no other task writes these outputs.
    #[inline(always)]
    unsafe fn finish<S: Simd>(&self, s: S, group: Group, first_row: usize, rows: usize, sums: &Sums) {
        let n = self.w.n();
        let panels = group.panels;
        for p in 0..panels {
            let col = (group.first + p * group.apart) * LANES;
            let lanes = LANES.min(n - col);
            for r in 0..rows {
                let at = (first_row + r) * n + col;
                // SAFETY: `lanes` outputs from (row, col) on are inside [M, N], bias is [N], and the sums hold rows × panels.
                unsafe {
                    let mut y = s.load(sums.0.as_ptr().add((r * panels + p) * LANES));
                    if let Some(bias) = self.ep.bias {
                        y = s.add(y, s.load_head(bias.as_ptr().add(col), lanes, 0.0));
                    }
                    if let Some(activation) = self.ep.activation {
                        y = math::activate(s, activation, y);
                    }
                    if let Some(residual) = self.ep.residual {
                        y = s.add(y, s.load_head(residual.as_ptr().add(at), lanes, 0.0));
                    }
                    s.store_head(self.out.0.add(at), lanes, y);
                }
            }
        }
    }
}

/// Calls `$tile::<.., R, P>` for the number of rows, up to `$most`.
macro_rules! by_rows {
    ($rows:expr, $call:ident) => {
        match $rows {
            1 => $call!(1),
            2 => $call!(2),
            3 => $call!(3),
            4 => $call!(4),
            5 => $call!(5),
            6 => $call!(6),
            7 => $call!(7),
            8 => $call!(8),
            _ => unreachable!("a block has at most 8 rows"),
        }
    };
}

/// # Safety
/// As [`tile::float`], with `panels` panels and `rows` rows.
#[inline(always)]
#[allow(clippy::too_many_arguments)] // sizes and pointers of one product
unsafe fn float_rows<S: Simd, T: Element>(
    s: S,
    weights: *const T,
    panel_len: usize,
    panels: usize,
    k: usize,
    x: *const f32,
    rows: usize,
    sums: &mut Sums,
) {
    // The table of `Isa::tile`: what does not occur is not compiled.
    macro_rules! call {
        ($r:literal) => {
            // SAFETY: promised by the caller.
            unsafe {
                if $r > S::FLOAT_TILE.0 {
                    unreachable!()
                } else if panels == 1 {
                    tile::float::<S, T, $r, 1>(s, weights, panel_len, k, x, sums)
                } else if panels == 4 && $r <= 2 {
                    tile::float::<S, T, $r, 4>(s, weights, panel_len, k, x, sums)
                } else if panels == 2 && $r <= 2 {
                    tile::float::<S, T, $r, 2>(s, weights, panel_len, k, x, sums)
                } else if panels == 3 && S::FLOAT_TILE.1 == 3 {
                    tile::float::<S, T, $r, 3>(s, weights, panel_len, k, x, sums)
                } else {
                    unreachable!()
                }
            }
        };
    }
    by_rows!(rows, call)
}

/// # Safety
/// As [`tile::quant`], with `panels` panels and `rows` rows.
#[inline(always)]
#[allow(clippy::too_many_arguments)] // sizes and pointers of one product
unsafe fn quant_rows<S: Simd, const NIBBLES: bool>(
    s: S,
    weights: *const u8,
    panel_len: usize,
    panels: usize,
    k: usize,
    x: QuantRows,
    rows: usize,
    sums: &mut Sums,
) {
    let blocks = k / BLOCK;
    macro_rules! call {
        ($r:literal) => {
            // SAFETY: promised by the caller.
            unsafe {
                if $r > S::QUANT_TILE.0 {
                    unreachable!()
                } else if panels == 1 {
                    tile::quant::<S, NIBBLES, $r, 1>(s, weights, panel_len, blocks, x, sums)
                } else if panels == 4 && $r == 1 {
                    tile::quant::<S, NIBBLES, $r, 4>(s, weights, panel_len, blocks, x, sums)
                } else if panels == 2 && ($r == 1 || S::QUANT_TILE.1 == 2) {
                    tile::quant::<S, NIBBLES, $r, 2>(s, weights, panel_len, blocks, x, sums)
                } else {
                    unreachable!()
                }
            }
        };
    }
    by_rows!(rows, call)
}
