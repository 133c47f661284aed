//! The headers of an allocation group, four sectors: a copy of the superblock, `struct xfs_agf` (free space),
//! `struct xfs_agi` (inodes), `struct xfs_agfl` (blocks kept for trees), all of `xfs_format.h`.

use std::fmt;

use super::super::bytes::{be32, be64};
use super::superblock::{Superblock, checksum_is_right};
use super::{Outcome, Trouble};

/// What is needed of a group's headers.
#[derive(Clone, Debug)]
pub(super) struct Group {
    pub number: u32,
    /// Its blocks.
    pub len: u32,
    /// Where the trees of free space begin, by block number and by size, and how many levels they have.
    pub roots: [u32; 2],
    pub levels: [u32; 2],
    /// `agf_freeblks`, `agf_longest`, `agf_flcount`, `agf_btreeblks`.
    pub free_blocks: u32,
    pub longest: u32,
    pub list_blocks: u32,
    pub tree_blocks: u32,
    /// Blocks that are known to be in use: kept for trees, and the roots of other trees.
    pub used: Vec<u32>,
    /// When its headers were last written, for version 5.
    pub lsns: Vec<u64>,
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "allocation group {}", self.number)
    }
}

/// More levels no free-space tree has: `XFS_BTREE_MAXLEVELS`.
const LEVELS_MAX: u32 = 9;

/// What is checked alike in each header of version 5: where UUID, LSN and checksum lie.
struct Stamp {
    uuid: usize,
    lsn: usize,
    crc: usize,
}

impl Group {
    /// Reads and checks the four sectors of a group.
    pub fn parse(bytes: &[u8], number: u32, sb: &Superblock) -> Outcome<Self> {
        let wrong = |what: &str| Trouble::whole(format_args!("allocation group {number}: {what}"));
        let short = || wrong("its headers are cut off");
        let sectors: Vec<&[u8]> = bytes.chunks_exact(sb.sector_bytes as usize).collect();
        let &[copy, agf, agi, agfl] = &sectors[..] else { return Err(short()) };
        if !sb.is_copied_in(copy) {
            return Err(wrong("its copy of the superblock disagrees"));
        }
        let len = sb.group_len(number);
        for (header, magic, what) in [(agf, b"XAGF", "free-space"), (agi, b"XAGI", "inode")] {
            let [version, seqno, length] = words(header, 4).ok_or_else(short)?;
            if !header.starts_with(magic) || (version, seqno, length) != (1, number, len) {
                return Err(wrong(&format!("its {what} header is not its own")));
            }
        }
        let lsns = if sb.is_v5 { stamped([agf, agi, agfl], number, sb)? } else { Vec::new() };
        let [bno, cnt, rmap, bno_levels, cnt_levels, _] = words(agf, 16).ok_or_else(short)?;
        let [first, last, list_blocks, free_blocks, longest, tree_blocks] =
            words(agf, 40).ok_or_else(short)?;
        let levels_are_sane = [bno_levels, cnt_levels].iter().all(|levels| (1..=LEVELS_MAX).contains(levels));
        if !levels_are_sane || bno >= len || cnt >= len {
            return Err(wrong("its free-space trees make no sense"));
        }
        let has_tree_count = sb.has_lazy_counts;
        if free_blocks > len || longest > free_blocks || has_tree_count && tree_blocks > len {
            return Err(wrong("its counts of free blocks make no sense"));
        }
        let list = if sb.is_v5 { agfl.get(36..).ok_or_else(short)? } else { agfl };
        let mut used = kept(list, first, last, list_blocks)
            .filter(|kept| kept.iter().all(|&block| block < len))
            .ok_or_else(|| wrong("its list of kept blocks makes no sense"))?;
        used.extend([bno, cnt, be32(agi, 20).ok_or_else(short)?]);
        if sb.has_free_inodes {
            used.push(be32(agi, 328).ok_or_else(short)?);
        }
        if sb.has_rmap {
            used.push(rmap);
        }
        if sb.has_reflink {
            used.push(be32(agf, 88).ok_or_else(short)?);
        }
        if used.iter().any(|&block| block >= len) {
            return Err(wrong("the root of a tree lies outside of it"));
        }
        Ok(Self {
            number,
            len,
            roots: [bno, cnt],
            levels: [bno_levels, cnt_levels],
            free_blocks,
            longest,
            list_blocks,
            tree_blocks,
            used,
            lsns,
        })
    }
}

/// Checks what only version 5 has in its headers; the log sequence numbers of their last changes.
fn stamped([agf, agi, agfl]: [&[u8]; 3], number: u32, sb: &Superblock) -> Outcome<Vec<u64>> {
    let wrong = |what: String| Trouble::whole(format_args!("allocation group {number}: {what}"));
    if !agfl.starts_with(b"XAFL") || be32(agfl, 4) != Some(number) {
        return Err(wrong("its list of kept blocks is not its own".into()));
    }
    let stamps = [
        (agf, "free-space header", Stamp { uuid: 64, lsn: 208, crc: 216 }),
        (agi, "inode header", Stamp { uuid: 296, lsn: 320, crc: 312 }),
        (agfl, "list of kept blocks", Stamp { uuid: 8, lsn: 24, crc: 32 }),
    ];
    let mut lsns = Vec::new();
    for (header, what, stamp) in stamps {
        if !checksum_is_right(header, stamp.crc) {
            return Err(wrong(format!("the checksum of its {what} is wrong")));
        }
        if header.get(stamp.uuid..stamp.uuid + 16) != Some(&sb.meta_uuid) {
            return Err(wrong(format!("its {what} belongs to another filesystem")));
        }
        lsns.push(be64(header, stamp.lsn).ok_or_else(|| wrong("its headers are cut off".into()))?);
    }
    Ok(lsns)
}

/// Big-endian words, one behind the other.
fn words<const N: usize>(bytes: &[u8], at: usize) -> Option<[u32; N]> {
    let mut all = [0; N];
    for (index, word) in all.iter_mut().enumerate() {
        *word = be32(bytes, at + 4 * index)?;
    }
    Some(all)
}

/// The blocks of the ring between `first` and `last`, if they are as many as counted (`xfs_agfl_needs_reset`).
fn kept(list: &[u8], first: u32, last: u32, count: u32) -> Option<Vec<u32>> {
    let size = u32::try_from(list.len() / 4).ok()?;
    if first >= size || last >= size || count > size {
        return None;
    }
    let active = match count {
        0 => 0,
        _ if last >= first => last - first + 1,
        _ => size - first + last + 1,
    };
    if active != count {
        return None;
    }
    (0..count).map(|index| be32(list, ((first + index) % size) as usize * 4)).collect()
}
