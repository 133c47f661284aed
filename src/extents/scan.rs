//! The zeros of a raw disk whose holes nobody knows: its bytes are read once, in order.

use super::{Extent, Kind, Merged, piece};
use crate::error::Result;

/// Zeros are looked for in blocks of this many bytes, at multiples of it.
pub const BLOCK_BYTES: usize = 4096;
/// Bytes that are read at once.
const READ_BYTES: usize = 2 << 20;

/// Gives bytes from a disk offset on.
pub trait Scan {
    /// Fills `out` with the bytes at `offset`; is asked in rising order.
    ///
    /// # Errors
    /// What keeps them from coming.
    fn read(&mut self, out: &mut [u8], offset: u64) -> Result<()>;
}

impl<T: FnMut(&mut [u8], u64) -> Result<()>> Scan for T {
    fn read(&mut self, out: &mut [u8], offset: u64) -> Result<()> {
        self(out, offset)
    }
}

/// Looks into the data among extents of a raw disk, of `len` bytes, for blocks that are all zero.
pub fn scan<'a>(
    extents: impl Iterator<Item = Result<Extent>> + 'a,
    len: u64,
    is_zero: fn(&[u8]) -> bool,
    disk: impl Scan + 'a,
) -> impl Iterator<Item = Result<Extent>> + 'a {
    let buffer = vec![0; READ_BYTES];
    Merged::new(Scanned { extents, len, is_zero, disk, buffer, todo: None, found: Vec::new().into_iter() })
}

struct Scanned<I, S> {
    extents: I,
    len: u64,
    is_zero: fn(&[u8]) -> bool,
    disk: S,
    buffer: Vec<u8>,
    /// Data that have not been read yet.
    todo: Option<Extent>,
    /// What the last reading found.
    found: std::vec::IntoIter<Extent>,
}

impl<I: Iterator<Item = Result<Extent>>, S: Scan> Scanned<I, S> {
    /// Reads the next bytes of an extent of data.
    fn look(&mut self, data: Extent) -> Result<()> {
        let end = (data.start + data.len).min(self.len);
        // Up to a multiple of the block, so that the next reading begins with one.
        let until = (data.start + 1).next_multiple_of(READ_BYTES as u64).min(end);
        let bytes = &mut self.buffer[..(until - data.start) as usize];
        self.disk.read(bytes, data.start)?;
        let mut found: Vec<Extent> = Vec::new();
        let mut at = 0;
        while at < bytes.len() {
            let start = data.start + at as u64;
            let block = (BLOCK_BYTES - (start % BLOCK_BYTES as u64) as usize).min(bytes.len() - at);
            let next = piece(start, block as u64, (self.is_zero)(&bytes[at..at + block]));
            if !found.last_mut().is_some_and(|last| last.extend(&next)) {
                found.push(next);
            }
            at += block;
        }
        self.found = found.into_iter();
        self.todo = (until < end).then(|| piece(until, end - until, false));
        Ok(())
    }
}

impl<I: Iterator<Item = Result<Extent>>, S: Scan> Iterator for Scanned<I, S> {
    type Item = Result<Extent>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(extent) = self.found.next() {
                return Some(Ok(extent));
            }
            let extent = match self.todo.take().map(Ok).or_else(|| self.extents.next())? {
                Ok(extent) => extent,
                Err(error) => return Some(Err(error)),
            };
            if extent.kind != Kind::Data || extent.start >= self.len {
                return Some(Ok(extent));
            }
            if let Err(error) = self.look(extent) {
                return Some(Err(error));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::extents::of_opaque;

    #[test]
    fn blocks_of_zeros_are_found_and_joined_over_the_borders_of_readings() {
        let mut disk = vec![0u8; 5 * (1 << 20) + 700];
        disk[5000] = 1;
        disk[3 << 20] = 1;
        let last = disk.len() - 1;
        disk[last] = 1;
        let read = |out: &mut [u8], offset: u64| {
            out.copy_from_slice(&disk[offset as usize..][..out.len()]);
            Ok(())
        };
        let len = disk.len() as u64;
        let zero: fn(&[u8]) -> bool = |bytes| bytes.iter().all(|&byte| byte == 0);
        let found: Vec<Extent> = scan(of_opaque(len), len, zero, read).map(Result::unwrap).collect();
        let (a, b, c) = (4096, 3 << 20, 5 << 20);
        let expected = [
            piece(0, a, true),
            piece(a, 4096, false),
            piece(8192, b - 8192, true),
            piece(b, 4096, false),
            piece(b + 4096, c - b - 4096, true),
            piece(c, 700, false),
            piece(c + 700, 324, true),
        ];
        assert_eq!(found, expected);
    }
}
