//! Free space of ext2, ext3 and ext4.
//!
//! What is said to be free are the blocks whose bits are clear in the block bitmaps, after the journal was replayed in
//! memory; nothing else, and only if all of this holds:
//!
//! - superblock, group descriptors, bitmaps, the journal's inode and the journal have the checksums that the features
//!   promise, and only features are set that are understood (`features.rs` has the table of them);
//! - the superblock says that the filesystem has no errors, and that it was cleanly unmounted or has a journal;
//! - without `needs_recovery` the journal is empty; with it, the kernel would replay it (`replay.rs`);
//! - every group's count of free clusters is that of its bitmap; without `needs_recovery` the superblock's count is
//!   their sum (it is not journaled, so that it says nothing after a crash);
//! - no block of metadata is free: superblock and descriptors and their copies, bitmaps and whole inode tables of all
//!   groups (also those parts that were never written), the journal, the block of `mmp`; and no two of them overlap;
//! - replaying does not change how large the filesystem is, nor where the journal lies.
//!
//! Files that were open when they were deleted (the list of orphans) are freed by the next mount only. They count as in
//! use here: that keeps a few blocks too many. With blocks of 1 KiB, block 0 lies outside of all groups and is kept.
//! Copies of superblock and descriptors other than the first are never read.
//!
//! Rounds of reading that depend on each other: 1. the superblock; 2. the descriptors; 3. bitmaps, the journal's inode
//! and, by the superblock's copy of that inode, the journal or its first block; 4. what is not in memory then: blocks of
//! the journal's extent tree and of a journal that is too long to be kept.

mod bitmap;
mod features;
mod groups;
mod inode;
mod journal;
mod reader;
mod replay;
#[cfg(test)]
mod replay_tests;
mod super_block;

use std::ops::Range;

use self::groups::{GROUP_BYTES, Group, Metadata, RANGES_PER_GROUP};
use self::inode::{Inode, Map};
use self::journal::{JournalSuper, Log};
use self::reader::Reader;
use self::replay::Copies;
use self::super_block::{AT, BYTES, Geometry, Super};
use super::bytes::{le16, le32};
use super::checksum::crc32c;
use super::{Freed, Limits, Outcome, Runs, Trouble, Volume};

/// Bytes that the first round reads.
const FIRST_BYTES: u64 = 64 << 10;
/// Bytes of bitmaps or of the journal that are looked at together, if they are not all kept.
const BATCH_BYTES: u64 = 8 << 20;
/// Bytes that a run of [`Runs`] takes; its list doubles as it grows.
const RUN_BYTES: u64 = 3 * size_of::<Range<u64>>() as u64;

/// Whether the first bytes of a volume have the magic number of a superblock of ext2, ext3 or ext4
/// (`EXT2_SUPER_MAGIC`, little-endian, 0x38 into the superblock at byte 1024).
pub fn is_here(first_bytes: &[u8]) -> bool {
    le16(first_bytes, AT as usize + 0x38) == Some(0xef53)
}

/// The free space of the filesystem that begins with the volume.
///
/// # Errors
/// [`Trouble::Whole`] if anything in it is inconsistent, not understood, or takes more memory than allowed;
/// [`Trouble::Failed`] if the volume cannot be read.
pub fn freed(volume: &Volume<'_>, limits: Limits) -> Outcome<Freed> {
    let mut reader = Reader::new(volume, limits);
    if reader.len() < AT + BYTES as u64 {
        return Err(Trouble::whole("it is too short for a filesystem"));
    }
    let first = 0..FIRST_BYTES.min(reader.len());
    reader.keep(vec![first])?;
    let home = parse_super(&reader, AT..AT + BYTES as u64)?;
    let geometry = home.geometry.clone();
    reader.afford(geometry.groups.saturating_mul(4 * (GROUP_BYTES + geometry.descriptor_bytes)))?;
    let at = groups::descriptor_blocks(&geometry)?;
    reader.keep(at.iter().map(|block| geometry.range(*block)).collect())?;
    prepare(&mut reader, &home, &at)?;

    let journal = if geometry.has_journal { Some(Journal::open(&reader, &home, &at)?) } else { None };
    let copies = match &journal {
        Some(journal) => journal.replay(&mut reader, &home)?,
        None => Copies::new(),
    };
    let after = Blocks {
        reader: &reader,
        geometry: &geometry,
        copies: &copies,
        map: journal.as_ref().map(|it| &it.map),
    };
    let replayed = after.super_block()?;
    if replayed.geometry != geometry {
        return Err(Trouble::whole("its size or its features were being changed when it was cut off"));
    }
    let groups = groups::parse_all(&geometry, &after.read(&at)?)?;
    if let Some(journal) = &journal {
        journal.check_same(&after, &groups)?;
    }
    check_mmp(&after)?;
    let own = journal.as_ref().map(|journal| journal.map.own_ranges()).unwrap_or_default();
    let mmp = geometry.mmp_block.map(|block| block..block + 1);
    let metadata = Metadata::of(&geometry, &groups, own.into_iter().chain(mmp))?;
    let held = groups.len() as u64 * (GROUP_BYTES + 2 * RANGES_PER_GROUP * size_of::<Range<u64>>() as u64);
    let (free, clusters) = free(&after, &groups, &metadata, held)?;

    let free_blocks = clusters * geometry.cluster_blocks;
    if !home.needs_recovery && replayed.free_blocks != free_blocks {
        return Err(Trouble::whole(format_args!(
            "its superblock counts {} free blocks, but its bitmaps {free_blocks}",
            replayed.free_blocks
        )));
    }
    Ok(Freed {
        kind: geometry.features.kind().to_owned(),
        len: geometry.bytes(),
        free,
        note: home
            .needs_recovery
            .then(|| format!("its journal was replayed in memory ({} blocks)", copies.len())),
    })
}

fn parse_super(reader: &Reader<'_>, range: Range<u64>) -> Outcome<Super> {
    let bytes = reader.read(&[range])?.pop().unwrap_or_default();
    Super::parse(&bytes, reader.len())
}

/// Asks at once for all that is going to be needed, as far as that is known and memory allows.
fn prepare(reader: &mut Reader<'_>, home: &Super, descriptors: &[u64]) -> Outcome<()> {
    let geometry = &home.geometry;
    let ranges: Vec<_> = descriptors.iter().map(|block| geometry.range(*block)).collect();
    let blocks = reader.read(&ranges)?;
    let mut wanted = Vec::new();
    let per_block = geometry.descriptors_per_block();
    // Before the replay a descriptor may be out of date, and its checksum wrong: that is no matter here.
    let places = (0..geometry.groups).filter_map(|index| {
        let block = blocks.get((index / per_block) as usize)?;
        let at = (index % per_block * geometry.descriptor_bytes) as usize;
        Group::parse(geometry, index, block.get(at..at + geometry.descriptor_bytes as usize)?).ok()
    });
    let mut bitmaps = 0;
    for (index, group) in places.enumerate() {
        if index == 0 && geometry.has_journal {
            let place = inode::place(geometry, group.inode_table);
            wanted.push(geometry.range(place.start / geometry.block_bytes));
        }
        if !group.is_uninit {
            bitmaps += geometry.block_bytes;
            wanted.push(geometry.range(group.block_bitmap));
        }
    }
    wanted.extend(
        geometry.mmp_block.filter(|block| *block < geometry.blocks).map(|block| geometry.range(block)),
    );
    if bitmaps > reader.left() / 8 {
        // They come batch by batch, later.
        wanted.truncate(1);
    }
    let hinted = home.journal_hint.as_ref().map(|hint| inode::hinted(hint, geometry)).unwrap_or_default();
    let journal =
        hinted.iter().map(|range| range.end - range.start).sum::<u64>().saturating_mul(geometry.block_bytes);
    for range in hinted {
        let is_kept = home.needs_recovery && journal <= reader.left() / 4;
        let end = if is_kept { range.end } else { range.end.min(range.start + 2) };
        wanted.push(range.start * geometry.block_bytes..end * geometry.block_bytes);
    }
    reader.keep(wanted)
}

/// The journal of a filesystem.
struct Journal {
    inode: Inode,
    map: Map,
    superblock: JournalSuper,
}

impl Journal {
    /// Finds it by what lies on the disk, before the replay, as the kernel does.
    fn open(reader: &Reader<'_>, home: &Super, descriptors: &[u64]) -> Outcome<Self> {
        let geometry = &home.geometry;
        let blocks = Blocks { reader, geometry, copies: &Copies::new(), map: None };
        let first = descriptors.first().copied().unwrap_or_default();
        let first = blocks.read(&[first])?.pop().unwrap_or_default();
        let first = first.get(..geometry.descriptor_bytes as usize).unwrap_or(&[]);
        let group = Group::parse(geometry, 0, first)?;
        let inode = blocks.inode(group.inode_table)?;
        let map = inode.map(geometry, |wanted| blocks.read(wanted))?;
        let cut = || Trouble::whole("its journal is empty");
        let first = map.find(0).ok_or_else(cut)?;
        let superblock = blocks.read(&[first])?.pop().ok_or_else(cut)?;
        let superblock = JournalSuper::parse(&superblock, geometry, inode.blocks)?;
        if !home.needs_recovery && superblock.start != 0 {
            return Err(Trouble::whole("its journal is not empty, but its superblock says that it is"));
        }
        Ok(Self { inode, map, superblock })
    }

    /// The blocks that its replay changes.
    fn replay(&self, reader: &mut Reader<'_>, home: &Super) -> Outcome<Copies> {
        if self.superblock.start == 0 {
            return Ok(Copies::new());
        }
        let geometry = &home.geometry;
        let (window, index) = (BATCH_BYTES.min(reader.left() / 8), reader.left() / 4);
        let log = Log::new(reader, &self.map, geometry.block_bytes, self.superblock.ring.end, window);
        let copies = replay::replay(&self.superblock, geometry, &self.map, log, index)?;
        reader.hold(copies.capacity() as u64 * 48)?;
        Ok(copies)
    }

    /// Whether it is still where it was after its replay.
    fn check_same(&self, after: &Blocks<'_, '_>, groups: &[Group]) -> Outcome<()> {
        let table = groups.first().map(|group| group.inode_table).unwrap_or_default();
        if after.inode(table)? != self.inode {
            return Err(Trouble::whole("its journal was being moved when it was cut off"));
        }
        Ok(())
    }
}

/// Blocks of the filesystem as they are after the replay.
struct Blocks<'a, 'v> {
    reader: &'a Reader<'v>,
    geometry: &'a Geometry,
    copies: &'a Copies,
    map: Option<&'a Map>,
}

impl Blocks<'_, '_> {
    fn read(&self, blocks: &[u64]) -> Outcome<Vec<Vec<u8>>> {
        let copy = |block: &u64| {
            let copy = self.copies.get(block)?;
            Some((self.map?.find(u64::from(copy.at))?, copy.is_escaped))
        };
        let ranges: Vec<_> = blocks
            .iter()
            .map(|block| self.geometry.range(copy(block).map_or(*block, |copy| copy.0)))
            .collect();
        let mut read = self.reader.read(&ranges)?;
        for (block, bytes) in blocks.iter().zip(&mut read) {
            if let (Some((_, true)), Some(first)) = (copy(block), bytes.first_chunk_mut()) {
                *first = journal::MAGIC.to_be_bytes();
            }
        }
        Ok(read)
    }

    fn super_block(&self) -> Outcome<Super> {
        let bytes = self.geometry.block_bytes;
        let read = self.read(&[AT / bytes])?.pop().unwrap_or_default();
        let at = (AT % bytes) as usize;
        Super::parse(read.get(at..).unwrap_or(&[]), self.reader.len())
    }

    /// The journal's inode.
    fn inode(&self, inode_table: u64) -> Outcome<Inode> {
        let (range, bytes) = (inode::place(self.geometry, inode_table), self.geometry.block_bytes);
        let block = self.read(&[range.start / bytes])?.pop().unwrap_or_default();
        let at = (range.start % bytes) as usize;
        Inode::parse(self.geometry, block.get(at..at + self.geometry.inode_bytes as usize).unwrap_or(&[]))
    }
}

impl Geometry {
    /// A block, in bytes of the volume.
    fn range(&self, block: u64) -> Range<u64> {
        block * self.block_bytes..(block + 1) * self.block_bytes
    }
}

/// The block of multiple mount protection (`struct mmp_struct`, `fs/ext4/mmp.c`) must say that nobody has the
/// filesystem mounted.
fn check_mmp(blocks: &Blocks<'_, '_>) -> Outcome<()> {
    let Some(at) = blocks.geometry.mmp_block else { return Ok(()) };
    if at < blocks.geometry.first_block.max(1) || at >= blocks.geometry.blocks {
        return Err(Trouble::whole(format_args!("its block of mount protection is said to be {at}")));
    }
    let block = blocks.read(&[at])?.pop().unwrap_or_default();
    let sum = block.get(..0x3fc).map(|bytes| crc32c(blocks.geometry.seed, bytes));
    if blocks.geometry.features.ro_compat(features::RO_COMPAT_METADATA_CSUM) && le32(&block, 0x3fc) != sum {
        return Err(Trouble::whole("the checksum of its block of mount protection is wrong"));
    }
    if (le32(&block, 0), le32(&block, 4)) != (Some(0x004d_4d50), Some(0xff4d_4d50)) {
        return Err(Trouble::whole("its mount protection says that a machine or e2fsck has it in use"));
    }
    Ok(())
}

/// The free runs in bytes, and the number of free clusters. Every bitmap is verified before a run is given.
fn free(blocks: &Blocks<'_, '_>, groups: &[Group], metadata: &Metadata, held: u64) -> Outcome<(Runs, u64)> {
    let geometry = blocks.geometry;
    let batch = BATCH_BYTES.min(blocks.reader.left() / 8) / geometry.block_bytes;
    let (mut runs, mut clusters) = (Runs::new(), 0);
    for (number, batch_groups) in groups.chunks(batch.max(1) as usize).enumerate() {
        let first = number as u64 * batch.max(1);
        let on_disk: Vec<u64> =
            batch_groups.iter().filter(|group| !group.is_uninit).map(|group| group.block_bitmap).collect();
        let mut read = blocks.read(&on_disk)?.into_iter();
        for (index, group) in (first..).zip(batch_groups) {
            let bitmap = if group.is_uninit {
                bitmap::compute(geometry, index, group)
            } else {
                let bitmap = read.next().unwrap_or_default();
                bitmap::check(geometry, index, group, &bitmap)?;
                bitmap
            };
            let most = runs.as_slice().len() as u64 + geometry.clusters_per_group / 2;
            blocks.reader.afford(held.saturating_add(most * RUN_BYTES))?;
            clusters += free_in_group(geometry, metadata, &mut runs, index, group, &bitmap)?;
        }
    }
    Ok((runs, clusters))
}

/// Adds the free runs of one group; gives the number of its free clusters.
fn free_in_group(
    geometry: &Geometry,
    metadata: &Metadata,
    runs: &mut Runs,
    index: u64,
    group: &Group,
    bitmap: &[u8],
) -> Outcome<u64> {
    let start = geometry.group_start(index);
    let free = bitmap::free_runs(bitmap, geometry.group_clusters(index), |run| {
        let end = (start + run.end * geometry.cluster_blocks).min(geometry.blocks);
        let run = start + run.start * geometry.cluster_blocks..end;
        if let Some(block) = metadata.any_in(&run) {
            return Err(Trouble::whole(format_args!(
                "block {block} holds metadata, but the bitmap of group {index} says that it is free"
            )));
        }
        runs.push(run.start * geometry.block_bytes..run.end * geometry.block_bytes).map_err(Trouble::whole)
    })?;
    if free == u64::from(group.free_clusters) {
        return Ok(free);
    }
    Err(Trouble::whole(format_args!(
        "the descriptor of group {index} counts {} free clusters, but its bitmap {free}",
        group.free_clusters
    )))
}
