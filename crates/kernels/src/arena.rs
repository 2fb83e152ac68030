//! Where weights lie: a few large allocations in huge pages, which the matrices of a model share.
//!
//! A matrix of its own allocation ends in the middle of a huge page, or, below 2 MB, has none at all; and reading
//! weights from 4 KB pages gave 27 GB/s where huge pages gave 36 (each page is a page walk, and the hardware's
//! prefetcher stops at its end).

use crate::buffer::{Buffer, LINE};
use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};

/// Bytes of one allocation from the system. Only pages that are used are backed by memory.
const CHUNK: usize = 64 << 20;

/// Hands out parts of chunks. A chunk is freed when the arena has moved on and its last part is dropped.
#[derive(Default)]
pub(crate) struct Arena {
    current: Mutex<Option<(Arc<Buffer<u8>>, usize)>>,
}

/// Zeroed bytes, aligned to a cache line, not shared yet.
pub(crate) struct Region(Bytes);

/// Immutable bytes in a chunk.
#[derive(Clone)]
pub(crate) struct Bytes {
    chunk: Arc<Buffer<u8>>,
    start: usize,
    len: usize,
}

impl Arena {
    pub fn zeroed(&self, len: usize) -> Region {
        let size = len.next_multiple_of(LINE);
        if size > CHUNK / 2 {
            return Region(Bytes { chunk: Arc::new(Buffer::zeroed_huge(size)), start: 0, len });
        }
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let (chunk, used) = match current.take() {
            Some((chunk, used)) if used + size <= CHUNK => (chunk, used),
            _ => (Arc::new(Buffer::zeroed_huge(CHUNK)), 0),
        };
        *current = Some((Arc::clone(&chunk), used + size));
        Region(Bytes { chunk, start: used, len })
    }
}

impl Region {
    pub fn as_mut_ptr(&mut self) -> *mut u8 {
        // Not through a slice: other parts of the chunk may be being read.
        self.0.chunk.raw().wrapping_add(self.0.start)
    }

    pub fn freeze(self) -> Bytes {
        self.0
    }
}

impl Deref for Bytes {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        // SAFETY: this part of the chunk was handed out once, and since `freeze` nobody writes to it. The slice is of
        // this part alone, so that a part still being filled is not aliased.
        unsafe { std::slice::from_raw_parts(self.chunk.raw().add(self.start), self.len) }
    }
}
