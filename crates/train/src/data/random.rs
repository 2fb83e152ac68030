//! Random numbers as a function of (seed, purpose, position): a checkpoint needs no generator state.

/// SplitMix64 (Steele, Lea, Flood 2014).
pub struct Stream(u64);

/// The numbers of one purpose: (seed, epoch, row).
pub fn stream(seed: u64, epoch: u64, row: u64) -> Stream {
    let mut state = seed;
    for part in [epoch, row] {
        state = Stream(state).next() ^ part;
    }
    Stream(Stream(state).next())
}

impl Stream {
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// 0 ≤ x < 1
    pub fn uniform(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// 0 ≤ x < `end`; the bias is below 2⁻³² for the sizes here.
    pub fn below(&mut self, end: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(end)) >> 64) as u64
    }
}
