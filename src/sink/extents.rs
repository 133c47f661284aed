//! Extents of a file on their way to disk, behind one face: threads with `pwrite`, O_DIRECT where
//! the file system takes it.
//!
//! # Decisions
//! - O_DIRECT with extents of 1 MiB costs a tenth of the CPU of buffered writes and leaves the page
//!   cache alone; where it is refused (tmpfs, some network file systems) the same calls go through
//!   the page cache.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use rustix::fs::OFlags;

use crate::buffers::Buffer;
use crate::error::{Error, Kind, Result, Stage};

/// Size of an extent in bytes.
pub(super) const EXTENT_BYTES: usize = 1 << 20;
/// Threads that write. Two keep a disk busy; more only compete with the encoders.
const THREADS: usize = 2;

#[derive(Debug)]
pub(super) struct ExtentWriter {
    shared: Arc<Shared>,
    work: Option<async_channel::Sender<(u64, Buffer)>>,
    threads: Vec<JoinHandle<()>>,
    direct: bool,
}

#[derive(Debug)]
struct Shared {
    file: File,
    path: PathBuf,
    failed: Mutex<Option<(u64, std::io::Error)>>,
}

impl ExtentWriter {
    pub(super) fn new(file: File, path: PathBuf) -> Self {
        let direct = set_direct(&file, true);
        let shared = Arc::new(Shared { file, path, failed: Mutex::new(None) });
        let (work, orders) = async_channel::bounded::<(u64, Buffer)>(THREADS);
        let spawn = |index: usize| {
            let (orders, shared) = (orders.clone(), Arc::clone(&shared));
            let run = move || {
                while let Ok((offset, buffer)) = orders.recv_blocking() {
                    shared.write(offset, &buffer);
                }
            };
            std::thread::Builder::new().name(format!("write-{index}")).spawn(run)
        };
        let threads = (0..THREADS).filter_map(|index| spawn(index).ok()).collect();
        Self { shared, work: Some(work), threads, direct }
    }

    pub(super) fn method(&self) -> &'static str {
        if self.direct { "pwrite, O_DIRECT" } else { "pwrite" }
    }

    /// Sends a whole extent on its way.
    pub(super) fn submit(&self, offset: u64, extent: Buffer) -> Result<()> {
        self.shared.check()?;
        match &self.work {
            Some(work) if !self.threads.is_empty() && work.send_blocking((offset, extent)).is_ok() => Ok(()),
            _ => Err(Error::new(Stage::Sink, Kind::Local, "no thread to write with could be started")),
        }
    }

    /// Waits until everything submitted so far has been written.
    pub(super) fn drain(&mut self) -> Result<()> {
        let work = self.work.take();
        drop(work);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
        self.shared.check()?;
        let fresh = Self::new(self.shared.file.try_clone().map_err(|e| self.shared.error(0, e))?, self.shared.path.clone());
        *self = fresh;
        Ok(())
    }

    /// Waits for the rest, cuts the file to its length, and brings it to disk.
    pub(super) fn finish(&mut self, len: u64) -> Result<File> {
        self.drain()?;
        set_direct(&self.shared.file, false);
        let file = self.shared.file.try_clone().map_err(|error| self.shared.error(len, error))?;
        file.set_len(len).and_then(|()| file.sync_all()).map_err(|error| self.shared.error(len, error))?;
        Ok(file)
    }
}

impl Shared {
    fn write(&self, offset: u64, extent: &[u8]) {
        if let Err(error) = self.file.write_all_at(extent, offset) {
            if let Ok(mut failed) = self.failed.lock() {
                failed.get_or_insert((offset, error));
            }
        }
    }

    fn check(&self) -> Result<()> {
        match self.failed.lock().ok().and_then(|mut failed| failed.take()) {
            Some((offset, error)) => Err(self.error(offset, error)),
            None => Ok(()),
        }
    }

    fn error(&self, offset: u64, error: std::io::Error) -> Error {
        let full = matches!(error.raw_os_error(), Some(code) if code == rustix::io::Errno::NOSPC.raw_os_error()
            || code == rustix::io::Errno::DQUOT.raw_os_error());
        let failed = Error::new(Stage::Sink, Kind::Local, format!("write `{}` at host offset {offset}", self.path.display()))
            .because(error);
        if full { failed.advise("free some space, or write to another disk") } else { failed }
    }
}

/// Turns O_DIRECT on or off; tells whether it is on.
fn set_direct(file: &File, on: bool) -> bool {
    let Ok(flags) = rustix::fs::fcntl_getfl(file) else { return false };
    let wanted = if on { flags | OFlags::DIRECT } else { flags - OFlags::DIRECT };
    rustix::fs::fcntl_setfl(file, wanted).is_ok() && on
}
