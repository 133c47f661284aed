//! Standard output and other streams.

use std::io::Write;

use bytes::Bytes;

use super::{Delivered, Delivery, InOrder, Produce};
use crate::error::{Error, Kind, Result, Stage};
use crate::facts::{SinkFacts, SinkOrder};

/// A stream that takes the image.
pub struct StreamSink {
    facts: SinkFacts,
    stream: Box<dyn Write + Send>,
    sent: u64,
}

impl StreamSink {
    /// Wraps a stream; `name` is for messages.
    pub fn new(name: &str, stream: Box<dyn Write + Send>) -> Self {
        Self { facts: SinkFacts { name: name.into(), order: SinkOrder::InOrder }, stream, sent: 0 }
    }

    fn failed(&self, error: std::io::Error) -> Error {
        let closed = error.kind() == std::io::ErrorKind::BrokenPipe;
        let kind = if closed { Kind::ClosedPipe } else { Kind::Local };
        let what = format!("write to {} at offset {}", self.facts.name, self.sent);
        Error::new(Stage::Sink, kind, what).because(error)
    }
}

impl Delivery for StreamSink {
    fn facts(&self) -> &SinkFacts {
        &self.facts
    }

    fn deliver(&mut self, _len: u64, produce: Produce<'_>) -> Result<Delivered> {
        produce(self)?;
        self.stream.flush().map_err(|error| self.failed(error))?;
        let unverified = Some("a stream has nobody who could confirm its bytes".into());
        Ok(Delivered { bytes: self.sent, unverified, ..Delivered::default() })
    }
}

impl InOrder for StreamSink {
    fn put(&mut self, part: Bytes) -> Result<()> {
        self.stream.write_all(&part).map_err(|error| self.failed(error))?;
        self.sent += part.len() as u64;
        Ok(())
    }
}

impl std::fmt::Debug for StreamSink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "StreamSink({}, {} bytes sent)", self.facts.name, self.sent)
    }
}
