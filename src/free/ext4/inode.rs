//! The journal's inode (8) and the blocks that it maps: `struct ext2_inode_large`, `struct ext3_extent` and their
//! checksums (`ext4_inode_csum`, `ext4_extent_block_csum` in `fs/ext4`).

use std::ops::Range;

use super::super::bytes::{le16, le32};
use super::super::checksum::crc32c;
use super::super::{Outcome, Trouble};
use super::features::RO_COMPAT_METADATA_CSUM;
use super::super_block::Geometry;

const NUMBER: u32 = 8;
/// `EXT4_EXTENTS_FL`, and what a journal must not have: encryption, data in the inode.
const FLAG_EXTENTS: u32 = 0x8_0000;
const FLAGS_REFUSED: u32 = 0x800 | 0x1000_0000;
/// Extents of a journal: 10 240 000 blocks at most (`JBD2_MAX_JOURNAL_BLOCKS`), and never this scattered.
const EXTENTS_MAX: usize = 1 << 16;
const DEPTH_MAX: u16 = 5;

/// Consecutive blocks of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    /// The first of them, counted in the file.
    pub logical: u64,
    /// Where they lie.
    pub physical: Range<u64>,
}

/// The journal's inode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Inode {
    /// Its length in blocks.
    pub blocks: u64,
    flags: u32,
    root: Vec<u8>,
    /// With what the checksums of its blocks begin.
    seed: u32,
}

/// The blocks of the journal, and those that say which they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Map {
    /// In the order of the file, without a gap.
    pub extents: Vec<Extent>,
    /// Blocks of the extent tree, or of the block map.
    pub tree: Vec<u64>,
}

fn wrong(what: &str) -> Trouble {
    Trouble::whole(format_args!("its journal's inode is wrong: {what}"))
}

/// Where inode 8 lies, in bytes of the volume; it is in group 0.
pub(super) fn place(geometry: &Geometry, inode_table: u64) -> Range<u64> {
    let start = inode_table * geometry.block_bytes + u64::from(NUMBER - 1) * geometry.inode_bytes;
    start..start + geometry.inode_bytes
}

impl Inode {
    pub fn parse(geometry: &Geometry, bytes: &[u8]) -> Outcome<Self> {
        let cut = || wrong("it is cut off");
        let word = |at| le32(bytes, at).ok_or_else(cut);
        let own = crc32c(crc32c(geometry.seed, &NUMBER.to_le_bytes()), &word(0x64)?.to_le_bytes());
        if geometry.features.ro_compat(RO_COMPAT_METADATA_CSUM) {
            check_sum(bytes, own).ok_or_else(|| wrong("its checksum"))?;
        }
        let flags = word(0x20)?;
        let mode = le16(bytes, 0).ok_or_else(cut)?;
        let links = le16(bytes, 0x1a).ok_or_else(cut)?;
        if mode & 0xf000 != 0x8000 || links == 0 || flags & FLAGS_REFUSED != 0 {
            return Err(wrong("it is no plain file"));
        }
        let len = u64::from(word(0x04)?) | u64::from(word(0x6c)?) << 32;
        let root = bytes.get(0x28..0x64).ok_or_else(cut)?.to_vec();
        Ok(Self { blocks: len / geometry.block_bytes, flags, root, seed: own })
    }

    /// All blocks of the file; `read` gives whole blocks, several at once.
    pub fn map(&self, geometry: &Geometry, read: impl Fn(&[u64]) -> Outcome<Vec<Vec<u8>>>) -> Outcome<Map> {
        let mut map = Map::default();
        if self.flags & FLAG_EXTENTS != 0 {
            self.extents(geometry, &mut map, read)?;
        } else {
            self.block_map(geometry, &mut map, read)?;
        }
        let mut next = 0;
        for extent in &map.extents {
            if extent.logical != next {
                return Err(wrong("it has holes"));
            }
            next += extent.physical.end - extent.physical.start;
        }
        if next < self.blocks {
            return Err(wrong("it has fewer blocks than its length"));
        }
        Ok(map)
    }

    fn extents(
        &self,
        geometry: &Geometry,
        map: &mut Map,
        read: impl Fn(&[u64]) -> Outcome<Vec<Vec<u8>>>,
    ) -> Outcome<()> {
        let mut depth = le16(&self.root, 6).unwrap_or(0);
        if depth > DEPTH_MAX {
            return Err(wrong("its extents are too deep"));
        }
        let mut level = vec![self.root.clone()];
        loop {
            let mut below = Vec::new();
            for node in &level {
                let entries = node_entries(node, depth).ok_or_else(|| wrong("its extents"))?;
                for entry in entries.chunks_exact(12) {
                    if depth == 0 {
                        map.push(
                            leaf_entry(entry).ok_or_else(|| wrong("an extent of it is not written"))?,
                            geometry,
                        )?;
                    } else {
                        below.push(index_entry(entry).ok_or_else(|| wrong("its extents"))?);
                    }
                }
            }
            if depth == 0 {
                return Ok(());
            }
            level = map.descend(below, geometry, &read)?;
            depth -= 1;
            if geometry.features.ro_compat(RO_COMPAT_METADATA_CSUM) {
                let is_right =
                    |node: &Vec<u8>| node_sum(node, self.seed).is_some_and(|(has, must)| has == must);
                if !level.iter().all(is_right) {
                    return Err(wrong("the checksum of its extents"));
                }
            }
        }
    }

    /// Twelve blocks, and one, two and three steps of blocks of block numbers (`ext4_block_to_path`).
    fn block_map(
        &self,
        geometry: &Geometry,
        map: &mut Map,
        read: impl Fn(&[u64]) -> Outcome<Vec<Vec<u8>>>,
    ) -> Outcome<()> {
        if self.blocks > 1 << 24 {
            return Err(wrong("its length"));
        }
        let numbers = |bytes: &[u8]| -> Vec<u64> {
            bytes.chunks_exact(4).filter_map(|four| le32(four, 0)).map(u64::from).collect()
        };
        let root = numbers(&self.root);
        let mut logical = 0;
        for (index, number) in root.iter().copied().enumerate() {
            // After the twelve come one, two and three steps down.
            let steps = index.saturating_sub(11);
            let mut level = vec![number];
            let left = self.blocks - logical;
            for step in 0..steps {
                // No more is read than what leads to blocks within the length.
                let each = (geometry.block_bytes / 4).pow((steps - step) as u32);
                level.truncate(usize::try_from(left.div_ceil(each)).unwrap_or(usize::MAX));
                let blocks = map.descend(level, geometry, &read)?;
                level = blocks.iter().flat_map(|block| numbers(block)).collect();
            }
            for physical in level {
                if logical >= self.blocks {
                    break;
                }
                map.push(Extent { logical, physical: physical..physical + 1 }, geometry)?;
                logical += 1;
            }
        }
        Ok(())
    }
}

impl Map {
    fn push(&mut self, extent: Extent, geometry: &Geometry) -> Outcome<()> {
        if extent.physical.start < geometry.first_block.max(1) || extent.physical.end > geometry.blocks {
            return Err(wrong("a block of it lies where it cannot be"));
        }
        match self.extents.last_mut() {
            Some(last)
                if last.physical.end == extent.physical.start
                    && last.logical + (last.physical.end - last.physical.start) == extent.logical =>
            {
                last.physical.end = extent.physical.end;
            }
            _ => self.extents.push(extent),
        }
        if self.extents.len() > EXTENTS_MAX {
            return Err(wrong("it is in too many pieces"));
        }
        Ok(())
    }

    /// Reads the blocks of the next level of a tree.
    fn descend(
        &mut self,
        blocks: Vec<u64>,
        geometry: &Geometry,
        read: &impl Fn(&[u64]) -> Outcome<Vec<Vec<u8>>>,
    ) -> Outcome<Vec<Vec<u8>>> {
        if blocks.iter().any(|block| *block < geometry.first_block.max(1) || *block >= geometry.blocks) {
            return Err(wrong("a block of it lies where it cannot be"));
        }
        self.tree.extend(&blocks);
        if self.tree.len() > EXTENTS_MAX {
            return Err(wrong("it is in too many pieces"));
        }
        read(&blocks)
    }

    /// All blocks that belong to the file, in rising order.
    pub fn own_ranges(&self) -> Vec<Range<u64>> {
        let tree = self.tree.iter().map(|block| *block..*block + 1);
        let mut ranges: Vec<Range<u64>> =
            self.extents.iter().map(|extent| extent.physical.clone()).chain(tree).collect();
        ranges.sort_unstable_by_key(|range| range.start);
        ranges
    }

    /// Where a block of the journal lies.
    pub fn find(&self, logical: u64) -> Option<u64> {
        let behind = self.extents.partition_point(|extent| extent.logical <= logical);
        let extent = self.extents.get(behind.checked_sub(1)?)?;
        let block = extent.physical.start + (logical - extent.logical);
        (block < extent.physical.end).then_some(block)
    }
}

/// Where the copy of the inode's `i_block` in the superblock says that the journal lies: something to read early,
/// nothing to believe.
pub(super) fn hinted(root: &[u8], geometry: &Geometry) -> Vec<Range<u64>> {
    let mut hinted = Vec::new();
    if le16(root, 0) == Some(0xf30a) {
        let depth = le16(root, 6).unwrap_or(0);
        for entry in node_entries(root, depth).unwrap_or(&[]).chunks_exact(12) {
            match depth {
                0 => hinted.extend(leaf_entry(entry).map(|extent| extent.physical)),
                // `mke2fs` puts the journal right behind the block of its extents: the first block is wanted, too.
                _ => hinted.extend(index_entry(entry).map(|block| block..block.saturating_add(2))),
            }
        }
    } else {
        hinted.extend(
            root.chunks_exact(4).filter_map(|four| le32(four, 0)).map(u64::from).map(|at| at..at + 1),
        );
    }
    hinted.retain(|range| range.start > 0 && range.start < range.end && range.end <= geometry.blocks);
    hinted
}

/// The entries of a node of an extent tree.
fn node_entries(node: &[u8], depth: u16) -> Option<&[u8]> {
    let (entries, most) = (le16(node, 2)?, le16(node, 4)?);
    let is_right = le16(node, 0)? == 0xf30a && le16(node, 6)? == depth && entries > 0 && entries <= most;
    node.get(12..12 + 12 * usize::from(entries)).filter(|_| is_right)
}

fn leaf_entry(entry: &[u8]) -> Option<Extent> {
    let len = u64::from(le16(entry, 4)?);
    let start = u64::from(le32(entry, 8)?) | u64::from(le16(entry, 6)?) << 32;
    // More than 32768 says that blocks were reserved but never written.
    let is_written = (1..=32768).contains(&len);
    is_written.then_some(Extent { logical: u64::from(le32(entry, 0)?), physical: start..start + len })
}

fn index_entry(entry: &[u8]) -> Option<u64> {
    Some(u64::from(le32(entry, 4)?) | u64::from(le16(entry, 8)?) << 32)
}

/// The checksum that a node below the root has, and the one it must have.
fn node_sum(node: &[u8], seed: u32) -> Option<(u32, u32)> {
    let tail = 12 + 12 * usize::from(le16(node, 4)?);
    Some((le32(node, tail)?, crc32c(seed, node.get(..tail)?)))
}

/// Whether an inode has the checksum it must have: two halves, the upper one only if the inode is long enough.
fn check_sum(bytes: &[u8], seed: u32) -> Option<()> {
    let mut copy = bytes.to_vec();
    let mut has = u32::from(le16(bytes, 0x7c)?);
    let mut mask = 0xffff;
    copy.get_mut(0x7c..0x7e)?.fill(0);
    if bytes.len() > 128 && le16(bytes, 0x80)? >= 4 {
        has |= u32::from(le16(bytes, 0x82)?) << 16;
        mask = !0;
        copy.get_mut(0x82..0x84)?.fill(0);
    }
    (has == crc32c(seed, &copy) & mask).then_some(())
}
