//! The journal: its superblock (`journal_superblock_t` in `include/linux/jbd2.h`, all big-endian; the checks of
//! `journal_get_superblock` in `fs/jbd2/journal.c`) and its ring of blocks.

use std::ops::Range;

use super::super::bytes::be32;
use super::super::checksum::crc32c;
use super::super::{Outcome, Trouble};
use super::inode::Map;
use super::reader::Reader;
use super::super_block::Geometry;

/// `JBD2_MAGIC_NUMBER`.
pub(super) const MAGIC: u32 = 0xc03b_3998;

const COMPAT_CHECKSUM: u32 = 0x1;
const INCOMPAT_64BIT: u32 = 0x2;
const INCOMPAT_ASYNC_COMMIT: u32 = 0x4;
const INCOMPAT_CSUM_V2: u32 = 0x8;
const INCOMPAT_CSUM_V3: u32 = 0x10;
const INCOMPAT_FAST_COMMIT: u32 = 0x20;
const INCOMPAT_KNOWN: u32 = 0x3f;

/// How a journal proves that it is whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sums {
    None,
    /// CRC-32 of a transaction's blocks, in its commit block (`JBD2_FEATURE_COMPAT_CHECKSUM`).
    V1,
    /// CRC-32C of every block, begun with this; of a data block only the lower 16 bits are kept.
    V2(u32),
    /// The same, and all 32 bits are kept.
    V3(u32),
}

/// The journal's superblock.
#[derive(Clone, Debug)]
pub(super) struct JournalSuper {
    /// The ring's blocks, counted in the journal: from `s_first` to before `s_maxlen`.
    pub ring: Range<u32>,
    /// Where the log begins; 0 if it is empty.
    pub start: u32,
    /// The transaction that it begins with.
    pub sequence: u32,
    pub sums: Sums,
    pub is_64bit: bool,
    pub is_async: bool,
    pub has_fast_commits: bool,
}

fn wrong(what: impl std::fmt::Display) -> Trouble {
    Trouble::whole(format_args!("its journal is wrong: {what}"))
}

impl JournalSuper {
    /// Reads and checks the first block of a journal of `blocks` blocks.
    pub fn parse(bytes: &[u8], geometry: &Geometry, blocks: u64) -> Outcome<Self> {
        let cut = || wrong("its superblock is cut off");
        let bytes = bytes.get(..1024).ok_or_else(cut)?;
        let word = |at| be32(bytes, at).ok_or_else(cut);
        let kind = word(4)?;
        if word(0)? != MAGIC || !(3..=4).contains(&kind) {
            return Err(wrong("it has no superblock"));
        }
        let (compat, incompat, ro_compat) =
            if kind == 4 { (word(0x24)?, word(0x28)?, word(0x2c)?) } else { (0, 0, 0) };
        if compat & !COMPAT_CHECKSUM != 0 || incompat & !INCOMPAT_KNOWN != 0 || ro_compat != 0 {
            return Err(Trouble::whole(format_args!(
                "its journal has features that are not understood ({compat:#x}, {incompat:#x}, {ro_compat:#x})"
            )));
        }
        let has = |bit| incompat & bit != 0;
        let sums = match (compat & COMPAT_CHECKSUM != 0, has(INCOMPAT_CSUM_V2), has(INCOMPAT_CSUM_V3)) {
            (false, false, false) => Sums::None,
            (true, false, false) => Sums::V1,
            (false, true, false) => Sums::V2(crc32c(!0, &bytes[0x30..0x40])),
            (false, false, true) => Sums::V3(crc32c(!0, &bytes[0x30..0x40])),
            _ => return Err(wrong("it has two kinds of checksums")),
        };
        if matches!(sums, Sums::V2(_) | Sums::V3(_)) {
            let mut copy = bytes.to_vec();
            copy[0xfc..0x100].fill(0);
            if bytes[0x50] != 4 || crc32c(!0, &copy) != word(0xfc)? {
                return Err(wrong("the checksum of its superblock"));
            }
        }
        if kind == 4 && word(0x40)? > 1 {
            return Err(wrong("other filesystems use it, too"));
        }
        if word(0x20)? != 0 {
            return Err(wrong("it says that it was broken off after an error"));
        }
        let ring = word(0x14)?..word(0x10)?;
        let start = word(0x1c)?;
        if u64::from(word(0x0c)?) != geometry.block_bytes
            || u64::from(ring.end) > blocks
            || ring.start == 0
            || ring.start >= ring.end
            || start != 0 && !ring.contains(&start)
        {
            return Err(wrong("the places in its superblock"));
        }
        Ok(Self {
            ring,
            start,
            sequence: word(0x18)?,
            sums,
            is_64bit: has(INCOMPAT_64BIT),
            is_async: has(INCOMPAT_ASYNC_COMMIT),
            has_fast_commits: has(INCOMPAT_FAST_COMMIT),
        })
    }

    /// The seed of checksums of blocks.
    pub fn seed(&self) -> Option<u32> {
        match self.sums {
            Sums::V2(seed) | Sums::V3(seed) => Some(seed),
            Sums::None | Sums::V1 => None,
        }
    }

    /// Bytes of a block's tag in a descriptor block (`journal_tag_bytes`).
    pub fn tag_bytes(&self) -> usize {
        let more = if self.is_64bit { 4 } else { 0 };
        match self.sums {
            Sums::V3(_) => 16,
            Sums::V2(_) => 10 + more,
            Sums::None | Sums::V1 => 8 + more,
        }
    }
}

/// Reads the blocks of a journal, window by window.
pub(super) struct Log<'a, 'v> {
    reader: &'a Reader<'v>,
    map: &'a Map,
    block_bytes: u64,
    end: u64,
    window_blocks: u64,
    /// The first block of the window, and its bytes.
    window: (u64, Vec<u8>),
}

impl<'a, 'v> Log<'a, 'v> {
    /// A journal that ends before block `end`, read in windows of about `window_bytes`.
    pub fn new(reader: &'a Reader<'v>, map: &'a Map, block_bytes: u64, end: u32, window_bytes: u64) -> Self {
        let window_blocks = (window_bytes / block_bytes).max(1);
        Self { reader, map, block_bytes, end: u64::from(end), window_blocks, window: (0, Vec::new()) }
    }

    /// A block of the journal.
    pub fn block(&mut self, number: u32) -> Outcome<&[u8]> {
        let (number, bytes) = (u64::from(number), self.block_bytes);
        let held = self.window.1.len() as u64 / bytes;
        if !(self.window.0..self.window.0 + held).contains(&number) {
            self.load(number)?;
        }
        let at = ((number - self.window.0) * bytes) as usize;
        self.window.1.get(at..at + bytes as usize).ok_or_else(|| wrong("its log goes beyond its end"))
    }

    fn load(&mut self, number: u64) -> Outcome<()> {
        self.window = (number, Vec::new());
        let end = (number + self.window_blocks).min(self.end);
        let mut ranges: Vec<Range<u64>> = Vec::new();
        for logical in number..end {
            let block = self.map.find(logical).ok_or_else(|| wrong("its log goes beyond its end"))?;
            let range = block * self.block_bytes..(block + 1) * self.block_bytes;
            match ranges.last_mut() {
                Some(last) if last.end == range.start => last.end = range.end,
                _ => ranges.push(range),
            }
        }
        let mut bytes = Vec::new();
        for read in self.reader.read(&ranges)? {
            if bytes.is_empty() {
                bytes = read;
            } else {
                bytes.extend_from_slice(&read);
            }
        }
        self.window = (number, bytes);
        Ok(())
    }
}
