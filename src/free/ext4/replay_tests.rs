//! Journals made by hand: what the kernel's recovery does with each of them.

use std::ops::Range;

use super::super::checksum::crc32c;
use super::super::{Limits, Trouble, Volume};
use super::features::Features;
use super::inode::{Extent, Map};
use super::journal::{JournalSuper, Log, MAGIC, Sums};
use super::reader::Reader;
use super::replay::{Copies, replay};
use super::super_block::Geometry;

const BLOCK: usize = 1024;
const BLOCKS: u64 = 4000;
const RING: Range<u32> = 1..40;
/// The journal lies at block 100 in one piece and at block 300 in another.
const PIECE: u64 = 20;
const SEED: u32 = 0x1234_5678;

/// A journal in the making.
struct Maker {
    sums: Sums,
    is_64bit: bool,
    is_async: bool,
    start: u32,
    first: u32,
    next: u32,
    sequence: u32,
    sum: u32,
    blocks: Vec<Vec<u8>>,
}

fn be_crc(sum: u32, bytes: &[u8]) -> u32 {
    let mut sum = sum;
    for byte in bytes {
        sum ^= u32::from(*byte) << 24;
        for _ in 0..8 {
            sum = if sum >> 31 == 1 { sum << 1 ^ 0x04c1_1db7 } else { sum << 1 };
        }
    }
    sum
}

impl Maker {
    fn new(sums: Sums, start: u32, sequence: u32) -> Self {
        let blocks = vec![vec![0; BLOCK]; RING.end as usize];
        Self {
            sums,
            is_64bit: true,
            is_async: false,
            start,
            first: sequence,
            next: start,
            sequence,
            sum: !0,
            blocks,
        }
    }

    fn header(&self, kind: u32) -> Vec<u8> {
        let mut block: Vec<u8> =
            [MAGIC, kind, self.sequence].iter().flat_map(|word| word.to_be_bytes()).collect();
        block.resize(BLOCK, 0);
        block
    }

    fn put(&mut self, block: Vec<u8>) -> u32 {
        let at = self.next;
        self.blocks[at as usize] = block;
        self.next = if at + 1 == RING.end { RING.start } else { at + 1 };
        at
    }

    fn seal(&self, block: &mut [u8]) {
        if let Sums::V2(seed) | Sums::V3(seed) = self.sums {
            let sum = crc32c(seed, block);
            block[BLOCK - 4..].copy_from_slice(&sum.to_be_bytes());
        }
    }

    /// A descriptor and its blocks: number of the block, what it is filled with. Gives where the first one lies.
    fn log(&mut self, blocks: &[(u64, u8)]) -> u32 {
        let mut descriptor = self.header(1);
        let mut at = 12;
        let data: Vec<Vec<u8>> = blocks.iter().map(|(_, fill)| vec![*fill; BLOCK]).collect();
        for (index, ((number, fill), data)) in blocks.iter().zip(&data).enumerate() {
            let last = if index + 1 == blocks.len() { 8 } else { 0 };
            let flags = last | if index == 0 { 0 } else { 2 } | u16::from(*fill == 0xee);
            let mut tag = Vec::new();
            tag.extend((*number as u32).to_be_bytes());
            let sum = |seed| crc32c(crc32c(seed, &self.sequence.to_be_bytes()), data);
            match self.sums {
                Sums::V3(seed) => {
                    tag.extend(u32::from(flags).to_be_bytes());
                    tag.extend(((*number >> 32) as u32).to_be_bytes());
                    tag.extend(sum(seed).to_be_bytes());
                }
                sums => {
                    let low = if let Sums::V2(seed) = sums { sum(seed) as u16 } else { 0 };
                    tag.extend(low.to_be_bytes());
                    tag.extend(flags.to_be_bytes());
                    tag.extend(((*number >> 32) as u32).to_be_bytes().iter().filter(|_| self.is_64bit));
                    tag.extend([0; 2].iter().filter(|_| matches!(sums, Sums::V2(_))));
                }
            }
            descriptor[at..at + tag.len()].copy_from_slice(&tag);
            at += tag.len() + if index == 0 { 16 } else { 0 };
        }
        self.seal(&mut descriptor);
        self.sum = be_crc(self.sum, &descriptor);
        self.put(descriptor);
        let first = self.next;
        for data in data {
            self.sum = be_crc(self.sum, &data);
            self.put(data);
        }
        first
    }

    fn revoke(&mut self, blocks: &[u64]) -> u32 {
        let mut block = self.header(5);
        let width = if self.is_64bit { 8 } else { 4 };
        block[12..16].copy_from_slice(&(16 + (width * blocks.len()) as u32).to_be_bytes());
        for (number, place) in blocks.iter().zip(block[16..].chunks_exact_mut(width)) {
            place.copy_from_slice(&number.to_be_bytes()[8 - width..]);
        }
        self.seal(&mut block);
        self.put(block)
    }

    fn commit(&mut self, time: u64) -> u32 {
        let mut block = self.header(2);
        block[48..56].copy_from_slice(&time.to_be_bytes());
        if self.sums == Sums::V1 {
            block[12..14].copy_from_slice(&[1, 4]);
            block[16..20].copy_from_slice(&self.sum.to_be_bytes());
        } else if let Sums::V2(seed) | Sums::V3(seed) = self.sums {
            let sum = crc32c(seed, &block);
            block[16..20].copy_from_slice(&sum.to_be_bytes());
        }
        self.sum = !0;
        self.sequence = self.sequence.wrapping_add(1);
        self.put(block)
    }

    fn replay(&self) -> Result<Copies, String> {
        let mut disk = vec![0u8; BLOCKS as usize * BLOCK];
        let extents = (0..2).map(|index| Extent {
            logical: index * PIECE,
            physical: 100 + 200 * index..100 + 200 * index + PIECE,
        });
        let map = Map { extents: extents.collect(), tree: vec![99] };
        for (number, block) in self.blocks.iter().enumerate() {
            let at = map.find(number as u64).unwrap() as usize * BLOCK;
            disk[at..at + BLOCK].copy_from_slice(block);
        }
        let volume = Volume::linear(&disk, 0..disk.len() as u64);
        let reader = Reader::new(&volume, Limits { memory_bytes: 1 << 20 });
        let journal = JournalSuper {
            ring: RING,
            start: self.start,
            sequence: self.first,
            sums: self.sums,
            is_64bit: self.is_64bit,
            is_async: self.is_async,
            has_fast_commits: false,
        };
        let log = Log::new(&reader, &map, BLOCK as u64, RING.end, 7 * BLOCK as u64);
        replay(&journal, &geometry(), &map, log, 1 << 20).map_err(|trouble| match trouble {
            Trouble::Whole(reason) => reason,
            Trouble::Failed(error) => panic!("{error}"),
        })
    }

    /// The blocks that a replay writes, in rising order, and where they come from.
    fn written(&self) -> Vec<(u64, u32)> {
        let mut written: Vec<_> =
            self.replay().unwrap().into_iter().map(|(block, copy)| (block, copy.at)).collect();
        written.sort_unstable();
        written
    }

    fn refused(&self) -> String {
        self.replay().unwrap_err()
    }
}

fn geometry() -> Geometry {
    let mut bytes = vec![0; 1024];
    let mut set = |at: usize, value: u32| bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
    for (at, value) in [(0, 64), (4, BLOCKS as u32), (0x14, 1), (0x20, 8192), (0x24, 8192), (0x28, 64)] {
        set(at, value);
    }
    set(0x38, 0x1_ef53);
    let found = super::super_block::Super::parse(&bytes, BLOCKS * BLOCK as u64).unwrap().geometry;
    assert_eq!(found.features, Features { compat: 0, incompat: 0, ro_compat: 0 });
    found
}

const ALL: [Sums; 4] = [Sums::None, Sums::V1, Sums::V2(SEED), Sums::V3(SEED)];

#[test]
fn the_last_committed_copy_counts() {
    for sums in ALL {
        for (is_64bit, sequence) in [(true, 7), (false, u32::MAX)] {
            let mut maker = Maker { is_64bit, ..Maker::new(sums, 30, sequence) };
            let first = maker.log(&[(500, 1), (501, 0xee), (502, 3)]);
            maker.commit(10);
            // Over the end of the ring, and over the end of the numbers of transactions.
            let second = maker.log(&[(500, 4), (503, 5), (504, 6), (505, 7), (506, 8)]);
            maker.commit(11);
            maker.log(&[(500, 9), (501, 9)]);
            maker.revoke(&[502]);
            let mut next = second;
            let mut after = || {
                let at = next;
                next = if at + 1 == RING.end { RING.start } else { at + 1 };
                at
            };
            let mut must: Vec<(u64, u32)> = [500, 503, 504, 505, 506].map(|block| (block, after())).to_vec();
            must.extend([(501, first + 1), (502, first + 2)]);
            must.sort_unstable();
            assert_eq!(maker.written(), must, "{sums:?}");
            let copies = maker.replay().unwrap();
            assert!(copies[&501].is_escaped && !copies[&502].is_escaped);
        }
    }
}

#[test]
fn a_revoke_record_takes_back_its_transaction_and_those_before() {
    for sums in ALL {
        let mut maker = Maker::new(sums, 1, 1);
        maker.log(&[(500, 1), (501, 1), (502, 1)]);
        maker.commit(10);
        maker.log(&[(501, 2)]);
        maker.revoke(&[500, 501]);
        maker.commit(11);
        let third = maker.log(&[(500, 3)]);
        maker.commit(12);
        assert_eq!(maker.written(), [(500, third), (502, 4)], "{sums:?}");
    }
}

#[test]
fn what_is_damaged_is_refused() {
    for sums in [Sums::V2(SEED), Sums::V3(SEED)] {
        let made = |damaged: u32, last_is_committed: bool| {
            let mut maker = Maker::new(sums, 1, 1);
            maker.log(&[(500, 1), (501, 1)]);
            maker.revoke(&[600]);
            maker.commit(10);
            maker.log(&[(502, 2), (503, 2)]);
            maker.revoke(&[500]);
            if last_is_committed {
                maker.commit(11);
            }
            maker.blocks[damaged as usize][700] ^= 0x10;
            maker
        };
        // Descriptor, data, revoke, commit of the first; the same of the second, except data that is taken back.
        for damaged in [1, 3, 4, 5, 6, 7, 8, 9, 10] {
            assert!(made(damaged, true).replay().is_err(), "{sums:?} {damaged}");
        }
        assert_eq!(made(2, true).written().len(), 3, "{sums:?}: the damaged copy is revoked");
        for damaged in 6..10 {
            assert_eq!(
                made(damaged, false).written().len(),
                2,
                "{sums:?}: what is not committed may be anything"
            );
        }
    }
}

#[test]
fn a_leftover_from_an_older_journal_ends_the_log() {
    let mut maker = Maker::new(Sums::V3(SEED), 1, 1);
    maker.log(&[(500, 1)]);
    maker.commit(100);
    maker.sums = Sums::V3(SEED ^ 1);
    maker.log(&[(501, 1)]);
    maker.commit(99);
    maker.sums = Sums::V3(SEED);
    assert_eq!(maker.written(), [(500, 2)]);
    let at = maker.commit(0) as usize - 1;
    maker.blocks[at][48..56].copy_from_slice(&101u64.to_be_bytes());
    assert!(maker.refused().contains("damaged"));
}

#[test]
fn sums_of_whole_transactions_are_compared() {
    let made = |is_async: bool, more: bool| {
        let mut maker = Maker { is_async, ..Maker::new(Sums::V1, 1, 1) };
        maker.log(&[(500, 1)]);
        maker.commit(10);
        maker.log(&[(501, 2)]);
        maker.commit(11);
        maker.blocks[5][9] ^= 1;
        if more {
            maker.log(&[(502, 3)]);
            maker.commit(12);
        }
        maker
    };
    assert!(made(false, false).refused().contains("damaged"));
    assert_eq!(made(true, false).written(), [(500, 2)], "an early commit block, without its blocks");
    assert!(made(true, true).refused().contains("before the last"));
    let mut unused = made(false, false);
    unused.blocks[6][12..20].fill(0);
    assert_eq!(unused.written().len(), 2, "no sum at all is right, too");
}

#[test]
fn a_hole_a_circle_and_impossible_places_are_refused() {
    for sums in ALL {
        let mut maker = Maker::new(sums, 1, 1);
        for block in 0..5 {
            maker.log(&[(500 + block, 1)]);
            maker.commit(10);
        }
        let whole = maker.blocks.clone();
        for at in [4, 6, 7, 9, 10, 12, 13] {
            maker.blocks[at][..4].fill(0);
            assert!(maker.refused().contains("missing"), "{sums:?} {at}");
            maker.blocks.clone_from(&whole);
        }
        maker.blocks[15][..4].fill(0);
        assert_eq!(maker.written().len(), 4, "{sums:?}: a last commit block that is not there ends the log");

        let mut circle = Maker::new(sums, 1, 1);
        for _ in 0..13 {
            circle.log(&[(500, 1), (501, 2)]);
        }
        assert!(circle.refused().contains("tail"), "{sums:?}");
        for (block, reason) in
            [(BLOCKS, "beyond"), (1 << 40, "beyond"), (99, "itself"), (100, "itself"), (319, "itself")]
        {
            let mut maker = Maker::new(sums, 1, 1);
            maker.log(&[(block, 1)]);
            maker.commit(10);
            assert!(maker.refused().contains(reason), "{sums:?} {block}");
        }
    }
}
