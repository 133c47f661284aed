//! GPT: headers and entries (UEFI 2.10, 5.3.2 and 5.3.3; the checks are those of Linux, block/partitions/efi.c, and more).

use std::ops::Range;

use super::{Partition, kinds};
use crate::free::bytes::{le32, le64};

/// Bytes of the smallest header and of the smallest entry.
const HEADER_BYTES: usize = 92;
const ENTRY_BYTES: u32 = 128;
/// Bytes of entries that are read at most: 8192 entries of the usual size. Partitions that a table has at most.
const TABLE_BYTES_MAX: u64 = 1 << 20;

/// A header whose own checksum holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    pub sector: u64,
    /// Sector in which it lies, and in which its counterpart is said to.
    pub at: u64,
    pub other: u64,
    /// First and last sector that partitions may have.
    pub usable: (u64, u64),
    pub disk: [u8; 16],
    /// First sector of the entries, their number, the length of each, and the checksum of all.
    pub entries_at: u64,
    pub count: u32,
    pub entry_bytes: u32,
    pub entries_crc: u32,
}

/// Why there is no header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// Nothing says that there is one.
    Missing,
    /// There is something that says it is one.
    Damaged(&'static str),
}

impl Flaw {
    pub fn words(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Damaged(why) => why,
        }
    }
}

/// The header in the sector `at`, of which `bytes` begins with the first byte.
pub fn header(bytes: &[u8], sector: u64, at: u64) -> Result<Header, Flaw> {
    if !bytes.starts_with(b"EFI PART") {
        return Err(Flaw::Missing);
    }
    fields(bytes, sector, at).ok_or(Flaw::Damaged("cut off")).flatten()
}

fn fields(bytes: &[u8], sector: u64, at: u64) -> Option<Result<Header, Flaw>> {
    let len = le32(bytes, 12)? as usize;
    if len < HEADER_BYTES || len as u64 > sector {
        return Some(Err(Flaw::Damaged("of a length that is not understood")));
    }
    let mut copy = bytes.get(..len)?.to_vec();
    // Its own CRC counts as zeros.
    copy.get_mut(16..20)?.fill(0);
    if crc32fast::hash(&copy) != le32(bytes, 16)? {
        return Some(Err(Flaw::Damaged("damaged (its checksum)")));
    }
    let header = Header {
        sector,
        at: le64(bytes, 24)?,
        other: le64(bytes, 32)?,
        usable: (le64(bytes, 40)?, le64(bytes, 48)?),
        disk: *bytes.get(56..)?.first_chunk()?,
        entries_at: le64(bytes, 72)?,
        count: le32(bytes, 80)?,
        entry_bytes: le32(bytes, 84)?,
        entries_crc: le32(bytes, 88)?,
    };
    let table = u64::from(header.count) * u64::from(header.entry_bytes);
    let is_size = header.entry_bytes >= ENTRY_BYTES && header.entry_bytes.is_power_of_two();
    Some(if le32(bytes, 8)? != 0x0001_0000 {
        Err(Flaw::Damaged("of a revision that is not understood"))
    } else if header.at != at {
        Err(Flaw::Damaged("written for another place"))
    } else if !is_size || table == 0 || table > TABLE_BYTES_MAX {
        Err(Flaw::Damaged("with entries of a size or number that is not understood"))
    } else if header.usable.0 > header.usable.1 || header.entries().is_none() {
        Err(Flaw::Damaged("with places that contradict each other"))
    } else {
        Ok(header)
    })
}

impl Header {
    /// Where it lies, in bytes.
    pub fn range(&self) -> Range<u64> {
        let start = self.at.saturating_mul(self.sector);
        start..start.saturating_add(self.sector)
    }

    /// Where its entries lie, in bytes; outside of what partitions may have.
    pub fn entries(&self) -> Option<Range<u64>> {
        let len = u64::from(self.count) * u64::from(self.entry_bytes);
        let start = self.entries_at.checked_mul(self.sector)?;
        let end = start.checked_add(len)?;
        let (first, last) =
            (self.usable.0.checked_mul(self.sector)?, self.usable.1.checked_mul(self.sector)?);
        (self.entries_at >= 2 && (end <= first || start > last)).then_some(start..end)
    }

    /// Whether these are its entries.
    pub fn is_sum_of(&self, entries: &[u8]) -> bool {
        crc32fast::hash(entries) == self.entries_crc
    }

    /// Whether two headers tell the same table.
    pub fn agrees(&self, backup: &Self) -> bool {
        let same = |header: &Self| {
            (header.disk, header.usable, header.count, header.entry_bytes, header.entries_crc)
        };
        same(self) == same(backup) && backup.other == self.at
    }

    /// The partitions that its entries tell.
    pub fn partitions(&self, entries: &[u8]) -> Vec<Partition> {
        entries
            .chunks_exact(self.entry_bytes as usize)
            .zip(1..)
            .filter(|(entry, _)| entry.iter().take(16).any(|byte| *byte != 0))
            .filter_map(|(entry, number)| self.partition(entry, number))
            .collect()
    }

    fn partition(&self, entry: &[u8], number: u32) -> Option<Partition> {
        let (first, last) = (le64(entry, 32)?, le64(entry, 40)?);
        let (kind, role) = kinds::of_gpt(entry.get(..16)?);
        let units: Vec<u16> =
            entry.get(56..128)?.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect();
        let name = String::from_utf16_lossy(&units);
        let name = name.split('\0').next().unwrap_or_default().chars().filter(|c| !c.is_control()).collect();
        let sectors = last.checked_sub(first).and_then(|less| less.checked_add(1));
        let is_inside = first >= self.usable.0 && last <= self.usable.1;
        let doubt = match sectors {
            None => Some("its end lies before its beginning".into()),
            Some(_) if !is_inside => Some("it lies outside of what the table gives to partitions".into()),
            Some(_) => None,
        };
        let start = first.saturating_mul(self.sector);
        let len = sectors.unwrap_or(0).saturating_mul(self.sector);
        Some(Partition { number, start, len, kind, name, role, doubt })
    }
}
