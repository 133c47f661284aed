//! A disk that comes as a stream: standard input, or an image whose store serves no ranges.

use std::io::Read;
use std::sync::{Mutex, PoisonError};

use super::{Disk, DiskReader, Extent};
use crate::error::{Error, Kind, Result, Stage};

/// How much is read at once of what is skipped.
const SKIP_BYTES: usize = 1 << 20;

/// A raw disk that can be read once, from its beginning.
pub struct StreamDisk {
    name: String,
    len: Option<u64>,
    stream: Mutex<Option<Box<dyn Read + Send>>>,
}

impl StreamDisk {
    /// A stream of `len` bytes, where that is known; one that ends earlier is an error then.
    pub fn new(name: &str, len: Option<u64>, stream: Box<dyn Read + Send>) -> Self {
        Self { name: name.into(), len, stream: Mutex::new(Some(stream)) }
    }
}

impl Disk for StreamDisk {
    fn name(&self) -> &str {
        &self.name
    }

    fn size(&self) -> Option<u64> {
        self.len
    }

    fn is_stream(&self) -> bool {
        true
    }

    fn reader(&self) -> Result<Box<dyn DiskReader + '_>> {
        let stream = self.stream.lock().unwrap_or_else(PoisonError::into_inner).take();
        let stream = stream.ok_or_else(|| {
            Error::new(Stage::Source, Kind::Other, format!("{} can be read only once", self.name))
        })?;
        Ok(Box::new(StreamReader { disk: self, stream, at: 0 }))
    }
}

struct StreamReader<'a> {
    disk: &'a StreamDisk,
    stream: Box<dyn Read + Send>,
    at: u64,
}

impl StreamReader<'_> {
    /// Reads until `out` is full or the stream ends.
    fn fill(&mut self, out: &mut [u8]) -> Result<usize> {
        let mut filled = 0;
        while filled < out.len() {
            match self.stream.read(&mut out[filled..]) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.broken(filled, error)),
            }
        }
        self.at += filled as u64;
        match self.disk.len {
            Some(len) if filled < out.len() && self.at < len => {
                let what = format!("{} has {len} bytes, but ended after {}", self.disk.name, self.at);
                Err(Error::new(Stage::Source, Kind::SourceChanged, what))
            }
            _ => Ok(filled),
        }
    }

    fn broken(&self, filled: usize, error: std::io::Error) -> Error {
        // A stream of ours wraps our own error, which says more.
        error.downcast::<Error>().unwrap_or_else(|error| {
            let what = format!("read {} at offset {}", self.disk.name, self.at + filled as u64);
            Error::new(Stage::Source, Kind::Source, what).because(error)
        })
    }
}

impl DiskReader for StreamReader<'_> {
    fn extent(&mut self, from: u64, until: u64) -> Result<Extent> {
        let end = self.disk.len.unwrap_or(u64::MAX);
        Ok(Extent { end: if from < end { until.min(end) } else { until }, is_zero: from >= end })
    }

    fn read(&mut self, out: &mut [u8], offset: u64) -> Result<usize> {
        let mut skipped = vec![0; if self.at < offset { SKIP_BYTES } else { 0 }];
        while self.at < offset {
            let take = (offset - self.at).min(SKIP_BYTES as u64) as usize;
            if self.fill(&mut skipped[..take])? < take {
                break;
            }
        }
        // It may have ended before.
        let read = if self.at < offset { 0 } else { self.fill(out)? };
        out[read..].fill(0);
        Ok(read)
    }
}
