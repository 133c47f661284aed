//! Whether the log is clean: it ends in the record of an unmount, with nothing behind it.
//!
//! The log is a ring of 512-byte blocks. Each begins with the number of the round (cycle) in which it was written, a
//! record's header with a magic number and then the cycle; what stood there before is kept in the header. So cycles
//! fall by one where the ring was last written to, its head. See `xlog_find_head`, `xlog_find_verify_log_record` and
//! `xlog_check_unmount_rec` of `xfs_log_recover.c`, `struct xlog_rec_header` of `xfs_log_format.h`.
//!
//! The kernel finds the head by halving and then looks at the blocks around it, so that it may mend what a crash left.
//! Here every block of the log must fit: one that does not is a reason to leave the filesystem whole. What xfs_repair
//! and xfs_db write fits too (`libxfs_log_clear` in `libxfs/rdwr.c` of xfsprogs): one record of an unmount at the
//! beginning, zeros up to where the next might begin, then records of the round before.

use std::fmt;
use std::ops::Range;

use super::super::bytes::{be16, be32, be64, le32};
use super::super::checksum::crc32c;
use super::superblock::Superblock;
use super::{Outcome, Trouble};

const BLOCK: usize = 512;
/// `XLOG_HEADER_MAGIC_NUM`.
const MAGIC: u32 = 0xfeed_babe;
/// `XLOG_HEADER_CYCLE_SIZE`: bytes of a record whose first words one header block keeps.
const CYCLE_BYTES: u32 = 32 << 10;
/// `XLOG_MAX_RECORD_BSIZE`.
const RECORD_MAX: u32 = 256 << 10;
/// `XLOG_UNMOUNT_TYPE`, in the byte order of the machine that wrote it.
const UNMOUNT: u16 = 0x556e;

/// What a person can do about it.
const DIRTY: &str = "its log holds changes that were not yet written: mount and unmount it, or shut the server down \
                     before the snapshot";

/// Where the next record would be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    cycle: u32,
    block: u32,
}

impl Head {
    /// Behind everything.
    pub const LAST: Self = Self { cycle: u32::MAX, block: u32::MAX };

    /// Nothing can have been written later than the log's end: `xlog_valid_lsn`. The null LSN says nothing.
    pub fn check(self, lsn: u64, whose: impl fmt::Display) -> Outcome<()> {
        let (cycle, block) = ((lsn >> 32) as u32, lsn as u32);
        if lsn != u64::MAX && (cycle, block) > (self.cycle, self.block) {
            return Err(Trouble::whole(format_args!(
                "{whose} was written later than its log ends: run xfs_repair"
            )));
        }
        Ok(())
    }
}

/// What is kept of each block of the log: enough to find where it ends.
#[derive(Debug, Default)]
pub(super) struct Scan {
    /// `xlog_get_cycle`.
    cycles: Vec<u32>,
    /// [`HEADER`] and [`BYTES`].
    flags: Vec<u8>,
}

/// The block is the header of a record.
const HEADER: u8 = 1;
/// The block is not all zeros.
const BYTES: u8 = 2;

/// The last record of a log, by the numbers of its blocks: from `first` on `blocks` of them, round the end of the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Last {
    first: usize,
    blocks: usize,
    /// Blocks of the whole log.
    of: usize,
    /// Whether blocks that were never written follow it, and older records behind them.
    has_gap: bool,
}

impl Scan {
    /// Memory for each block of a log, in bytes.
    pub const BLOCK_BYTES: u64 = 5;

    /// Takes the next piece of the log: whole blocks.
    pub fn take(&mut self, piece: &[u8]) {
        for block in piece.chunks_exact(BLOCK) {
            let word = |at| be32(block, at).unwrap_or(0);
            let is_header = word(0) == MAGIC;
            self.cycles.push(if is_header { word(4) } else { word(0) });
            let has_bytes = block != [0; BLOCK];
            self.flags.push(if is_header { HEADER } else { 0 } | if has_bytes { BYTES } else { 0 });
        }
    }

    /// Where the last record lies, if all blocks of the log fit together.
    pub fn last(&self, sb: &Superblock) -> Outcome<Last> {
        let of = self.cycles.len();
        let (end, older) = self.step()?;
        // The last record begins at most its largest length before the head, maybe at the end of the ring.
        let most =
            if sb.log_is_v2 { RECORD_MAX as usize + BLOCK * 8 } else { CYCLE_BYTES as usize + BLOCK } / BLOCK;
        let blocks = (1..=most.min(of))
            .find(|back| self.flags[(end + of - back) % of] & HEADER != 0)
            .ok_or_else(|| Trouble::whole("its log has no record where it ends"))?;
        if self.flags[end..older].iter().any(|flags| flags & BYTES != 0) {
            return Err(Trouble::whole(DIRTY));
        }
        Ok(Last { first: (end + of - blocks) % of, blocks, of, has_gap: older != end })
    }

    /// The first block that was not written in the latest round, and the first one of the round before, which all
    /// behind it must be of; between the two are blocks that were never written.
    fn step(&self) -> Outcome<(usize, usize)> {
        let cycles = &self.cycles;
        let latest = cycles.first().copied().unwrap_or(0);
        if latest == 0 {
            return Err(Trouble::whole("its log is empty: not even mkfs.xfs has written to it"));
        }
        let end = cycles.iter().position(|&cycle| cycle != latest).unwrap_or(cycles.len());
        let is_older = |&cycle: &u32| cycle == latest - 1;
        let older = end + cycles[end..].iter().take_while(|cycle| !is_older(cycle) && **cycle == 0).count();
        if !cycles[older..].iter().all(is_older) {
            return Err(Trouble::whole(DIRTY));
        }
        Ok((end, older))
    }
}

impl Last {
    /// Where it lies in the log, in bytes: in one piece, or in two if it goes round the end of the ring.
    pub fn pieces(&self) -> Vec<Range<u64>> {
        let byte = |block: usize| (block * BLOCK) as u64;
        let end = self.first + self.blocks;
        let first = byte(self.first)..byte(end.min(self.of));
        let second = 0..byte(end.saturating_sub(self.of));
        [first, second].into_iter().filter(|range| !range.is_empty()).collect()
    }

    /// The head of the log, if these bytes, those of its last record, are those of an unmount.
    pub fn head(&self, bytes: &[u8], sb: &Superblock) -> Outcome<Head> {
        let record: Vec<&[u8]> = bytes.chunks_exact(BLOCK).collect();
        is_unmount(&record, self.first, sb)?;
        let word = |at| be32(bytes, at).unwrap_or(0);
        if self.has_gap && (self.first != 0 || word(36) != u32::MAX || word(32) != 0) {
            return Err(Trouble::whole(DIRTY));
        }
        let (end, cycle) = (self.first + self.blocks, word(4));
        let is_wrapped = end >= self.of;
        let cycle = if is_wrapped { cycle.saturating_add(1) } else { cycle };
        Ok(Head { cycle, block: (end % self.of) as u32 })
    }
}

/// Whether a record, which begins at block `first` and is to end where the log does, is that of an unmount.
fn is_unmount(record: &[&[u8]], first: usize, sb: &Superblock) -> Outcome<()> {
    let dirty = || Trouble::whole(DIRTY);
    let header = record.first().copied().ok_or_else(dirty)?;
    let word = |at| be32(header, at).ok_or_else(dirty);
    let (version, len, operations, size) = (word(8)?, word(12)?, word(40)?, word(320)?);
    let lsn = u64::from(word(4)?) << 32 | first as u64;
    if version == 0 || version & !3 != 0 || be64(header, 16) != Some(lsn) {
        return Err(Trouble::whole("the last record of its log makes no sense"));
    }
    if header.get(304..320) != Some(&sb.uuid) {
        return Err(Trouble::whole("its log belongs to another filesystem"));
    }
    // `xlog_logrec_hblks`.
    let has_size = sb.log_is_v2 && version & 2 != 0;
    let headers = if has_size && size > CYCLE_BYTES { size.div_ceil(CYCLE_BYTES) } else { 1 };
    if has_size && size > RECORD_MAX || len == 0 || len > RECORD_MAX {
        return Err(Trouble::whole("the last record of its log makes no sense"));
    }
    if record.len() as u64 != u64::from(headers) + u64::from(len.div_ceil(BLOCK as u32)) || operations != 1 {
        return Err(dirty());
    }
    // `struct xlog_op_header`: XFS_LOG, XLOG_UNMOUNT_TRANS; then `struct xfs_unmount_log_format`.
    let operation = record.get(headers as usize).copied().ok_or_else(dirty)?;
    let kind = be16(operation, 12);
    let is_of_unmount = kind == Some(UNMOUNT) || kind == Some(UNMOUNT.swap_bytes());
    if operation.get(8) != Some(&0xaa) || operation.get(9) != Some(&0x20) || !is_of_unmount {
        return Err(dirty());
    }
    // What mkfs.xfs writes has none.
    if le32(header, 32) != Some(0) && !checksum_is_right(record, headers as usize, len as usize, sb.log_is_v2)
    {
        return Err(Trouble::whole("the checksum of the last record of its log is wrong"));
    }
    Ok(())
}

/// `xlog_cksum`: the header without its checksum, what the other headers hold, then the data as they lie in the log.
fn checksum_is_right(record: &[&[u8]], headers: usize, len: usize, is_v2: bool) -> bool {
    let stored = record.first().and_then(|header| le32(header, 32));
    // `struct xlog_rec_header` was 4 bytes shorter where a 64-bit number is aligned to 4: i386.
    [328, 324].into_iter().any(|size| {
        let Some(header) = record.first().and_then(|header| header.get(..size)) else { return false };
        let mut crc = crc32c(crc32c(crc32c(!0, &header[..32]), &[0; 4]), &header[36..]);
        let others = if is_v2 { len.div_ceil(CYCLE_BYTES as usize) } else { 1 };
        for other in record.iter().take(headers).take(others).skip(1) {
            crc = crc32c(crc, &other[..260]);
        }
        let mut left = len;
        for block in record.iter().skip(headers) {
            crc = crc32c(crc, &block[..left.min(BLOCK)]);
            left = left.saturating_sub(BLOCK);
        }
        left == 0 && stored == Some(!crc)
    })
}
