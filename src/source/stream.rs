//! Standard input and other streams: read once, from the beginning, length unknown.

use std::io::Read;
use std::sync::Mutex;

use super::file::not_raw;
use super::{Outlet, PROBE_BYTES, Source, Wanted, image_format};
use crate::error::{Error, Kind, Result, Stage};
use crate::facts::{Access, SourceFacts};
use crate::flow::CHUNK_BYTES;
use crate::units::ClusterIndex;

/// A stream that holds a raw disk.
pub struct StreamSource {
    facts: SourceFacts,
    raw_by_order: bool,
    stream: Mutex<Option<Box<dyn Read + Send>>>,
}

impl StreamSource {
    /// Wraps a stream; unless `raw_by_order`, one that begins like an image format is refused when
    /// it is read.
    pub fn new(name: &str, stream: Box<dyn Read + Send>, raw_by_order: bool) -> Self {
        let facts = SourceFacts { name: name.into(), len: None, access: Access::Once, is_remote: false };
        Self { facts, raw_by_order, stream: Mutex::new(Some(stream)) }
    }
}

impl std::fmt::Debug for StreamSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "StreamSource({})", self.facts.name)
    }
}

impl Source for StreamSource {
    fn facts(&self) -> &SourceFacts {
        &self.facts
    }

    fn read(&self, _wanted: &Wanted, outlet: &mut Outlet) -> Result<u64> {
        let stream = self.stream.lock().ok().and_then(|mut stream| stream.take());
        let Some(mut stream) = stream else {
            let what = format!("{} can be read only once", self.facts.name);
            return Err(Error::new(Stage::Source, Kind::Local, what)
                .advise("allow a larger spool with --spool-disk, or write to a file"));
        };
        let cs = outlet.cluster_size();
        let mut offset = 0u64;
        loop {
            let mut buffer = outlet.buffer()?;
            let len = fill(&mut stream, &mut buffer[..CHUNK_BYTES]).map_err(|error| {
                let what = format!("read {} at offset {offset}", self.facts.name);
                Error::new(Stage::Source, Kind::Source, what).because(error)
            })?;
            if offset == 0
                && !self.raw_by_order
                && let Some(format) = image_format(&buffer[..len.min(PROBE_BYTES)])
            {
                return Err(not_raw(&self.facts.name, format));
            }
            outlet.count_read(len as u64);
            if len > 0 {
                outlet.data(ClusterIndex(offset >> cs.bits()), buffer, len)?;
            }
            offset += len as u64;
            if len < CHUNK_BYTES {
                return Ok(offset);
            }
        }
    }
}

/// Reads until the buffer is full or the stream ends.
fn fill(stream: &mut dyn Read, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match stream.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
