//! Group descriptors (`struct ext4_group_desc`), their checksums (`ext4_group_desc_csum` in `fs/ext4/super.c`), and
//! the places of all metadata that are known from them.

use std::ops::Range;

use super::super::bytes::{le16, le32};
use super::super::checksum::{crc16, crc32c};
use super::super::{Outcome, Trouble};
use super::features::{INCOMPAT_64BIT, INCOMPAT_FLEX_BG, RO_COMPAT_GDT_CSUM, RO_COMPAT_METADATA_CSUM};
use super::super_block::Geometry;

/// What a descriptor says about the blocks of a group.
#[derive(Clone, Debug)]
pub(super) struct Group {
    pub block_bitmap: u64,
    pub inode_bitmap: u64,
    pub inode_table: u64,
    pub free_clusters: u32,
    /// The block bitmap was never written: it is computed (`EXT4_BG_BLOCK_UNINIT`).
    pub is_uninit: bool,
    /// The checksum of the block bitmap and the bits of it that are there, with `metadata_csum`.
    pub bitmap_checksum: Option<(u32, u32)>,
}

/// Bytes of memory that one takes.
pub(super) const GROUP_BYTES: u64 = size_of::<Group>() as u64;

/// The blocks that hold the descriptors.
pub(super) fn descriptor_blocks(geometry: &Geometry) -> Outcome<Vec<u64>> {
    let blocks: Vec<u64> =
        (0..geometry.descriptor_blocks).map(|index| geometry.descriptor_block(index)).collect();
    match blocks.iter().find(|block| **block >= geometry.blocks) {
        Some(block) => {
            Err(Trouble::whole(format_args!("its group descriptors lie at block {block}, beyond its end")))
        }
        None => Ok(blocks),
    }
}

/// All groups from the blocks that hold the descriptors.
pub(super) fn parse_all(geometry: &Geometry, blocks: &[Vec<u8>]) -> Outcome<Vec<Group>> {
    let mut groups = Vec::new();
    for block in blocks {
        for bytes in block.chunks_exact(geometry.descriptor_bytes as usize) {
            let index = groups.len() as u64;
            if index == geometry.groups {
                return Ok(groups);
            }
            groups.push(Group::parse(geometry, index, bytes)?);
        }
    }
    if groups.len() as u64 == geometry.groups {
        return Ok(groups);
    }
    Err(Trouble::whole("its group descriptors are cut off"))
}

impl Group {
    /// Reads and checks the descriptor of group `index`.
    pub fn parse(geometry: &Geometry, index: u64, bytes: &[u8]) -> Outcome<Self> {
        let cut = || Trouble::whole("its group descriptors are cut off");
        let features = geometry.features;
        let is_wide = features.incompat(INCOMPAT_64BIT);
        let word = |low, high| {
            let high = if is_wide { le32(bytes, high) } else { Some(0) };
            Ok::<u64, Trouble>(
                u64::from(le32(bytes, low).ok_or_else(cut)?) | u64::from(high.ok_or_else(cut)?) << 32,
            )
        };
        let short = |low, high| {
            let high = if is_wide { le16(bytes, high) } else { Some(0) };
            Ok::<u32, Trouble>(
                u32::from(le16(bytes, low).ok_or_else(cut)?) | u32::from(high.ok_or_else(cut)?) << 16,
            )
        };
        if let Some(checksum) = checksum(geometry, index, bytes)
            && le16(bytes, 0x1e) != Some(checksum)
        {
            return Err(Trouble::whole(format_args!(
                "the checksum of the descriptor of group {index} is wrong"
            )));
        }
        let is_uninit = le16(bytes, 0x12).ok_or_else(cut)? & 2 != 0;
        // Without checksums of descriptors, kernels before 3.x obey this bit, and later ones do not.
        if is_uninit && (!features.descriptor_checksums() || index == 0) {
            return Err(Trouble::whole(format_args!("group {index} must not be uninitialised, but is")));
        }
        let checked = features.ro_compat(RO_COMPAT_METADATA_CSUM);
        let group = Self {
            block_bitmap: word(0x00, 0x20)?,
            inode_bitmap: word(0x04, 0x24)?,
            inode_table: word(0x08, 0x28)?,
            free_clusters: short(0x0c, 0x2c)?,
            is_uninit,
            bitmap_checksum: match checked {
                true => Some((short(0x18, 0x38)?, if is_wide { !0 } else { 0xffff })),
                false => None,
            },
        };
        group.check_places(geometry, index)?;
        Ok(group)
    }

    /// `ext4_check_descriptors`: without `flex_bg` the metadata of a group lie in it.
    fn check_places(&self, geometry: &Geometry, index: u64) -> Outcome<()> {
        let within = if geometry.features.incompat(INCOMPAT_FLEX_BG) {
            geometry.first_block..geometry.blocks
        } else {
            geometry.group_start(index)..geometry.group_end(index)
        };
        let places = [
            ("block bitmap", self.block_bitmap, 1),
            ("inode bitmap", self.inode_bitmap, 1),
            ("inode table", self.inode_table, geometry.inode_table_blocks),
        ];
        for (what, block, len) in places {
            let end = block.checked_add(len);
            if block < within.start || end.is_none_or(|end| end > within.end) {
                return Err(Trouble::whole(format_args!(
                    "the {what} of group {index} is said to lie at block {block}, where it cannot be"
                )));
            }
        }
        Ok(())
    }
}

/// The checksum that a descriptor must have.
fn checksum(geometry: &Geometry, index: u64, bytes: &[u8]) -> Option<u16> {
    let number = (index as u32).to_le_bytes();
    let (before, behind) = (bytes.get(..0x1e)?, bytes.get(0x20..)?);
    if geometry.features.ro_compat(RO_COMPAT_METADATA_CSUM) {
        let sum = crc32c(crc32c(crc32c(geometry.seed, &number), before), &[0, 0]);
        return Some(crc32c(sum, behind) as u16);
    }
    if geometry.features.ro_compat(RO_COMPAT_GDT_CSUM) {
        let sum = crc16(crc16(crc16(!0, &geometry.uuid), &number), before);
        return Some(crc16(sum, behind));
    }
    None
}

/// Ranges of blocks in rising order that hold metadata: none of them may be free.
#[derive(Debug, Default)]
pub(super) struct Metadata {
    ranges: Vec<Range<u64>>,
}

/// Ranges that [`Metadata`] takes at most for each group.
pub(super) const RANGES_PER_GROUP: u64 = 4;

impl Metadata {
    /// Those of all groups, and `more`.
    ///
    /// # Errors
    /// Two of them overlap.
    pub fn of(
        geometry: &Geometry,
        groups: &[Group],
        more: impl IntoIterator<Item = Range<u64>>,
    ) -> Outcome<Self> {
        let mut ranges: Vec<Range<u64>> = more.into_iter().collect();
        for (index, group) in groups.iter().enumerate() {
            let start = geometry.group_start(index as u64);
            // The superblock is never block 0 of a filesystem with blocks of 1 KiB: what lies before it is in use.
            let shift = if index == 0 { geometry.super_block().saturating_sub(start) } else { 0 };
            ranges.push(start..start + geometry.base_blocks(index as u64) + shift);
            ranges.push(group.block_bitmap..group.block_bitmap + 1);
            ranges.push(group.inode_bitmap..group.inode_bitmap + 1);
            ranges.push(group.inode_table..group.inode_table + geometry.inode_table_blocks);
        }
        ranges.retain(|range| !range.is_empty());
        ranges.sort_unstable_by_key(|range| range.start);
        if let Some(pair) = ranges.windows(2).find(|pair| pair[0].end > pair[1].start) {
            return Err(Trouble::whole(format_args!(
                "block {} is said to hold two kinds of metadata",
                pair[1].start
            )));
        }
        ranges.dedup_by(|next, last| {
            let is_adjacent = last.end == next.start;
            if is_adjacent {
                last.end = next.end;
            }
            is_adjacent
        });
        Ok(Self { ranges })
    }

    /// A block of metadata within a range.
    pub fn any_in(&self, range: &Range<u64>) -> Option<u64> {
        let first = self.ranges.partition_point(|metadata| metadata.end <= range.start);
        self.ranges
            .get(first)
            .filter(|metadata| metadata.start < range.end)
            .map(|metadata| metadata.start.max(range.start))
    }
}
