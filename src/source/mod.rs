//! Stage 1 of 5, source. Takes the name of something that holds a raw disk, gives its bytes as
//! chunks of whole clusters in rising order. Holds at most the buffers of its pool; never looks at
//! what the bytes mean, except for the first few, which tell a raw disk from an image format.

mod file;
mod gather;
#[cfg(feature = "openstack")]
mod glance;
mod locks;
mod magic;
mod mapped;
mod outlet;
mod stream;

use std::ops::Range;
use std::sync::Arc;

use crate::error::Result;
use crate::facts::SourceFacts;

pub use file::FileSource;
pub use gather::{Assembler, Gather, Gathered, IsZero};
#[cfg(feature = "openstack")]
pub use glance::{GlanceBytes, GlanceSource, GlanceStream, known_digest};
pub use magic::{PROBE_BYTES, image_format};
pub use mapped::MappedSource;
pub use outlet::{Outlet, StopSignal, Stopped};
pub use stream::StreamSource;

/// Which clusters a reader wants.
#[derive(Clone, Debug)]
pub enum Wanted {
    /// All of the disk.
    All,
    /// Clusters to read again, as runs `first..end` in rising order. A source that can only be read
    /// from the beginning delivers everything up to the end of the last run.
    Runs(Arc<Vec<Range<u64>>>),
}

impl Wanted {
    /// The cluster behind the last wanted one; `u64::MAX` if all are wanted.
    pub fn end(&self) -> u64 {
        match self {
            Self::All => u64::MAX,
            Self::Runs(runs) => runs.last().map_or(0, |run| run.end),
        }
    }
}

/// Something that holds a raw disk.
pub trait Source: Send + Sync {
    /// What is known before reading.
    fn facts(&self) -> &SourceFacts;

    /// Reads what is wanted into the outlet, in rising order, and gives the length of the disk in
    /// bytes as far as this pass has seen it.
    ///
    /// # Errors
    /// Whatever keeps the bytes from coming; [`Stopped`] (as an error) if the other side went away.
    fn read(&self, wanted: &Wanted, outlet: &mut Outlet) -> Result<u64>;

    /// The file itself, where it is a regular one: a file system may let another file share its blocks.
    fn file(&self) -> Option<&std::fs::File> {
        None
    }

    /// The next run of bytes that may hold data, at or behind `from`, where that is known without reading; else all
    /// the rest. `None`: nothing but zeros follow.
    ///
    /// # Errors
    /// [`Kind::Source`](crate::error::Kind::Source) if the source cannot be asked.
    fn data_behind(&self, from: u64) -> Result<Option<Range<u64>>> {
        Ok(self.facts().len.filter(|len| from < *len).map(|len| from..len))
    }

    /// Called when all chunks of a pass have been used: whether they can be relied on.
    ///
    /// # Errors
    /// [`Kind::SourceChanged`](crate::error::Kind::SourceChanged) if the disk changed meanwhile.
    fn settle(&self) -> Result<()> {
        Ok(())
    }
}
