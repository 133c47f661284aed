//! Stage 5 of 5, sink. Takes the bytes of the finished image, gives them to a file, to standard
//! output or to Glance. Holds a few parts; never changes a byte.
//!
//! Two kinds: an [`InOrder`] sink takes parts from byte 0 on; [`FileSink`] takes them anywhere, so
//! the header can come last.

mod extents;
mod file;
mod stream;

use bytes::Bytes;

use crate::error::Result;

pub use file::FileSink;
pub use stream::StreamSink;

/// A sink that takes the bytes of a file in order.
pub trait InOrder {
    /// Takes the next bytes; waits while the sink is slower.
    ///
    /// # Errors
    /// Whatever keeps the bytes from leaving.
    fn put(&mut self, part: Bytes) -> Result<()>;
}
