//! The superblock: `struct xfs_dsb` of `xfs_format.h`, believed as far as `xfs_validate_sb_common` of `xfs_sb.c` does.

use std::ops::Range;

use super::super::bytes::{be16, be32, be64};
use super::super::checksum::crc32c;
use super::{Outcome, Trouble};

/// The largest sector: `XFS_MAX_SECTORSIZE`.
pub(super) const SECTOR_MAX: u64 = 32 << 10;

/// `XFS_SB_VERSION_*BIT` that every version 5 has: nlink, align, logv2, extflg, dirv2, morebits (`V5_VERS_FLAGS`).
const V5_VERSION_BITS: u16 = 0x0020 | 0x0080 | 0x0400 | 0x1000 | 0x2000 | 0x8000;
/// That every version 4 has which Linux mounts: extflg, dirv2.
const V4_VERSION_BITS: u16 = 0x1000 | 0x2000;
/// `XFS_SB_VERSION_SHAREDBIT`, `XFS_SB_VERSION_LOGV2BIT`, `XFS_SB_VERSION_MOREBITSBIT`.
const SHARED_BIT: u16 = 0x0200;
const LOG_V2_BIT: u16 = 0x0400;
const MORE_BITS: u16 = 0x8000;
/// `XFS_SB_VERSION2_*`: lazy counters, attr2, projid32, ftype; checksums only with version 5.
const FEATURES2_KNOWN: u32 = 0x002 | 0x008 | 0x080 | 0x200;
const LAZY_COUNT_BIT: u32 = 0x002;
const CRC_BIT: u32 = 0x100;
const V5_FEATURES2: u32 = 0x002 | 0x008 | 0x080 | CRC_BIT;

/// `XFS_SB_FEAT_RO_COMPAT_*`: finobt, rmapbt, reflink, inobtcnt. None changes what the free-space trees say.
const RO_COMPAT_KNOWN: u32 = 0b1111;
const RO_COMPAT_FREE_INODES: u32 = 1 << 0;
const RO_COMPAT_RMAP: u32 = 1 << 1;
const RO_COMPAT_REFLINK: u32 = 1 << 2;
/// `XFS_SB_FEAT_INCOMPAT_*`: ftype, spinodes, meta_uuid, bigtime, nrext64, exchrange, parent. None changes what the
/// free-space trees say. Not known: metadir, zoned, zone gaps.
const INCOMPAT_KNOWN: u32 = 0b1110_1111;
const INCOMPAT_META_UUID: u32 = 1 << 2;
const INCOMPAT_NEEDS_REPAIR: u32 = 1 << 4;
/// `XFS_SB_FEAT_INCOMPAT_LOG_XATTRS`: of no meaning while the log is clean.
const LOG_INCOMPAT_KNOWN: u32 = 1;

/// What is needed of the superblock.
#[derive(Clone, Debug)]
pub(super) struct Superblock {
    pub is_v5: bool,
    /// Log2 of the bytes of a block, 9 to 16.
    pub block_log: u32,
    pub sector_bytes: u32,
    /// All blocks of the data device.
    pub blocks: u64,
    /// Blocks of each allocation group; the last one may be shorter.
    pub group_blocks: u32,
    pub groups: u32,
    pub log_group: u32,
    /// The first block of the log, counted in its group.
    pub log_first: u32,
    pub log_blocks: u32,
    pub log_is_v2: bool,
    pub root_group: u32,
    pub root_block: u32,
    /// `sb_fdblocks`.
    pub free_blocks: u64,
    pub has_lazy_counts: bool,
    pub has_free_inodes: bool,
    pub has_rmap: bool,
    pub has_reflink: bool,
    /// The UUID that people see, and that the log bears.
    pub uuid: [u8; 16],
    /// The UUID that metadata of version 5 bear.
    pub meta_uuid: [u8; 16],
    /// `sb_lsn`; the null LSN on version 4.
    pub lsn: u64,
    /// Fields that never change, as each group's copy has them.
    fixed: Vec<u8>,
}

/// Where the fields lie that a filesystem keeps for life: magic and block size, log, group size, log's length, sectors.
const FIXED: [(usize, usize); 5] = [(0, 8), (48, 8), (84, 4), (96, 4), (102, 2)];

/// XFS_MAX_LOG_BLOCKS, XFS_MAX_LOG_BYTES.
fn is_log_length(blocks: u32, block_log: u32) -> bool {
    (1..=1 << 20).contains(&blocks) && u64::from(blocks) << block_log <= (2 << 30) - (10 << 20)
}

/// The fields of [`FIXED`], one behind the other.
fn fixed(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut all = Vec::new();
    for (at, len) in FIXED {
        all.extend_from_slice(bytes.get(at..at + len)?);
    }
    Some(all)
}

/// Whether a block's little-endian CRC-32C at `at`, taken as zero itself, is right (`xfs_verify_cksum`).
pub(super) fn checksum_is_right(block: &[u8], at: usize) -> bool {
    let (Some(before), Some(stored), Some(behind)) =
        (block.get(..at), block.get(at..at + 4), block.get(at + 4..))
    else {
        return false;
    };
    let crc = crc32c(crc32c(crc32c(!0, before), &[0; 4]), behind);
    stored == (!crc).to_le_bytes()
}

impl Superblock {
    /// Reads and checks it.
    pub fn parse(bytes: &[u8], volume_len: u64) -> Outcome<Self> {
        let short = || Trouble::whole("its superblock is cut off");
        if bytes.get(..4) != Some(b"XFSB") {
            return Err(Trouble::whole("it has no XFS superblock"));
        }
        let head = bytes.get(..512).ok_or_else(short)?;
        let version = be16(head, 100).ok_or_else(short)?;
        let is_v5 = version & 0xf == 5;
        if !is_v5 && version & 0xf != 4 {
            return Err(Trouble::whole(format_args!("XFS version {} is not known", version & 0xf)));
        }
        let sector_bytes = u32::from(be16(head, 102).ok_or_else(short)?);
        let sector_is_sane = sector_bytes.is_power_of_two() && (512..=32768).contains(&sector_bytes);
        if !sector_is_sane || head[121] != sector_bytes.trailing_zeros() as u8 {
            return Err(Trouble::whole("the sector size in its superblock makes no sense"));
        }
        let sector = bytes.get(..sector_bytes as usize).ok_or_else(short)?;
        if is_v5 && !checksum_is_right(sector, 224) {
            return Err(Trouble::whole("the checksum of its superblock is wrong"));
        }
        features(head, version, is_v5).ok_or_else(short)??;
        if head[126] != 0 {
            return Err(Trouble::whole("it was never completely made: its superblock says «in progress»"));
        }
        let sb = Self::geometry(head, is_v5, sector_bytes, version).ok_or_else(short)??;
        let len = u128::from(sb.blocks) << sb.block_log;
        if len > u128::from(volume_len) {
            return Err(Trouble::whole(format_args!("it is {len} bytes long, and its place {volume_len}")));
        }
        Ok(sb)
    }

    /// `None` if a field lies beyond the end.
    fn geometry(head: &[u8], is_v5: bool, sector_bytes: u32, version: u16) -> Option<Outcome<Self>> {
        let nonsense =
            |what: &str| Some(Err(Trouble::whole(format_args!("its superblock makes no sense: {what}"))));
        let (block_log, block_bytes) = (u32::from(head[120]), be32(head, 4)?);
        let sizes = if is_v5 { 10..=16 } else { 9..=16 };
        if !sizes.contains(&block_log) || block_bytes != 1 << block_log || sector_bytes > block_bytes {
            return nonsense("block size");
        }
        let (group_blocks, groups, blocks) = (be32(head, 84)?, be32(head, 88)?, be64(head, 8)?);
        let (group_bytes, group_log) = (u64::from(group_blocks) << block_log, u32::from(head[124]));
        // XFS_MIN_AG_BYTES, XFS_MAX_AG_BYTES; the rounded logarithm; XFS_MIN_AG_BLOCKS in the last group.
        if !(1 << 24..=1 << 40).contains(&group_bytes) || group_log != 32 - (group_blocks - 1).leading_zeros()
        {
            return nonsense("size of allocation groups");
        }
        if groups == 0 || blocks.div_ceil(u64::from(group_blocks)) != u64::from(groups) {
            return nonsense("number of allocation groups");
        }
        if blocks - u64::from(group_blocks) * u64::from(groups - 1) < 64 {
            return nonsense("length of the last allocation group");
        }
        let per_group = (1u64 << group_log) - 1;
        let (log_start, log_blocks) = (be64(head, 48)?, be32(head, 96)?);
        if log_start == 0 {
            return Some(Err(Trouble::whole("its log lies on another device")));
        }
        let (log_group, log_first) = (log_start >> group_log, log_start & per_group);
        let group_len = |number: u64| u64::from(group_blocks).min(blocks - number * u64::from(group_blocks));
        if !is_log_length(log_blocks, block_log) {
            return nonsense("length of the log");
        }
        if log_group >= u64::from(groups) || log_first + u64::from(log_blocks) > group_len(log_group) {
            return nonsense("place of the log");
        }
        let (root, inodes_log) = (be64(head, 56)?, u32::from(head[123]));
        if inodes_log > 8 || inodes_log + u32::from(head[122]) != block_log {
            return nonsense("inodes of a block");
        }
        let (root_group, root_block) = (root >> inodes_log >> group_log, root >> inodes_log & per_group);
        if root_group >= u64::from(groups) || root_block >= group_len(root_group) {
            return nonsense("place of the root directory");
        }
        let uuid = *head.get(32..)?.first_chunk()?;
        let (features2, ro, incompat) = (be32(head, 200)?, be32(head, 212)?, be32(head, 216)?);
        let has_meta_uuid = is_v5 && incompat & INCOMPAT_META_UUID != 0;
        let meta_uuid = if has_meta_uuid { *head.get(248..)?.first_chunk()? } else { uuid };
        Some(Ok(Self {
            is_v5,
            block_log,
            sector_bytes,
            blocks,
            group_blocks,
            groups,
            log_group: log_group as u32,
            log_first: log_first as u32,
            log_blocks,
            log_is_v2: version & LOG_V2_BIT != 0,
            root_group: root_group as u32,
            root_block: root_block as u32,
            free_blocks: be64(head, 144)?,
            has_lazy_counts: is_v5 || version & MORE_BITS != 0 && features2 & LAZY_COUNT_BIT != 0,
            has_free_inodes: is_v5 && ro & RO_COMPAT_FREE_INODES != 0,
            has_rmap: is_v5 && ro & RO_COMPAT_RMAP != 0,
            has_reflink: is_v5 && ro & RO_COMPAT_REFLINK != 0,
            uuid,
            meta_uuid,
            lsn: if is_v5 { be64(head, 240)? } else { u64::MAX },
            fixed: fixed(head)?,
        }))
    }

    /// Where a block of a group lies in the volume, in bytes. The block lies in the group.
    pub fn at(&self, group: u32, block: u32) -> u64 {
        (u64::from(group) * u64::from(self.group_blocks) + u64::from(block)) << self.block_log
    }

    /// Bytes of a group's headers: four sectors.
    pub fn header_bytes(&self) -> u64 {
        4 * u64::from(self.sector_bytes)
    }

    /// Where a group's headers lie in the volume, in bytes.
    pub fn header(&self, group: u32) -> Range<u64> {
        let at = self.at(group, 0);
        at..at + self.header_bytes()
    }

    /// Where the log lies in the volume, in bytes.
    pub fn log(&self) -> Range<u64> {
        let at = self.at(self.log_group, self.log_first);
        at..at + (u64::from(self.log_blocks) << self.block_log)
    }

    /// The blocks of a group.
    pub fn group_len(&self, number: u32) -> u32 {
        let behind = self.blocks - u64::from(number) * u64::from(self.group_blocks);
        behind.min(u64::from(self.group_blocks)) as u32
    }

    /// Whether the copy at the beginning of a group has the same fixed fields.
    pub fn is_copied_in(&self, sector: &[u8]) -> bool {
        fixed(sector).is_some_and(|copy| copy == self.fixed)
    }
}

/// `xfs_sb_good_version`, `xfs_sb_validate_v5_features`, `xfs_validate_sb_read`: `None` if a field lies beyond the end.
fn features(head: &[u8], version: u16, is_v5: bool) -> Option<Outcome<()>> {
    let unknown = |what: &str, bits: u32| {
        Some(Err(Trouble::whole(format_args!("it has features that are not known ({what} {bits:#x})"))))
    };
    let (features2, bad) = (be32(head, 200)?, be32(head, 204)?);
    if version & SHARED_BIT != 0 || head[179] != 0 {
        return unknown("version", u32::from(version));
    }
    if !is_v5 {
        if version & V4_VERSION_BITS != V4_VERSION_BITS {
            return Some(Err(Trouble::whole(
                "it is older than what Linux mounts (no unwritten extents or directories 2)",
            )));
        }
        // Old kernels wrote the second word elsewhere; it is believed where both agree.
        if version & MORE_BITS != 0 && (features2 & !FEATURES2_KNOWN != 0 || bad != features2) {
            return unknown("features2", features2);
        }
        return Some(Ok(()));
    }
    if version & V5_VERSION_BITS != V5_VERSION_BITS || features2 & V5_FEATURES2 != V5_FEATURES2 {
        return Some(Err(Trouble::whole("its superblock lacks feature bits that version 5 must have")));
    }
    let masks = [
        ("features2", features2, FEATURES2_KNOWN | CRC_BIT),
        ("compat", be32(head, 208)?, 0),
        ("ro_compat", be32(head, 212)?, RO_COMPAT_KNOWN),
        ("incompat", be32(head, 216)?, INCOMPAT_KNOWN | INCOMPAT_NEEDS_REPAIR),
        ("log_incompat", be32(head, 220)?, LOG_INCOMPAT_KNOWN),
    ];
    if let Some((what, bits, known)) = masks.into_iter().find(|(_, bits, known)| bits & !known != 0) {
        return unknown(what, bits & !known);
    }
    if be32(head, 216)? & INCOMPAT_NEEDS_REPAIR != 0 {
        return Some(Err(Trouble::whole("it is marked as in need of repair: run xfs_repair")));
    }
    Some(Ok(()))
}
