//! Slices of a text by UTF-16 offsets.

/// A text, and which byte each of its UTF-16 code units is at.
pub struct Utf16<'a> {
    text: &'a str,
    /// One past the end included; empty: ASCII, where both are the same. The second half of a pair: where its character
    /// ends.
    bytes: Vec<u32>,
}

impl<'a> Utf16<'a> {
    pub fn new(text: &'a str) -> Self {
        let mut bytes = Vec::new();
        if !text.is_ascii() {
            for (at, c) in text.char_indices() {
                bytes.push(at as u32);
                if c.len_utf16() == 2 {
                    bytes.push((at + c.len_utf8()) as u32);
                }
            }
            bytes.push(text.len() as u32);
        }
        Self { text, bytes }
    }

    pub fn slice(&self, start: u32, end: u32) -> &'a str {
        let byte = |unit: u32| match self.bytes.is_empty() {
            true => unit as usize,
            false => self.bytes.get(unit as usize).map_or(self.text.len(), |byte| *byte as usize),
        };
        self.text.get(byte(start)..byte(end)).unwrap_or_default()
    }
}
