//! MBR: the four entries, and the chain of logical partitions (Linux, block/partitions/msdos.c).

use std::collections::BTreeSet;
use std::ops::Range;

use super::{Partition, Role, kinds};
use crate::free::bytes::le32;
use crate::free::{Disk, Outcome, Trouble};

/// Sectors of an MBR are taken to have 512 bytes: nothing in it says so, but no machine of ours has others.
pub(super) const SECTOR: u64 = 512;
/// The number of the first logical partition.
pub(super) const FIRST_LOGICAL: u32 = 5;
/// Links of a chain of logical partitions that are followed; Linux follows 100.
const LINKS_MAX: usize = 128;

/// An entry that is not all zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// Its place in the sector, from 1.
    pub number: u32,
    pub kind: u8,
    pub start: u64,
    pub sectors: u64,
}

impl Entry {
    fn is_extended(&self) -> bool {
        matches!(self.kind, 0x05 | 0x0f | 0x85)
    }

    /// The partition, `base` sectors behind the place that the entry tells.
    pub fn partition(&self, number: u32, base: u64) -> Partition {
        let (kind, role) = kinds::of_mbr(self.kind);
        let (start, len) = ((base + self.start) * SECTOR, self.sectors * SECTOR);
        let doubt = match (self.kind, self.start) {
            (0, _) => Some("it has no type".into()),
            (_, 0) => Some("it begins at its own table".into()),
            _ => None,
        };
        Partition { number, start, len, kind, name: String::new(), role, doubt }
    }
}

/// What a first sector tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Boot {
    /// No table: no signature, or no entry.
    None,
    /// Entries, at least one.
    Entries(Vec<Entry>),
    /// A signature, and something else than entries where they should be.
    Odd,
}

/// The entries of a sector: one that has no sectors is none.
pub(super) fn boot(sector: &[u8]) -> Boot {
    let Some(table) = sector.get(446..510).filter(|_| sector.get(510..512) == Some(&[0x55, 0xaa])) else {
        return Boot::None;
    };
    let mut entries = Vec::new();
    for (bytes, number) in table.chunks_exact(16).zip(1..) {
        if bytes.iter().all(|byte| *byte == 0) {
            continue;
        }
        // The boot sector of a filesystem has the same signature, and code or text here.
        if bytes.first().is_none_or(|flag| flag & 0x7f != 0) {
            return Boot::Odd;
        }
        let (start, sectors) = (le32(bytes, 8).unwrap_or(0), le32(bytes, 12).unwrap_or(0));
        let kind = bytes.get(4).copied().unwrap_or(0);
        if sectors == 0 {
            if kind != 0 {
                return Boot::Odd;
            }
            continue;
        }
        entries.push(Entry { number, kind, start: start.into(), sectors: sectors.into() });
    }
    if entries.is_empty() { Boot::None } else { Boot::Entries(entries) }
}

/// The chain of logical partitions inside of an extended one, link by link.
#[derive(Clone, Debug)]
pub struct Chain {
    /// The extended partition, in sectors.
    inside: Range<u64>,
    /// The next link, in sectors of the disk.
    next: Option<u64>,
    seen: BTreeSet<u64>,
    number: u32,
    /// The links read so far, in bytes of the disk.
    pub own: Vec<Range<u64>>,
    /// Why the chain cannot be believed: all logical partitions are in doubt then.
    pub doubt: Option<String>,
}

impl Chain {
    pub(super) fn of(extended: &Entry, len: u64) -> Self {
        let inside = extended.start..(extended.start + extended.sectors).min(len / SECTOR);
        let next = Some(extended.start);
        Self { inside, next, seen: BTreeSet::new(), number: FIRST_LOGICAL, own: Vec::new(), doubt: None }
    }

    /// The logical partitions of the next link (one, or none); `None` at the end of the chain.
    ///
    /// # Errors
    /// The disk cannot be read.
    pub fn step(&mut self, disk: &dyn Disk) -> Outcome<Option<Vec<Partition>>> {
        let Some(at) = self.next.take() else { return Ok(None) };
        if !self.inside.contains(&at) {
            return Ok(self.end("its chain of logical partitions leaves the extended one"));
        }
        if self.seen.len() == LINKS_MAX {
            return Ok(self.end("its chain of logical partitions is too long"));
        }
        if !self.seen.insert(at) {
            return Ok(self.end("its chain of logical partitions is a loop"));
        }
        let range = at * SECTOR..(at + 1) * SECTOR;
        let mut read = disk.read(std::slice::from_ref(&range)).map_err(Trouble::from)?;
        let sector = read.pop().unwrap_or_default();
        self.own.push(range);
        let entries = match boot(&sector) {
            Boot::Entries(entries) => entries,
            // An extended partition in which there is none yet.
            Boot::None if self.seen.len() == 1 && sector.get(510..512) == Some(&[0x55, 0xaa]) => Vec::new(),
            _ => return Ok(self.end("a link of its chain of logical partitions is damaged")),
        };
        Ok(self.link(at, &entries))
    }

    fn link(&mut self, at: u64, entries: &[Entry]) -> Option<Vec<Partition>> {
        if entries.iter().any(|entry| entry.number > 2) {
            return self.end("a link of its chain of logical partitions has more than two entries");
        }
        let mut found = Vec::new();
        for entry in entries {
            if entry.is_extended() {
                if self.next.is_some() {
                    return self.end("a link of its chain of logical partitions has two successors");
                }
                // Places of links count from the extended partition, those of partitions from their link.
                self.next = Some(self.inside.start + entry.start);
            } else if found.is_empty() {
                let mut part = entry.partition(self.number, at);
                if at + entry.start + entry.sectors > self.inside.end {
                    part.doubt(|| "it goes beyond the end of the extended partition".into());
                }
                self.number += 1;
                found.push(part);
            } else {
                return self.end("a link of its chain of logical partitions has two partitions");
            }
        }
        Some(found)
    }

    fn end<T>(&mut self, why: &str) -> Option<T> {
        self.next = None;
        self.doubt = Some(why.into());
        None
    }
}

/// Where the chain of logical partitions begins; doubts extended partitions if there are several.
pub(super) fn chain(entries: &[Entry], partitions: &mut [Partition], len: u64) -> Option<Chain> {
    let mut extended = entries.iter().filter(|entry| entry.is_extended());
    let first = extended.next()?;
    if extended.next().is_some() {
        for part in partitions.iter_mut().filter(|part| part.role == Role::Container) {
            part.doubt(|| "there are several extended partitions".into());
        }
        return None;
    }
    Some(Chain::of(first, len))
}
