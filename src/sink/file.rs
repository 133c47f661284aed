//! A file that appears whole or not at all.
//!
//! It is written without a name (O_TMPFILE) where the file system can do that, else under a name
//! that begins with a dot, and gets its name when everything is on disk. Its first extent, which
//! has the header, is written last: a file with a zero header would open as raw. Until then nobody else may read
//! it; with its name it gets the mode that the umask leaves to any new file.

use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::name::{link, open_hidden, open_up, rename};
use super::share;
use super::writer::{self, Choice, EXTENT_BYTES, Output, WriteError, Writer};
use crate::buffers::{ALIGNMENT, Buffer, Pool, Slice};
use crate::error::{Error, Kind, Result, Stage};
use crate::units::{ClusterSize, HostOffset};

/// Extents under way at once.
const EXTENTS: usize = 6;
/// Memory that a file sink takes, in bytes.
pub const MEMORY_BYTES: u64 = (EXTENTS * EXTENT_BYTES) as u64;

/// Slices shorter than this are copied together: a write of their own would cost more.
const SLICE_MIN_BYTES: usize = 256 << 10;

/// Bytes that are copied together until they are written at once.
struct Extent {
    index: u64,
    buffer: Buffer,
    /// What of it has been filled; the file's bytes around it may be somebody else's.
    filled: Range<usize>,
}

/// An image file in the making.
pub struct FileSink {
    target: PathBuf,
    replace: bool,
    /// The name that it has while it is written, if it needs one.
    temporary: Option<PathBuf>,
    output: Arc<Output>,
    writer: Box<dyn Writer>,
    pool: Pool,
    first: Option<Buffer>,
    current: Option<Extent>,
}

impl FileSink {
    /// Whether a file could be written under that name, as far as the name tells.
    ///
    /// # Errors
    /// [`Kind::Target`] if it exists and `replace` is not set, or is no regular file.
    pub fn check(target: &Path, replace: bool) -> Result<()> {
        check_target(target, replace)
    }

    /// Begins a file. Nothing is visible under its name until [`Self::commit`].
    ///
    /// # Errors
    /// [`Kind::Target`] if it exists and `replace` is not set, or is no regular file;
    /// [`Kind::Local`] if the directory does not take files.
    pub fn create(target: &Path, replace: bool) -> Result<Self> {
        Self::create_with(target, replace, Choice::Best)
    }

    /// As [`Self::create`], writing through what `wrap` makes of the writer that would be used: to watch what is
    /// written, or to see what becomes of a run whose disk fails.
    ///
    /// # Errors
    /// As [`Self::create`].
    pub fn create_through(
        target: &Path,
        replace: bool,
        wrap: impl FnOnce(Box<dyn Writer>) -> Box<dyn Writer>,
    ) -> Result<Self> {
        Self::begin(target, replace, |output| wrap(writer::open(output, Choice::Best)))
    }

    fn create_with(target: &Path, replace: bool, choice: Choice) -> Result<Self> {
        Self::begin(target, replace, |output| writer::open(output, choice))
    }

    fn begin(
        target: &Path,
        replace: bool,
        open: impl FnOnce(&Arc<Output>) -> Box<dyn Writer>,
    ) -> Result<Self> {
        check_target(target, replace)?;
        let dir = match target.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let (file, temporary) = open_hidden(dir, target).map_err(|error| {
            local(format!("create a file in `{}` for `{}`", dir.display(), target.display()), error)
        })?;
        let pool = Pool::new(EXTENTS, EXTENT_BYTES);
        let first = pool.take().map(|mut buffer| {
            buffer.fill(0);
            buffer
        });
        let output = Output::new(file, target);
        let writer = open(&output);
        Ok(Self { target: target.to_owned(), replace, temporary, output, writer, pool, first, current: None })
    }

    /// Takes bytes at an offset. The first MiB of the file can be written at any time; everything else comes
    /// at rising offsets.
    ///
    /// # Errors
    /// [`Kind::Local`] if the disk is full or fails.
    pub fn put_at(&mut self, offset: HostOffset, mut bytes: &[u8]) -> Result<()> {
        let mut offset = offset.0;
        while !bytes.is_empty() {
            let (index, at) = (offset / EXTENT_BYTES as u64, (offset % EXTENT_BYTES as u64) as usize);
            let take = bytes.len().min(EXTENT_BYTES - at);
            self.room(index, at, take)?.copy_from_slice(&bytes[..take]);
            bytes = &bytes[take..];
            offset += take as u64;
        }
        Ok(())
    }

    /// As [`Self::put_at`], without a copy where the bytes are many and lie as the disk wants them.
    ///
    /// # Errors
    /// As [`Self::put_at`].
    pub fn put_slice(&mut self, offset: HostOffset, slice: Slice) -> Result<()> {
        let in_first = (EXTENT_BYTES as u64).saturating_sub(offset.0).min(slice.len() as u64) as usize;
        self.put_at(offset, &slice[..in_first])?;
        let (offset, slice) = (offset.0 + in_first as u64, slice.behind(in_first));
        let fits = offset.is_multiple_of(ALIGNMENT as u64)
            && slice.len().is_multiple_of(ALIGNMENT)
            && slice.as_ptr().addr().is_multiple_of(ALIGNMENT);
        if slice.len() < SLICE_MIN_BYTES || !fits {
            return self.put_at(HostOffset(offset), &slice);
        }
        self.flush_current()?;
        self.submit(offset, slice)
    }

    /// Whether the file can have blocks of `from` in common with it, cluster by cluster.
    pub fn can_share(&self, from: &File, cluster_size: ClusterSize) -> bool {
        share::can_share(from, &self.output.file, cluster_size.bytes())
    }

    /// Makes whole blocks of `from` blocks of this file too, at offsets that rise like those of
    /// [`Self::put_at`], and tells how many bytes have become so. What is missing, at the beginning
    /// (the file's first MiB) or at the end, is to be written.
    ///
    /// # Errors
    /// As [`Self::put_at`].
    pub fn share(&mut self, from: &File, from_offset: u64, offset: HostOffset, len: u64) -> Result<u64> {
        if offset.0 < EXTENT_BYTES as u64 {
            return Ok(0);
        }
        self.flush_current()?;
        Ok(share::share(from, from_offset, &self.output.file, offset.0, len))
    }

    /// Room for bytes `at..at + len` of an extent; what lies between them and what came before is zero.
    fn room(&mut self, index: u64, at: usize, len: usize) -> Result<&mut [u8]> {
        let lost =
            || Error::new(Stage::Sink, Kind::Other, "take an extent of a file that is finished already");
        if index == 0 {
            return Ok(&mut self.first.as_mut().ok_or_else(lost)?[at..at + len]);
        }
        if self.current.as_ref().is_none_or(|current| current.index != index) {
            self.flush_current()?;
            let buffer = self.pool.take().ok_or_else(lost)?;
            let begin = at - at % ALIGNMENT;
            self.current = Some(Extent { index, buffer, filled: begin..begin });
        }
        let Some(Extent { buffer, filled, .. }) = &mut self.current else { return Err(lost()) };
        if filled.end < at {
            buffer[filled.end..at].fill(0);
        }
        filled.end = filled.end.max(at + len);
        Ok(&mut buffer[at..at + len])
    }

    fn flush_current(&mut self) -> Result<()> {
        let Some(Extent { index, mut buffer, filled }) = self.current.take() else { return Ok(()) };
        let end = filled.end.next_multiple_of(ALIGNMENT);
        buffer[filled.end..end].fill(0);
        let offset = index * EXTENT_BYTES as u64 + filled.start as u64;
        self.submit(offset, Slice::new(Arc::new(buffer), filled.start..end))
    }

    fn submit(&mut self, offset: u64, extent: Slice) -> Result<()> {
        self.writer.submit(offset, extent).map_err(|error| self.output.error(error))
    }

    fn drain(&mut self) -> Result<()> {
        self.writer.drain().map_err(|error| self.output.error(error))
    }

    /// Writes what is left, the header's extent last, cuts the file to `len` bytes, waits until all
    /// of it is on disk and gives it its name.
    ///
    /// # Errors
    /// [`Kind::Local`] if the disk is full or fails, [`Kind::Target`] if a file of that name has
    /// come into being meanwhile. Nothing stays behind.
    pub fn commit(mut self, len: u64) -> Result<()> {
        self.flush_current()?;
        self.drain()?;
        if let Some(first) = self.first.take() {
            self.submit(0, Slice::new(Arc::new(first), 0..EXTENT_BYTES))?;
        }
        self.drain()?;
        let file = &self.output.file;
        file.set_len(len)
            .and_then(|()| file.sync_all())
            .map_err(|cause| self.output.error(WriteError { offset: len, cause }))?;
        open_up(file)
            .map_err(|error| local(format!("set the mode of `{}`", self.target.display()), error))?;
        match &self.temporary {
            None => link(file, &self.target, self.replace)?,
            Some(temporary) => rename(temporary, &self.target, self.replace)?,
        }
        self.temporary = None;
        Ok(())
    }

    /// How the file is written, for reports.
    pub fn method(&self) -> &'static str {
        self.writer.method()
    }
}

impl std::fmt::Debug for FileSink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "FileSink({}, {})", self.target.display(), self.writer.method())
    }
}

impl Drop for FileSink {
    fn drop(&mut self) {
        if let Some(temporary) = &self.temporary {
            let _ = std::fs::remove_file(temporary);
        }
    }
}

fn check_target(target: &Path, replace: bool) -> Result<()> {
    let shown = target.display();
    let refuse = |what: String| Err(Error::new(Stage::Sink, Kind::Target, what));
    match std::fs::symlink_metadata(target).and_then(|_| std::fs::metadata(target)) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            if target.symlink_metadata().is_ok() {
                return refuse(format!("`{shown}` is a symbolic link to nothing"));
            }
            Ok(())
        }
        Err(error) => Err(local(format!("look at `{shown}`"), error)),
        Ok(meta) if !meta.is_file() => refuse(format!(
            "`{shown}` exists and is not a regular file; an image is written to a file, to - or to glance:NAME"
        )),
        Ok(_) if !replace => Err(Error::new(Stage::Sink, Kind::Target, format!("`{shown}` exists already"))
            .advise("choose another name, or give --force to replace it")),
        Ok(_) => Ok(()),
    }
}

fn local(what: String, error: std::io::Error) -> Error {
    Error::new(Stage::Sink, Kind::Local, what).because(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_appears_whole_and_only_on_commit() {
        for choice in [Choice::Best, Choice::Threads] {
            // In memory O_DIRECT is refused or ignored; on disk it is used.
            for place in ["/dev/shm", "/var/tmp"] {
                check_whole(&tempfile::tempdir_in(place).unwrap(), choice);
            }
        }
    }

    fn check_whole(dir: &tempfile::TempDir, choice: Choice) {
        let target = dir.path().join("a.qcow2");
        let mut sink = FileSink::create_with(&target, false, choice).unwrap();
        let data: Vec<u8> = (0..40 * EXTENT_BYTES + 1234).map(|i| (i / 7) as u8).collect();
        sink.put_at(HostOffset(100), &data[100..2_000_000]).unwrap();
        for (index, piece) in data[2_000_000..].chunks(700_001).enumerate() {
            sink.put_at(HostOffset(2_000_000 + index as u64 * 700_001), piece).unwrap();
        }
        assert!(!target.exists());
        sink.put_at(HostOffset(0), &data[..100]).unwrap();
        sink.commit(data.len() as u64).unwrap();
        assert!(std::fs::read(&target).unwrap() == data);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn only_a_finished_file_can_be_read_by_others() {
        use std::os::unix::fs::MetadataExt;
        let dir = tempfile::tempdir().unwrap();
        // What the umask leaves to any new file.
        let usual = File::create(dir.path().join("usual")).unwrap().metadata().unwrap().mode() & 0o777;
        for replace in [false, true] {
            let target = dir.path().join("a.qcow2");
            let mut sink = FileSink::create(&target, replace).unwrap();
            sink.put_at(HostOffset(0), b"header").unwrap();
            assert_eq!(sink.output.file.metadata().unwrap().mode() & 0o777, 0o600);
            sink.commit(6).unwrap();
            assert_eq!(target.metadata().unwrap().mode() & 0o777, usual, "replace: {replace}");
        }
    }

    #[test]
    fn a_sink_that_is_given_up_leaves_nothing() {
        for choice in [Choice::Best, Choice::Threads] {
            let dir = tempfile::tempdir_in("/var/tmp").unwrap();
            let mut sink = FileSink::create_with(&dir.path().join("a.qcow2"), false, choice).unwrap();
            sink.put_at(HostOffset(0), &vec![1; 5 * EXTENT_BYTES]).unwrap();
            drop(sink);
            assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        }
    }

    #[test]
    fn an_existing_file_is_refused_or_survives_until_commit() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("a.qcow2");
        std::fs::write(&target, b"old").unwrap();
        assert_eq!(FileSink::create(&target, false).unwrap_err().kind(), Kind::Target);
        drop(FileSink::create(&target, true).unwrap());
        assert_eq!(std::fs::read(&target).unwrap(), b"old");
        let mut sink = FileSink::create(&target, true).unwrap();
        sink.put_at(HostOffset(0), b"new").unwrap();
        sink.commit(3).unwrap();
        assert_eq!(std::fs::read(&target).unwrap(), b"new");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_that_comes_into_being_meanwhile_is_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("a.qcow2");
        let sink = FileSink::create(&target, false).unwrap();
        std::fs::write(&target, b"theirs").unwrap();
        assert_eq!(sink.commit(0).unwrap_err().kind(), Kind::Target);
        assert_eq!(std::fs::read(&target).unwrap(), b"theirs");
    }
}
