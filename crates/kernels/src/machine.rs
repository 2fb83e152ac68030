//! The machine's limits: its memory bandwidth and its peak of multiply-adds. Every speed that the project
//! reports is a share of these, measured in the same run.

use crate::Pool;
use crate::buffer::Buffer;
use crate::simd::{Element, Kernel, Simd};
use crate::types::{LANES, Pair};
use std::hint::black_box;
use std::marker::PhantomData;
use std::time::Instant;

/// Bytes that one task reads in a row.
const CHUNK: usize = 1 << 20;

/// Memory whose reading measures the bandwidth. Other machines on the same host change it by a factor of two within a
/// minute, so a speed and the bandwidth that it is compared with are measured in turns.
pub struct Memory {
    data: Buffer<u8>,
}

impl Memory {
    /// 1 GiB is far beyond any cache.
    pub fn new(bytes: usize) -> Self {
        let mut data = Buffer::zeroed_huge(bytes.next_multiple_of(CHUNK));
        // Pages that were never written may all be one page of zeros.
        data.fill(1);
        Self { data }
    }

    /// Seconds per byte in which the pool's threads together read the first `bytes`, at most all of it.
    pub fn read(&self, pool: &Pool, bytes: usize) -> f64 {
        let chunks = bytes.clamp(CHUNK, self.data.len()) / CHUNK;
        let start = Instant::now();
        pool.run(chunks, |chunk| {
            black_box(pool.isa().launch(Read(&self.data[chunk * CHUNK..][..CHUNK])));
        });
        start.elapsed().as_secs_f64() / (chunks * CHUNK) as f64
    }
}

/// Bytes per second that the pool's threads read together from 1 GiB: the best of `passes`.
pub fn read_bandwidth(pool: &Pool, passes: usize) -> f64 {
    let memory = Memory::new(1 << 30);
    let _awake = pool.active();
    1.0 / (0..passes.max(1)).map(|_| memory.read(pool, 1 << 30)).fold(f64::INFINITY, f64::min)
}

/// Floating-point operations per second (two per multiply-add) of f32, from registers.
pub fn fma_peak(pool: &Pool, passes: usize) -> f64 {
    peak(pool, passes, 2.0, |rounds| pool.isa().launch(Multiply::<f32>(rounds, PhantomData)))
}

/// As [`fma_peak`], of int8 with int32 sums.
pub fn int8_peak(pool: &Pool, passes: usize) -> f64 {
    peak(pool, passes, 8.0, |rounds| pool.isa().launch(Dot(rounds)))
}

/// As [`fma_peak`], of bf16 with f32 sums.
pub fn bf16_peak(pool: &Pool, passes: usize) -> f64 {
    peak(pool, passes, 4.0, |rounds| pool.isa().launch(Multiply::<Pair>(rounds, PhantomData)))
}

/// `work(rounds)` runs `rounds` steps of its returned number of independent 16-lane operations.
fn peak(pool: &Pool, passes: usize, per_lane: f64, work: impl Fn(usize) -> usize + Sync) -> f64 {
    let _awake = pool.active();
    // About a millisecond a task at 1 TFLOP/s; enough of them to keep all threads busy.
    let (rounds, tasks) = (1_000_000 / LANES, 16 * pool.threads());
    let pass = || {
        let start = Instant::now();
        let operations = std::sync::atomic::AtomicUsize::new(0);
        pool.run(tasks, |_| {
            operations.fetch_add(rounds * work(rounds), std::sync::atomic::Ordering::Relaxed);
        });
        (operations.into_inner() * LANES) as f64 * per_lane / start.elapsed().as_secs_f64()
    };
    (0..passes.max(1)).map(|_| pass()).fold(0.0, f64::max)
}

struct Read<'a>(&'a [u8]);

impl Kernel for Read<'_> {
    type Output = i32;
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> i32 {
        let mut most = [s.splat_i(0); 4];
        for part in self.0.chunks_exact(4 * LANES * 4) {
            for (i, most) in most.iter_mut().enumerate() {
                let at = part.as_ptr().wrapping_add(i * LANES * 4);
                // SAFETY: the part is 4 × 64 bytes.
                *most = s.max_i(*most, s.bits(unsafe { s.load(at.cast()) }));
            }
        }
        s.lanes_i(s.max_i(s.max_i(most[0], most[1]), s.max_i(most[2], most[3])))[0]
    }
}

/// Rounds of products of f32, or of pairs of bf16.
struct Multiply<T>(usize, PhantomData<T>);

impl<T: Element> Kernel for Multiply<T> {
    type Output = usize;
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> usize {
        // 12 registers or more: enough to hide a latency of 4 to 5 cycles on two ports.
        match (S::FLOAT_TILE.1, T::DEPTH) {
            (2.., _) => multiply::<S, T, 12>(s, self.0),
            (_, 1) => multiply::<S, T, 6>(s, self.0),
            _ => multiply::<S, T, 4>(s, self.0),
        }
    }
}

#[inline(always)]
fn multiply<S: Simd, T: Element, const N: usize>(s: S, rounds: usize) -> usize {
    // Small numbers, as f32 and as two bf16.
    let (w, x) = (black_box([0x3f80_3f80_u32; LANES]), black_box(0x3c00_3c00_u32));
    // SAFETY: 16 elements and one input, of four bytes each.
    let (w, x) = unsafe { (T::load(s, w.as_ptr().cast()), T::splat(s, (&raw const x).cast())) };
    let mut acc = [s.zero(); N];
    for _ in 0..rounds {
        for acc in &mut acc {
            *acc = T::fma(s, x, w, *acc);
        }
    }
    acc.iter().for_each(|acc| _ = black_box(s.lanes(*acc)));
    N
}

struct Dot(usize);

impl Kernel for Dot {
    type Output = usize;
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> usize {
        if S::FLOAT_TILE.1 > 1 { dot::<S, 12>(s, self.0) } else { dot::<S, 4>(s, self.0) }
    }
}

#[inline(always)]
fn dot<S: Simd, const N: usize>(s: S, rounds: usize) -> usize {
    // Different weights each round and a different input for each sum, so that nothing can be computed once.
    let (bytes, fours) = (black_box([1u8; 16 * 64]), black_box([[1i8; 4]; N]));
    let mut acc = [s.splat_i(0); N];
    for round in 0..rounds {
        // SAFETY: 16 × 64 bytes.
        let w = unsafe { s.load_bytes(bytes.as_ptr().add(round % 16 * 64)) };
        for (acc, four) in acc.iter_mut().zip(&fours) {
            // SAFETY: 4 bytes.
            *acc = s.dot_bytes(*acc, w, unsafe { s.splat_bytes(four.as_ptr()) });
        }
    }
    acc.iter().for_each(|acc| _ = black_box(s.lanes_i(*acc)));
    N
}
