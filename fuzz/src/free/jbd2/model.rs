//! A filesystem that uses and frees blocks, transaction by transaction, and what its journal must lead to.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use arbitrary::Arbitrary;

use super::super::bases::Made;
use super::super::ext::{Ext, metadata};
use super::super::sparse::Image;
use super::ring::MAGIC;
use super::set_recovery;

/// What a transaction does.
#[derive(Arbitrary, Clone, Debug)]
pub enum Op {
    /// Takes clusters of a group, as far as they are free.
    Use { group: u8, at: u16, len: u16 },
    /// Frees clusters of a group, as far as they hold no metadata.
    Free { group: u8, at: u16, len: u16 },
    /// A block of a file or directory.
    Data { which: u16, byte: u8, is_magic: bool },
    /// A block of metadata, as it is.
    Again { which: u16 },
    /// The superblock, with its count of free blocks.
    Super,
    /// A byte of metadata that makes no sense there.
    Junk { which: u16, at: u16, byte: u8 },
}

#[derive(Arbitrary, Clone, Debug)]
pub struct Transaction {
    pub ops: Vec<Op>,
    /// Which blocks it revokes, and whether of metadata.
    pub revokes: Vec<(u16, bool)>,
    /// Tags of a descriptor, at most.
    pub tags: u8,
}

/// A base, and what of it a journal may change.
#[derive(Debug)]
pub struct Kind {
    pub made: Made,
    pub ext: Ext,
    /// Metadata that no file may have, in rising order.
    kept: Vec<Range<u64>>,
    /// Blocks of the superblock, descriptors, bitmaps, inode tables; of files.
    metadata: Vec<u64>,
    data: Vec<u64>,
}

impl Kind {
    /// `None` for what has no journal, or one that is not empty. What is left in its ring is of numbers that a case
    /// does not know of, and goes.
    pub fn of(mut made: Made) -> Option<Self> {
        let ext =
            Ext::of(&Image::new(&made.base)).filter(|ext| ext.has_journal() && !ext.needs_recovery())?;
        for block in ext.journal(&Image::new(&made.base)).0.into_iter().skip(1) {
            made.base.clear(ext.bytes(block..block + 1));
        }
        let image = Image::new(&made.base);
        let mut kept = metadata(&ext, &image);
        kept.sort_unstable_by_key(|range| range.start);
        kept.dedup_by(|next, last| {
            let is_met = next.start <= last.end;
            last.end = if is_met { last.end.max(next.end) } else { last.end };
            is_met
        });
        let (journal, tree) = ext.journal(&image);
        let own: BTreeSet<u64> = journal.into_iter().chain(tree).collect();
        let blocks: BTreeSet<u64> =
            kept.iter().flat_map(|range| range.start / ext.block..range.end.div_ceil(ext.block)).collect();
        let mut data = Vec::new();
        for number in 0..ext.groups {
            let group = ext.group(&image, number);
            let bitmap = image.get(group.bitmap * ext.block, ext.block as usize);
            let within = (0..ext.per_group).map(|at| (ext.start(number) + at, at / ext.cluster));
            let is_file = |(block, bit): &(u64, u64)| {
                let is_used = bitmap[(bit / 8) as usize] >> (bit % 8) & 1 == 1;
                *block < ext.blocks && !group.is_uninit && is_used && !blocks.contains(block)
            };
            data.extend(within.filter(is_file).map(|(block, _)| block));
        }
        assert!(!data.is_empty(), "{}", made.name);
        let metadata = blocks.difference(&own).copied().collect();
        Some(Self { ext, kept, metadata, data, made })
    }

    /// The filesystem as it is on the disk when it is cut off.
    pub fn cut_off(&self) -> Image<'_> {
        let mut image = Image::new(&self.made.base);
        set_recovery(&mut image, &self.ext, true);
        image
    }

    fn is_kept(&self, bytes: &Range<u64>) -> bool {
        let next = self.kept.partition_point(|range| range.end <= bytes.start);
        self.kept.get(next).is_some_and(|range| range.start < bytes.end)
    }
}

/// Blocks and their contents.
pub type Blocks = Vec<(u64, Vec<u8>)>;

/// The filesystem as it is in memory.
pub struct Model<'a> {
    kind: &'a Kind,
    current: Image<'a>,
    dirty: BTreeSet<u64>,
    /// Of all committed transactions: the last copy of each block, and when a block was last revoked.
    copies: BTreeMap<u64, (usize, Vec<u8>)>,
    revoked: BTreeMap<u64, usize>,
}

impl<'a> Model<'a> {
    pub fn new(kind: &'a Kind) -> Self {
        let (dirty, copies, revoked) = (BTreeSet::new(), BTreeMap::new(), BTreeMap::new());
        Self { kind, current: kind.cut_off(), dirty, copies, revoked }
    }

    /// What a transaction writes and revokes.
    pub fn step(&mut self, transaction: &Transaction) -> (Blocks, Vec<u64>) {
        transaction.ops.iter().take(24).for_each(|op| self.apply(op));
        let block = self.kind.ext.block;
        let contents = |number: u64| (number, self.current.get(number * block, block as usize));
        let blocks = std::mem::take(&mut self.dirty).into_iter().map(contents).collect();
        let pick = |(which, is_metadata): &(u16, bool)| {
            let from = if *is_metadata { &self.kind.metadata } else { &self.kind.data };
            from[usize::from(*which) % from.len()]
        };
        (blocks, transaction.revokes.iter().take(300).map(pick).collect())
    }

    /// The transaction has reached the log.
    pub fn committed(&mut self, index: usize, blocks: &Blocks, revokes: &[u64]) {
        self.copies.extend(blocks.iter().map(|(block, bytes)| (*block, (index, bytes.clone()))));
        self.revoked.extend(revokes.iter().map(|block| (*block, index)));
    }

    /// What a replay writes.
    pub fn expected(&self) -> BTreeMap<u64, Vec<u8>> {
        let stands = |block: &u64, at: usize| self.revoked.get(block).is_none_or(|until| *until < at);
        let copies = self.copies.iter().filter(|(block, (at, _))| stands(block, *at));
        copies.map(|(block, (_, bytes))| (*block, bytes.clone())).collect()
    }

    fn apply(&mut self, op: &Op) {
        let (ext, kind) = (&self.kind.ext, self.kind);
        let metadata = |which: u16| kind.metadata[usize::from(which) % kind.metadata.len()];
        match *op {
            Op::Use { group, at, len } => self.mark(group, at, len, true),
            Op::Free { group, at, len } => self.mark(group, at, len, false),
            Op::Data { which, byte, is_magic } => {
                let block = kind.data[usize::from(which) % kind.data.len()];
                let mut bytes = vec![byte; ext.block as usize];
                if is_magic {
                    bytes[..4].copy_from_slice(&MAGIC.to_be_bytes());
                }
                self.current.put(block * ext.block, &bytes);
                self.dirty.insert(block);
            }
            Op::Again { which } => {
                self.dirty.insert(metadata(which));
            }
            Op::Super => {
                ext.fit_super(&mut self.current, true);
                self.dirty.insert(ext.super_block());
            }
            Op::Junk { which, at, byte } => {
                let block = metadata(which);
                self.current.put(block * ext.block + u64::from(at) % ext.block, &[byte]);
                self.dirty.insert(block);
            }
        }
    }

    fn mark(&mut self, group: u8, at: u16, len: u16, is_use: bool) {
        let ext = &self.kind.ext;
        let number = u64::from(group) % ext.groups;
        let group = ext.group(&self.current, number);
        let end = ext.blocks.min(ext.start(number + 1));
        let clusters = (end - ext.start(number)) / ext.cluster;
        // Junk may have changed where things lie.
        if group.is_uninit
            || group.bitmap >= ext.blocks
            || self.kind.metadata.binary_search(&group.bitmap).is_err()
        {
            return;
        }
        let mut bitmap = self.current.get(group.bitmap * ext.block, ext.block as usize);
        let first = u64::from(at) % clusters;
        for bit in first..(first + u64::from(len) % 2048).min(clusters) {
            let start = ext.start(number) + bit * ext.cluster;
            let bytes = ext.bytes(start..start + ext.cluster);
            let (byte, mask) = (&mut bitmap[(bit / 8) as usize], 1 << (bit % 8));
            if is_use {
                *byte |= mask;
            } else if *byte & mask != 0 && !self.kind.is_kept(&bytes) {
                *byte &= !mask;
            }
        }
        self.current.put(group.bitmap * ext.block, &bitmap);
        ext.fit_group(&mut self.current, number, true);
        self.dirty.extend([group.bitmap, group.at / ext.block]);
    }
}
