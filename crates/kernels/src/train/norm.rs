//! Layer normalisation with what its backward pass needs.

use crate::Pool;
use crate::buffer::SharedMut;
use crate::simd::{Kernel, Simd, math};
use crate::types::LANES;

/// Rows of a task.
const ROWS: usize = 16;
/// Columns of a task of the sums over rows.
const COLUMNS: usize = 64;

/// Per row of `width`: out = (x - mean) · r · weight + bias, r = 1 / √(variance + eps). `stats` takes (mean, r) of each
/// row.
///
/// # Panics
/// If a slice does not have the length that its shape asks for; as do the other functions here.
#[allow(clippy::too_many_arguments)] // the operands of one formula
pub fn layer_norm_forward(
    pool: &Pool,
    x: &[f32],
    weight: &[f32],
    bias: &[f32],
    eps: f32,
    stats: &mut [f32],
    out: &mut [f32],
) {
    let width = weight.len();
    let rows = x.len() / width;
    assert!(
        x.len() == rows * width && out.len() == x.len() && stats.len() == 2 * rows && bias.len() == width
    );
    let (out, stats) = (SharedMut(out.as_mut_ptr()), SharedMut(stats.as_mut_ptr()));
    pool.run(rows.div_ceil(ROWS), |task| {
        let (first, count) = (task * ROWS, ROWS.min(rows - task * ROWS));
        // SAFETY: each task has its own rows.
        let (out, stats) =
            unsafe { (out.slice(first * width, count * width), stats.slice(2 * first, 2 * count)) };
        pool.isa().launch(Forward { x: &x[first * width..][..count * width], weight, bias, eps, stats, out });
    });
}

struct Forward<'a> {
    x: &'a [f32],
    weight: &'a [f32],
    bias: &'a [f32],
    eps: f32,
    stats: &'a mut [f32],
    out: &'a mut [f32],
}

impl Kernel for Forward<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let width = self.weight.len();
        let rows = self.x.chunks_exact(width).zip(self.out.chunks_exact_mut(width));
        for ((x, out), stats) in rows.zip(self.stats.chunks_exact_mut(2)) {
            let mut sum = s.zero();
            for x in x.chunks(LANES) {
                // SAFETY: the chunk's own elements.
                sum = s.add(sum, unsafe { s.load_head(x.as_ptr(), x.len(), 0.0) });
            }
            let mean = math::fold(s, sum) / width as f32;
            let mut square = s.zero();
            for x in x.chunks(LANES) {
                // SAFETY: as above. Lanes that are not there hold the mean, so they add 0.
                let centred = s.sub(unsafe { s.load_head(x.as_ptr(), x.len(), mean) }, s.splat(mean));
                square = s.fma(centred, centred, square);
            }
            let r = 1.0 / (math::fold(s, square) / width as f32 + self.eps).sqrt();
            stats.copy_from_slice(&[mean, r]);
            let operands = x.chunks(LANES).zip(self.weight.chunks(LANES)).zip(self.bias.chunks(LANES));
            for (((x, weight), bias), out) in operands.zip(out.chunks_mut(LANES)) {
                let n = x.len();
                // SAFETY: four chunks of n elements.
                unsafe {
                    let normal = s.mul(s.sub(s.load_head(x.as_ptr(), n, 0.0), s.splat(mean)), s.splat(r));
                    let y = s.fma(
                        normal,
                        s.load_head(weight.as_ptr(), n, 0.0),
                        s.load_head(bias.as_ptr(), n, 0.0),
                    );
                    s.store_head(out.as_mut_ptr(), n, y);
                }
            }
        }
    }
}

/// The gradients of [`layer_norm_forward`]: dx (+)= r · (g - mean(g) - n · mean(g · n)), where g = dy · weight and n is
/// the normalised row. `gradients` are d weight and d bias, added to (set if `set`); `None` if they are frozen.
#[allow(clippy::too_many_arguments)] // the operands of one formula
pub fn layer_norm_backward(
    pool: &Pool,
    dy: &[f32],
    x: &[f32],
    weight: &[f32],
    stats: &[f32],
    add: bool,
    dx: &mut [f32],
    gradients: Option<(&mut [f32], &mut [f32], bool)>,
) {
    let width = weight.len();
    let rows = x.len() / width;
    assert!(x.len() == rows * width && dy.len() == x.len() && dx.len() == x.len() && stats.len() == 2 * rows);
    if let Some((dweight, dbias, set)) = gradients {
        assert!(dweight.len() == width && dbias.len() == width);
        let (dweight, dbias) = (SharedMut(dweight.as_mut_ptr()), SharedMut(dbias.as_mut_ptr()));
        pool.run(width.div_ceil(COLUMNS), |task| {
            let (first, count) = (task * COLUMNS, COLUMNS.min(width - task * COLUMNS));
            // SAFETY: each task has its own columns.
            let (dweight, dbias) = unsafe { (dweight.slice(first, count), dbias.slice(first, count)) };
            pool.isa().launch(Sums { dy, x, stats, width, first, set, dweight, dbias });
        });
    }
    let dx = SharedMut(dx.as_mut_ptr());
    pool.run(rows.div_ceil(ROWS), |task| {
        let (first, count) = (task * ROWS, ROWS.min(rows - task * ROWS));
        let range = first * width..(first + count) * width;
        // SAFETY: each task has its own rows.
        let dx = unsafe { dx.slice(range.start, range.len()) };
        let stats = &stats[2 * first..2 * (first + count)];
        pool.isa().launch(Backward { dy: &dy[range.clone()], x: &x[range], weight, stats, add, dx });
    });
}

struct Backward<'a> {
    dy: &'a [f32],
    x: &'a [f32],
    weight: &'a [f32],
    stats: &'a [f32],
    add: bool,
    dx: &'a mut [f32],
}

impl Kernel for Backward<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let width = self.weight.len();
        let rows = self.dy.chunks_exact(width).zip(self.x.chunks_exact(width));
        let rows = rows.zip(self.stats.chunks_exact(2)).zip(self.dx.chunks_exact_mut(width));
        for (((dy, x), stats), dx) in rows {
            let (mean, r) = (s.splat(stats[0]), s.splat(stats[1]));
            let (mut sum_g, mut sum_gn) = (s.zero(), s.zero());
            for ((dy, x), weight) in dy.chunks(LANES).zip(x.chunks(LANES)).zip(self.weight.chunks(LANES)) {
                let n = x.len();
                // SAFETY: three chunks of n elements.
                let (g, normal) = unsafe {
                    let g = s.mul(s.load_head(dy.as_ptr(), n, 0.0), s.load_head(weight.as_ptr(), n, 0.0));
                    (g, s.mul(s.sub(s.load_head(x.as_ptr(), n, 0.0), mean), r))
                };
                sum_g = s.add(sum_g, g);
                sum_gn = s.fma(g, normal, sum_gn);
            }
            let mean_g = s.splat(math::fold(s, sum_g) / width as f32);
            let mean_gn = s.splat(math::fold(s, sum_gn) / width as f32);
            let operands = dy.chunks(LANES).zip(x.chunks(LANES)).zip(self.weight.chunks(LANES));
            for (((dy, x), weight), dx) in operands.zip(dx.chunks_mut(LANES)) {
                let n = x.len();
                // SAFETY: four chunks of n elements.
                unsafe {
                    let g = s.mul(s.load_head(dy.as_ptr(), n, 0.0), s.load_head(weight.as_ptr(), n, 0.0));
                    let normal = s.mul(s.sub(s.load_head(x.as_ptr(), n, 0.0), mean), r);
                    let centred = s.sub(s.sub(g, mean_g), s.mul(normal, mean_gn));
                    let from = if self.add { s.load_head(dx.as_ptr(), n, 0.0) } else { s.zero() };
                    s.store_head(dx.as_mut_ptr(), n, s.fma(centred, r, from));
                }
            }
        }
    }
}

/// Sums over rows for some columns.
struct Sums<'a> {
    dy: &'a [f32],
    x: &'a [f32],
    stats: &'a [f32],
    width: usize,
    first: usize,
    set: bool,
    dweight: &'a mut [f32],
    dbias: &'a mut [f32],
}

impl Kernel for Sums<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        const PARTS: usize = COLUMNS / LANES;
        let count = self.dbias.len();
        let (mut dweight, mut dbias) = ([s.zero(); PARTS], [s.zero(); PARTS]);
        let rows = self.dy.chunks_exact(self.width).zip(self.x.chunks_exact(self.width));
        for ((dy, x), stats) in rows.zip(self.stats.chunks_exact(2)) {
            let (dy, x) = (&dy[self.first..][..count], &x[self.first..][..count]);
            let (mean, r) = (s.splat(stats[0]), s.splat(stats[1]));
            let sums = dweight.iter_mut().zip(&mut dbias);
            for ((dy, x), (dweight, dbias)) in dy.chunks(LANES).zip(x.chunks(LANES)).zip(sums) {
                // SAFETY: two chunks of as many elements.
                unsafe {
                    let dy = s.load_head(dy.as_ptr(), dy.len(), 0.0);
                    let normal = s.mul(s.sub(s.load_head(x.as_ptr(), x.len(), 0.0), mean), r);
                    *dweight = s.fma(dy, normal, *dweight);
                    *dbias = s.add(*dbias, dy);
                }
            }
        }
        let set = self.set;
        store_sums(s, &dweight, set, self.dweight);
        store_sums(s, &dbias, set, self.dbias);
    }
}

/// out (+)= sums.
#[inline(always)]
pub(super) fn store_sums<S: Simd>(s: S, sums: &[S::F], set: bool, out: &mut [f32]) {
    for (out, sum) in out.chunks_mut(LANES).zip(sums) {
        // SAFETY: the chunk's own elements.
        unsafe {
            let from = if set { s.zero() } else { s.load_head(out.as_ptr(), out.len(), 0.0) };
            s.store_head(out.as_mut_ptr(), out.len(), s.add(from, *sum));
        }
    }
}
