//! The spool's file: a ring of slots, written by a thread of its own so that a slow disk is noticed
//! and not waited for.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use bytes::Bytes;

use crate::error::{Error, Kind, Result, Stage};

pub(super) enum Submitted {
    Slot(u64),
    /// Every slot is taken, or the file system has no room for another one.
    Full,
    Failed,
}

pub(super) enum Waited {
    Nothing,
    /// A block has reached the disk; this was its memory.
    Done(Bytes),
    Failed,
}

/// How a block gets into the file; tests have slower ways.
pub(super) type Write = fn(&File, &[u8], u64) -> std::io::Result<()>;

#[derive(Debug)]
pub(super) struct Disk {
    pub(super) write: Write,
    dir: PathBuf,
    block_bytes: usize,
    slots_max: u64,
    slots_made: u64,
    free: Vec<u64>,
    open: Option<Open>,
    in_flight: usize,
    written: u64,
}

#[derive(Debug)]
struct Open {
    file: Arc<File>,
    work: Sender<(u64, Bytes)>,
    done: Receiver<(Bytes, std::io::Result<()>)>,
}

impl Disk {
    pub(super) fn new(dir: PathBuf, slots_max: u64, block_bytes: usize) -> Self {
        let write = File::write_all_at;
        Self {
            write,
            dir,
            block_bytes,
            slots_max,
            slots_made: 0,
            free: Vec::new(),
            open: None,
            in_flight: 0,
            written: 0,
        }
    }

    pub(super) fn is_busy(&self) -> bool {
        self.in_flight > 0
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }

    pub(super) fn written(&self) -> u64 {
        self.written
    }

    /// Sends a block on its way.
    pub(super) fn submit(&mut self, bytes: Bytes) -> Submitted {
        if self.open.is_none() {
            match Open::new(&self.dir, self.write) {
                Ok(open) => self.open = Some(open),
                Err(error) => {
                    tracing::warn!("no spool file in {}: {error}", self.dir.display());
                    return Submitted::Failed;
                }
            }
        }
        let (Some(slot), Some(open)) = (self.slot(), &self.open) else {
            return Submitted::Full;
        };
        self.written += bytes.len() as u64;
        if open.work.send((slot * self.block_bytes as u64, bytes)).is_err() {
            return Submitted::Failed;
        }
        self.in_flight += 1;
        Submitted::Slot(slot)
    }

    fn slot(&mut self) -> Option<u64> {
        if let Some(slot) = self.free.pop() {
            return Some(slot);
        }
        if self.slots_made == self.slots_max {
            return None;
        }
        // Asked for beforehand, so that a full disk is an overflow and never a failed write.
        let offset = self.slots_made * self.block_bytes as u64;
        let open = self.open.as_ref()?;
        let flags = rustix::fs::FallocateFlags::empty();
        match rustix::fs::fallocate(&*open.file, flags, offset, self.block_bytes as u64) {
            Ok(()) | Err(rustix::io::Errno::OPNOTSUPP) => {
                self.slots_made += 1;
                Some(self.slots_made - 1)
            }
            Err(error) => {
                tracing::info!("the spool's disk takes no more than {} blocks: {error}", self.slots_made);
                self.slots_max = self.slots_made;
                None
            }
        }
    }

    pub(super) fn release(&mut self, slot: u64) {
        self.free.push(slot);
    }

    /// Waits at most `patience` (without end if `None`) for one block to arrive.
    pub(super) fn wait(&mut self, patience: Option<Duration>) -> Waited {
        let Some(open) = self.open.as_ref().filter(|_| self.in_flight > 0) else {
            return Waited::Nothing;
        };
        let answer = match patience {
            Some(patience) => open.done.recv_timeout(patience),
            None => open.done.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        match answer {
            Ok((bytes, result)) => match result {
                Ok(()) => {
                    self.in_flight -= 1;
                    Waited::Done(bytes)
                }
                Err(error) => {
                    tracing::warn!("write to the spool file: {error}");
                    Waited::Failed
                }
            },
            Err(RecvTimeoutError::Timeout) => Waited::Nothing,
            Err(RecvTimeoutError::Disconnected) => Waited::Failed,
        }
    }

    pub(super) fn read(&self, slot: u64, len: usize) -> Result<Bytes> {
        let failed = |error: std::io::Error| {
            Error::new(
                Stage::Spool,
                Kind::Local,
                format!("read {len} bytes of the spool file in {}", self.dir.display()),
            )
            .because(error)
        };
        let Some(open) = &self.open else {
            return Err(failed(std::io::ErrorKind::NotFound.into()));
        };
        let mut bytes = vec![0; len];
        open.file.read_exact_at(&mut bytes, slot * self.block_bytes as u64).map_err(failed)?;
        Ok(bytes.into())
    }
}

impl Open {
    /// An unlinked file, gone with the process however that ends, and nobody else's.
    fn new(dir: &std::path::Path, write: Write) -> std::io::Result<Self> {
        let file = tempfile::tempfile_in(dir)?;
        rustix::fs::fchmod(&file, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR)?;
        let file = Arc::new(file);
        let (work, orders) = channel::<(u64, Bytes)>();
        let (reports, done) = channel();
        let to = Arc::clone(&file);
        std::thread::Builder::new().name("spool".into()).spawn(move || {
            for (offset, bytes) in orders {
                let result = write(&to, &bytes, offset);
                if reports.send((bytes, result)).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { file, work, done })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn the_file_has_no_name_and_is_its_owners_alone() {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let open = Open::new(dir.path(), File::write_all_at).unwrap();
        let meta = open.file.metadata().unwrap();
        assert_eq!((meta.nlink(), meta.mode() & 0o777), (0, 0o600));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
