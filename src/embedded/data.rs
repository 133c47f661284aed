//! What an image holds: bytes that can be read at any offset, stored or made up on the spot.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use bytes::Bytes;
use rustix::fs::{MemfdFlags, memfd_create};

/// How much of an image is handed to the network at once, in bytes.
pub(super) const FRAME_BYTES: usize = 1 << 20;

/// One frame of zeros, shared by all holes of all images, so that a hole costs no memset.
static ZEROS: [u8; FRAME_BYTES] = [0; FRAME_BYTES];

/// The content of an image.
///
/// Reads beyond the end are the caller's mistake and may panic.
pub trait ImageData: Send + Sync {
    /// Size in bytes.
    fn len(&self) -> u64;

    /// Fills `buf` with what lies at `offset`; the whole of it lies inside the image.
    fn read_at(&self, offset: u64, buf: &mut [u8]);

    /// Whether the image has no byte at all.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the range is known to hold only zeros. `false` also means «not known».
    fn is_hole(&self, offset: u64, len: u64) -> bool {
        let _ = (offset, len);
        false
    }

    /// The whole content as an open file, where it lies in one; saves readers that want a file a copy.
    fn file(&self) -> Option<&File> {
        None
    }
}

impl ImageData for Bytes {
    fn len(&self) -> u64 {
        self.as_ref().len() as u64
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) {
        let start = offset as usize;
        buf.copy_from_slice(&self[start..start + buf.len()]);
    }
}

/// The content of an image in a file that nobody else writes to.
#[derive(Debug)]
pub struct FileData {
    file: File,
    len: u64,
}

impl FileData {
    /// A file that exists.
    ///
    /// # Errors
    /// What keeps it from being opened.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        Ok(Self { len: file.metadata()?.len(), file })
    }

    /// An empty file in memory: it grows without copies, has no name anywhere, and can be lent to readers
    /// that work on files.
    pub(super) fn in_memory() -> io::Result<Self> {
        Ok(Self { file: File::from(memfd_create("embedded-glance", MemfdFlags::CLOEXEC)?), len: 0 })
    }

    /// A copy of `data` in memory.
    pub(super) fn copy_of(data: &dyn ImageData) -> io::Result<Self> {
        let mut kept = Self::in_memory()?;
        while kept.len < data.len() {
            let len = (data.len() - kept.len).min(FRAME_BYTES as u64) as usize;
            let frame = frame(data, kept.len, len);
            kept.push(&frame)?;
        }
        Ok(kept)
    }

    /// Appends.
    pub(super) fn push(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, self.len)?;
        self.len += bytes.len() as u64;
        Ok(())
    }
}

impl ImageData for FileData {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) {
        self.file.read_exact_at(buf, offset).expect("a file that nobody else writes to keeps its bytes");
    }

    fn file(&self) -> Option<&File> {
        Some(&self.file)
    }
}

/// `len` bytes (at most [`FRAME_BYTES`]) at `offset`, without a copy where they are a hole.
pub(super) fn frame(data: &dyn ImageData, offset: u64, len: usize) -> Bytes {
    if data.is_hole(offset, len as u64) {
        return Bytes::from_static(&ZEROS[..len]);
    }
    let mut buf = vec![0; len];
    data.read_at(offset, &mut buf);
    Bytes::from(buf)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kept_bytes_read_back_at_any_offset() {
        let mut kept = FileData::in_memory().expect("memory");
        kept.push(b"hello ").expect("memory");
        kept.push(b"world").expect("memory");
        let mut buf = [0; 5];
        kept.read_at(4, &mut buf);
        assert_eq!(&buf, b"o wor");
        assert_eq!(ImageData::len(&kept), 11);
        let copy = FileData::copy_of(&kept).expect("memory");
        assert_eq!(frame(&copy, 0, 11), Bytes::from_static(b"hello world"));
    }
}
