//! What happens value by value: activations, dropout, residuals; and sums over rows.

use super::norm::store_sums;
use super::random::Dropout;
use crate::buffer::SharedMut;
use crate::math::{erf, gelu_new};
use crate::simd::{Kernel, Simd, math};
use crate::types::LANES;
use crate::{Activation, Pool};

/// Values of a task.
const PART: usize = 1 << 14;
/// Columns of a task of `column_sums`.
const COLUMNS: usize = 64;

/// Calls `f(first, part)` for parts of `out`, each of which a task has to itself.
fn by_parts(pool: &Pool, out: &mut [f32], f: impl Fn(usize, &mut [f32]) + Sync) {
    let (len, out) = (out.len(), SharedMut(out.as_mut_ptr()));
    pool.run(len.div_ceil(PART), |task| {
        let first = task * PART;
        // SAFETY: parts are disjoint.
        f(first, unsafe { out.slice(first, PART.min(len - first)) });
    });
}

/// A function of 16 values of `x` and as many of `out`, and of their index.
trait Lanes: Copy {
    fn apply<S: Simd>(self, s: S, index: u32, x: S::F, out: S::F) -> S::F;
}

/// out = f(x, out).
struct Map<'a, F> {
    f: F,
    first: usize,
    x: &'a [f32],
    out: &'a mut [f32],
}

impl<F: Lanes> Kernel for Map<'_, F> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let mut index = self.first as u32;
        for (x, out) in self.x.chunks(LANES).zip(self.out.chunks_mut(LANES)) {
            let n = out.len();
            // SAFETY: two chunks of n elements.
            unsafe {
                let y = self.f.apply(
                    s,
                    index,
                    s.load_head(x.as_ptr(), n, 0.0),
                    s.load_head(out.as_ptr(), n, 0.0),
                );
                s.store_head(out.as_mut_ptr(), n, y);
            }
            index = index.wrapping_add(LANES as u32);
        }
    }
}

fn map(pool: &Pool, f: impl Lanes + Sync, x: &[f32], out: &mut [f32]) {
    assert_eq!(x.len(), out.len(), "as many values out as in");
    by_parts(pool, out, |first, out| {
        pool.isa().launch(Map { f, first, x: &x[first..][..out.len()], out });
    });
}

#[derive(Clone, Copy)]
struct Activate(Activation);
impl Lanes for Activate {
    #[inline(always)]
    fn apply<S: Simd>(self, s: S, _: u32, x: S::F, _: S::F) -> S::F {
        math::activate(s, self.0, x)
    }
}

/// out = activation(x).
pub fn activation_forward(pool: &Pool, activation: Activation, x: &[f32], out: &mut [f32]) {
    map(pool, Activate(activation), x, out);
}

#[derive(Clone, Copy)]
struct ActivateBackward(Activation);
impl Lanes for ActivateBackward {
    /// x: the activation's input; dy: the gradient of its output.
    #[inline(always)]
    fn apply<S: Simd>(self, s: S, _: u32, x: S::F, dy: S::F) -> S::F {
        let one = s.splat(1.0);
        let derivative = match self.0 {
            // y = x σ(2u), u = √(2/π) (x + 0.044715 x³): y' = σ + x σ (1 - σ) (2u)'. The constants hold -2u.
            Activation::GeluNew => {
                let (linear, cubic) = (s.splat(gelu_new::LINEAR), s.splat(gelu_new::CUBIC));
                let square = s.mul(x, x);
                let minus_u = s.mul(x, s.fma(cubic, square, linear));
                let slope = s.fma(s.mul(s.splat(3.0), cubic), square, linear);
                let (sigma, falling) = sigmoid(s, minus_u);
                s.sub(sigma, s.mul(s.mul(x, falling), slope))
            }
            // y = x Φ(x): y' = Φ + x φ.
            Activation::Gelu => {
                let scaled = s.mul(x, s.splat(std::f32::consts::FRAC_1_SQRT_2));
                let error = math::odd_rational(s, erf::BOUND, &erf::P, &erf::Q, scaled);
                let half = s.splat(0.5);
                let phi = s.fma(half, error, half);
                let density = math::exp(s, s.mul(s.mul(x, x), s.splat(-0.5)));
                let density = s.mul(density, s.splat(0.398_942_3));
                s.fma(x, density, phi)
            }
            Activation::Relu => s.select_lt(s.zero(), x, one, s.zero()),
            Activation::Silu => {
                let (sigma, falling) = sigmoid(s, s.sub(s.zero(), x));
                s.fma(x, falling, sigma)
            }
            Activation::Tanh => {
                let y = math::activate(s, Activation::Tanh, x);
                s.sub(one, s.mul(y, y))
            }
        };
        s.mul(dy, derivative)
    }
}

/// σ(x) and σ(x) (1 - σ(x)) from -x, the latter without the cancellation of 1 - σ.
#[inline(always)]
fn sigmoid<S: Simd>(s: S, minus_x: S::F) -> (S::F, S::F) {
    // Where the exponential would overflow, σ has long been 0 beside anything.
    let bound = s.splat(80.0);
    let e = math::exp(s, s.select_lt(bound, minus_x, bound, minus_x));
    let sigma = s.div(s.splat(1.0), s.add(s.splat(1.0), e));
    (sigma, s.mul(s.mul(sigma, e), sigma))
}

/// dy ← dx: the gradient of the activation's output becomes that of its input `x`.
pub fn activation_backward(pool: &Pool, activation: Activation, x: &[f32], dy: &mut [f32]) {
    map(pool, ActivateBackward(activation), x, dy);
}

#[derive(Clone, Copy)]
struct Add;
impl Lanes for Add {
    #[inline(always)]
    fn apply<S: Simd>(self, s: S, _: u32, x: S::F, out: S::F) -> S::F {
        s.add(out, x)
    }
}

/// out += x.
pub fn add(pool: &Pool, x: &[f32], out: &mut [f32]) {
    map(pool, Add, x, out);
}

#[derive(Clone, Copy)]
struct AddDropout(Dropout);
impl Lanes for AddDropout {
    #[inline(always)]
    fn apply<S: Simd>(self, s: S, index: u32, x: S::F, out: S::F) -> S::F {
        // SAFETY: 16 factors.
        s.fma(x, unsafe { s.load(self.0.factors(index).as_ptr()) }, out)
    }
}

/// out += dropout(x).
pub fn add_dropout(pool: &Pool, dropout: Option<Dropout>, x: &[f32], out: &mut [f32]) {
    match dropout {
        Some(dropout) => map(pool, AddDropout(dropout), x, out),
        None => add(pool, x, out),
    }
}

#[derive(Clone, Copy)]
struct Drop(Dropout);
impl Lanes for Drop {
    #[inline(always)]
    fn apply<S: Simd>(self, s: S, index: u32, x: S::F, _: S::F) -> S::F {
        // SAFETY: 16 factors.
        s.mul(x, unsafe { s.load(self.0.factors(index).as_ptr()) })
    }
}

#[derive(Clone, Copy)]
struct Scale(f32);
impl Lanes for Scale {
    #[inline(always)]
    fn apply<S: Simd>(self, s: S, _: u32, x: S::F, _: S::F) -> S::F {
        s.mul(x, s.splat(self.0))
    }
}

/// out = dropout(x).
pub fn dropout_forward(pool: &Pool, dropout: Option<Dropout>, x: &[f32], out: &mut [f32]) {
    match dropout {
        Some(dropout) => map(pool, Drop(dropout), x, out),
        None => out.copy_from_slice(x),
    }
}

/// dy ← dx of [`dropout_forward`].
pub fn dropout_backward(pool: &Pool, dropout: Option<Dropout>, dy: &mut [f32]) {
    if let Some(dropout) = dropout {
        in_place(pool, Drop(dropout), dy);
    }
}

/// x ← factor · x.
pub fn scale(pool: &Pool, factor: f32, x: &mut [f32]) {
    in_place(pool, Scale(factor), x);
}

fn in_place(pool: &Pool, f: impl Lanes + Sync, x: &mut [f32]) {
    #[derive(Clone, Copy)]
    struct OnOut<F>(F);
    impl<F: Lanes> Lanes for OnOut<F> {
        #[inline(always)]
        fn apply<S: Simd>(self, s: S, index: u32, _: S::F, out: S::F) -> S::F {
            self.0.apply(s, index, out, out)
        }
    }
    const ZEROS: &[f32] = &[0.0; PART];
    by_parts(pool, x, |first, out| {
        let x = &ZEROS[..out.len()];
        pool.isa().launch(Map { f: OnOut(f), first, x, out });
    });
}

/// out (+)= the sum of the rows of x: a bias's gradient. `set`: out is overwritten.
/// `width` and `from`: x's columns, and the first of those that are summed.
pub fn column_sums(pool: &Pool, x: &[f32], width: usize, from: usize, set: bool, out: &mut [f32]) {
    let columns = out.len();
    assert!(from + columns <= width && x.len().is_multiple_of(width), "x is [rows, {width}]");
    let out = SharedMut(out.as_mut_ptr());
    pool.run(columns.div_ceil(COLUMNS), |task| {
        let (first, count) = (task * COLUMNS, COLUMNS.min(columns - task * COLUMNS));
        // SAFETY: each task has its own columns.
        let out = unsafe { out.slice(first, count) };
        pool.isa().launch(Sums { x, width, first: from + first, set, out });
    });
}

struct Sums<'a> {
    x: &'a [f32],
    width: usize,
    first: usize,
    set: bool,
    out: &'a mut [f32],
}

impl Kernel for Sums<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let mut sums = [s.zero(); COLUMNS / LANES];
        for row in self.x.chunks_exact(self.width) {
            let row = &row[self.first..][..self.out.len()];
            for (x, sum) in row.chunks(LANES).zip(&mut sums) {
                // SAFETY: the chunk's own elements.
                *sum = s.add(*sum, unsafe { s.load_head(x.as_ptr(), x.len(), 0.0) });
            }
        }
        store_sums(s, &sums, self.set, self.out);
    }
}
