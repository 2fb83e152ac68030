//! Memory for weights, caches and scratch: zeroed, aligned to a cache line, allocated once.

use crate::types::Pair;
use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;

/// A cache line, and the width of an AVX-512 register.
pub(crate) const LINE: usize = 64;
const HUGE_PAGE: usize = 2 << 20;

/// Marker for types for which every bit pattern, all zeros included, is a value.
///
/// # Safety
/// The type has no padding, no invalid bit patterns, no drop glue, and an alignment of at most 64.
pub(crate) unsafe trait Plain: Copy + Send + Sync + 'static {}
// SAFETY: primitive numbers (and half's transparent u16) have no padding and no invalid values.
unsafe impl Plain for u8 {}
// SAFETY: as above.
unsafe impl Plain for i8 {}
// SAFETY: as above.
unsafe impl Plain for i32 {}
// SAFETY: as above.
unsafe impl Plain for f32 {}
// SAFETY: as above; `f16` is `repr(transparent)` over u16.
unsafe impl Plain for half::f16 {}
// SAFETY: as above, and so is `bf16`.
unsafe impl Plain for half::bf16 {}
// SAFETY: as above; an array has no padding between its elements.
unsafe impl Plain for Pair {}

/// A fixed-size, zeroed slice aligned to 64 bytes. Zeroed pages come straight from the system, so what is never
/// touched costs address space only.
pub(crate) struct Buffer<T: Plain> {
    data: NonNull<T>,
    len: usize,
    /// The allocation; `data` is its first aligned address.
    block: *mut u8,
    layout: Layout,
}

// SAFETY: the buffer owns its memory like a Box<[T]>, and T: Send + Sync.
unsafe impl<T: Plain> Send for Buffer<T> {}
// SAFETY: as above; shared access is read-only.
unsafe impl<T: Plain> Sync for Buffer<T> {}

impl<T: Plain> Buffer<T> {
    pub fn zeroed(len: usize) -> Self {
        Self::aligned(len, LINE)
    }

    /// In pages of 2 MB where the system has them, for what is read from end to end: a page walk per 4 KB costs a few
    /// percent of the bandwidth.
    pub fn zeroed_huge(len: usize) -> Self {
        if len * size_of::<T>() < 2 * HUGE_PAGE {
            return Self::zeroed(len);
        }
        let buffer = Self::aligned(len, HUGE_PAGE);
        advise_huge_pages(buffer.data.as_ptr().cast(), len * size_of::<T>());
        buffer
    }

    /// The first element, without borrowing the rest.
    pub fn raw(&self) -> *mut T {
        self.data.as_ptr()
    }

    /// The allocator zeroes by hand what it aligns beyond its own 16 bytes, so the aligning is ours.
    fn aligned(len: usize, align: usize) -> Self {
        let bytes = len.checked_mul(size_of::<T>()).and_then(|bytes| bytes.checked_add(align));
        let layout = Layout::from_size_align(bytes.expect("buffer size overflows usize"), 16)
            .expect("buffer size overflows isize");
        // SAFETY: the layout's size is at least `align`, not zero.
        let block = unsafe { alloc_zeroed(layout) };
        if block.is_null() {
            handle_alloc_error(layout);
        }
        let data = block.wrapping_add(block.align_offset(align)).cast();
        Self { data: NonNull::new(data).expect("inside the block"), len, block, layout }
    }
}

#[cfg(target_os = "linux")]
fn advise_huge_pages(start: *mut u8, bytes: usize) {
    unsafe extern "C" {
        fn madvise(start: *mut std::ffi::c_void, len: usize, advice: std::ffi::c_int) -> std::ffi::c_int;
    }
    const MADV_HUGEPAGE: std::ffi::c_int = 14;
    // SAFETY: the range is our own memory; the advice changes the size of its pages and nothing else, and may be
    // refused.
    unsafe { madvise(start.cast(), bytes, MADV_HUGEPAGE) };
}

#[cfg(not(target_os = "linux"))]
fn advise_huge_pages(_: *mut u8, _: usize) {}

impl<T: Plain> std::ops::Deref for Buffer<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        // SAFETY: `data` points to `len` initialised (zeroed or written) elements that this buffer owns.
        unsafe { std::slice::from_raw_parts(self.data.as_ptr(), self.len) }
    }
}

impl<T: Plain> std::ops::DerefMut for Buffer<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as in `deref`, and `&mut self` makes the access exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.data.as_ptr(), self.len) }
    }
}

impl<T: Plain> Drop for Buffer<T> {
    fn drop(&mut self) {
        // SAFETY: allocated in `aligned` with this very layout, and freed once.
        unsafe { dealloc(self.block, self.layout) }
    }
}

impl<T: Plain> Clone for Buffer<T> {
    fn clone(&self) -> Self {
        let mut copy = Self::zeroed(self.len);
        copy.copy_from_slice(self);
        copy
    }
}

impl<T: Plain> Default for Buffer<T> {
    fn default() -> Self {
        Self::zeroed(0)
    }
}

impl<T: Plain> Buffer<T> {
    /// At least `len` elements, growing (and forgetting what was there) if need be.
    pub fn at_least(&mut self, len: usize) -> &mut [T] {
        if self.len < len {
            *self = Self::zeroed(len.next_power_of_two());
        }
        &mut self[..len]
    }
}

/// A pointer that tasks of one `pool.run` share; each task touches a part of its own.
#[derive(Clone, Copy)]
pub(crate) struct SharedMut<T>(pub *mut T);
// SAFETY: code that dereferences it states (there, in a SAFETY comment) why tasks touch disjoint elements.
unsafe impl<T: Send> Send for SharedMut<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for SharedMut<T> {}

impl<T> SharedMut<T> {
    /// # Safety
    /// `start..start + len` lies inside the allocation, and no other task touches it while the slice lives.
    #[allow(clippy::mut_from_ref)] // the caller promises that the parts are disjoint
    pub unsafe fn slice(&self, start: usize, len: usize) -> &mut [T] {
        // SAFETY: promised by the caller.
        unsafe { std::slice::from_raw_parts_mut(self.0.add(start), len) }
    }
}

/// The same bytes as elements of another plain type.
pub(crate) fn view<T: Plain>(bytes: &[u8]) -> &[T] {
    assert!(bytes.as_ptr().cast::<T>().is_aligned() && bytes.len().is_multiple_of(size_of::<T>()));
    // SAFETY: aligned, inside the slice, and every bit pattern of a Plain type is a value.
    unsafe { std::slice::from_raw_parts(bytes.as_ptr().cast(), bytes.len() / size_of::<T>()) }
}

/// As [`view`], to write.
pub(crate) fn view_mut<T: Plain>(bytes: &mut [u8]) -> &mut [T] {
    assert!(bytes.as_ptr().cast::<T>().is_aligned() && bytes.len().is_multiple_of(size_of::<T>()));
    // SAFETY: as in `view`; exclusive because `bytes` is, and every bit pattern of T is a valid u8 as well.
    unsafe { std::slice::from_raw_parts_mut(bytes.as_mut_ptr().cast(), bytes.len() / size_of::<T>()) }
}

/// The same memory as pairs of bf16.
pub(crate) fn pairs_mut(words: &mut [f32]) -> &mut [Pair] {
    // SAFETY: a pair has the size of an f32, a smaller alignment, and every bit pattern of either is a value.
    unsafe { std::slice::from_raw_parts_mut(words.as_mut_ptr().cast(), words.len()) }
}

/// The bytes of a slice.
pub(crate) fn bytes_of<T: Plain>(values: &[T]) -> &[u8] {
    // SAFETY: a Plain type has no padding, and u8 no alignment.
    unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values)) }
}
