//! A whole disk: its table, its partitions, physical and logical volumes in them, and the reader for each.
//!
//! The order in which a disk is asked does not change the outcome: every step is a job, and the jobs of all volumes
//! run one after another ([`look`]), or each on a thread of its own ([`look_at_once`]), which a disk that streams by
//! needs. Only in the end is it judged what may be believed: partitions that overlap, a backup of the table that
//! disagrees, more than one signature in a place, newer LVM metadata elsewhere. A hibernation image anywhere keeps
//! the whole disk, since only the sleeping guest's memory knows what is in use; so does a place that could not be
//! searched for one.
//!
//! What is not seen: a hibernation image inside of something that is not read (LUKS, thin volumes), or in a file.

mod crew;
mod jobs;
mod judge;
mod volumes;

use super::stream::Passing;
use super::{Disk, Limits, Runs, table::Scheme};
use crate::error::Result;

/// Volumes (partitions and logical volumes) that are looked into; further ones are left whole.
pub const VOLUMES_MAX: usize = 256;

/// What looking at a disk has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Findings {
    /// The kind of its partition table, if it has one.
    pub scheme: Option<Scheme>,
    /// Its partitions and logical volumes, each partition before the logical volumes that begin in it.
    pub parts: Vec<Part>,
    /// What is proven free, in bytes of the disk; nothing if all is refused.
    pub free: Runs,
    /// Why nothing of the disk is trimmed: words that go on after "left whole: ", without a full stop.
    pub refused: Option<String>,
    /// What else a person should know of the partition table.
    pub note: Option<String>,
}

/// A partition, a logical volume, or a disk without partitions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// `partition 2`, `partition 3, vg0/root`, `whole disk`.
    pub name: String,
    /// Where it begins on the disk, in bytes; of a logical volume, where its first stretch does.
    pub start: u64,
    /// Its length in bytes.
    pub len: u64,
    /// What is in it: the kind of its filesystem, or by its signatures, or by the type of the partition.
    pub what: Option<String>,
    /// What may be dropped of it.
    pub verdict: Verdict,
}

/// What may be dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// What its filesystem has freed.
    Freed {
        /// Length of the filesystem in bytes.
        fs_bytes: u64,
        /// Bytes that are proven free.
        bytes: u64,
        /// Runs of its volume in which they lie.
        runs: usize,
        /// What else a person should know.
        note: Option<String>,
    },
    /// Nothing, for this reason: words that go on after "left whole: ", without a full stop.
    Whole(String),
}

/// Looks at a disk of `len` bytes, one volume after another. `limits` holds for each volume.
///
/// # Errors
/// The beginning of the disk cannot be read. What else cannot be read is left whole.
pub fn look(disk: &dyn Disk, len: u64, limits: Limits) -> Result<Findings> {
    crew::one_by_one(disk, len, limits)
}

/// The same with a thread for each question that may have to wait, at most three for a volume: for a disk that streams
/// by. The calling thread is one that the disk has counted already, and is not when this returns.
///
/// # Errors
/// As [`look`].
pub fn look_at_once(disk: &dyn Disk, len: u64, limits: Limits) -> Result<Findings> {
    crew::at_once(disk, len, limits)
}

/// Looks at a disk while `pass` offers all of it to `passing`, which is at its beginning; ends it afterwards.
///
/// # Errors
/// As [`look`], and those of `pass`.
pub fn look_while_passing(
    passing: &Passing,
    len: u64,
    limits: Limits,
    pass: impl FnOnce() -> Result<()>,
) -> Result<Findings> {
    crew::while_passing(passing, len, limits, pass)
}
