//! Extents of a file on their way to disk. Takes aligned extents, gives them to the kernel several at a
//! time. Holds the extents under way.
//!
//! # Decisions
//! - O_DIRECT with extents of 1 MiB costs a tenth of the CPU of buffered writes and leaves the page
//!   cache alone. Where it is refused (tmpfs, some network file systems) the same calls go through
//!   the page cache.
//! - Where the file lies in memory (tmpfs) there is nothing to wait for: one thread copies while others read. Asking
//!   for room beforehand would only touch every page twice.
//! - [`uring`] comes first: it keeps several extents under way without a thread of its own. Where
//!   io_uring is forbidden (containers, seccomp, `io_uring_disabled`), [`threads`] do `pwrite`.
//! - `io-uring` and not `tokio-uring`: the latter brings a second, older copy of the former, has no
//!   maintainer, and is slower; nothing here needs a runtime.

pub(super) mod threads;
pub(super) mod uring;

pub use uring::check_uring;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FallocateFlags, OFlags};
use rustix::io::Errno;

use crate::buffers::Slice;
use crate::error::{Error, Kind, Stage};
use crate::facts::MEMORY_FILE_SYSTEMS;

/// Size of an extent in bytes.
pub(super) const EXTENT_BYTES: usize = 1 << 20;
/// So much is asked for from the file system at once, in bytes.
const PREALLOCATE_BYTES: u64 = 64 << 20;

/// Brings extents to disk. [`FileSink::create_through`](super::FileSink::create_through) lets another one stand
/// before the writer that was chosen here.
pub trait Writer: Send {
    /// Sends an extent on its way; waits while too many are. Offset (in bytes), length and memory are multiples of
    /// [`ALIGNMENT`](crate::buffers::ALIGNMENT).
    ///
    /// # Errors
    /// The first write that failed, of this extent or of an earlier one.
    fn submit(&mut self, offset: u64, extent: Slice) -> Result<(), WriteError>;

    /// Waits until everything submitted so far has been written.
    ///
    /// # Errors
    /// The first write that failed.
    fn drain(&mut self) -> Result<(), WriteError>;

    /// For reports.
    fn method(&self) -> &'static str;
}

/// A write that failed.
#[derive(Debug)]
pub struct WriteError {
    /// Where in the file, in bytes.
    pub offset: u64,
    /// What the kernel says.
    pub cause: std::io::Error,
}

/// The file that a writer writes to.
#[derive(Debug)]
pub(super) struct Output {
    pub(super) file: File,
    path: PathBuf,
    is_memory: bool,
}

impl Output {
    pub(super) fn new(file: File, path: &Path) -> Arc<Self> {
        let is_memory =
            rustix::fs::fstatfs(&file).is_ok_and(|fs| MEMORY_FILE_SYSTEMS.contains(&(fs.f_type as u64)));
        let output = Self { file, path: path.to_owned(), is_memory };
        output.set_direct(!is_memory);
        Arc::new(output)
    }

    /// The failure of a write as a sentence, with advice where the disk is full.
    pub(super) fn error(&self, WriteError { offset, cause }: WriteError) -> Error {
        let errno = Errno::from_io_error(&cause);
        let what = format!("write `{}` at host offset {offset}", self.path.display());
        let failed = Error::new(Stage::Sink, Kind::Local, what).because(cause);
        match errno {
            Some(Errno::NOSPC | Errno::DQUOT) => failed.advise("free some space, or write to another disk"),
            Some(Errno::FBIG) => {
                failed.advise("raise the limit (`ulimit -f`), or write to a file system for larger files")
            }
            _ => failed,
        }
    }

    /// Turns O_DIRECT on or off; a file system that refuses it goes on without.
    pub(super) fn set_direct(&self, on: bool) {
        if let Ok(flags) = rustix::fs::fcntl_getfl(&self.file) {
            let wanted = if on { flags | OFlags::DIRECT } else { flags - OFlags::DIRECT };
            // The first write tells whether it works.
            let _ = rustix::fs::fcntl_setfl(&self.file, wanted);
        }
    }

    /// Asks for room up to where the next extents go: appending to a file one extent at a time makes
    /// the kernel serialise them.
    pub(super) fn preallocate(&self, from: u64) {
        // Where that is not possible the writes themselves will tell whether there is room.
        let _ = rustix::fs::fallocate(&self.file, FallocateFlags::empty(), from, PREALLOCATE_BYTES);
    }

    /// Writes one extent the plain way; gives up O_DIRECT where the file system turns out to refuse it.
    fn write_plainly(&self, offset: u64, bytes: &[u8]) -> Result<(), WriteError> {
        use std::os::unix::fs::FileExt;
        let written = match self.file.write_all_at(bytes, offset) {
            Err(error) if error.kind() == std::io::ErrorKind::InvalidInput => {
                self.set_direct(false);
                self.file.write_all_at(bytes, offset)
            }
            result => result,
        };
        written.map_err(|cause| WriteError { offset, cause })
    }
}

/// Which writer to use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Choice {
    /// The best that works here.
    Best,
    /// Threads with `pwrite`.
    #[cfg(test)]
    Threads,
}

/// Makes a writer. The file is preallocated as the extents come.
pub(super) fn open(output: &Arc<Output>, choice: Choice) -> Box<dyn Writer> {
    if choice == Choice::Best && !output.is_memory {
        match uring::Uring::new(Arc::clone(output)) {
            Ok(writer) => return Box::new(writer),
            Err(error) => tracing::info!("io_uring is not to be had ({error}); writing with threads"),
        }
    }
    let threads = if output.is_memory { 1 } else { threads::THREADS };
    Box::new(threads::Threads::new(Arc::clone(output), threads))
}

/// Where preallocation has come to.
#[derive(Debug, Default)]
pub(super) struct Preallocated(u64);

impl Preallocated {
    pub(super) fn reach(&mut self, output: &Output, end: u64) {
        if end > self.0 && !output.is_memory {
            output.preallocate(self.0);
            self.0 = end.max(self.0 + PREALLOCATE_BYTES);
        }
    }
}
