//! The free space of XFS, version 4 and 5, from its free-space trees.
//!
//! Facts are those of the Linux kernel: `fs/xfs/libxfs/xfs_format.h`, `xfs_sb.c`, `xfs_alloc.c`, `xfs_btree.c`,
//! `xfs_log_format.h`, and `fs/xfs/xfs_log_recover.c`.
//!
//! What is on the disk is the truth only if the log holds nothing that has still to be written: so the log must end
//! in the record that an unmount writes (`log`). Then the tree by block number of each allocation group says what
//! is free there. It is believed if its checksums (version 5) or its twin by size (version 4, which has none) agree,
//! if it agrees with the group's header, if the groups agree with the superblock, and if nothing that is known to be
//! in use lies in it: headers, tree blocks, blocks kept for trees, the log, the root directory.
//!
//! A realtime device is another device: its blocks are counted and mapped elsewhere, and nothing here depends on it.
//! Realtime groups and zones, which change that, are unknown feature bits here.
//!
//! Read in rounds: the superblock; all group headers and the log; each level of all trees. On a disk that streams by, all
//! that is asked for ahead (`ahead`).

mod ahead;
mod groups;
mod log;
mod superblock;
#[cfg(test)]
mod tests;
mod trees;

use std::ops::Range;

use self::groups::Group;
use self::superblock::Superblock;
use super::{Freed, Limits, Outcome, Runs, Trouble, Volume};

/// Free blocks of a group, or a record of a free-space tree: `struct xfs_alloc_rec`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Extent {
    /// The first block, counted in the group.
    start: u32,
    /// How many.
    len: u32,
}

impl Extent {
    /// One behind the last block.
    fn end(self) -> u64 {
        u64::from(self.start) + u64::from(self.len)
    }
}

/// The memory that is left of [`Limits::memory_bytes`].
struct Memory {
    left: u64,
    most: u64,
}

impl Memory {
    /// Takes some, for good.
    fn take(&mut self, bytes: u64, what: &str) -> Outcome<()> {
        self.check(bytes, what)?;
        self.left -= bytes;
        Ok(())
    }

    /// Whether there is room for what is soon given back.
    fn check(&self, bytes: u64, what: &str) -> Outcome<()> {
        if bytes > self.left {
            let (most, need) = (self.most >> 20, bytes.div_ceil(1 << 20));
            return Err(Trouble::whole(format_args!(
                "{what} would need {need} MiB more than the {most} MiB of memory that one filesystem may have"
            )));
        }
        Ok(())
    }
}

/// What an XFS has freed.
///
/// # Errors
/// Why it is left whole, and what keeps bytes from coming.
pub fn freed(volume: &Volume<'_>, limits: Limits) -> Outcome<Freed> {
    let mut memory = Memory { left: limits.memory_bytes, most: limits.memory_bytes };
    let begin = volume.read_one(0..volume.len().min(superblock::SECTOR_MAX))?;
    let sb = Superblock::parse(&begin, volume.len())?;
    ahead::read(volume, &sb, &memory);
    let (groups, head) = headers(volume, &sb, &mut memory)?;
    let used: u64 = groups.iter().map(|group| group.used.len() as u64).sum();
    memory.take(used * 4 + groups.len() as u64 * size_of::<Group>() as u64, "its group headers")?;
    head.check(sb.lsn, "its superblock")?;
    for group in &groups {
        group.lsns.iter().try_for_each(|&lsn| head.check(lsn, group))?;
    }
    let free = trees::free(volume, &sb, &groups, head, &mut memory)?;
    counts_agree(&sb, &groups, &free)?;
    for (group, found) in groups.iter().zip(&free) {
        keeps_what_is_used(&sb, group, found)?;
    }
    Ok(Freed {
        kind: format!("XFS v{}", if sb.is_v5 { 5 } else { 4 }),
        len: sb.blocks << sb.block_log,
        free: runs(&sb, &free, &memory)?,
        note: None,
    })
}

/// The largest piece of a log that is read at once where the log as a whole takes too much memory.
const LOG_PIECE: u64 = 16 << 20;

/// All group headers, and the head of the log: one round, and more only for a log that takes too much memory.
fn headers(volume: &Volume<'_>, sb: &Superblock, memory: &mut Memory) -> Outcome<(Vec<Group>, log::Head)> {
    let Range { start: log_at, end } = sb.log();
    let log_bytes = end - log_at;
    // Twice, since a volume holds what it has read and what it gives.
    memory.take(u64::from(sb.groups) * (2 * sb.header_bytes() + 128), "its group headers")?;
    memory.take(log_bytes / 512 * log::Scan::BLOCK_BYTES, "its log")?;
    let piece =
        if 2 * log_bytes <= memory.left { log_bytes } else { LOG_PIECE.min(memory.left / 4) & !0xffff };
    if piece == 0 {
        memory.check(2 * log_bytes, "its log")?;
    }
    // In rising order, for a disk that passes by: the headers before the log, the log, the headers behind it.
    let mut wanted: Vec<Range<u64>> = (0..=sb.log_group).map(|number| sb.header(number)).collect();
    let (mut scan, mut groups, mut whole) = (log::Scan::default(), Vec::new(), Vec::new());
    for start in (0..log_bytes).step_by(piece.max(1) as usize) {
        let end = (start + piece).min(log_bytes);
        let count = wanted.len();
        wanted.push(log_at + start..log_at + end);
        if end == log_bytes {
            wanted.extend((sb.log_group + 1..sb.groups).map(|number| sb.header(number)));
        }
        let mut read = volume.read(&wanted)?;
        let log = read.remove(count);
        for bytes in read {
            groups.push(Group::parse(&bytes, groups.len() as u32, sb)?);
        }
        scan.take(&log);
        whole = log;
        wanted.clear();
    }
    let last = scan.last(sb)?;
    let within = |range: Range<u64>| whole.get(range.start as usize..range.end as usize).unwrap_or_default();
    let record = if piece == log_bytes {
        last.pieces().into_iter().flat_map(within).copied().collect()
    } else {
        let on_volume = last.pieces().into_iter().map(|range| log_at + range.start..log_at + range.end);
        volume.read(&on_volume.collect::<Vec<_>>())?.concat()
    };
    Ok((groups, last.head(&record, sb)?))
}

/// The free extents of a group, and the blocks of its free-space trees.
struct Found {
    extents: Vec<Extent>,
    tree_blocks: Vec<u32>,
    /// Blocks of both trees without their roots, if both were read.
    below_roots: Option<u64>,
}

/// `xfs_initialize_perag_data` in `xfs_ag.c`, and how `xfs_repair` counts: the superblock's free blocks are those of
/// the trees, those kept for trees, and those that the trees have beyond their roots.
fn counts_agree(sb: &Superblock, groups: &[Group], free: &[Found]) -> Outcome<()> {
    let mut sum: u64 = 0;
    for (group, found) in groups.iter().zip(free) {
        let blocks: u64 = found.extents.iter().map(|extent| u64::from(extent.len)).sum();
        let longest = found.extents.iter().map(|extent| extent.len).max().unwrap_or(0);
        if blocks != u64::from(group.free_blocks) || longest != group.longest {
            return Err(Trouble::whole(format_args!(
                "{group} says {} free blocks, at most {} in one piece, and its free-space tree {blocks}, at most {longest}",
                group.free_blocks, group.longest
            )));
        }
        let below = match found.below_roots {
            Some(counted) if sb.has_lazy_counts && counted != u64::from(group.tree_blocks) => {
                return Err(Trouble::whole(format_args!(
                    "{group} says that its free-space trees have {} more blocks, and they have {counted}",
                    group.tree_blocks
                )));
            }
            Some(counted) => counted,
            None => u64::from(group.tree_blocks),
        };
        sum += blocks + u64::from(group.list_blocks) + below;
    }
    if sum != sb.free_blocks {
        return Err(Trouble::whole(format_args!(
            "its superblock says {} free blocks, and its allocation groups {sum}",
            sb.free_blocks
        )));
    }
    Ok(())
}

/// Nothing that is known to be in use may be said to be free.
fn keeps_what_is_used(sb: &Superblock, group: &Group, found: &Found) -> Outcome<()> {
    let touches = |start: u64, end: u64| {
        let at = found.extents.partition_point(|extent| extent.end() <= start);
        found.extents.get(at).is_some_and(|extent| u64::from(extent.start) < end)
    };
    let one = |block: u32| (u64::from(block), u64::from(block) + 1);
    let header_blocks = sb.header_bytes().div_ceil(1 << sb.block_log);
    let mut used = vec![(0, header_blocks)];
    if group.number == sb.log_group {
        used.push((u64::from(sb.log_first), u64::from(sb.log_first) + u64::from(sb.log_blocks)));
    }
    if group.number == sb.root_group {
        used.push(one(sb.root_block));
    }
    let blocks = group.used.iter().chain(&found.tree_blocks).map(|&block| one(block));
    match used.into_iter().chain(blocks).find(|&(start, end)| touches(start, end)) {
        None => Ok(()),
        Some((block, _)) => Err(Trouble::whole(format_args!(
            "the free-space tree of {group} says that block {block} is free, and it is in use"
        ))),
    }
}

/// The free extents in bytes of the volume.
fn runs(sb: &Superblock, free: &[Found], memory: &Memory) -> Outcome<Runs> {
    let extents: usize = free.iter().map(|found| found.extents.len()).sum();
    // Twice, for vectors grow by doubling.
    memory.check((2 * extents * size_of::<Range<u64>>()) as u64, "its free extents")?;
    let mut runs = Runs::new();
    for (number, found) in (0..sb.groups).zip(free) {
        for extent in &found.extents {
            let at = sb.at(number, extent.start);
            runs.push(at..at + (u64::from(extent.len) << sb.block_log)).map_err(Trouble::whole)?;
        }
    }
    Ok(runs)
}
