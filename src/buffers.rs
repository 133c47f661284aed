//! Reused, page-aligned buffers from bounded pools. The pools are what bounds the memory of a run:
//! who finds a pool empty waits.
//!
//! # Decisions
//! - Buffers of 2 MiB and more ask for huge pages: the kernel pins one page and not 512 for every write past
//!   its cache, which was an eighth of the CPU time of a plain image written with O_DIRECT.
#![allow(unsafe_code)]

use std::fmt;
use std::ops::{Deref, DerefMut, Range};
use std::sync::Arc;

use rustix::mm::{Advice, madvise};

/// Alignment of every buffer, in bytes: enough for O_DIRECT on disks with 4 KiB sectors.
pub const ALIGNMENT: usize = 4096;
/// A huge page of x86-64 and, with pages of 4 KiB, of AArch64, in bytes.
const HUGE_PAGE_BYTES: usize = 2 << 20;

/// A pool of equal buffers. Clones share it.
#[derive(Clone)]
pub struct Pool {
    free: async_channel::Receiver<Vec<u8>>,
    home: async_channel::Sender<Vec<u8>>,
    count: usize,
    buffer_bytes: usize,
}

impl Pool {
    /// `count` buffers of `buffer_bytes`. Their memory is touched on first use only.
    pub fn new(count: usize, buffer_bytes: usize) -> Self {
        let (home, free) = async_channel::bounded(count.max(1));
        for _ in 0..count {
            // A fresh channel with room for `count` takes them all.
            let _ = home.try_send(memory(buffer_bytes));
        }
        Self { free, home, count, buffer_bytes }
    }

    /// Waits for a free buffer. `None` once the pool is closed.
    pub fn take(&self) -> Option<Buffer> {
        self.free.recv_blocking().ok().map(|memory| self.wrap(memory))
    }

    /// As [`Self::take`], for use in a task.
    pub async fn take_async(&self) -> Option<Buffer> {
        self.free.recv().await.ok().map(|memory| self.wrap(memory))
    }

    /// A free buffer, if there is one now.
    pub fn try_take(&self) -> Option<Buffer> {
        self.free.try_recv().ok().map(|memory| self.wrap(memory))
    }

    /// Buffers that are free now.
    pub fn free(&self) -> usize {
        self.free.len()
    }

    /// Wakes everybody who waits for a buffer; nobody gets one from now on.
    pub fn close(&self) {
        self.free.close();
    }

    /// Buffers in the pool, free or taken.
    pub fn count(&self) -> usize {
        self.count
    }

    fn wrap(&self, memory: Vec<u8>) -> Buffer {
        let start = aligned_start(&memory, self.buffer_bytes);
        Buffer { memory, start, len: self.buffer_bytes, home: self.home.clone() }
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pool({} of {} free, {} bytes each)", self.free.len(), self.count, self.buffer_bytes)
    }
}

/// Memory with room for an aligned buffer; not touched before its first use.
fn memory(buffer_bytes: usize) -> Vec<u8> {
    let mut memory = vec![0; buffer_bytes + alignment(buffer_bytes)];
    if buffer_bytes >= HUGE_PAGE_BYTES {
        let start = aligned_start(&memory, buffer_bytes);
        let inner = &mut memory[start..start + buffer_bytes];
        // SAFETY: the range belongs to `memory`, begins and ends on a page, and the advice changes nothing
        // about its contents.
        let advised = unsafe { madvise(inner.as_mut_ptr().cast(), inner.len(), Advice::LinuxHugepage) };
        // Kernels without huge pages have small ones.
        let _ = advised;
    }
    memory
}

fn alignment(buffer_bytes: usize) -> usize {
    if buffer_bytes >= HUGE_PAGE_BYTES { HUGE_PAGE_BYTES } else { ALIGNMENT }
}

fn aligned_start(memory: &[u8], buffer_bytes: usize) -> usize {
    let alignment = alignment(buffer_bytes);
    memory.as_ptr().align_offset(alignment).min(alignment)
}

/// A buffer of a [`Pool`]; dropping it gives it back. Its contents are whatever was left in it.
pub struct Buffer {
    memory: Vec<u8>,
    start: usize,
    len: usize,
    home: async_channel::Sender<Vec<u8>>,
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.memory[self.start..self.start + self.len]
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..self.start + self.len]
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // A closed pool lets the memory go.
        let _ = self.home.try_send(std::mem::take(&mut self.memory));
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buffer({} bytes)", self.len)
    }
}

/// A part of a buffer that may have several readers; the buffer goes back with the last of them.
#[derive(Clone, Debug)]
pub struct Slice {
    buffer: Arc<Buffer>,
    range: Range<usize>,
}

impl Slice {
    /// The bytes `range` of a buffer.
    ///
    /// # Panics
    /// On first use, if the range does not lie within the buffer.
    pub fn new(buffer: Arc<Buffer>, range: Range<usize>) -> Self {
        Self { buffer, range }
    }

    /// The same bytes from `at` on.
    #[must_use]
    pub fn behind(self, at: usize) -> Self {
        let start = (self.range.start + at).min(self.range.end);
        Self { buffer: self.buffer, range: start..self.range.end }
    }
}

impl Deref for Slice {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.buffer[self.range.clone()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_comes_back_with_its_last_slice() {
        let pool = Pool::new(1, 100);
        let mut buffer = pool.take().unwrap();
        buffer[10] = 7;
        let slice = Slice::new(Arc::new(buffer), 5..20);
        let rest = slice.clone().behind(5);
        drop(slice);
        assert_eq!((rest.len(), rest[0], pool.free()), (10, 7, 0));
        drop(rest);
        assert_eq!(pool.free(), 1);
    }

    #[test]
    fn buffers_are_aligned_and_come_back() {
        let pool = Pool::new(2, 10_000);
        let (a, b) = (pool.take().unwrap(), pool.take().unwrap());
        assert_eq!(a.as_ptr().align_offset(ALIGNMENT), 0);
        assert_eq!((a.len(), pool.free()), (10_000, 0));
        assert!(pool.try_take().is_none());
        drop(a);
        assert_eq!(pool.free(), 1);
        drop(b);
        pool.close();
        assert_eq!(pool.take().map(|b| b.len()), Some(10_000));
    }
}
