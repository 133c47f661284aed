//! What a filesystem says of its blocks, block by block.

use std::ops::Range;

use snapcow::free::Runs;

use super::super::sparse::Image;
use super::{Ext, SUPER};

/// Every block that is said to be free has a clear bit in the bitmap of its group. Of groups whose bitmap was never
/// written nothing is said.
///
/// # Panics
/// If one has not.
pub fn bitmap_agrees(ext: &Ext, image: &Image<'_>, free: &Runs) {
    let mut at = (u64::MAX, None);
    for run in free.as_slice() {
        assert!(run.start % ext.block == 0 && run.end % ext.block == 0, "{run:?}");
        for block in run.start / ext.block..run.end / ext.block {
            assert!(block >= ext.first, "block {block} lies before all groups");
            let (number, within) = ((block - ext.first) / ext.per_group, (block - ext.first) % ext.per_group);
            if at.0 != number {
                let group = ext.group(image, number);
                let bitmap = image.get(group.bitmap.saturating_mul(ext.block), ext.block as usize);
                at = (number, (!group.is_uninit).then_some(bitmap));
            }
            let bit = within / ext.cluster;
            let is_used = |bitmap: &Vec<u8>| bitmap[(bit / 8) as usize] >> (bit % 8) & 1 == 1;
            assert!(!at.1.as_ref().is_some_and(is_used), "block {block} of group {number} is in use");
        }
    }
}

/// All blocks of metadata, in bytes.
pub fn metadata(ext: &Ext, image: &Image<'_>) -> Vec<Range<u64>> {
    let mut all: Vec<Range<u64>> = vec![SUPER..SUPER + 1024];
    for number in 0..ext.groups {
        let group = ext.group(image, number);
        let table = group.table..group.table.saturating_add(ext.table_blocks);
        let block = |at: u64| at..at.saturating_add(1);
        let descriptors = ext.groups.div_ceil(ext.per_block());
        let mut blocks =
            vec![block(ext.descriptor_block(number)), block(group.bitmap), block(group.inode_bitmap), table];
        if ext.has_super(number) {
            let start = if number == 0 { ext.super_block() } else { ext.start(number) };
            let is_meta = number / ext.per_block() >= ext.first_meta;
            let behind = if is_meta { 0 } else { descriptors.min(ext.first_meta) + ext.reserved };
            blocks.push(start..start + 1 + behind);
        }
        all.extend(
            blocks.into_iter().filter(|blocks| blocks.end <= ext.blocks).map(|blocks| ext.bytes(blocks)),
        );
    }
    if ext.has_journal() {
        let (blocks, tree) = ext.journal(image);
        all.extend(
            blocks
                .into_iter()
                .chain(tree)
                .filter(|block| *block < ext.blocks)
                .map(|at| ext.bytes(at..at + 1)),
        );
    }
    all
}

/// Where the superblock's copy of the journal's block map leads: a reader may look there, and need not believe it.
pub fn hinted(ext: &Ext, image: &Image<'_>) -> Vec<Range<u64>> {
    let root = SUPER + 0x10c;
    let mut hinted = Vec::new();
    if image.le16(root) == 0xf30a {
        for entry in (1..=4).map(|index| root + 12 * index) {
            let start = image.le32(entry + 8) | image.le16(entry + 6) << 32;
            hinted.push(start..start + image.le16(entry + 4));
            let below = image.le32(entry + 4) | image.le16(entry + 8) << 32;
            hinted.push(below..below + 2);
        }
    } else {
        hinted.extend((0..15).map(|index| image.le32(root + 4 * index)).map(|block| block..block + 1));
    }
    hinted.retain(|blocks| blocks.end <= ext.blocks);
    hinted.into_iter().map(|blocks| ext.bytes(blocks)).collect()
}
