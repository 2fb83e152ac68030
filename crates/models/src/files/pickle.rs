//! Checks `pytorch_model.bin` before Candle's unpickler reads it: bounds what the unpickler would build.
//!
//! The unpickler executes nothing, but it copies whatever the memo gives back and drops nested values by recursion, so
//! a few hundred bytes can ask for all memory or all stack. This walks the same opcodes with the sizes of the objects
//! instead of the objects.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

/// A GPT-2 XL's pickle has about 60 kB.
const MAX_PICKLE_BYTES: u64 = 16 << 20;
/// Objects built and copied in all; GPT-2 XL's has about 20,000.
const MAX_OBJECTS: u64 = 1 << 20;
const MAX_DEPTH: u32 = 64;

/// Checks every pickle in the archive at `path`.
pub(crate) fn check(path: &Path) -> Result<(), String> {
    let file = File::open(path).map_err(|e| e.to_string())?;
    let mut archive = zip::ZipArchive::new(BufReader::new(file)).map_err(|e| e.to_string())?;
    for index in 0..archive.len() {
        let entry = archive.by_index(index).map_err(|e| e.to_string())?;
        if !entry.name().map_err(|e| e.to_string())?.ends_with("data.pkl") {
            continue;
        }
        let mut bytes = Vec::new();
        entry.take(MAX_PICKLE_BYTES + 1).read_to_end(&mut bytes).map_err(|e| e.to_string())?;
        if bytes.len() as u64 > MAX_PICKLE_BYTES {
            return Err(format!("a pickle of over {MAX_PICKLE_BYTES} bytes"));
        }
        Walk { bytes: &bytes, stack: Vec::new(), memo: HashMap::new(), built: 0 }.run()?;
    }
    Ok(())
}

/// An object's parts, itself included, and how deep they nest.
#[derive(Clone, Copy)]
struct Size {
    parts: u64,
    depth: u32,
}

struct Walk<'a> {
    bytes: &'a [u8],
    /// `None`: a mark.
    stack: Vec<Option<Size>>,
    memo: HashMap<u32, Size>,
    built: u64,
}

impl Walk<'_> {
    fn run(mut self) -> Result<(), String> {
        loop {
            match self.byte()? {
                b'.' => return Ok(()),
                0x80 => drop(self.number(1)?),
                b'c' => {
                    self.line()?;
                    self.line()?;
                    self.push_leaf(1)?;
                }
                b'K' => self.leaf_of(1)?,
                b'M' => self.leaf_of(2)?,
                b'J' => self.leaf_of(4)?,
                b'G' => self.leaf_of(8)?,
                0x8a => {
                    let length = self.number(1)?;
                    self.leaf_of(length as usize)?;
                }
                b'X' => {
                    let length = self.number(4)?;
                    self.skip(length as usize)?;
                    self.push_leaf(1 + u64::from(length) / 32)?;
                }
                0x88 | 0x89 | b'N' | b'}' | b']' | b')' => self.push_leaf(1)?,
                b'(' => self.stack.push(None),
                b'Q' | 0x85 => self.gather(1)?,
                0x86 | b'R' | b'b' | 0x81 | b'a' => self.gather(2)?,
                0x87 | b's' => self.gather(3)?,
                b't' | b'd' => {
                    let parts = self.since_mark()?;
                    self.gather(parts)?;
                }
                b'e' | b'u' => {
                    let parts = self.since_mark()?;
                    self.gather(parts + 1)?; // and the list or dict below the mark
                }
                b'q' => self.put(1)?,
                b'r' => self.put(4)?,
                b'h' => self.get(1)?,
                b'j' => self.get(4)?,
                code => return Err(format!("pickle opcode {code:#04x}")),
            }
        }
    }

    fn byte(&mut self) -> Result<u8, String> {
        let (first, rest) = self.bytes.split_first().ok_or("a pickle that ends in the middle")?;
        self.bytes = rest;
        Ok(*first)
    }

    fn skip(&mut self, count: usize) -> Result<(), String> {
        self.bytes = self.bytes.get(count..).ok_or("a pickle that ends in the middle")?;
        Ok(())
    }

    /// A little-endian number of up to 4 bytes.
    fn number(&mut self, width: usize) -> Result<u32, String> {
        (0..width).try_fold(0, |n, i| Ok(n | u32::from(self.byte()?) << (8 * i)))
    }

    fn line(&mut self) -> Result<(), String> {
        while self.byte()? != b'\n' {}
        Ok(())
    }

    fn leaf_of(&mut self, bytes: usize) -> Result<(), String> {
        self.skip(bytes)?;
        self.push_leaf(1)
    }

    fn push_leaf(&mut self, parts: u64) -> Result<(), String> {
        self.push(Size { parts, depth: 1 })
    }

    fn push(&mut self, size: Size) -> Result<(), String> {
        if size.depth > MAX_DEPTH {
            return Err(format!("a pickle that nests over {MAX_DEPTH} deep"));
        }
        self.stack.push(Some(size));
        self.count(size.parts)
    }

    fn count(&mut self, parts: u64) -> Result<(), String> {
        self.built = self.built.saturating_add(parts);
        if self.built > MAX_OBJECTS { Err(format!("a pickle of over {MAX_OBJECTS} objects")) } else { Ok(()) }
    }

    /// Puts one object in the place of the last `count`.
    fn gather(&mut self, count: usize) -> Result<(), String> {
        let first = self.stack.len().checked_sub(count).ok_or("a pickle that pops too much")?;
        let mut whole = Size { parts: 1, depth: 1 };
        for part in self.stack.drain(first..) {
            let part = part.ok_or("a pickle with a misplaced mark")?;
            whole.parts = whole.parts.saturating_add(part.parts);
            whole.depth = whole.depth.max(part.depth + 1);
        }
        if whole.depth > MAX_DEPTH {
            return Err(format!("a pickle that nests over {MAX_DEPTH} deep"));
        }
        // Its parts were counted when they were made.
        self.stack.push(Some(whole));
        self.count(1)
    }

    /// Objects above the last mark, which goes.
    fn since_mark(&mut self) -> Result<usize, String> {
        let mark = self.stack.iter().rposition(Option::is_none).ok_or("a pickle without a mark")?;
        self.stack.remove(mark);
        Ok(self.stack.len() - mark)
    }

    fn put(&mut self, width: usize) -> Result<(), String> {
        let key = self.number(width)?;
        let top = self.stack.last().copied().flatten().ok_or("a pickle that remembers nothing")?;
        self.memo.insert(key, top);
        self.count(top.parts)
    }

    fn get(&mut self, width: usize) -> Result<(), String> {
        let key = self.number(width)?;
        let size = *self.memo.get(&key).ok_or("a pickle that remembers what it has not seen")?;
        self.push(size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn walk(bytes: &[u8]) -> Result<(), String> {
        Walk { bytes, stack: Vec::new(), memo: HashMap::new(), built: 0 }.run()
    }

    #[test]
    fn a_small_dict_passes() {
        assert_eq!(walk(b"\x80\x02}q\x00(X\x01\x00\x00\x00aK\x05X\x01\x00\x00\x00bh\x00u."), Ok(()));
    }

    #[test]
    fn deep_wide_and_broken_ones_do_not() {
        let nested = [b"\x80\x02)".as_slice(), &[0x85; 1_000_000], b"."].concat();
        assert!(walk(&nested).unwrap_err().contains("deep"));
        let mut laughs = b"\x80\x02)q\x00".to_vec();
        for i in 0..40u8 {
            laughs.extend([b'h', i, b'h', i, 0x86, b'q', i + 1]);
        }
        laughs.push(b'.');
        assert!(walk(&laughs).unwrap_err().contains("objects"));
        for broken in
            [&b""[..], b"\x80\x02", b"K", b"X\xff\xff\xff\xff.", b"R.", b"u.", b"h\x00.", b"q\x00.", b"\xff."]
        {
            assert!(walk(broken).is_err(), "{broken:?}");
        }
    }
}
