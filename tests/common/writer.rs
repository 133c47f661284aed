//! A disk under a file target that fills up, fails or dawdles on cue.

use std::io;
use std::ops::Range;

use snapcow::buffers::Slice;
use snapcow::sink::{WriteError, Writer};

/// A writer whose extents meet trouble on their way.
pub struct Troubled<F> {
    inner: Box<dyn Writer>,
    meet: F,
    written: u64,
    failed: Option<WriteError>,
}

impl<F: FnMut(Range<u64>) -> io::Result<()> + Send> Troubled<F> {
    /// `meet` tells what becomes of an extent, by the number of bytes written before it and with it. A failure is
    /// heard of as from a disk: with a later extent, or when all of them are waited for.
    pub fn new(inner: Box<dyn Writer>, meet: F) -> Self {
        Self { inner, meet, written: 0, failed: None }
    }
}

impl<F: FnMut(Range<u64>) -> io::Result<()> + Send> Writer for Troubled<F> {
    fn submit(&mut self, offset: u64, extent: Slice) -> Result<(), WriteError> {
        self.failed.take().map_or(Ok(()), Err)?;
        let before = self.written;
        self.written += extent.len() as u64;
        match (self.meet)(before..self.written) {
            Ok(()) => self.inner.submit(offset, extent),
            Err(cause) => {
                self.failed = Some(WriteError { offset, cause });
                Ok(())
            }
        }
    }

    fn drain(&mut self) -> Result<(), WriteError> {
        self.inner.drain()?;
        self.failed.take().map_or(Ok(()), Err)
    }

    fn method(&self) -> &'static str {
        self.inner.method()
    }
}
