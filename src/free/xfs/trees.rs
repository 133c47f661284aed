//! The free-space trees of all groups: `struct xfs_btree_block` with short pointers, `struct xfs_alloc_rec`.
//!
//! All trees are read level by level, so that a level of all of them is one round.

use std::ops::Range;

use super::super::bytes::{be16, be32, be64};
use super::groups::Group;
use super::log::Head;
use super::superblock::{Superblock, checksum_is_right};
use super::{Extent, Found, Memory, Outcome, Trouble, Volume};

/// No block: `NULLAGBLOCK`.
const NONE: u32 = u32::MAX;

/// By what a tree is ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    ByBlock,
    BySize,
}

impl Order {
    fn key(self, extent: Extent) -> (u32, u32) {
        match self {
            Self::ByBlock => (extent.start, 0),
            Self::BySize => (extent.len, extent.start),
        }
    }

    /// `XFS_ABTB_CRC_MAGIC` and the others.
    fn magic(self, is_v5: bool) -> &'static [u8; 4] {
        match (self, is_v5) {
            (Self::ByBlock, true) => b"AB3B",
            (Self::ByBlock, false) => b"ABTB",
            (Self::BySize, true) => b"AB3C",
            (Self::BySize, false) => b"ABTC",
        }
    }
}

/// A pointer to a block of a tree, with the key that its parent has for it.
#[derive(Clone, Copy, Debug)]
struct Pointer {
    block: u32,
    key: (u32, u32),
}

/// A tree on the way down.
struct Tree<'a> {
    group: &'a Group,
    order: Order,
    /// Levels still to be read.
    levels: u32,
    /// The blocks of the next level, from left to right.
    next: Vec<Pointer>,
    /// All blocks seen.
    blocks: Vec<u32>,
    extents: Vec<Extent>,
}

/// The free extents of each group, in rising order.
pub(super) fn free(
    volume: &Volume<'_>,
    sb: &Superblock,
    groups: &[Group],
    head: Head,
    memory: &mut Memory,
) -> Outcome<Vec<Found>> {
    // Without checksums, the tree by size is the witness: whatever is changed in one of the two, they disagree.
    let orders: &[Order] = if sb.is_v5 { &[Order::ByBlock] } else { &[Order::ByBlock, Order::BySize] };
    let mut trees: Vec<Tree<'_>> = Vec::new();
    for group in groups {
        for (index, &order) in orders.iter().enumerate() {
            let next = vec![Pointer { block: group.roots[index], key: (0, 0) }];
            let levels = group.levels[index];
            trees.push(Tree { group, order, levels, next, blocks: Vec::new(), extents: Vec::new() });
        }
    }
    memory.take((trees.len() * size_of::<Tree<'_>>()) as u64, "its free-space trees")?;
    while trees.iter().any(|tree| tree.levels > 0) {
        level(volume, sb, &mut trees, head, memory)?;
    }
    let mut found = Vec::new();
    let mut trees = trees.into_iter();
    while let Some(by_block) = trees.next() {
        let by_size = if sb.is_v5 { None } else { trees.next() };
        found.push(join(by_block, by_size)?);
    }
    Ok(found)
}

/// Reads a level of all trees that have one left.
fn level(
    volume: &Volume<'_>,
    sb: &Superblock,
    trees: &mut [Tree<'_>],
    head: Head,
    memory: &mut Memory,
) -> Outcome<()> {
    let block_bytes = 1u64 << sb.block_log;
    let blocks: u64 = trees.iter().map(|tree| tree.next.len() as u64).sum();
    // A volume holds what it has read and what it gives; what is in the blocks goes into pointers or extents.
    memory.check(blocks.saturating_mul(2 * block_bytes + 128), "its free-space trees")?;
    let range = |group: &Group, block: u32| -> Range<u64> {
        let at = sb.at(group.number, block);
        at..at + block_bytes
    };
    let wanted: Vec<Range<u64>> = trees
        .iter()
        .flat_map(|tree| tree.next.iter().map(|pointer| range(tree.group, pointer.block)))
        .collect();
    let mut read = volume.read(&wanted)?.into_iter();
    for tree in trees.iter_mut().filter(|tree| tree.levels > 0) {
        tree.levels -= 1;
        let row = std::mem::take(&mut tree.next);
        for (index, &pointer) in row.iter().enumerate() {
            let block = read.next().unwrap_or_default();
            let side = |index: Option<usize>| index.and_then(|index| row.get(index));
            let (left, right) = (side(index.checked_sub(1)), side(Some(index + 1)));
            let before = (tree.next.len(), tree.extents.len());
            tree.take(sb, &block, pointer, [left, right], head)?;
            tree.blocks.push(pointer.block);
            let more = (tree.next.len() - before.0) * size_of::<Pointer>()
                + (tree.extents.len() - before.1) * size_of::<Extent>()
                + 4;
            // Twice, for vectors grow by doubling.
            memory.take(2 * more as u64, "its free-space trees")?;
        }
    }
    Ok(())
}

/// The extents of a group, if both trees say the same.
fn join(by_block: Tree<'_>, by_size: Option<Tree<'_>>) -> Outcome<Found> {
    let mut tree_blocks = by_block.blocks;
    let mut below_roots = None;
    if let Some(mut by_size) = by_size {
        by_size.extents.sort_unstable();
        if by_size.extents != by_block.extents {
            return Err(Trouble::whole(format_args!(
                "the two free-space trees of {} disagree",
                by_block.group
            )));
        }
        tree_blocks.append(&mut by_size.blocks);
        below_roots = Some(tree_blocks.len() as u64 - 2);
    }
    Ok(Found { extents: by_block.extents, tree_blocks, below_roots })
}

impl Tree<'_> {
    fn wrong(&self, block: u32, what: &str) -> Trouble {
        Trouble::whole(format_args!("{}, free-space tree, block {block}: {what}", self.group))
    }

    /// Checks a block (`xfs_allocbt_verify` and the checks of `xfs_repair`), and takes what it holds.
    fn take(
        &mut self,
        sb: &Superblock,
        bytes: &[u8],
        at: Pointer,
        sides: [Option<&Pointer>; 2],
        head: Head,
    ) -> Outcome<()> {
        let short = || self.wrong(at.block, "it is cut off");
        let is = |ok: bool, what: &str| if ok { Ok(()) } else { Err(self.wrong(at.block, what)) };
        is(bytes.starts_with(self.order.magic(sb.is_v5)), "it is no such block")?;
        if sb.is_v5 {
            is(checksum_is_right(bytes, 52), "its checksum is wrong")?;
            is(
                be64(bytes, 16) == Some(sb.at(self.group.number, at.block) >> 9),
                "it was written for another place",
            )?;
            is(bytes.get(32..48) == Some(&sb.meta_uuid), "it belongs to another filesystem")?;
            is(be32(bytes, 48) == Some(self.group.number), "it belongs to another allocation group")?;
            head.check(be64(bytes, 24).ok_or_else(short)?, self.group)?;
        }
        is(be16(bytes, 4).map(u32::from) == Some(self.levels), "it is of another level")?;
        let neighbour = |side: Option<&Pointer>| Some(side.map_or(NONE, |pointer| pointer.block));
        let are_sides = be32(bytes, 8) == neighbour(sides[0]) && be32(bytes, 12) == neighbour(sides[1]);
        is(are_sides, "its neighbours are others")?;
        let header = if sb.is_v5 { 56 } else { 16 };
        let body = bytes.get(header..).ok_or_else(short)?;
        let most = body.len() / if self.levels == 0 { 8 } else { 12 };
        let count = usize::from(be16(bytes, 6).ok_or_else(short)?);
        // Only an empty tree has an empty block: its root.
        let is_root = self.blocks.is_empty();
        is(
            count <= most && (count > 0 || is_root && self.levels == 0),
            "it holds too many records, or none",
        )?;
        let mut records = Vec::with_capacity(count);
        for index in 0..count {
            let word = |at| be32(body, at).ok_or_else(short);
            records.push(Extent { start: word(index * 8)?, len: word(index * 8 + 4)? });
        }
        let keys: Vec<(u32, u32)> = records.iter().map(|&record| self.order.key(record)).collect();
        let is_rising = keys.windows(2).all(|pair| pair[0] < pair[1]);
        let is_above = keys.first().is_none_or(|&key| key >= at.key);
        let is_below = sides[1].is_none_or(|right| keys.last().is_none_or(|&key| key < right.key));
        is(is_rising && is_above && is_below, "its records are out of order")?;
        if self.levels > 0 {
            let mut next = Vec::with_capacity(count);
            for (index, key) in keys.into_iter().enumerate() {
                let block = be32(body, most * 8 + index * 4).ok_or_else(short)?;
                is(block < self.group.len, "it points outside of its allocation group")?;
                next.push(Pointer { block, key });
            }
            self.next.append(&mut next);
            return Ok(());
        }
        self.take_records(at.block, records)
    }

    /// The records of a leaf: inside of the group and, in the tree by block number, without overlap.
    fn take_records(&mut self, block: u32, records: Vec<Extent>) -> Outcome<()> {
        for record in records {
            let last = self.extents.last().filter(|_| self.order == Order::ByBlock);
            let overlaps = last.is_some_and(|last| last.end() > u64::from(record.start));
            if record.len == 0 || record.end() > u64::from(self.group.len) || overlaps {
                return Err(self.wrong(block, "a record overlaps another or the end of its allocation group"));
            }
            self.extents.push(record);
        }
        Ok(())
    }
}
