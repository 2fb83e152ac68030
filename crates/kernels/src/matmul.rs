//! x[M, K] · wᵀ[K, N], for one row and for many, with what follows it fused.
//!
//! Tasks are ranges of panels, so each weight is read from memory once, by one thread; a group of panels then stays in
//! the cache for all rows, which are taken in blocks of what the registers hold. Many rows are split among the threads
//! too: then a task is a range of panels for a part of the rows, and each part reads the weights once.
//!
//! For few rows memory is the limit, and the hardware's prefetcher wants long streams: the two or four panels that a
//! tile takes at once (one alone would be bound by the latency of its additions) lie as far apart as the task's range
//! allows. Neighbours instead, streams that jump at each panel's end, halved the speed of q4_0, whose panels are small.
//! From three rows on a tile asks for the panels that come next while it computes (`ahead`), else memory and arithmetic
//! would take turns.

use crate::buffer::{LINE, SharedMut};
use crate::input::{Int8Input, PairInput, QuantInput};
use crate::operand::Target;
use crate::pool::Claims;
use crate::simd::{Element, Kernel, Simd, math};
use crate::tile::{self, Ahead, Int8Block, MAX_PANELS, MAX_ROWS, Sums};
use crate::types::{BLOCK, INT8_BLOCK, LANES, Pair};
use crate::{Epilogue, Input, Output, PackedMatrix, Pool, Scratch, WeightType};
use half::f16;

/// Up to this many rows, memory bandwidth is the limit.
const FEW: usize = 8;
/// The least rows of a part of them: with fewer, reading the weights once for each part would cost more.
const PART_ROWS: usize = 64;
/// Blocks of rows that an int8 product takes side by side: what they need of one block along K fits the first cache.
const TOGETHER: usize = 4;
/// Beyond so many rows a panel's way from memory is a small part of its work.
const MANY: usize = 128;

/// out[M, N] = activation(x[M, K] · wᵀ + bias) + residual.
///
/// An output's bits depend on its row of x, on w and on the epilogue: not on M, on the other rows, or on the threads.
///
/// # Panics
/// If a slice does not have the length that its shape asks for; if x is bf16, and w neither int8 nor bf16 with an even
/// K.
pub fn matmul<'a>(
    pool: &Pool,
    x: impl Into<Input<'a>>,
    m: usize,
    w: &PackedMatrix,
    ep: Epilogue,
    scratch: &mut Scratch,
    out: impl Into<Output<'a>>,
) {
    let (x, mut out, n, k) = (x.into(), out.into(), w.n(), w.k());
    assert_eq!(x.len(), m * k, "x is [M, K] = [{m}, {k}]");
    assert_eq!(out.len(), m * n, "out is [M, N] = [{m}, {n}]");
    assert!(ep.bias.is_none_or(|bias| bias.len() == n), "bias is [N] = [{n}]");
    assert!(ep.residual.is_none_or(|residual| residual.len() == m * n), "residual is [M, N] = [{m}, {n}]");
    let rounded = matches!(x, Input::Bf16(_));
    let takes_bf16 = match w.weight_type() {
        WeightType::Bf16 => k.is_multiple_of(2),
        weight_type => weight_type == WeightType::Int8,
    };
    assert!(!rounded || takes_bf16, "a bf16 input for {} weights, K = {k}", w.weight_type());
    if m == 0 || n == 0 {
        return;
    }
    let few = m <= FEW;
    // Few rows: two tasks a thread, for each one starts with streams that the prefetcher does not know yet (0.5 µs).
    // Many: small tasks, so that a thread that loses its core does not hold up the rest. And whole tiles: a width of
    // 384 in tasks of 2 panels would leave the 3-panel tile unused.
    let tile = match (few, w.weight_type().is_block_quantized()) {
        (true, _) => 1,
        (false, true) => 2,
        (false, false) => 3,
    };
    // With many rows a thread keeps to its part of them, and so reads what it wrote in the product before. From another
    // core's cache rows came at a fifth of the speed, in minutes in which the cores were far apart.
    let row_parts = (m / PART_ROWS).clamp(1, pool.threads());
    let per_task =
        w.panels().div_ceil(pool.threads() * if few { 2 } else { 8 } / row_parts).next_multiple_of(tile);
    let panel_parts = w.panels().div_ceil(per_task);
    let bytes = match w.weight_type() {
        WeightType::F32 | WeightType::F16 => 0,
        WeightType::Bf16 if rounded => 0,
        WeightType::Bf16 => PairInput::bytes(m, k),
        WeightType::Q8_0 | WeightType::Q4_0 => QuantInput::bytes(m, k),
        WeightType::Int8 => Int8Input::bytes(m, k),
    }
    .next_multiple_of(2 * LINE);
    let copies = if few { pool.threads() } else { 1 };
    let input = SharedMut(scratch.input.at_least(copies * bytes).as_mut_ptr());
    let weights = SharedMut(w.panel(0).as_ptr().cast_mut());
    let (weight_type, panels, out) = (w.weight_type(), w.panels(), Target::of(&mut out));
    let product = Product {
        x,
        m,
        n,
        k,
        weights,
        weight_type,
        panels,
        ep,
        few,
        row_parts,
        per_task,
        panel_parts,
        input,
        bytes,
        out,
    };
    let isa = pool.isa();
    if bytes > 0 && !few {
        // A block has two rows or more, so this is a task for each block, and some for none.
        let tasks = row_parts * m.div_ceil(row_parts).div_ceil(2);
        pool.run_apart(tasks, |_, claims| isa.launch(Convert { product: &product, claims }));
    }
    let share = |worker, claims: Claims| isa.launch(Share { product: &product, worker, claims });
    if few { pool.run_shares(panel_parts, share) } else { pool.run_apart(row_parts * panel_parts, share) }
}

/// A part of the rows in blocks of almost equal height, none above the tile's.
struct RowBlocks {
    first: usize,
    rows: usize,
    count: usize,
}

impl RowBlocks {
    /// First row and number of rows of a block.
    fn get(&self, block: usize) -> (usize, usize) {
        let start = |block: usize| block * self.rows / self.count;
        (self.first + start(block), start(block + 1) - start(block))
    }
}

/// All inputs of a thread's work in one place: each pointer that a helper follows costs a cache line that the caller
/// has just written.
struct Product<'a> {
    /// [M, K]
    x: Input<'a>,
    m: usize,
    n: usize,
    k: usize,
    /// `panels` panels of `weight_type`; read only.
    weights: SharedMut<u8>,
    weight_type: WeightType,
    panels: usize,
    ep: Epilogue<'a>,
    few: bool,
    /// A task is one of so many parts of the rows,
    row_parts: usize,
    /// by so many panels: one of so many parts of them.
    per_task: usize,
    panel_parts: usize,
    /// Room for what the input becomes, `bytes` of it for each copy.
    input: SharedMut<u8>,
    bytes: usize,
    out: Target,
}

/// The blocks of rows that fall to one thread, to be quantised or rounded.
struct Convert<'a> {
    product: &'a Product<'a>,
    claims: Claims<'a>,
}

impl Kernel for Convert<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let product = self.product;
        let per_part = product.m.div_ceil(product.row_parts).div_ceil(2);
        for task in self.claims {
            let blocks = product.blocks::<S>(task / per_part);
            if task % per_part < blocks.count {
                let (first, rows) = blocks.get(task % per_part);
                // SAFETY: a block of rows has this part of the input to itself.
                unsafe { product.convert(s, product.input(0), first, rows) }
            }
        }
    }
}

/// The tasks that fall to one thread.
struct Share<'a> {
    product: &'a Product<'a>,
    worker: usize,
    claims: Claims<'a>,
}

impl Kernel for Share<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        let product = self.product;
        let Some(mut task) = self.claims.next() else { return };
        let input = product.prepare(s, self.worker);
        let mut sums = [const { Sums([0.0; MAX_ROWS * MAX_PANELS * LANES]) }; TOGETHER];
        loop {
            let first = task % product.panel_parts * product.per_task;
            let last = product.panels.min(first + product.per_task);
            product.panels(s, first, last, task / product.panel_parts, input, &mut sums);
            let Some(next) = self.claims.next() else { return };
            task = next;
        }
    }
}

/// Rows that a tile takes at once, and the weights that it asks for meanwhile.
#[derive(Clone, Copy)]
struct RowBlock {
    first_row: usize,
    rows: usize,
    ahead: Ahead,
}

/// Panels that a tile takes at once: `first`, `first + apart`, ….
#[derive(Clone, Copy)]
struct Group {
    first: usize,
    panels: usize,
    apart: usize,
}

impl Product<'_> {
    /// Rows and panels of a tile.
    #[inline(always)]
    fn tile<S: Simd>(&self) -> (usize, usize) {
        let (quantized, m) = (self.weight_type.is_integer(), self.m);
        let tile = match self.weight_type {
            WeightType::Int8 => S::INT8_TILE,
            WeightType::Q8_0 | WeightType::Q4_0 => S::QUANT_TILE,
            _ => S::FLOAT_TILE,
        };
        // One panel alone would be bound by the latency of its additions. A few quantised rows go in one pass, even if
        // that leaves registers for one panel only: a second pass would interrupt the stream from memory.
        match m {
            1 if quantized => (1, 2),
            1 if !quantized => (1, 4),
            2 if !quantized => (2, S::PAIR_PANELS),
            _ if quantized && m > tile.0 && m <= S::QUANT_ROWS => (m, 1),
            _ => tile,
        }
    }

    /// The blocks of one part of the rows.
    #[inline(always)]
    fn blocks<S: Simd>(&self, part: usize) -> RowBlocks {
        let start = |part: usize| part * self.m / self.row_parts;
        let (first, rows) = (start(part), start(part + 1) - start(part));
        RowBlocks { first, rows, count: rows.div_ceil(self.tile::<S>().0) }
    }

    /// Elements of K that a float tile takes one after the other.
    fn depth(&self) -> usize {
        if self.weight_type == WeightType::Bf16 { self.k.div_ceil(Pair::DEPTH) } else { self.k }
    }

    /// Where a copy of what the input becomes lies.
    fn input(&self, copy: usize) -> *mut u8 {
        self.input.0.wrapping_add(copy * self.bytes)
    }

    /// Makes of a block of rows what the products take, at `input`.
    ///
    /// # Safety
    /// `input` is a copy's place, and nobody else touches these rows of it meanwhile.
    #[inline(always)]
    unsafe fn convert<S: Simd>(&self, s: S, input: *mut u8, first: usize, rows: usize) {
        let x = self.x.part(first * self.k, rows * self.k);
        // SAFETY: promised by the caller.
        unsafe {
            match (self.weight_type, x) {
                (WeightType::Int8, x) => Int8Input::new(input, self.m, self.k).quantize(s, x, first),
                (WeightType::Bf16, Input::F32(x)) => PairInput::new(input, self.k).round(s, x, first),
                (WeightType::Q8_0 | WeightType::Q4_0, Input::F32(x)) => {
                    let nibbles = self.weight_type == WeightType::Q4_0;
                    QuantInput::new(input, self.m, self.k).quantize(s, x, first, rows, nibbles);
                }
                _ => {}
            }
        }
    }

    /// What a thread does before its first task. A line that another core has written costs about 100 ns, or as much
    /// for all of them when they are asked for together. So every thread asks for all of x, and converts a few rows
    /// itself.
    #[inline(always)]
    fn prepare<S: Simd>(&self, s: S, worker: usize) -> *const u8 {
        if !self.few {
            return self.input(0);
        }
        // More than a part of the first cache would only push itself out.
        for line in self.x.bytes().chunks(LINE).take((1 << 14) / LINE) {
            s.prefetch(line.as_ptr());
        }
        let input = self.input(worker);
        let blocks = self.blocks::<S>(0);
        for block in 0..blocks.count {
            let (first, rows) = blocks.get(block);
            // SAFETY: this copy is the worker's own.
            unsafe { self.convert(s, input, first, rows) }
        }
        input
    }

    #[inline(always)]
    fn panels<S: Simd>(
        &self,
        s: S,
        first: usize,
        last: usize,
        row_part: usize,
        input: *const u8,
        sums: &mut [Sums; TOGETHER],
    ) {
        let (len, panels) = (last - first, self.tile::<S>().1);
        let groups = len / panels;
        let (next, apart) = if self.few { (1, groups) } else { (panels, 1) };
        for group in 0..groups {
            self.rows(s, Group { first: first + group * next, panels, apart }, row_part, input, sums);
        }
        for panel in first + groups * panels..last {
            self.rows(s, Group { first: panel, panels: 1, apart: 1 }, row_part, input, sums);
        }
    }

    #[inline(always)]
    fn rows<S: Simd>(
        &self,
        s: S,
        group: Group,
        row_part: usize,
        input: *const u8,
        sums: &mut [Sums; TOGETHER],
    ) {
        let blocks = self.blocks::<S>(row_part);
        let together = if self.weight_type == WeightType::Int8 { TOGETHER } else { 1 };
        for first in (0..blocks.count).step_by(together) {
            let mut some = [self.block(group, &blocks, first); TOGETHER];
            let some = &mut some[..together.min(blocks.count - first)];
            for (i, block) in some.iter_mut().enumerate().skip(1) {
                *block = self.block(group, &blocks, first + i);
            }
            for block in &*some {
                self.ask(s, group, block.first_row, block.rows);
            }
            // SAFETY: the product's slices have the sizes that `matmul` checked; rows and panels are inside.
            unsafe {
                if self.weight_type == WeightType::Int8 {
                    self.int8_sums(s, group, input, some, sums);
                } else {
                    self.sums(s, group, input, some[0], &mut sums[0]);
                }
                for (block, sums) in some.iter().zip(&*sums) {
                    self.finish(s, group, block.first_row, block.rows, sums);
                }
            }
        }
    }

    /// A few blocks of rows side by side, so that a block of weights comes into the first cache once for all of them.
    ///
    /// # Safety
    /// Rows and panels exist, and the input is int8.
    #[inline(always)]
    unsafe fn int8_sums<S: Simd>(
        &self,
        s: S,
        group: Group,
        input: *const u8,
        some: &[RowBlock],
        sums: &mut [Sums; TOGETHER],
    ) {
        let (panel, blocks) = (self.weight_type.panel_bytes(self.k), self.k.div_ceil(INT8_BLOCK));
        let weights = self.weights.0.cast_const().wrapping_add(group.first * panel);
        let x = Int8Input::new(input.cast_mut(), self.m, self.k);
        for block in 0..blocks {
            for (rows, sums) in some.iter().zip(&mut *sums) {
                let place =
                    Int8Block { index: block, of: blocks, x: x.rows(rows.first_row), ahead: rows.ahead };
                // SAFETY: promised by the caller; the packed layout is what the tiles expect.
                unsafe {
                    let (panels, apart) = (group.panels, group.apart * panel);
                    tile::int8_rows(s, weights, apart, panels, place, rows.rows, sums);
                }
            }
        }
    }

    fn block(&self, group: Group, blocks: &RowBlocks, block: usize) -> RowBlock {
        let (first_row, rows) = blocks.get(block);
        RowBlock { first_row, rows, ahead: self.ahead(group, block, blocks.count) }
    }

    /// Asks for what `finish` reads and writes: its lines are a row apart, which no hardware foresees.
    #[inline(always)]
    fn ask<S: Simd>(&self, s: S, group: Group, first_row: usize, rows: usize) {
        if self.few {
            return;
        }
        for r in 0..rows {
            for p in 0..group.panels {
                let at = (first_row + r) * self.n + (group.first + p * group.apart) * LANES;
                if let Some(residual) = self.ep.residual {
                    s.prefetch(residual.as_ptr().wrapping_add(at).cast());
                }
                self.out.prefetch(s, at);
            }
        }
    }

    /// What is asked for while a block of rows is computed: its share of the next group of panels. A few rows of far
    /// streams (see above) leave it to the hardware.
    #[inline(always)]
    fn ahead(&self, group: Group, block: usize, blocks: usize) -> Ahead {
        let panel = self.weight_type.panel_bytes(self.k);
        let weights = self.weights.0.cast_const();
        if group.apart > 1 && group.panels > 1 || self.m / self.row_parts > MANY {
            // One line of what is read anyway: asking for an address that is nowhere costs a page walk.
            return Ahead { at: weights.wrapping_add(group.first * panel), every: usize::MAX, bytes: 0 };
        }
        let part = group.panels * panel / blocks;
        let at = weights.wrapping_add((group.first + group.panels) * panel + block * part);
        Ahead {
            at,
            every: (self.depth() * LINE / part.max(1)).max(1),
            bytes: part / self.k.div_ceil(BLOCK).max(1),
        }
    }

    /// # Safety
    /// Rows and panels exist, and the input is that of `w`'s type.
    #[inline(always)]
    unsafe fn sums<S: Simd>(
        &self,
        s: S,
        group: Group,
        input: *const u8,
        RowBlock { first_row, rows, ahead }: RowBlock,
        sums: &mut Sums,
    ) {
        let (k, panel) = (self.k, self.weight_type.panel_bytes(self.k));
        let weights = self.weights.0.cast_const().wrapping_add(group.first * panel);
        let (panels, bytes) = (group.panels, group.apart * panel);
        // SAFETY: promised by the caller; the packed layout is what the tiles expect.
        unsafe {
            let floats = self.x.bytes().as_ptr().cast::<f32>().wrapping_add(first_row * k);
            let input = input.cast_mut();
            let quants = || QuantInput::new(input, self.m, k).rows(first_row);
            match self.weight_type {
                WeightType::F32 => tile::float_rows::<S, f32>(
                    s,
                    weights.cast(),
                    bytes / 4,
                    panels,
                    k,
                    floats,
                    rows,
                    ahead,
                    sums,
                ),
                WeightType::F16 => tile::float_rows::<S, f16>(
                    s,
                    weights.cast(),
                    bytes / 2,
                    panels,
                    k,
                    floats,
                    rows,
                    ahead,
                    sums,
                ),
                WeightType::Bf16 => {
                    let x = match self.x {
                        Input::Bf16(x) => x.as_ptr().cast::<Pair>().add(first_row * k / 2),
                        Input::F32(_) => PairInput::new(input, k).rows(first_row),
                    };
                    tile::float_rows::<S, Pair>(
                        s,
                        weights.cast(),
                        bytes / 4,
                        panels,
                        self.depth(),
                        x,
                        rows,
                        ahead,
                        sums,
                    )
                }
                WeightType::Q8_0 => {
                    tile::quant_rows::<S, false>(s, weights, bytes, panels, k, quants(), rows, ahead, sums)
                }
                WeightType::Q4_0 => {
                    tile::quant_rows::<S, true>(s, weights, bytes, panels, k, quants(), rows, ahead, sums)
                }
                WeightType::Int8 => unreachable!("several blocks of rows at once"),
            }
        }
    }

    /// Bias, activation and residual, and out.
    ///
    /// # Safety
    /// Rows and panels exist, and no other task writes these outputs.
    #[inline(always)]
    unsafe fn finish<S: Simd>(&self, s: S, group: Group, first_row: usize, rows: usize, sums: &Sums) {
        let n = self.n;
        let panels = group.panels;
        // Row by row: what is written of one lies side by side.
        for r in 0..rows {
            for p in 0..panels {
                let col = (group.first + p * group.apart) * LANES;
                let lanes = LANES.min(n - col);
                let at = (first_row + r) * n + col;
                // SAFETY: `lanes` outputs from (row, col) on are inside [M, N], bias is [N], and the sums hold rows ×
                // panels.
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
                    self.out.store(s, at, lanes, y);
                }
            }
        }
    }
}
