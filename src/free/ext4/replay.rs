//! The replay of a journal, in memory: what `do_one_pass` of `fs/jbd2/recovery.c` of Linux does to a disk, done to an
//! index of blocks.
//!
//! The kernel goes through the log three times: to find its end, to gather the revoke records, to write. Here it is
//! one walk, since nothing is written: tags and revoke records of a transaction wait until its commit block is found,
//! and of each block of the filesystem only the last copy counts. A revoke record of transaction T takes back the copies
//! of T and of those before it; so either the last copy stands, or none does.
//!
//! Where the kernel gives up (and would not mount), so does this; and also in cases in which kernels differ.

use std::collections::HashMap;

use super::super::bytes::{be16, be32, be64};
use super::super::checksum::crc32c;
use super::super::{Outcome, Trouble};
use super::inode::Map;
use super::journal::{JournalSuper, Log, MAGIC, Sums};
use super::super_block::Geometry;

/// As the kernel's `crc32_be`.
static CRC32_BE: crc::Crc<u32, crc::Table<16>> = crc::Crc::<u32, crc::Table<16>>::new(&crc::CRC_32_MPEG_2);

const DESCRIPTOR: u32 = 1;
const COMMIT: u32 = 2;
const REVOKE: u32 = 5;
const FLAG_ESCAPE: u16 = 1;
const FLAG_SAME_UUID: u16 = 2;
const FLAG_LAST: u16 = 8;

/// Where the last copy of a block of the filesystem lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Copy {
    /// Its block of the journal.
    pub at: u32,
    /// It begins with the journal's magic number, which was taken out there.
    pub is_escaped: bool,
    sequence: u32,
}

/// A block that a transaction writes.
struct Tag {
    block: u64,
    copy: Copy,
    /// Its checksum is right, or there is none.
    is_sound: bool,
}

/// Memory of an entry of the maps, with what maps leave empty.
const ENTRY_BYTES: u64 = 64;

/// The blocks that a replay changes.
pub(super) type Copies = HashMap<u64, Copy>;

struct Replay<'a, 'l, 'v> {
    journal: &'a JournalSuper,
    geometry: &'a Geometry,
    log: Log<'l, 'v>,
    memory_bytes: u64,
    /// The next block of the log, and how many were passed.
    next: u32,
    passed: u32,
    sequence: u32,
    /// Of the transaction that has no commit block yet.
    tags: Vec<Tag>,
    revokes: Option<Vec<u64>>,
    sum: u32,
    /// Of all committed ones.
    copies: Copies,
    revoked: HashMap<u64, u32>,
    unsound: Vec<(u64, u32)>,
    last_commit_time: u64,
}

fn wrong(what: impl std::fmt::Display) -> Trouble {
    Trouble::whole(format_args!("its journal cannot be replayed: {what}"))
}

/// `tid_geq`: numbers of transactions go round.
fn is_at_or_behind(one: u32, other: u32) -> bool {
    one.wrapping_sub(other) < 1 << 31
}

/// The blocks that the replay of a journal that is not empty changes, and where their new contents lie.
///
/// # Errors
/// What the kernel would not replay, what is not understood, and more than `memory_bytes` for the index.
pub(super) fn replay(
    journal: &JournalSuper,
    geometry: &Geometry,
    map: &Map,
    log: Log<'_, '_>,
    memory_bytes: u64,
) -> Outcome<Copies> {
    if journal.has_fast_commits {
        return Err(wrong("it has fast commits"));
    }
    let mut replay = Replay {
        journal,
        geometry,
        log,
        memory_bytes,
        next: journal.start,
        passed: 0,
        sequence: journal.sequence,
        tags: Vec::new(),
        revokes: Some(Vec::new()),
        sum: !0,
        copies: HashMap::new(),
        revoked: HashMap::new(),
        unsound: Vec::new(),
        last_commit_time: 0,
    };
    replay.walk()?;
    replay.check_rest()?;
    replay.finish(map)
}

/// What a walk does next.
#[derive(PartialEq, Eq)]
enum Step {
    On,
    End,
}

impl Replay<'_, '_, '_> {
    /// From commit to commit, until the log ends: with a block that is no part of it, or of another transaction.
    fn walk(&mut self) -> Outcome<()> {
        // A block of this transaction has a wrong checksum. It may be left over from before the journal was made anew:
        // then its commit block is missing, or older than the one before.
        let mut is_doubtful = false;
        // Its commit block has a wrong checksum; only where commit blocks may come early, that is no error.
        let mut is_cut = false;
        loop {
            let number = self.next;
            let block = self.log.block(number)?.to_vec();
            let header = (be32(&block, 0), be32(&block, 4), be32(&block, 8));
            let (Some(MAGIC), Some(kind), Some(sequence)) = header else { return Ok(()) };
            if sequence != self.sequence {
                return Ok(());
            }
            self.advance()?;
            match kind {
                DESCRIPTOR => {
                    is_doubtful |= !self.has_tail_sum(&block);
                    self.descriptor(&block, is_doubtful || is_cut)?;
                }
                REVOKE => {
                    is_doubtful |= !self.has_tail_sum(&block);
                    self.revoke(&block)?;
                }
                COMMIT if is_cut => return Err(wrong("a transaction before the last one is damaged")),
                COMMIT => {
                    if self.commit(&block, is_doubtful)? == Step::End {
                        if !is_doubtful && self.journal.is_async {
                            is_cut = true;
                            self.sequence = self.sequence.wrapping_add(1);
                            continue;
                        }
                        return Ok(());
                    }
                }
                _ => return Ok(()),
            }
        }
    }

    /// To the next block of the ring.
    fn advance(&mut self) -> Outcome<()> {
        let ring = &self.journal.ring;
        self.next += 1;
        if self.next >= ring.end {
            self.next = ring.start;
        }
        self.passed += 1;
        if self.passed > ring.end - ring.start {
            return Err(wrong("its log bites its tail"));
        }
        Ok(())
    }

    /// The checksum at the end of a descriptor or revoke block (`jbd2_descriptor_block_csum_verify`).
    fn has_tail_sum(&self, block: &[u8]) -> bool {
        let Some(seed) = self.journal.seed() else { return true };
        let Some(at) = block.len().checked_sub(4) else { return false };
        be32(block, at) == Some(crc32c(crc32c(seed, &block[..at]), &[0; 4]))
    }

    /// A descriptor block and the blocks behind it, one for each of its tags. They are passed without a look if the
    /// transaction will not count.
    fn descriptor(&mut self, block: &[u8], is_lost: bool) -> Outcome<()> {
        let sums = self.journal.sums;
        let end = block.len() - if self.journal.seed().is_some() { 4 } else { 0 };
        let tag_bytes = self.journal.tag_bytes();
        if sums == Sums::V1 {
            self.add_to_sum(block);
        }
        let mut at = 12;
        while at + tag_bytes <= end {
            let cut = || wrong("a tag is cut off");
            let low = be32(block, at).ok_or_else(cut)?;
            let high = if self.journal.is_64bit { be32(block, at + 8).ok_or_else(cut)? } else { 0 };
            let flags = be16(block, at + 6).ok_or_else(cut)?;
            let has = match sums {
                Sums::V3(_) => be32(block, at + 12),
                Sums::V2(_) => be16(block, at + 4).map(u32::from),
                Sums::None | Sums::V1 => None,
            };
            let copy = Copy { at: self.next, is_escaped: flags & FLAG_ESCAPE != 0, sequence: self.sequence };
            self.advance()?;
            let is_sound = is_lost || self.is_sound(copy.at, has)?;
            self.tags.push(Tag { block: u64::from(low) | u64::from(high) << 32, copy, is_sound });
            at += tag_bytes + if flags & FLAG_SAME_UUID == 0 { 16 } else { 0 };
            if flags & FLAG_LAST != 0 {
                break;
            }
        }
        self.afford()
    }

    /// Whether a block of data has the checksum that its tag says (`jbd2_block_tag_csum_verify`).
    fn is_sound(&mut self, at: u32, has: Option<u32>) -> Outcome<bool> {
        let sequence = self.sequence.to_be_bytes();
        match self.journal.sums {
            Sums::None => Ok(true),
            Sums::V1 => {
                let data = self.log.block(at)?.to_vec();
                self.add_to_sum(&data);
                Ok(true)
            }
            Sums::V2(seed) => {
                let sum = crc32c(crc32c(seed, &sequence), self.log.block(at)?);
                Ok(has == Some(sum & 0xffff))
            }
            Sums::V3(seed) => Ok(has == Some(crc32c(crc32c(seed, &sequence), self.log.block(at)?))),
        }
    }

    fn add_to_sum(&mut self, block: &[u8]) {
        let mut digest = CRC32_BE.digest_with_initial(self.sum);
        digest.update(block);
        self.sum = digest.finalize();
    }

    /// The block numbers of a revoke block (`scan_revoke_records`).
    fn revoke(&mut self, block: &[u8]) -> Outcome<()> {
        let most = block.len() - if self.journal.seed().is_some() { 4 } else { 0 };
        let used = be32(block, 12).and_then(|used| usize::try_from(used).ok()).filter(|used| *used <= most);
        let (Some(used), Some(revokes)) = (used, self.revokes.as_mut()) else {
            // It counts only if the transaction is committed.
            self.revokes = None;
            return Ok(());
        };
        let width = if self.journal.is_64bit { 8 } else { 4 };
        for record in block.get(16..used).unwrap_or(&[]).chunks_exact(width) {
            revokes.extend(if width == 8 { be64(record, 0) } else { be32(record, 0).map(u64::from) });
        }
        self.afford()
    }

    /// A commit block: the transaction counts, or the log ends before it.
    fn commit(&mut self, block: &[u8], is_doubtful: bool) -> Outcome<Step> {
        let time = be64(block, 48).unwrap_or(0);
        if is_doubtful || !self.has_commit_sum(block) {
            // As the kernel: an older time says that it is left over; else the journal is damaged, unless a commit
            // block may reach the disk before what it commits.
            if time < self.last_commit_time || !is_doubtful && self.journal.is_async {
                return Ok(Step::End);
            }
            return Err(wrong(format_args!("transaction {} is damaged", self.sequence)));
        }
        let revokes = self.revokes.replace(Vec::new());
        for block in revokes.ok_or_else(|| wrong("a revoke block of it"))? {
            let revoked = self.revoked.entry(block).or_insert(self.sequence);
            if is_at_or_behind(self.sequence, *revoked) {
                *revoked = self.sequence;
            }
        }
        for tag in self.tags.drain(..) {
            if !tag.is_sound {
                self.unsound.push((tag.block, self.sequence));
            }
            self.copies.insert(tag.block, tag.copy);
        }
        self.afford()?;
        self.last_commit_time = time;
        self.sequence = self.sequence.wrapping_add(1);
        self.sum = !0;
        Ok(Step::On)
    }

    /// The checksum of a commit block (`jbd2_commit_block_csum_verify`), or the one in it of its transaction's blocks.
    fn has_commit_sum(&self, block: &[u8]) -> bool {
        let has = be32(block, 16);
        match self.journal.sums {
            Sums::None => true,
            Sums::V1 => {
                let kind = (block.get(12), block.get(13));
                has == Some(self.sum) && kind == (Some(&1), Some(&4))
                    || has == Some(0) && kind == (Some(&0), Some(&0))
            }
            Sums::V2(seed) | Sums::V3(seed) => {
                let Some((before, behind)) = block.get(..16).zip(block.get(20..)) else { return false };
                has == Some(crc32c(crc32c(crc32c(seed, before), &[0; 4]), behind))
            }
        }
    }

    fn afford(&self) -> Outcome<()> {
        let pending = self.tags.len() + self.revokes.as_ref().map_or(0, Vec::len);
        let entries = pending + self.copies.len() + self.revoked.len() + self.unsound.len();
        if entries as u64 * ENTRY_BYTES > self.memory_bytes {
            return Err(wrong(format_args!(
                "that takes more than {} MiB of memory",
                self.memory_bytes >> 20
            )));
        }
        Ok(())
    }

    /// No commit block of this transaction or of a later one may be left in the ring: a transaction is committed only
    /// after all before it, so there would be a hole in the log. The kernel does not look for that. Blocks of data in a
    /// journal never begin with its magic number.
    fn check_rest(&mut self) -> Outcome<()> {
        let ring = self.journal.ring.clone();
        let sequence = self.sequence;
        let has_seed = self.journal.seed().is_some();
        for number in ring.clone() {
            let block = self.log.block(number)?;
            if (be32(block, 0), be32(block, 4)) != (Some(MAGIC), Some(COMMIT)) {
                continue;
            }
            let later = be32(block, 8).unwrap_or(0).wrapping_sub(sequence);
            // Without checksums, what was there before the journal was made may look like a commit block; but one of a
            // number within reach of this log is not passed over.
            if later < 1 << 31 && (has_seed || later <= ring.end - ring.start) {
                let block = block.to_vec();
                if !has_seed || self.has_commit_sum(&block) {
                    return Err(wrong(format_args!(
                        "transaction {sequence} is missing, but a later one is there"
                    )));
                }
            }
        }
        Ok(())
    }

    /// Takes back what was revoked.
    fn finish(mut self, map: &Map) -> Outcome<Copies> {
        let revoked = &self.revoked;
        let stands = |block: &u64, sequence: u32| {
            revoked.get(block).is_none_or(|until| !is_at_or_behind(*until, sequence))
        };
        if let Some((block, sequence)) =
            self.unsound.iter().find(|(block, sequence)| stands(block, *sequence))
        {
            return Err(wrong(format_args!(
                "the copy of block {block} in transaction {sequence} is damaged"
            )));
        }
        self.copies.retain(|block, copy| stands(block, copy.sequence));
        if self.copies.keys().any(|block| *block >= self.geometry.blocks) {
            return Err(wrong("it writes beyond the end"));
        }
        let own = map.own_ranges();
        let is_own = |block: &u64| {
            let behind = own.partition_point(|range| range.start <= *block);
            behind > 0 && own[behind - 1].contains(block)
        };
        if self.copies.keys().any(is_own) {
            return Err(wrong("it writes over itself"));
        }
        Ok(self.copies)
    }
}
