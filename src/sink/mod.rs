//! Stage 5 of 5, sink. Takes the bytes of the finished image, gives them to a file, to standard
//! output or to Glance. Holds a few parts; never changes a byte.
//!
//! Two kinds: an [`InOrder`] sink takes parts from byte 0 on; [`FileSink`] takes them anywhere, so
//! the header can come last.

mod file;
#[cfg(feature = "openstack")]
mod glance;
mod growing;
mod name;
mod part;
#[cfg(feature = "openstack")]
mod queue;
mod share;
mod stream;
mod whole;
mod writer;

use bytes::Bytes;

use crate::error::Result;
use crate::facts::SinkFacts;
use crate::flow::Room;
use crate::hash::Digest;

pub use file::{FileSink, MEMORY_BYTES as FILE_MEMORY_BYTES};
#[cfg(feature = "openstack")]
pub use glance::{GlanceSink, OnCancel};
pub use growing::SparseFile;
pub use part::Part;
pub use stream::StreamSink;
pub use whole::write_whole;
pub use writer::{WriteError, Writer, check_uring};

/// A sink that takes the bytes of a file in order.
pub trait InOrder {
    /// Takes the next bytes; waits while the sink is slower.
    ///
    /// # Errors
    /// Whatever keeps the bytes from leaving.
    fn put(&mut self, part: Bytes) -> Result<()>;

    /// Asks the sink to keep so many bytes back, as a reserve from which it keeps its connection
    /// alive while nothing new comes. Without a meaning for sinks that can wait.
    fn hold_back(&mut self, _bytes: u64) {}

    /// Tells whether there is room for more, for sources that had to hang up meanwhile; `None` where
    /// a source can just wait.
    fn room(&self) -> Option<Room> {
        None
    }
}

/// Makes all bytes of the image, from byte 0 on; can be asked to do so again.
pub type Produce<'a> = &'a mut dyn FnMut(&mut dyn InOrder) -> Result<()>;

/// Somewhere that an image is delivered to, in order.
pub trait Delivery {
    /// What is known of it.
    fn facts(&self) -> &SinkFacts;

    /// Delivers an image of exactly `len` bytes.
    ///
    /// # Errors
    /// Whatever keeps it from arriving whole and verified.
    fn deliver(&mut self, len: u64, produce: Produce<'_>) -> Result<Delivered>;

    /// Takes back what has been made of the target so far, after a failure. Gives a sentence about
    /// what could not be taken back.
    fn abandon(&mut self) -> Option<String> {
        None
    }
}

/// What a delivery found.
#[derive(Clone, Debug, Default)]
pub struct Delivered {
    /// Bytes that arrived.
    pub bytes: u64,
    /// Times that the delivery had to begin again.
    pub retries: u32,
    /// The hash of the bytes sent, where the target confirmed it.
    pub verified: Option<Digest>,
    /// Why the target did not confirm a hash, where it did not.
    pub unverified: Option<String>,
}
