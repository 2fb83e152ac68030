//! What the tests share. Equality is always of bits: a tolerance would hide a changed order.
#![allow(dead_code)] // each test file uses a part

use candlewick_kernels::{Isa, Pool};

/// A small generator of reproducible numbers (splitmix64).
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// About normal, with a few large values as real activations have.
    pub fn value(&mut self) -> f32 {
        let unit = |bits: u64| (bits >> 40) as f32 / (1u64 << 24) as f32;
        let sum: f32 = (0..4).map(|_| unit(self.next()) - 0.5).sum();
        if self.next().is_multiple_of(64) { sum * 20.0 } else { sum }
    }

    pub fn values(&mut self, len: usize) -> Vec<f32> {
        (0..len).map(|_| self.value()).collect()
    }

    pub fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }
}

/// A pool per instruction set that this machine has.
pub fn pools(threads: usize) -> Vec<Pool> {
    let available = Isa::ALL.into_iter().filter(|isa| isa.is_available());
    available.map(|isa| Pool::with_isa(threads, isa).expect("it is available")).collect()
}

#[track_caller]
pub fn assert_same_bits(got: &[f32], expected: &[f32], what: &str) {
    assert_eq!(got.len(), expected.len(), "{what}");
    for (i, (g, e)) in got.iter().zip(expected).enumerate() {
        assert!(
            g.to_bits() == e.to_bits(),
            "{what}: element {i} is {g:?} ({:#x}), expected {e:?} ({:#x})",
            g.to_bits(),
            e.to_bits()
        );
    }
}
