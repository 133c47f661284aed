//! The whole of an image's disk in stretches that are alike, as its tables tell them: no cluster is read.

use super::guest::{GuestImage, GuestReader};
use crate::error::Result;
use crate::qcow2::parse::refcount;
use crate::qcow2::{L1Entry, L2Entry, Mapping};

/// How the clusters of a stretch are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Storage {
    /// Nothing is stored: the backing file's bytes, or zeros where there is none.
    Unallocated,
    /// Zeros, by the image's own word, with the host offset that is kept for them, if any.
    Zero(Option<u64>),
    /// As they are, one behind the other from this host offset on.
    Plain(u64),
    /// Compressed, in this many bytes of the file (whole sectors, as the tables count them).
    Compressed(u64),
}

/// A stretch of the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// Where it begins on the disk, in bytes.
    pub start: u64,
    /// How long it is, in bytes.
    pub len: u64,
    /// How it is stored.
    pub storage: Storage,
}

/// Goes over the disk once, from its beginning; gives the longest stretches that there are.
///
/// Holds one L2 table. No file has more tables than clusters; one whose L1 table names more is damaged, and
/// the walk ends there, so that it takes no longer than the file is long.
#[derive(Debug)]
pub struct Walk<'a> {
    guest: &'a GuestImage,
    reader: GuestReader<'a>,
    /// The cluster that comes next.
    at: u64,
    tables: u64,
    /// What was seen behind the stretch that was given last.
    ahead: Option<Stretch>,
    failed: bool,
}

impl<'a> Walk<'a> {
    pub(super) fn new(guest: &'a GuestImage) -> Self {
        Self { guest, reader: guest.reader(), at: 0, tables: 0, ahead: None, failed: false }
    }

    /// The next cluster, or all clusters of a table that is not there.
    fn step(&mut self) -> Result<Option<Stretch>> {
        let (cs, size) = (self.guest.image.cluster_size, self.guest.virtual_size());
        let start = self.at << cs.bits();
        if start >= size {
            return Ok(None);
        }
        let per_table = cs.bytes() / 8;
        let is_there =
            self.guest.l1(self.at / per_table).is_some_and(|entry| L1Entry(entry).l2_table().is_some());
        if is_there && self.at.is_multiple_of(per_table) {
            self.tables += 1;
            if self.tables > cs.clusters_for(self.guest.image.input.len) {
                return Err(self
                    .guest
                    .image
                    .input
                    .damaged("its L1 table names more tables than fit into it"));
            }
        }
        let entry = self.reader.entry(self.at)?;
        let clusters = if entry.is_some() { 1 } else { per_table - self.at % per_table };
        self.at += clusters;
        let len = (clusters << cs.bits()).min(size - start);
        let version = self.guest.image.header.version;
        let storage = match entry.map_or(Mapping::Unallocated, |entry: L2Entry| entry.mapping(cs, version)) {
            Mapping::Unallocated => Storage::Unallocated,
            Mapping::Zero(host) => Storage::Zero(host.map(|host| host.0)),
            Mapping::Plain(host) => Storage::Plain(host.0),
            Mapping::Compressed { len, .. } => Storage::Compressed(len),
        };
        Ok(Some(Stretch { start, len, storage }))
    }

    fn longest(&mut self) -> Result<Option<Stretch>> {
        let first = match self.ahead.take() {
            Some(ahead) => Some(ahead),
            None => self.step()?,
        };
        let Some(mut stretch) = first else { return Ok(None) };
        while let Some(next) = self.step()? {
            if !stretch.extend(next) {
                self.ahead = Some(next);
                break;
            }
        }
        Ok(Some(stretch))
    }
}

impl GuestImage {
    /// How many clusters of the file have a refcount, up to `most`; those that cannot be read have none.
    pub fn counted_clusters(&self, most: u64) -> u64 {
        let (image, cs) = (&self.image, self.image.cluster_size);
        let bits = image.header.refcount_bits();
        let (per_block, end) = (cs.bytes() * 8 / u64::from(bits), cs.clusters_for(image.input.len));
        let (mut count, mut entry, mut block) = (0, [0; 8], vec![0; cs.size()]);
        // A table is at most 8 MiB long, and no block behind the end of the file counts.
        let table_entries = (u64::from(image.header.refcount_table_clusters) << cs.bits()) / 8;
        for index in 0..end.div_ceil(per_block).min(table_entries) {
            if image.input.read(&mut entry, image.header.refcount_table_offset + index * 8).is_err() {
                break;
            }
            let at = u64::from_be_bytes(entry) & !0x1ff;
            if at == 0 || image.input.read(&mut block, at).is_err() {
                continue;
            }
            for within in 0..per_block.min(end - index * per_block) {
                count += u64::from(refcount(&block, within as usize, bits).is_some_and(|count| count != 0));
                if count >= most {
                    return count;
                }
            }
        }
        count
    }

    /// Size of a cluster in bytes.
    pub fn cluster_bytes(&self) -> u64 {
        self.image.cluster_size.bytes()
    }
}

impl Iterator for Walk<'_> {
    type Item = Result<Stretch>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let stretch = self.longest();
        self.failed = stretch.is_err();
        stretch.transpose()
    }
}

impl Stretch {
    /// Takes on what follows it, if that is stored alike and, where there is a place, right behind.
    fn extend(&mut self, next: Self) -> bool {
        let follows = |host: u64, next: u64| host.checked_add(self.len) == Some(next);
        let is_alike = match (self.storage, next.storage) {
            (Storage::Unallocated, Storage::Unallocated)
            | (Storage::Zero(None), Storage::Zero(None))
            | (Storage::Compressed(_), Storage::Compressed(_)) => true,
            (Storage::Zero(Some(host)), Storage::Zero(Some(next)))
            | (Storage::Plain(host), Storage::Plain(next)) => follows(host, next),
            _ => false,
        };
        if is_alike {
            self.len += next.len;
            if let (Storage::Compressed(stored), Storage::Compressed(more)) =
                (&mut self.storage, next.storage)
            {
                *stored = stored.saturating_add(more);
            }
        }
        is_alike
    }
}
