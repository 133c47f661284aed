//! ext2, ext3, ext4 as plainly as can be: where things lie, their checksums, what their bitmaps say.
//!
//! From the kernel's documentation (`Documentation/filesystems/ext4`). Nothing is checked: a filesystem whose numbers
//! lead nowhere is `None`.

mod naive;
mod repair;

use std::ops::Range;

pub use naive::{bitmap_agrees, hinted, metadata};
pub use repair::{Repair, fit_journal_super};

use super::sparse::Image;

/// Where the superblock begins.
pub const SUPER: u64 = 1024;

/// A filesystem that begins with the disk.
#[derive(Clone, Debug)]
pub struct Ext {
    pub block: u64,
    pub blocks: u64,
    pub first: u64,
    /// Blocks of a cluster.
    pub cluster: u64,
    /// Blocks of a group.
    pub per_group: u64,
    pub groups: u64,
    inode_bytes: u64,
    table_blocks: u64,
    descriptor: u64,
    reserved: u64,
    first_meta: u64,
    backups: [u64; 2],
    compat: u64,
    incompat: u64,
    ro_compat: u64,
    pub uuid: Vec<u8>,
    pub seed: u32,
}

/// A group's descriptor.
#[derive(Clone, Copy, Debug)]
pub struct Group {
    /// Where the descriptor lies, in bytes.
    pub at: u64,
    pub bitmap: u64,
    pub inode_bitmap: u64,
    pub table: u64,
    pub free: u64,
    pub is_uninit: bool,
}

impl Ext {
    pub fn of(image: &Image<'_>) -> Option<Self> {
        let word = |at| image.le32(SUPER + at);
        let (compat, incompat, ro_compat) = (word(0x5c), word(0x60), word(0x64));
        let is_wide = incompat & 0x80 != 0;
        let (block_log, cluster_log) = (word(0x18), word(0x1c));
        if block_log > 6 || !(block_log..block_log + 20).contains(&cluster_log) {
            return None;
        }
        let block = 1024 << block_log;
        let blocks = word(4) | if is_wide { word(0x150) << 32 } else { 0 };
        let (first, per_group, inodes) = (word(0x14), word(0x20), word(0x28));
        let inode_bytes = if word(0x4c) == 0 { 128 } else { image.le16(SUPER + 0x58) };
        let descriptor = if is_wide { image.le16(SUPER + 0xfe) } else { 32 };
        if blocks > image.len / block || first >= blocks || per_group == 0 || inodes > block * 8 {
            return None;
        }
        let groups = (blocks - first).div_ceil(per_group);
        let uuid = image.get(SUPER + 0x68, 16);
        let has_seed = incompat & 0x2000 != 0;
        let seed = if has_seed { word(0x270) as u32 } else { super::sums::crc32c(!0, &uuid) };
        (groups < 1 << 14 && (32..=block).contains(&descriptor)).then_some(Self {
            block,
            blocks,
            first,
            cluster: 1 << (cluster_log - block_log),
            per_group,
            groups,
            inode_bytes,
            table_blocks: (inodes * inode_bytes).div_ceil(block),
            descriptor,
            reserved: image.le16(SUPER + 0xce),
            first_meta: if incompat & 0x10 != 0 { word(0x104) } else { u64::MAX },
            backups: [word(0x24c), word(0x250)],
            compat,
            incompat,
            ro_compat,
            uuid,
            seed,
        })
    }

    pub fn is_wide(&self) -> bool {
        self.incompat & 0x80 != 0
    }

    pub fn needs_recovery(&self) -> bool {
        self.incompat & 4 != 0
    }

    pub fn has_journal(&self) -> bool {
        self.compat & 4 != 0
    }

    fn has_sums(&self) -> bool {
        self.ro_compat & 0x400 != 0
    }

    fn has_descriptor_sums(&self) -> bool {
        self.ro_compat & 0x410 != 0
    }

    pub fn bytes(&self, blocks: Range<u64>) -> Range<u64> {
        blocks.start * self.block..blocks.end * self.block
    }

    pub fn start(&self, group: u64) -> u64 {
        self.first + group * self.per_group
    }

    fn end(&self, group: u64) -> u64 {
        self.blocks.min(self.start(group + 1))
    }

    pub fn super_block(&self) -> u64 {
        SUPER / self.block
    }

    fn per_block(&self) -> u64 {
        self.block / self.descriptor
    }

    /// Whether a group has a copy of the superblock.
    fn has_super(&self, group: u64) -> bool {
        let is_power = |base: u64| std::iter::successors(Some(base), move |n| n.checked_mul(base)).take(20);
        match group {
            0 => true,
            _ if self.compat & 0x200 != 0 => self.backups.contains(&group),
            1 => true,
            _ if self.ro_compat & 1 == 0 => true,
            _ => [3, 5, 7].into_iter().any(|base| is_power(base).any(|power| power == group)),
        }
    }

    /// The block of a group's descriptor.
    fn descriptor_block(&self, group: u64) -> u64 {
        let index = group / self.per_block();
        if index < self.first_meta {
            return self.super_block() + 1 + index;
        }
        let home = index * self.per_block();
        // A superblock of 1 KiB in block 1, where groups begin with block 0.
        let shift = u64::from(home == 0 && self.block == 1024 && self.first == 0);
        self.start(home) + u64::from(self.has_super(home)) + shift
    }

    pub fn group(&self, image: &Image<'_>, number: u64) -> Group {
        let at = self.descriptor_block(number) * self.block + number % self.per_block() * self.descriptor;
        let word =
            |low, high| image.le32(at + low) | if self.is_wide() { image.le32(at + high) << 32 } else { 0 };
        let high = if self.is_wide() { image.le16(at + 0x2c) << 16 } else { 0 };
        Group {
            at,
            bitmap: word(0, 0x20),
            inode_bitmap: word(4, 0x24),
            table: word(8, 0x28),
            free: image.le16(at + 0xc) | high,
            is_uninit: self.has_descriptor_sums() && image.le16(at + 0x12) & 2 != 0,
        }
    }

    /// Where inode 8 lies.
    fn journal_inode(&self, image: &Image<'_>) -> u64 {
        self.group(image, 0).table.saturating_mul(self.block).saturating_add(7 * self.inode_bytes)
    }

    /// The blocks of the journal, in its order, and those of its tree.
    pub fn journal(&self, image: &Image<'_>) -> (Vec<u64>, Vec<u64>) {
        let at = self.journal_inode(image);
        let (mut blocks, mut tree) = (Vec::new(), Vec::new());
        if at >= image.len {
            return (blocks, tree);
        }
        let len = (image.le32(at + 4) | image.le32(at + 0x6c) << 32) / self.block;
        let root = at + 0x28;
        if image.le32(at + 0x20) & 0x8_0000 != 0 {
            self.extents(image, root, &mut blocks, &mut tree, 2);
        } else {
            for slot in 0..15 {
                self.mapped(
                    image,
                    image.le32(root + slot * 4),
                    slot.saturating_sub(11),
                    len,
                    &mut blocks,
                    &mut tree,
                );
            }
        }
        blocks.truncate(len as usize);
        (blocks, tree)
    }

    fn extents(&self, image: &Image<'_>, node: u64, blocks: &mut Vec<u64>, tree: &mut Vec<u64>, more: u32) {
        if node >= image.len {
            return;
        }
        let (entries, depth) = (image.le16(node + 2).min(340), image.le16(node + 6));
        for entry in (1..=entries).map(|index| node + 12 * index) {
            if depth == 0 {
                let start = image.le32(entry + 8) | image.le16(entry + 6) << 32;
                blocks.extend(start..start.saturating_add(image.le16(entry + 4)));
            } else if more > 0 {
                let below = image.le32(entry + 4) | image.le16(entry + 8) << 32;
                tree.push(below);
                self.extents(image, below.saturating_mul(self.block), blocks, tree, more - 1);
            }
        }
    }

    /// What a block number stands for, `steps` above the blocks of the file.
    fn mapped(
        &self,
        image: &Image<'_>,
        number: u64,
        steps: u64,
        len: u64,
        blocks: &mut Vec<u64>,
        tree: &mut Vec<u64>,
    ) {
        if blocks.len() as u64 >= len || tree.len() > 1 << 12 {
            return;
        }
        if steps == 0 {
            return blocks.push(number);
        }
        tree.push(number);
        for index in 0..self.block / 4 {
            let below = image.le32(number.saturating_mul(self.block).saturating_add(index * 4));
            self.mapped(image, below, steps - 1, len, blocks, tree);
        }
    }

    /// Places worth a change: fields of the superblock, descriptors, bitmaps, the journal's inode and superblock.
    pub fn spots(&self, image: &Image<'_>) -> Vec<Range<u64>> {
        let field = |&(at, len): &(u64, u64)| SUPER + at..SUPER + at + len;
        let mut spots: Vec<Range<u64>> = FIELDS.iter().map(field).collect();
        for number in 0..self.groups {
            let group = self.group(image, number);
            spots.push(group.at..group.at + self.descriptor);
            let end = (self.end(number) - self.start(number)).div_ceil(self.cluster * 8);
            spots.push(group.bitmap * self.block..group.bitmap * self.block + end);
        }
        if self.has_journal() {
            let inode = self.journal_inode(image);
            spots.extend(
                [
                    (0, 2),
                    (4, 4),
                    (0x1a, 2),
                    (0x20, 4),
                    (0x28, 60),
                    (0x28, 12),
                    (0x6c, 4),
                    (0x7c, 2),
                    (0x80, 4),
                ]
                .map(|(at, len)| inode + at..inode + at + len),
            );
            let (blocks, tree) = self.journal(image);
            spots.extend(blocks.first().map(|block| block * self.block..block * self.block + 0x60));
            spots.extend(
                blocks.iter().skip(1).take(4).map(|block| block * self.block..(block + 1) * self.block),
            );
            spots.extend(tree.iter().map(|block| block * self.block..block * self.block + 64));
        }
        spots
    }
}

/// Fields of the superblock: where, how long.
const FIELDS: [(u64, u64); 36] = [
    (0x00, 4),
    (0x04, 4),
    (0x0c, 4),
    (0x14, 4),
    (0x18, 4),
    (0x1c, 4),
    (0x18, 8),
    (0x20, 4),
    (0x24, 4),
    (0x28, 4),
    (0x38, 2),
    (0x3a, 2),
    (0x48, 4),
    (0x4c, 4),
    (0x54, 4),
    (0x58, 2),
    (0x5c, 4),
    (0x60, 4),
    (0x64, 4),
    (0x68, 16),
    (0xce, 2),
    (0xd0, 16),
    (0xe0, 4),
    (0xe4, 4),
    (0xfd, 1),
    (0xfe, 2),
    (0x104, 4),
    (0x10c, 60),
    (0x150, 4),
    (0x158, 4),
    (0x168, 8),
    (0x175, 1),
    (0x24c, 8),
    (0x270, 4),
    (0x3fc, 4),
    (0, 1024),
];
