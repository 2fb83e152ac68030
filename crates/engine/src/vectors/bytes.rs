//! What the file is written with: numbers and texts in little-endian order, read within bounds, and a checksum.

/// A sum of 64 bits over bytes, at some 20 GB/s a core. Each step is a bijection of its lane, so that a change within
/// one word is always found; any other is missed once in 2⁶⁴.
#[derive(Clone)]
pub(super) struct Checksum {
    lanes: [u64; 4],
    len: u64,
}

const PRIME: u64 = 0x9e37_79b1_85eb_ca87;

impl Checksum {
    pub fn new() -> Self {
        Self { lanes: [1, 2, 3, 4], len: 0 }
    }

    /// Slices are one after the other, each padded with zeros to whole words; in parts of whole groups of 32 bytes, a
    /// slice is the same as at once.
    pub fn add(&mut self, bytes: &[u8]) {
        let step = |lane: &mut u64, word: [u8; 8]| {
            *lane = (*lane ^ u64::from_le_bytes(word)).wrapping_mul(PRIME).rotate_left(29);
        };
        let (groups, rest) = bytes.as_chunks::<32>();
        for group in groups {
            let (words, _) = group.as_chunks::<8>();
            for (lane, word) in self.lanes.iter_mut().zip(words) {
                step(lane, *word);
            }
        }
        for (lane, part) in self.lanes.iter_mut().zip(rest.chunks(8)) {
            let mut word = [0; 8];
            word[..part.len()].copy_from_slice(part);
            step(lane, word);
        }
        self.len += bytes.len() as u64;
    }

    pub fn finish(&self) -> u64 {
        let fold = |sum: u64, lane: &u64| (sum ^ lane).wrapping_mul(PRIME).rotate_left(31);
        self.lanes.iter().fold(self.len, fold)
    }

    pub fn of(bytes: &[u8]) -> u64 {
        let mut sum = Self::new();
        sum.add(bytes);
        sum.finish()
    }
}

#[derive(Default)]
pub(super) struct Writer(pub Vec<u8>);

impl Writer {
    pub fn byte(&mut self, byte: u8) {
        self.0.push(byte);
    }

    pub fn u32(&mut self, value: u32) {
        self.0.extend(value.to_le_bytes());
    }

    pub fn u64(&mut self, value: u64) {
        self.0.extend(value.to_le_bytes());
    }

    pub fn text(&mut self, text: &str) {
        self.u32(text.len() as u32);
        self.0.extend(text.as_bytes());
    }
}

/// Reads what [`Writer`] wrote; `None` where it is something else.
pub(super) struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    pub fn bytes(&mut self, len: usize) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(bytes)
    }

    pub fn byte(&mut self) -> Option<u8> {
        Some(self.bytes(1)?[0])
    }

    pub fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.bytes(4)?.try_into().ok()?))
    }

    pub fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.bytes(8)?.try_into().ok()?))
    }

    pub fn text(&mut self) -> Option<&'a str> {
        let len = self.u32()?;
        std::str::from_utf8(self.bytes(len as usize)?).ok()
    }

    /// A count of things of at least `each` bytes, of which there cannot be more than are left.
    pub fn count(&mut self, each: usize) -> Option<usize> {
        let count = self.u32()? as usize;
        (count.checked_mul(each)? <= self.0.len()).then_some(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checksum_tells_every_flip_and_every_cut() {
        let bytes: Vec<u8> = (0..200u32).map(|i| (i * 37 % 251) as u8).collect();
        let whole = Checksum::of(&bytes);
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut other = bytes.clone();
                other[at] ^= 1 << bit;
                assert_ne!(Checksum::of(&other), whole);
            }
            assert_ne!(Checksum::of(&bytes[..at]), whole);
        }
    }
}
