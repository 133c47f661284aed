//! Writes a journal: its superblock, and transactions into its ring, as `fs/jbd2/commit.c` does.

use arbitrary::Arbitrary;

use super::super::ext::{Ext, fit_journal_super};
use super::super::sparse::Image;
use super::super::sums::{crc32_be, crc32c};

pub const MAGIC: u32 = 0xc03b_3998;
pub const DESCRIPTOR: u32 = 1;
pub const COMMIT: u32 = 2;
pub const REVOKE: u32 = 5;
const ESCAPE: u16 = 1;
const SAME_UUID: u16 = 2;
const LAST: u16 = 8;

#[derive(Arbitrary, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sums {
    None,
    V1,
    V2,
    V3,
}

/// The form of a journal.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub struct Style {
    pub sums: Sums,
    pub is_wide: bool,
    pub is_async: bool,
    /// Only permits revoke records.
    pub has_revokes: bool,
}

impl Style {
    pub fn features(self) -> (u32, u32) {
        let sums = [0, 0, 0x8, 0x10][self.sums as usize];
        let bits = [(self.has_revokes, 1), (self.is_wide, 2), (self.is_async, 4)];
        let incompat = bits.iter().filter(|(is_set, _)| *is_set).fold(sums, |sum, (_, bit)| sum | bit);
        (u32::from(self.sums == Sums::V1), incompat)
    }

    pub fn has_tails(self) -> bool {
        matches!(self.sums, Sums::V2 | Sums::V3)
    }

    pub fn tag_bytes(self) -> usize {
        let high = if self.is_wide { 4 } else { 0 };
        match self.sums {
            Sums::V3 => 16,
            Sums::V2 => 10 + high,
            Sums::None | Sums::V1 => 8 + high,
        }
    }
}

/// A block of a transaction as it lies in the log.
enum Part {
    /// A descriptor, with the places of its tags.
    Descriptor(Vec<usize>),
    Data,
    Revoke,
    Commit,
}

/// The ring of a journal that is written to.
pub struct Ring {
    pub style: Style,
    /// Where the journal's blocks lie, in bytes.
    pub places: Vec<u64>,
    block: usize,
    seed: u32,
    uuid: Vec<u8>,
    pub next: u32,
    pub end: u32,
    pub left: u32,
    /// What was written: place, part, sequence.
    parts: Vec<(u64, Part, u32)>,
    time: u64,
}

impl Ring {
    /// The ring of a filesystem's journal, `blocks` long, written from `start` on, both as far as they go.
    pub fn new(
        image: &mut Image<'_>,
        ext: &Ext,
        style: Style,
        blocks: u32,
        start: u32,
        sequence: u32,
    ) -> Self {
        let places: Vec<u64> = ext.journal(image).0.iter().map(|block| block * ext.block).collect();
        let end = (16 + blocks).min(places.len() as u32);
        let start = 1 + start % (end - 1);
        let at = places[0];
        let (compat, incompat) = style.features();
        let words = [(0, MAGIC), (4, 4), (0xc, ext.block as u32), (0x10, end), (0x14, 1), (0x18, sequence)];
        let more = [(0x1c, start), (0x20, 0), (0x24, compat), (0x28, incompat), (0x2c, 0), (0x40, 1)];
        for (offset, word) in words.into_iter().chain(more) {
            image.put(at + offset, &word.to_be_bytes());
        }
        image.put(at + 0x50, &[if style.has_tails() { 4 } else { 0 }]);
        fit_journal_super(image, at);
        let uuid = image.get(at + 0x30, 16);
        let seed = crc32c(!0, &uuid);
        let parts = Vec::new();
        Self {
            style,
            places,
            block: ext.block as usize,
            seed,
            uuid,
            next: start,
            end,
            left: end - 1,
            parts,
            time: 7,
        }
    }

    /// Fills the ring with what was there before: pieces of older transactions, data, zeros.
    pub fn stale(&mut self, image: &mut Image<'_>, seed: u8, sequence: u32) {
        let mut state = u64::from(seed);
        for index in 1..self.end {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let older = sequence.wrapping_sub(1 + (state >> 40) as u32 % 9);
            let (kind, place) = ((state >> 60) as u32, self.places[index as usize]);
            match kind {
                0..6 => {}
                6..9 => image.put(place, &vec![kind as u8; self.block]),
                9..12 => {
                    let block = self.header(DESCRIPTOR, older);
                    self.put(image, place, block, Part::Descriptor(Vec::new()), older);
                }
                12 => {
                    let block = self.header(REVOKE, older);
                    self.put(image, place, block, Part::Revoke, older);
                }
                _ => {
                    let block = self.header(COMMIT, older);
                    self.put(image, place, block, Part::Commit, older);
                }
            }
        }
        self.fit(image);
        self.parts.clear();
    }

    fn header(&self, kind: u32, sequence: u32) -> Vec<u8> {
        let mut block = vec![0; self.block];
        for (at, word) in [MAGIC, kind, sequence].into_iter().enumerate() {
            block[at * 4..at * 4 + 4].copy_from_slice(&word.to_be_bytes());
        }
        block
    }

    fn put(&mut self, image: &mut Image<'_>, place: u64, block: Vec<u8>, part: Part, sequence: u32) {
        image.put(place, &block);
        self.parts.push((place, part, sequence));
    }

    fn push(&mut self, image: &mut Image<'_>, block: Vec<u8>, part: Part, sequence: u32) {
        let place = self.places[self.next as usize];
        self.next = if self.next + 1 == self.end { 1 } else { self.next + 1 };
        self.left -= 1;
        self.put(image, place, block, part, sequence);
    }

    fn tags_most(&self) -> usize {
        let tail = if self.style.has_tails() { 4 } else { 0 };
        (self.block - 12 - 16 - tail) / self.style.tag_bytes()
    }

    fn revokes_most(&self) -> usize {
        (self.block - 16 - 4) / 8
    }

    /// Blocks that a transaction takes, with `most` tags a descriptor.
    pub fn cost(&self, blocks: usize, revokes: usize, most: usize) -> usize {
        let most = most.clamp(1, self.tags_most());
        blocks + blocks.div_ceil(most) + revokes.div_ceil(self.revokes_most()) + 1
    }

    /// A transaction: revoke records first, as Linux has them. What has no commit block is not committed.
    pub fn write(
        &mut self,
        image: &mut Image<'_>,
        sequence: u32,
        blocks: &[(u64, Vec<u8>)],
        revokes: &[u64],
        most: usize,
    ) {
        for some in revokes.chunks(self.revokes_most()) {
            let mut block = self.header(REVOKE, sequence);
            let width = if self.style.is_wide { 8 } else { 4 };
            block[12..16].copy_from_slice(&((16 + some.len() * width) as u32).to_be_bytes());
            for (slot, number) in block[16..].chunks_exact_mut(width).zip(some) {
                slot.copy_from_slice(&number.to_be_bytes()[8 - width..]);
            }
            self.push(image, block, Part::Revoke, sequence);
        }
        for some in blocks.chunks(most.clamp(1, self.tags_most())) {
            let (mut block, mut tags, mut at) = (self.header(DESCRIPTOR, sequence), Vec::new(), 12);
            for (index, (number, bytes)) in some.iter().enumerate() {
                let mut flags = if bytes.starts_with(&MAGIC.to_be_bytes()) { ESCAPE } else { 0 };
                flags |= if index > 0 { SAME_UUID } else { 0 };
                flags |= if index + 1 == some.len() { LAST } else { 0 };
                block[at..at + 4].copy_from_slice(&(*number as u32).to_be_bytes());
                block[at + 6..at + 8].copy_from_slice(&flags.to_be_bytes());
                if self.style.is_wide {
                    block[at + 8..at + 12].copy_from_slice(&((number >> 32) as u32).to_be_bytes());
                }
                tags.push(at);
                at += self.style.tag_bytes();
                if index == 0 {
                    block[at..at + 16].copy_from_slice(&self.uuid);
                    at += 16;
                }
            }
            self.push(image, block, Part::Descriptor(tags), sequence);
            for (_, bytes) in some {
                let mut bytes = bytes.clone();
                if bytes.starts_with(&MAGIC.to_be_bytes()) {
                    bytes[..4].fill(0);
                }
                self.push(image, bytes, Part::Data, sequence);
            }
        }
    }

    /// The block that makes a transaction count.
    pub fn commit(&mut self, image: &mut Image<'_>, sequence: u32) {
        let mut block = self.header(COMMIT, sequence);
        self.time += 1;
        block[48..56].copy_from_slice(&self.time.to_be_bytes());
        if self.style.sums == Sums::V1 {
            block[12..14].copy_from_slice(&[1, 4]);
        }
        self.push(image, block, Part::Commit, sequence);
    }

    /// Puts the checksums of all that was written.
    pub fn fit(&self, image: &mut Image<'_>) {
        let mut sum = !0;
        for (index, (place, part, sequence)) in self.parts.iter().enumerate() {
            match part {
                Part::Descriptor(tags) => {
                    for (tag, data) in tags.iter().zip(self.parts[index + 1..].iter().map(|part| part.0)) {
                        self.fit_tag(image, place + *tag as u64, data, *sequence);
                    }
                    self.fit_tail(image, *place);
                    sum = crc32_be(sum, &image.get(*place, self.block));
                }
                Part::Data => sum = crc32_be(sum, &image.get(*place, self.block)),
                Part::Revoke => self.fit_tail(image, *place),
                Part::Commit if self.style.sums == Sums::V1 => {
                    image.put(place + 16, &sum.to_be_bytes());
                    sum = !0;
                }
                Part::Commit if self.style.has_tails() => {
                    image.put(place + 16, &[0; 4]);
                    let sum = crc32c(self.seed, &image.get(*place, self.block));
                    image.put(place + 16, &sum.to_be_bytes());
                }
                Part::Commit => {}
            }
        }
        fit_journal_super(image, self.places[0]);
    }

    fn fit_tag(&self, image: &mut Image<'_>, tag: u64, data: u64, sequence: u32) {
        let sum = crc32c(crc32c(self.seed, &sequence.to_be_bytes()), &image.get(data, self.block));
        match self.style.sums {
            Sums::V2 => image.put(tag + 4, &(sum as u16).to_be_bytes()),
            Sums::V3 => image.put(tag + 12, &sum.to_be_bytes()),
            Sums::None | Sums::V1 => {}
        }
    }

    fn fit_tail(&self, image: &mut Image<'_>, place: u64) {
        if self.style.has_tails() {
            let tail = place + self.block as u64 - 4;
            image.put(tail, &[0; 4]);
            let sum = crc32c(self.seed, &image.get(place, self.block));
            image.put(tail, &sum.to_be_bytes());
        }
    }

    /// Takes back the last blocks written, so that they never reached the disk; what is there is `image`'s.
    pub fn tear(
        &mut self,
        image: &mut Image<'_>,
        before: &Image<'_>,
        keep: impl Fn(usize) -> bool,
        from: usize,
    ) {
        for (index, (place, ..)) in self.parts[from..].iter().enumerate() {
            if !keep(index) {
                image.put(*place, &before.get(*place, self.block));
            }
        }
    }

    pub fn written(&self) -> usize {
        self.parts.len()
    }

    /// Places worth a change.
    pub fn spots(&self) -> Vec<std::ops::Range<u64>> {
        let mut spots: Vec<std::ops::Range<u64>> =
            [0, 4, 0xc, 0x10, 0x14, 0x18, 0x1c, 0x20, 0x24, 0x28, 0x2c, 0x30, 0x40, 0x50, 0xfc]
                .map(|at| self.places[0] + at..self.places[0] + at + 4)
                .into();
        for (place, part, _) in &self.parts {
            let len = match part {
                Part::Descriptor(tags) => 12 + 16 + tags.len() * self.style.tag_bytes(),
                Part::Data => self.block,
                Part::Revoke => 64,
                Part::Commit => 60,
            };
            spots.extend([*place..place + 12, *place..place + len.min(self.block) as u64]);
        }
        spots
    }
}
