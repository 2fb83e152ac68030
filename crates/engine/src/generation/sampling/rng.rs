//! Random numbers without state: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011).
//! The number is a function of (seed, position, sample), so no batch, thread or pause can change it and a stream can be
//! resumed at any token by sending what it had so far as the prompt.

/// Ten rounds over a 128-bit counter under a 64-bit key.
pub fn philox4x32_10(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..10 {
        let a = u64::from(counter[0]) * 0xD251_1F53;
        let b = u64::from(counter[2]) * 0xCD9E_8D57;
        counter = [
            (b >> 32) as u32 ^ counter[1] ^ key[0],
            b as u32,
            (a >> 32) as u32 ^ counter[3] ^ key[1],
            a as u32,
        ];
        key = [key[0].wrapping_add(0x9E37_79B9), key[1].wrapping_add(0xBB67_AE85)];
    }
    counter
}

/// Uniform in [0, 1) with 53 random bits. `position` counts from the prompt's first token, `sample` tells apart the `n`
/// continuations of one prompt.
pub fn uniform(seed: u64, position: u64, sample: u32) -> f64 {
    let counter = [position as u32, (position >> 32) as u32, sample, 0];
    let [a, b, ..] = philox4x32_10(counter, [seed as u32, (seed >> 32) as u32]);
    let bits = (u64::from(a) << 32 | u64::from(b)) >> 11;
    bits as f64 / (1u64 << 53) as f64
}

/// A seed from the operating system's entropy. 53 bits, so that it is exact as a JavaScript number.
pub fn fresh_seed() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::hash::RandomState::new().build_hasher().finish() >> 11
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `kat_vectors` of the Random123 distribution, philox4x32 with 10 rounds.
    #[test]
    fn known_answers() {
        let cases = [
            ([0; 4], [0; 2], [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8]),
            ([u32::MAX; 4], [u32::MAX; 2], [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd]),
            (
                [0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344],
                [0xa4093822, 0x299f31d0],
                [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1],
            ),
        ];
        for (counter, key, expected) in cases {
            assert_eq!(philox4x32_10(counter, key), expected);
        }
    }

    #[test]
    fn uniform_is_uniform_and_differs_by_every_argument() {
        // 40,000 numbers: one standard deviation of the mean is 0.0014.
        let mean = (0..40_000).map(|i| uniform(i % 20, i, 0)).sum::<f64>() / 40_000.0;
        assert!((mean - 0.5).abs() < 0.005, "{mean}");
        let base = uniform(7, 3, 1);
        assert!([uniform(8, 3, 1), uniform(7, 4, 1), uniform(7, 3, 2)].iter().all(|x| *x != base));
        assert!((0..10_000).all(|i| (0.0..1.0).contains(&uniform(i, i * 31, 2))));
    }

    #[test]
    fn fresh_seeds_fit_a_javascript_number() {
        let seeds: std::collections::HashSet<u64> = (0..100).map(|_| fresh_seed()).collect();
        assert!(seeds.len() > 90);
        assert!(seeds.iter().all(|seed| *seed < 1 << 53));
    }
}
