//! A set of rows: a bit for each.

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RowSet {
    words: Vec<u64>,
    /// Rows below it may be in.
    len: usize,
    count: usize,
}

impl RowSet {
    /// Of `len` rows all, or none.
    pub fn new(len: usize, all: bool) -> Self {
        let mut set = Self { words: vec![if all { u64::MAX } else { 0 }; len.div_ceil(64)], len, count: 0 };
        set.mask_tail();
        set.recount();
        set
    }

    /// The rows below `len` for which `inside` holds.
    pub fn of(len: usize, mut inside: impl FnMut(usize) -> bool) -> Self {
        let mut set = Self::new(len, false);
        for row in 0..len {
            set.words[row / 64] |= u64::from(inside(row)) << (row % 64);
        }
        set.recount();
        set
    }

    /// Rows that are in.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Rows that may be in.
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub fn contains(&self, row: usize) -> bool {
        row < self.len && self.words[row / 64] >> (row % 64) & 1 == 1
    }

    /// Adds the row `len`.
    pub fn push(&mut self) {
        if self.len.is_multiple_of(64) {
            self.words.push(0);
        }
        self.words[self.len / 64] |= 1 << (self.len % 64);
        self.len += 1;
        self.count += 1;
    }

    /// Whether it was in.
    pub fn remove(&mut self, row: usize) -> bool {
        let was = self.contains(row);
        if was {
            self.words[row / 64] &= !(1 << (row % 64));
            self.count -= 1;
        }
        was
    }

    pub fn and(&mut self, other: &Self) {
        for (at, word) in self.words.iter_mut().enumerate() {
            *word &= other.words.get(at).copied().unwrap_or(0);
        }
        self.recount();
    }

    pub fn or(&mut self, other: &Self) {
        self.words.iter_mut().zip(&other.words).for_each(|(word, other)| *word |= other);
        self.mask_tail();
        self.recount();
    }

    pub fn invert(&mut self) {
        self.words.iter_mut().for_each(|word| *word = !*word);
        self.mask_tail();
        self.recount();
    }

    /// In ascending order.
    pub fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.words.iter().enumerate().flat_map(|(at, word)| {
            let mut left = *word;
            std::iter::from_fn(move || {
                let bit = left.trailing_zeros() as usize;
                left &= left.wrapping_sub(1);
                (bit < 64).then_some(at * 64 + bit)
            })
        })
    }

    fn mask_tail(&mut self) {
        if let Some(last) = self.words.last_mut().filter(|_| !self.len.is_multiple_of(64)) {
            *last &= (1 << (self.len % 64)) - 1;
        }
    }

    fn recount(&mut self) {
        self.count = self.words.iter().map(|word| word.count_ones() as usize).sum();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_a_set_of_rows() {
        for len in [0, 1, 63, 64, 65, 200] {
            let mut all = RowSet::new(len, true);
            assert!(all.count() == len && all.iter().eq(0..len));
            let odd = RowSet::of(len, |row| row % 2 == 1);
            let mut even = odd.clone();
            even.invert();
            assert!(even.iter().eq((0..len).filter(|row| row % 2 == 0)));
            let mut none = odd.clone();
            none.and(&even);
            assert!(none.is_empty());
            even.or(&odd);
            assert_eq!(even, all);
            all.push();
            assert!(all.contains(len) && all.remove(len) && !all.remove(len) && all.count() == len);
        }
    }
}
