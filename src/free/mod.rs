//! What the filesystems of a disk have freed. Takes a disk by byte ranges ([`Disk`]), gives the runs of bytes that
//! are proven free, and for everything else the reason why it is kept. Has no I/O of its own.
//!
//! The rule: what cannot be proven free is kept. No byte of the disk is believed before its checksum or its
//! counterpart agrees; an inconsistency inside of a filesystem leaves that filesystem whole. Memory is bounded by
//! [`Limits::memory_bytes`], and so are reads and loops.
#![forbid(unsafe_code)]

mod bytes;
mod checksum;
pub mod disk;
pub mod ext4;
pub mod lvm;
mod runs;
pub mod signatures;
pub mod stream;
pub mod swap;
pub mod table;
mod volume;
pub mod xfs;

pub use runs::Runs;
pub use volume::{Segment, Volume};

use std::fmt;
use std::ops::Range;

use crate::error::{Error, Result};

/// A disk that is asked for byte ranges.
pub trait Disk: Sync {
    /// The bytes of each range. The ranges are in rising order, do not overlap, lie on the disk, and are not empty.
    ///
    /// A disk that streams by gives what comes later, once it has come, and an error for what has passed unless it was
    /// asked for before: so whoever reads asks for all that it knows it will need at once.
    ///
    /// # Errors
    /// What keeps the bytes from coming.
    fn read(&self, wanted: &[Range<u64>]) -> Result<Vec<Vec<u8>>>;

    /// Tells what is going to be read, so that a disk that streams by keeps it; whether it is such a disk. Ranges in any
    /// order.
    fn want(&self, ranges: &[Range<u64>]) -> bool {
        let _ = ranges;
        false
    }

    /// A thread more will read, until it has called [`leave`](Self::leave). A disk that streams by waits for its
    /// questions; while it waits for something else than the disk, such a thread must not be counted.
    fn enter(&self) {}

    /// A thread that was counted will read no more.
    fn leave(&self) {}
}

/// Bytes in memory, as a disk.
impl Disk for Vec<u8> {
    fn read(&self, wanted: &[Range<u64>]) -> Result<Vec<Vec<u8>>> {
        let one = |range: &Range<u64>| self[range.start as usize..range.end as usize].to_vec();
        Ok(wanted.iter().map(one).collect())
    }
}

/// What a reader may use.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Memory for the metadata of one filesystem, in bytes.
    pub memory_bytes: u64,
}

/// Why a filesystem is not trimmed.
#[derive(Debug)]
pub enum Trouble {
    /// It is kept whole, for this reason: words that go on after "left whole: ", without a full stop.
    Whole(String),
    /// The disk could not be read.
    Failed(Error),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl Trouble {
    /// Kept whole, and why.
    pub fn whole(reason: impl fmt::Display) -> Self {
        Self::Whole(reason.to_string())
    }
}

/// The outcome of looking at one filesystem.
pub type Outcome<T> = std::result::Result<T, Trouble>;

/// What one filesystem has freed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Freed {
    /// What it is, with what matters of its version: `ext4`, `XFS v5`, `swap`.
    pub kind: String,
    /// Its length in bytes, at most that of its volume.
    pub len: u64,
    /// Proven free, in bytes from the beginning of its volume.
    pub free: Runs,
    /// What else a person should know: `its journal was replayed in memory (214 blocks)`.
    pub note: Option<String>,
}
