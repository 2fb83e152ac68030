//! The inner loops of the products: R rows × P panels of 16 outputs, accumulators in registers, K from 0 to the end.
//!
//! A tile reads each weight once for its R rows. Every output is one accumulator that takes K in ascending order, so R
//! and P are free: they change the speed, never a bit.

use crate::buffer::LINE;
use crate::simd::{Element, Simd};
use crate::types::{BLOCK, INT8_BLOCK, INT8_BLOCK_BYTES, LANES, Q4_BLOCK, Q8_BLOCK};
use crate::weights::block_offsets;
use half::f16;

/// The largest tile of any instruction set, in rows × panels.
pub(crate) const MAX_ROWS: usize = 8;
pub(crate) const MAX_PANELS: usize = 4;

/// The weights that come next, asked for while a tile computes, evenly along K: so memory and arithmetic are busy at
/// once.
#[derive(Clone, Copy)]
pub(crate) struct Ahead {
    pub at: *const u8,
    /// Of floats: elements of K to a line.
    pub every: usize,
    /// Of integers: bytes to 32 of K.
    pub bytes: usize,
}

/// Finished sums, [rows][P × 16 outputs].
#[repr(align(64))]
pub(crate) struct Sums(pub [f32; MAX_ROWS * MAX_PANELS * LANES]);

/// f32, f16 and bf16 weights: acc = fma(x[i], w[i], acc), for each element i of K.
///
/// # Safety
/// `panels` are P panels of depth × 16 elements, `panel_len` elements apart; x has R rows of `depth` inputs.
#[inline(always)]
unsafe fn float<S: Simd, T: Element, const R: usize, const P: usize>(
    s: S,
    panels: *const T,
    panel_len: usize,
    depth: usize,
    x: *const T::Input,
    mut ahead: Ahead,
    sums: &mut Sums,
) {
    let mut acc = [[s.zero(); P]; R];
    let mut from = 0;
    while from < depth {
        s.prefetch(ahead.at);
        ahead.at = ahead.at.wrapping_add(LINE);
        let to = depth.min(from.saturating_add(ahead.every));
        for i in from..to {
            // SAFETY: i < depth and p < P, so these are the 16 elements of one place of K in one panel.
            let w = unsafe { T::load_each::<S, P>(s, panels.wrapping_add(i * LANES), panel_len) };
            for (r, acc) in acc.iter_mut().enumerate() {
                // SAFETY: i < depth and r < R.
                let x = unsafe { T::splat(s, x.add(r * depth + i)) };
                for (acc, w) in acc.iter_mut().zip(w) {
                    *acc = T::fma(s, x, w, *acc);
                }
            }
        }
        from = to;
    }
    store(s, &acc, sums);
}

/// The input of a tile of quantised products, for R rows that are interleaved.
#[derive(Clone, Copy)]
pub(crate) struct QuantRows {
    /// [K / 4][R][4]
    pub quants: *const i8,
    /// [K / 32][R]
    pub scales: *const f32,
    /// [K / 32][R]: minus the sum of the block's values times the weights' offset.
    pub sums: *const i32,
}

/// q8_0 (`NIBBLES` false) and q4_0 weights: per block of 32, sum = Σ x[k] w[k] in integers, then
/// acc = fma(sum, dx * dw, acc). The dot products take the weights with an offset, so each starts from what that adds.
///
/// # Safety
/// `panels` are P panels of `blocks` blocks, `panel_len` bytes apart; `x` is R rows of as many blocks.
#[inline(always)]
unsafe fn quant<S: Simd, const NIBBLES: bool, const R: usize, const P: usize>(
    s: S,
    panels: *const u8,
    panel_len: usize,
    blocks: usize,
    x: QuantRows,
    mut ahead: Ahead,
    sums: &mut Sums,
) {
    let from = ahead.at;
    let block_bytes = if NIBBLES { Q4_BLOCK } else { Q8_BLOCK };
    let mut acc = [[s.zero(); P]; R];
    for block in 0..blocks {
        let asked = from.wrapping_add((block + 1) * ahead.bytes);
        while ahead.at < asked {
            s.prefetch(ahead.at);
            ahead.at = ahead.at.wrapping_add(LINE);
        }
        let (scales_at, quants_at) = block_offsets(block_bytes, block);
        let quants = panels.wrapping_add(quants_at);
        let x_quants = x.quants.wrapping_add(block * BLOCK * R);
        let mut dots = [[s.splat_i(0); P]; R];
        for (r, dots) in dots.iter_mut().enumerate() {
            // SAFETY: block < blocks and r < R.
            *dots = [s.splat_i(unsafe { *x.sums.add(block * R + r) }); P];
        }
        if NIBBLES {
            let mut nibbles = [[s.no_nibbles(); P]; R];
            for group in 0..4 {
                for p in 0..P {
                    let at = quants.wrapping_add(p * panel_len + group * 4 * LANES);
                    // SAFETY: four groups of 64 bytes in a block of 32 values, for p < P panels.
                    let w = unsafe { s.load_bytes(at) };
                    let (low, high) = s.nibbles(w);
                    for (r, nibbles) in nibbles.iter_mut().enumerate() {
                        // SAFETY: groups of 4 values, 8 to a block, R rows each: value i and value i + 16.
                        let (x_low, x_high) = unsafe {
                            (
                                s.splat_bytes(x_quants.add((group * R + r) * 4)),
                                s.splat_bytes(x_quants.add(((group + 4) * R + r) * 4)),
                            )
                        };
                        nibbles[p] = s.dot_nibbles(s.dot_nibbles(nibbles[p], low, x_low), high, x_high);
                    }
                }
            }
            for (dots, nibbles) in dots.iter_mut().zip(nibbles) {
                for (dot, nibbles) in dots.iter_mut().zip(nibbles) {
                    *dot = s.add_i(*dot, s.sum_nibbles(nibbles));
                }
            }
        } else {
            for group in 0..8 {
                for p in 0..P {
                    let at = quants.wrapping_add(p * panel_len + group * 4 * LANES);
                    // SAFETY: eight groups of 64 bytes in a block of 32 values, for p < P panels.
                    let w = unsafe { s.load_bytes(at) };
                    for (r, dots) in dots.iter_mut().enumerate() {
                        // SAFETY: groups of 4 values, 8 to a block, R rows each.
                        let x = unsafe { s.splat_bytes(x_quants.add((group * R + r) * 4)) };
                        dots[p] = s.dot_bytes(dots[p], w, x);
                    }
                }
            }
        }
        for p in 0..P {
            let at = panels.wrapping_add(p * panel_len + scales_at);
            // SAFETY: 16 scales of this block in each of P panels.
            let dw = unsafe { s.load_f16(at.cast::<f16>()) };
            for (r, (acc, dots)) in acc.iter_mut().zip(&dots).enumerate() {
                // SAFETY: block < blocks and r < R.
                let dx = s.splat(unsafe { *x.scales.add(block * R + r) });
                acc[p] = s.fma(s.to_f(dots[p]), s.mul(dx, dw), acc[p]);
            }
        }
    }
    store(s, &acc, sums);
}

/// The input of a tile of int8 products, row after row.
#[derive(Clone, Copy)]
pub(crate) struct Int8Rows {
    /// [R][blocks][128]
    pub quants: *const i8,
    /// [R][blocks]
    pub scales: *const f32,
    /// [R][blocks]: minus the sum of the block's values times the weights' offset.
    pub sums: *const i32,
}

/// One block along K of int8 products.
#[derive(Clone, Copy)]
pub(crate) struct Int8Block {
    pub index: usize,
    /// Blocks of a row.
    pub of: usize,
    pub x: Int8Rows,
    pub ahead: Ahead,
}

/// int8 weights, one block of 128: sum = Σ x[k] w[k] in integers, then acc = fma(sum, dx * dw, acc). `sums` are the
/// accumulators: once in 32 products they may come from the first cache, and the registers
/// hold a larger tile.
///
/// # Safety
/// `panels` are P panels of `block.of` blocks, `panel_len` bytes apart; `block.x` is R rows of as many blocks.
#[inline(always)]
unsafe fn int8<S: Simd, const R: usize, const P: usize>(
    s: S,
    panels: *const u8,
    panel_len: usize,
    block: Int8Block,
    sums: &mut Sums,
) {
    const PARTS: usize = INT8_BLOCK / BLOCK;
    let Int8Block { index, of: blocks, x, ahead } = block;
    if index == 0 {
        store(s, &[[s.zero(); P]; R], sums);
    }
    let panels = panels.wrapping_add(index * INT8_BLOCK_BYTES);
    let quants = x.quants.wrapping_add(index * INT8_BLOCK);
    let mut at = ahead.at.wrapping_add((index * PARTS * ahead.bytes).next_multiple_of(LINE));
    let mut dots = [[s.splat_i(0); P]; R];
    for (r, dots) in dots.iter_mut().enumerate() {
        // SAFETY: the block is one of `blocks`, and r < R.
        *dots = [s.splat_i(unsafe { *x.sums.add(r * blocks + index) }); P];
    }
    for part in 0..PARTS {
        let asked = ahead.at.wrapping_add((index * PARTS + part + 1) * ahead.bytes);
        while at < asked {
            s.prefetch(at);
            at = at.wrapping_add(LINE);
        }
        for group in part * (BLOCK / 4)..(part + 1) * (BLOCK / 4) {
            let at = panels.wrapping_add((1 + group) * LINE);
            // SAFETY: a line of scales, then 32 groups of 64 bytes, in each of P panels.
            let mut w = [unsafe { s.load_bytes(at) }; P];
            for (p, w) in w.iter_mut().enumerate().skip(1) {
                // SAFETY: as above.
                *w = unsafe { s.load_bytes(at.add(p * panel_len)) };
            }
            for (r, dots) in dots.iter_mut().enumerate() {
                // SAFETY: groups of 4 values, 32 to a block, in each of R rows.
                let x = unsafe { s.splat_bytes(quants.add(r * blocks * INT8_BLOCK + group * 4)) };
                for (dot, w) in dots.iter_mut().zip(w) {
                    *dot = s.dot_bytes_in_place(*dot, w, x);
                }
            }
        }
    }
    for p in 0..P {
        // SAFETY: 16 scales at the block's begin; r < R <= 8 and p < P <= 4, so this is inside the sums.
        unsafe {
            let dw = s.load(panels.add(p * panel_len).cast());
            for (r, dots) in dots.iter().enumerate() {
                let dx = s.splat(*x.scales.add(r * blocks + index));
                let acc = sums.0.as_mut_ptr().add((r * P + p) * LANES);
                s.store(acc, s.fma(s.to_f(dots[p]), s.mul(dx, dw), s.load(acc)));
            }
        }
    }
}

#[inline(always)]
fn store<S: Simd, const R: usize, const P: usize>(s: S, acc: &[[S::F; P]; R], sums: &mut Sums) {
    const { assert!(R <= MAX_ROWS && P <= MAX_PANELS) };
    for (r, acc) in acc.iter().enumerate() {
        for (p, acc) in acc.iter().enumerate() {
            // SAFETY: r < 8 and p < P <= 4, so this is inside the 8 × 4 × 16 sums.
            unsafe { s.store(sums.0.as_mut_ptr().add((r * P + p) * LANES), *acc) }
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
pub(crate) use by_rows;

/// # Safety
/// As [`float`], with `panels` panels and `rows` rows.
#[inline(always)]
#[allow(clippy::too_many_arguments)] // sizes and pointers of one product
pub(crate) unsafe fn float_rows<S: Simd, T: Element>(
    s: S,
    weights: *const T,
    panel_len: usize,
    panels: usize,
    depth: usize,
    x: *const T::Input,
    rows: usize,
    ahead: Ahead,
    sums: &mut Sums,
) {
    // The tile sizes that products ask for: others are not compiled.
    macro_rules! call {
        ($r:literal) => {
            // SAFETY: promised by the caller.
            unsafe {
                if $r > S::FLOAT_TILE.0 {
                    unreachable!()
                } else if panels == 1 {
                    float::<S, T, $r, 1>(s, weights, panel_len, depth, x, ahead, sums)
                } else if panels == 4 && ($r == 1 || $r == 2 && S::PAIR_PANELS == 4) {
                    float::<S, T, $r, 4>(s, weights, panel_len, depth, x, ahead, sums)
                } else if panels == 2 && $r == 2 && S::PAIR_PANELS == 2 {
                    float::<S, T, $r, 2>(s, weights, panel_len, depth, x, ahead, sums)
                } else if panels == 3 && S::FLOAT_TILE.1 == 3 {
                    float::<S, T, $r, 3>(s, weights, panel_len, depth, x, ahead, sums)
                } else {
                    unreachable!()
                }
            }
        };
    }
    by_rows!(rows, call)
}

/// # Safety
/// As [`quant`], with `panels` panels and `rows` rows.
#[inline(always)]
#[allow(clippy::too_many_arguments)] // sizes and pointers of one product
pub(crate) unsafe fn quant_rows<S: Simd, const NIBBLES: bool>(
    s: S,
    weights: *const u8,
    panel_len: usize,
    panels: usize,
    k: usize,
    x: QuantRows,
    rows: usize,
    ahead: Ahead,
    sums: &mut Sums,
) {
    let blocks = k / BLOCK;
    macro_rules! call {
        ($r:literal) => {
            // SAFETY: promised by the caller.
            unsafe {
                if $r > S::QUANT_ROWS {
                    unreachable!()
                } else if panels == 1 {
                    quant::<S, NIBBLES, $r, 1>(s, weights, panel_len, blocks, x, ahead, sums)
                } else if panels == 2 && ($r == 1 || S::QUANT_TILE.1 == 2) {
                    quant::<S, NIBBLES, $r, 2>(s, weights, panel_len, blocks, x, ahead, sums)
                } else {
                    unreachable!()
                }
            }
        };
    }
    by_rows!(rows, call)
}

/// # Safety
/// As [`int8`], with `panels` panels and `rows` rows.
#[inline(always)]
pub(crate) unsafe fn int8_rows<S: Simd>(
    s: S,
    weights: *const u8,
    panel_len: usize,
    panels: usize,
    block: Int8Block,
    rows: usize,
    sums: &mut Sums,
) {
    macro_rules! call {
        ($r:literal) => {
            // SAFETY: promised by the caller.
            unsafe {
                if $r > S::INT8_TILE.0.max(S::QUANT_ROWS) {
                    unreachable!()
                } else if panels == 1 {
                    int8::<S, $r, 1>(s, weights, panel_len, block, sums)
                } else if panels == 2 && ($r == 1 || S::INT8_TILE.1 == 2) {
                    int8::<S, $r, 2>(s, weights, panel_len, block, sums)
                } else if panels == 3 && S::INT8_TILE.1 == 3 {
                    int8::<S, $r, 3>(s, weights, panel_len, block, sums)
                } else {
                    unreachable!()
                }
            }
        };
    }
    by_rows!(rows, call)
}
