//! Standard output and other streams.

use std::io::Write;

use bytes::Bytes;

use super::InOrder;
use crate::error::{Error, Kind, Result, Stage};

/// A stream that takes the image.
pub struct StreamSink {
    name: String,
    stream: Box<dyn Write + Send>,
    sent: u64,
}

impl StreamSink {
    /// Wraps a stream; `name` is for messages.
    pub fn new(name: &str, stream: Box<dyn Write + Send>) -> Self {
        Self { name: name.into(), stream, sent: 0 }
    }

    /// Hands on whatever the stream still buffers, and tells how many bytes it took.
    ///
    /// # Errors
    /// [`Kind::ClosedPipe`] if the reader went away, else [`Kind::Local`].
    pub fn finish(&mut self) -> Result<u64> {
        self.stream.flush().map_err(|error| self.failed(error))?;
        Ok(self.sent)
    }

    fn failed(&self, error: std::io::Error) -> Error {
        let closed = error.kind() == std::io::ErrorKind::BrokenPipe;
        let kind = if closed { Kind::ClosedPipe } else { Kind::Local };
        let what = format!("write to {} at offset {}", self.name, self.sent);
        Error::new(Stage::Sink, kind, what).because(error)
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
        write!(f, "StreamSink({}, {} bytes sent)", self.name, self.sent)
    }
}
