//! Partition tables: GPT with its backup, MBR with logical partitions, read strictly.
//!
//! Reading goes in steps, since a disk may stream by: [`head`] tells the partitions that the beginning of the disk
//! knows of, [`Chain`] follows the logical ones, [`tail`] compares the backup at the end. [`settle`] says of which
//! partitions the places cannot be believed; [`read`] does it all.

mod gpt;
mod kinds;
mod mbr;
mod whole;

use std::ops::Range;

pub use mbr::Chain;
pub(super) use whole::close;
pub use whole::{Compared, HEAD_BYTES, Head, Tail, head, read, tail};

/// What kind of table a disk has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// Master boot record, with logical partitions.
    Mbr,
    /// GUID partition table.
    Gpt,
}

impl Scheme {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Mbr => "MBR",
            Self::Gpt => "GPT",
        }
    }
}

/// What follows from the type of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A filesystem or the like may lie in it.
    Data,
    /// Firmware or a boot loader reads it, perhaps by block lists: it is never trimmed.
    Boot,
    /// A member of an array: whatever filesystem is seen in it is the array's.
    Raid,
    /// Nothing but other partitions lies in it.
    Container,
}

/// A partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Its number, from 1.
    pub number: u32,
    /// Where it begins, in bytes; beyond the end of the disk only if there is a doubt.
    pub start: u64,
    /// How long it is, in bytes; it ends beyond the end of the disk only if there is a doubt.
    pub len: u64,
    /// What is in it, by its type, in words.
    pub kind: String,
    /// Its name, if it has one, without control characters.
    pub name: String,
    /// What its type says of its use.
    pub role: Role,
    /// Why its place cannot be believed, if so.
    pub doubt: Option<String>,
}

impl Partition {
    /// Its first byte and the one behind its last.
    pub fn range(&self) -> Range<u64> {
        self.start..self.start.saturating_add(self.len)
    }

    /// Keeps the first of several doubts.
    fn doubt(&mut self, reason: impl FnOnce() -> String) {
        self.doubt.get_or_insert_with(reason);
    }
}

/// A partition table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Its kind.
    pub scheme: Scheme,
    /// Its sectors, in bytes: 512 or 4096.
    pub sector_bytes: u64,
    /// The partitions, by their numbers.
    pub partitions: Vec<Partition>,
    /// Where the table itself lies, in bytes of the disk.
    pub own: Vec<Range<u64>>,
    /// What else a person should know: `its backup at the end is missing`.
    pub note: Option<String>,
}

/// Doubts the partitions that overlap each other, the table itself, or that go beyond the end of a disk of `len` bytes.
pub fn settle(table: &mut Table, len: u64) {
    let own = std::mem::take(&mut table.own);
    for part in &mut table.partitions {
        let range = part.range();
        if range.end > len || part.start.checked_add(part.len).is_none() {
            part.doubt(|| format!("it goes beyond the end of the disk at {len}"));
        }
        // The sectors that chain logical partitions lie inside of the extended one.
        let is_hit = |one: &Range<u64>| one.start < range.end && range.start < one.end;
        if part.role != Role::Container && own.iter().any(is_hit) {
            part.doubt(|| "it overlaps the partition table".into());
        }
    }
    table.own = own;
    let mut order: Vec<usize> =
        (0..table.partitions.len()).filter(|i| table.partitions[*i].len > 0).collect();
    order.sort_by_key(|index| table.partitions[*index].start);
    // Logical partitions are compared among themselves and with the primary ones, and so is their container.
    let is_nested = |table: &Table, a: usize, b: usize| {
        let (a, b) = (&table.partitions[a], &table.partitions[b]);
        (a.role == Role::Container && b.number >= mbr::FIRST_LOGICAL && table.scheme == Scheme::Mbr)
            || (b.role == Role::Container && a.number >= mbr::FIRST_LOGICAL && table.scheme == Scheme::Mbr)
    };
    for (place, &index) in order.iter().enumerate() {
        for &next in &order[place + 1..] {
            if table.partitions[next].start >= table.partitions[index].range().end {
                break;
            }
            if is_nested(table, index, next) {
                continue;
            }
            let (a, b) = (table.partitions[index].number, table.partitions[next].number);
            table.partitions[index].doubt(|| format!("it overlaps partition {b}"));
            table.partitions[next].doubt(|| format!("it overlaps partition {a}"));
        }
    }
    let container = |part: &&Partition| part.role == Role::Container && part.doubt.is_some();
    if table.scheme == Scheme::Mbr
        && let Some(number) = table.partitions.iter().find(container).map(|part| part.number)
    {
        for part in table.partitions.iter_mut().filter(|part| part.number >= mbr::FIRST_LOGICAL) {
            part.doubt(|| format!("the place of the extended partition {number} is in doubt"));
        }
    }
}
