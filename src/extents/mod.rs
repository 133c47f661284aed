//! What a disk is made of, stretch by stretch: data, zeros, nothing. Takes a raw disk or a qcow2 image, gives
//! the extents that `qemu-img map` gives, in rising order, without gaps, one at a time.
//!
//! Where tables or the file system tell, no data are read; [`scan`] reads them, and finds the zeros among them.

mod scan;

use std::os::unix::fs::MetadataExt;

use crate::error::Result;
use crate::read::{GuestImage, Storage, Stretch, Walk};
use crate::source::{FileSource, Source};
use crate::units::SECTOR_BYTES;

pub use scan::{BLOCK_BYTES, Scan, scan};

/// What an extent is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Nothing is stored; it reads as zeros.
    Unallocated,
    /// It reads as zeros, and its file system, its image or a look at its bytes says so.
    Zero,
    /// Stored as it is.
    Data,
    /// Stored compressed.
    Compressed,
    /// It has a place in the file, where the file itself has a hole: zeros, as of yet.
    Preallocated,
}

/// A stretch of a disk that is all alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Where it begins on the disk, in bytes.
    pub start: u64,
    /// How long it is, in bytes.
    pub len: u64,
    /// What it is.
    pub kind: Kind,
    /// Where it begins in the file, if it has a place there that is as long as it is.
    pub offset: Option<u64>,
    /// Bytes of the file that it takes: its own length for data, whole sectors for compressed clusters.
    pub stored: u64,
}

impl Extent {
    /// Takes on what follows it, by the rule of `qemu-img map` (`entry_mergeable`): the same kind, and either
    /// no place at all or the place right behind.
    pub fn extend(&mut self, next: &Self) -> bool {
        let follows = match (self.offset, next.offset) {
            (None, None) => true,
            (Some(own), Some(next)) => own.checked_add(self.len) == Some(next),
            _ => false,
        };
        let is_alike = self.kind == next.kind && follows;
        if is_alike {
            self.len += next.len;
            self.stored = self.stored.saturating_add(next.stored);
        }
        is_alike
    }
}

/// The extents of a qcow2 image.
///
/// `file` is the file that it lies in, if it is one: where metadata were preallocated QEMU asks its file system, too,
/// whether there is anything below them.
pub fn of_qcow2<'a>(
    guest: &'a GuestImage,
    file: Option<&'a FileSource>,
) -> impl Iterator<Item = Result<Extent>> + 'a {
    let file = file.filter(|file| is_preallocated(guest, file));
    Qcow2Extents { walk: guest.walk(), file, rest: None }
}

struct Qcow2Extents<'a> {
    walk: Walk<'a>,
    file: Option<&'a FileSource>,
    /// What is left of an extent of data below which there may be holes.
    rest: Option<Extent>,
}

impl Iterator for Qcow2Extents<'_> {
    type Item = Result<Extent>;

    fn next(&mut self) -> Option<Self::Item> {
        let extent = match self.rest.take().map(Ok).or_else(|| Some(self.walk.next()?.map(of_stretch)))? {
            Ok(extent) => extent,
            Err(error) => return Some(Err(error)),
        };
        match (self.file, extent.kind, extent.offset) {
            (Some(file), Kind::Data, Some(offset)) => Some(self.cut(file, extent, offset)),
            _ => Some(Ok(extent)),
        }
    }
}

impl Qcow2Extents<'_> {
    /// The first part of an extent of data that is all a hole of the file, or none.
    fn cut(&mut self, file: &FileSource, extent: Extent, offset: u64) -> Result<Extent> {
        let end = offset.saturating_add(extent.len);
        let (until, kind) = match file.next_data(offset)? {
            Some(data) if data.start <= offset => (data.end, Kind::Data),
            Some(data) => (data.start, Kind::Preallocated),
            None => (end, Kind::Preallocated),
        };
        let len = until.clamp(offset + 1, end) - offset;
        self.rest = (len < extent.len).then(|| Extent {
            start: extent.start + len,
            len: extent.len - len,
            offset: Some(offset + len),
            stored: extent.len - len,
            kind: Kind::Data,
        });
        let stored = if kind == Kind::Data { len } else { 0 };
        Ok(Extent { len, kind, stored, ..extent })
    }
}

fn of_stretch(stretch: Stretch) -> Extent {
    let (kind, offset, stored) = match stretch.storage {
        Storage::Unallocated => (Kind::Unallocated, None, 0),
        Storage::Zero(host) => (Kind::Zero, host, 0),
        Storage::Plain(host) => (Kind::Data, Some(host), stretch.len),
        Storage::Compressed(stored) => (Kind::Compressed, None, stored),
    };
    Extent { start: stretch.start, len: stretch.len, kind, offset, stored }
}

/// Whether more clusters have a refcount than the file system has given the file: QEMU's own rule
/// (`qcow2_detect_metadata_preallocation`).
fn is_preallocated(guest: &GuestImage, file: &FileSource) -> bool {
    let Some(Ok(meta)) = file.file().map(std::fs::File::metadata) else { return false };
    let given = meta.blocks() * SECTOR_BYTES / guest.cluster_bytes();
    let threshold = (given * 10 / 9).max(given + 2);
    guest.counted_clusters(threshold) >= threshold
}

/// The extents of a raw file or block device, by the holes that its file system knows of. The disk ends with a
/// whole sector, as QEMU sees it.
pub fn of_raw(file: &FileSource) -> impl Iterator<Item = Result<Extent>> {
    let end = file.facts().len.unwrap_or(0).next_multiple_of(SECTOR_BYTES);
    Merged::new(RawExtents { file, at: 0, end })
}

/// A raw disk of which only the length is known: all of it may be data, up to the end of the last sector.
pub fn of_opaque(len: u64) -> impl Iterator<Item = Result<Extent>> {
    [piece(0, len, false), piece(len, len.next_multiple_of(SECTOR_BYTES) - len, true)]
        .into_iter()
        .filter(|extent| extent.len > 0)
        .map(Ok)
}

/// A piece of a raw disk.
fn piece(start: u64, len: u64, is_zero: bool) -> Extent {
    let (kind, stored) = if is_zero { (Kind::Zero, 0) } else { (Kind::Data, len) };
    Extent { start, len, kind, offset: Some(start), stored }
}

struct RawExtents<'a> {
    file: &'a FileSource,
    at: u64,
    end: u64,
}

impl Iterator for RawExtents<'_> {
    type Item = Result<Extent>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.end {
            return None;
        }
        let data = match self.file.next_data(self.at) {
            Ok(data) => data,
            Err(error) => {
                self.at = self.end;
                return Some(Err(error));
            }
        };
        let start = self.at;
        let (until, is_zero) = match data {
            Some(data) if data.start <= start => (data.end, false),
            Some(data) => (data.start, true),
            None => (self.end, true),
        };
        // A file that becomes shorter meanwhile must not keep this from ending.
        self.at = until.clamp(start + 1, self.end);
        Some(Ok(piece(start, self.at - start, is_zero)))
    }
}

/// Extents, those that are alike joined.
struct Merged<I> {
    extents: I,
    ahead: Option<Extent>,
}

impl<I: Iterator<Item = Result<Extent>>> Merged<I> {
    fn new(extents: I) -> Self {
        Self { extents, ahead: None }
    }
}

impl<I: Iterator<Item = Result<Extent>>> Iterator for Merged<I> {
    type Item = Result<Extent>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut extent = match self.ahead.take().map(Ok).or_else(|| self.extents.next())? {
            Ok(extent) => extent,
            Err(error) => return Some(Err(error)),
        };
        for next in self.extents.by_ref() {
            match next {
                Ok(next) if extent.extend(&next) => {}
                Ok(next) => {
                    self.ahead = Some(next);
                    break;
                }
                Err(error) => return Some(Err(error)),
            }
        }
        Some(Ok(extent))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alike_and_adjacent_extents_are_one() {
        let mut first = piece(0, 4096, false);
        assert!(first.extend(&piece(4096, 512, false)));
        assert_eq!((first.len, first.stored), (4608, 4608));
        assert!(!first.extend(&piece(4608, 512, true)), "another kind");
        let elsewhere = Extent { offset: Some(1 << 20), ..piece(4608, 512, false) };
        assert!(!first.extend(&elsewhere), "another place");
        let nowhere = Extent { offset: None, ..elsewhere };
        assert!(!first.extend(&nowhere));
    }

    #[test]
    fn the_end_of_a_disk_is_a_whole_sector() {
        let all = |len| of_opaque(len).map(Result::unwrap).collect::<Vec<_>>();
        assert_eq!(all(0), []);
        assert_eq!(all(1024), [piece(0, 1024, false)]);
        assert_eq!(all(1000), [piece(0, 1000, false), piece(1000, 24, true)]);
    }
}
