//! io_uring: several extents under way, submitted and reaped by the caller's own thread.
#![allow(unsafe_code)]

use std::os::fd::AsRawFd;
use std::sync::Arc;

use io_uring::{IoUring, Probe, opcode, types};

use super::{Output, Preallocated, WriteError, Writer};
use crate::buffers::Slice;

/// Extents under way at most.
const DEPTH: usize = 4;

pub(in crate::sink) struct Uring {
    output: Arc<Output>,
    ring: IoUring,
    /// The extents that the kernel reads from, by the number it gives back.
    under_way: [Option<(u64, Slice)>; DEPTH],
    preallocated: Preallocated,
}

/// A ring that can write.
fn usable_ring() -> std::io::Result<IoUring> {
    let ring = IoUring::new(DEPTH as u32)?;
    let mut probe = Probe::new();
    ring.submitter().register_probe(&mut probe)?;
    if probe.is_supported(opcode::Write::CODE) {
        Ok(ring)
    } else {
        Err(std::io::ErrorKind::Unsupported.into())
    }
}

/// Whether this kernel and whoever confines this process permit what the writer needs.
///
/// # Errors
/// What the kernel says; files are written by threads then.
pub fn check_uring() -> std::io::Result<()> {
    usable_ring().map(drop)
}

impl Uring {
    /// A ring, if this kernel and whoever confines this process permit one that can write.
    pub(in crate::sink) fn new(output: Arc<Output>) -> std::io::Result<Self> {
        let ring = usable_ring()?;
        Ok(Self { output, ring, under_way: [const { None }; DEPTH], preallocated: Preallocated::default() })
    }

    fn free_slot(&mut self) -> Result<usize, WriteError> {
        loop {
            if let Some(slot) = self.under_way.iter().position(Option::is_none) {
                return Ok(slot);
            }
            self.reap(1)?;
        }
    }

    /// Waits for at least so many writes and takes back their extents.
    fn reap(&mut self, at_least: usize) -> Result<(), WriteError> {
        loop {
            match self.ring.submit_and_wait(at_least) {
                Ok(_) => break,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(cause) => return Err(WriteError { offset: 0, cause }),
            }
        }
        let done: Vec<_> =
            self.ring.completion().map(|entry| (entry.user_data() as usize, entry.result())).collect();
        let mut first_failure = Ok(());
        for (slot, result) in done {
            let Some((offset, extent)) = self.under_way.get_mut(slot).and_then(Option::take) else {
                continue;
            };
            let written = usize::try_from(result).unwrap_or(0);
            let errno = (result < 0).then(|| std::io::Error::from_raw_os_error(-result));
            let outcome = match errno {
                Some(cause) if cause.kind() != std::io::ErrorKind::InvalidInput => {
                    Err(WriteError { offset, cause })
                }
                // A short write, or a file system that refuses O_DIRECT: the rest goes the plain way.
                _ if written < extent.len() => self.output.write_plainly(offset, &extent),
                _ => Ok(()),
            };
            first_failure = first_failure.and(outcome);
        }
        first_failure
    }

    fn count(&self) -> usize {
        self.under_way.iter().flatten().count()
    }
}

impl Writer for Uring {
    fn submit(&mut self, offset: u64, extent: Slice) -> Result<(), WriteError> {
        self.preallocated.reach(&self.output, offset + extent.len() as u64);
        let slot = self.free_slot()?;
        let file = types::Fd(self.output.file.as_raw_fd());
        let entry = opcode::Write::new(file, extent.as_ptr(), extent.len() as u32)
            .offset(offset)
            .build()
            .user_data(slot as u64);
        self.under_way[slot] = Some((offset, extent));
        // SAFETY: the memory that the entry points to belongs to the buffer just put into
        // `under_way`, whose heap allocation does not move with it; it is taken out only when the
        // kernel has reported this entry's completion, and `drop` waits for that too. The file is
        // kept open by `output` as long.
        let pushed = unsafe { self.ring.submission().push(&entry) };
        if pushed.is_err() {
            // The queue has as many places as there are slots, and every submit empties it.
            let (offset, extent) =
                self.under_way[slot].take().unwrap_or_else(|| unreachable!("it was just put there"));
            return self.output.write_plainly(offset, &extent);
        }
        self.ring.submit().map(drop).map_err(|cause| WriteError { offset, cause })
    }

    fn drain(&mut self) -> Result<(), WriteError> {
        let mut first_failure = Ok(());
        while self.count() > 0 {
            let before = self.count();
            match self.reap(1) {
                // The ring itself fails; `drop` sees to what it still holds.
                Err(error) if self.count() == before => return first_failure.and(Err(error)),
                reaped => first_failure = first_failure.and(reaped),
            }
        }
        first_failure
    }

    fn method(&self) -> &'static str {
        "io_uring"
    }
}

impl Drop for Uring {
    fn drop(&mut self) {
        // The kernel may still read from the extents.
        while self.count() > 0 {
            if self.ring.submit_and_wait(1).is_err() {
                // Better to lose the memory than to hand it out while the kernel uses it.
                self.under_way.iter_mut().filter_map(Option::take).for_each(std::mem::forget);
                return;
            }
            let done: Vec<_> = self.ring.completion().map(|entry| entry.user_data() as usize).collect();
            for slot in done {
                if let Some(place) = self.under_way.get_mut(slot) {
                    *place = None;
                }
            }
        }
    }
}
