//! Checksums and counts, made to fit what stands there.

use arbitrary::Arbitrary;

use super::super::sparse::Image;
use super::super::sums::{crc16, crc32c};
use super::{Ext, SUPER};

/// What is made to fit after changes.
#[derive(Arbitrary, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repair {
    Nothing,
    Sums,
    /// Counts of free clusters too.
    SumsAndCounts,
}

impl Repair {
    pub fn apply(self, image: &mut Image<'_>) {
        if self == Self::Nothing {
            return;
        }
        let Some(ext) = Ext::of(image) else { return };
        for number in 0..ext.groups {
            ext.fit_group(image, number, self == Self::SumsAndCounts);
        }
        ext.fit_journal(image);
        ext.fit_super(image, self == Self::SumsAndCounts);
    }
}

impl Ext {
    /// Free clusters by the bitmap of a group.
    fn counted(&self, image: &Image<'_>, number: u64) -> u64 {
        let clusters = (self.end(number) - self.start(number)).div_ceil(self.cluster);
        let bitmap = image.get(self.group(image, number).bitmap * self.block, clusters.div_ceil(8) as usize);
        (0..clusters).filter(|bit| bitmap[(bit / 8) as usize] >> (bit % 8) & 1 == 0).count() as u64
    }

    pub fn fit_group(&self, image: &mut Image<'_>, number: u64, with_counts: bool) {
        let group = self.group(image, number);
        if group.bitmap >= self.blocks || group.at >= image.len {
            return;
        }
        if with_counts && !group.is_uninit {
            let free = self.counted(image, number);
            image.put(group.at + 0xc, &(free as u16).to_le_bytes());
            if self.is_wide() {
                image.put(group.at + 0x2c, &((free >> 16) as u16).to_le_bytes());
            }
        }
        if self.has_sums() {
            let bytes = (self.per_group / self.cluster / 8).min(self.block);
            let sum = crc32c(self.seed, &image.get(group.bitmap * self.block, bytes as usize));
            image.put(group.at + 0x18, &(sum as u16).to_le_bytes());
            if self.is_wide() {
                image.put(group.at + 0x38, &((sum >> 16) as u16).to_le_bytes());
            }
        }
        if self.has_descriptor_sums() {
            let mut bytes = image.get(group.at, self.descriptor as usize);
            let index = (number as u32).to_le_bytes();
            let sum = if self.has_sums() {
                bytes[0x1e..0x20].fill(0);
                crc32c(crc32c(self.seed, &index), &bytes) as u16
            } else {
                let sum = crc16(crc16(!0, &self.uuid), &index);
                crc16(crc16(sum, &bytes[..0x1e]), &bytes[0x20..])
            };
            image.put(group.at + 0x1e, &sum.to_le_bytes());
        }
    }

    /// The journal's inode, the blocks of its tree, its superblock, and the block of mount protection.
    fn fit_journal(&self, image: &mut Image<'_>) {
        if self.has_journal() {
            let at = self.journal_inode(image);
            let generation = image.get(at.saturating_add(0x64), 4);
            let seed = crc32c(crc32c(self.seed, &8u32.to_le_bytes()), &generation);
            let (blocks, tree) = self.journal(image);
            if self.has_sums() && self.inode_bytes >= 128 && at < image.len {
                self.fit_inode(image, at, seed);
                for block in tree.into_iter().filter(|block| *block < self.blocks) {
                    let bytes = 12 + 12 * image.le16(block * self.block + 4).min(self.block / 12 - 2);
                    let sum = crc32c(seed, &image.get(block * self.block, bytes as usize));
                    image.put(block * self.block + bytes, &sum.to_le_bytes());
                }
            }
            if let Some(block) = blocks.first().filter(|block| **block < self.blocks) {
                fit_journal_super(image, block * self.block);
            }
        }
        if self.incompat & 0x100 != 0 && self.has_sums() {
            let at = image.le64(SUPER + 0x168).saturating_mul(self.block);
            if at < image.len {
                let sum = crc32c(self.seed, &image.get(at, 0x3fc));
                image.put(at + 0x3fc, &sum.to_le_bytes());
            }
        }
    }

    fn fit_inode(&self, image: &mut Image<'_>, at: u64, seed: u32) {
        let has_high = self.inode_bytes > 128 && image.le16(at + 0x80) >= 4;
        image.put(at + 0x7c, &[0; 2]);
        if has_high {
            image.put(at + 0x82, &[0; 2]);
        }
        let sum = crc32c(seed, &image.get(at, self.inode_bytes as usize));
        image.put(at + 0x7c, &(sum as u16).to_le_bytes());
        if has_high {
            image.put(at + 0x82, &((sum >> 16) as u16).to_le_bytes());
        }
    }

    pub fn fit_super(&self, image: &mut Image<'_>, with_counts: bool) {
        if with_counts {
            let free: u64 = (0..self.groups).map(|number| self.group(image, number).free).sum();
            let free = free * self.cluster;
            image.put(SUPER + 0xc, &(free as u32).to_le_bytes());
            if self.is_wide() {
                image.put(SUPER + 0x158, &((free >> 32) as u32).to_le_bytes());
            }
        }
        if self.has_sums() {
            let sum = crc32c(!0, &image.get(SUPER, 0x3fc));
            image.put(SUPER + 0x3fc, &sum.to_le_bytes());
        }
    }
}

/// The checksum of a journal's superblock, if it has one.
pub fn fit_journal_super(image: &mut Image<'_>, at: u64) {
    if image.be32(at + 0x28) & 0x18 != 0 {
        image.put(at + 0xfc, &[0; 4]);
        let sum = crc32c(!0, &image.get(at, 1024));
        image.put(at + 0xfc, &sum.to_be_bytes());
    }
}
