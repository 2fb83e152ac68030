//! What MPNet's attention adds to a score: a number that depends on the head and on how far the key is from the query.
//! Distances share buckets, as in T5 (Raffel et al. 2019): near ones have one each, far ones are spaced by their
//! logarithm.

/// Buckets that distances fall into: half for keys before the query and itself, half for keys after it.
pub const BUCKETS: usize = 32;
/// Beyond it all distances are one.
const FAR: usize = 128;

/// The bucket of a key that lies `ahead` positions after its query (negative: before it).
pub fn bucket(ahead: isize) -> usize {
    const HALF: usize = BUCKETS / 2;
    const EXACT: usize = HALF / 2;
    let side = if ahead > 0 { HALF } else { 0 };
    let distance = ahead.unsigned_abs();
    if distance < EXACT {
        return side + distance;
    }
    // In f32 and in this order, as transformers computes it: a distance at a bucket's edge falls on the same side.
    let ratio = (distance as f32 / EXACT as f32).ln() / ((FAR / EXACT) as f64).ln() as f32;
    side + (EXACT + (ratio * (HALF - EXACT) as f32) as usize).min(HALF - 1)
}
