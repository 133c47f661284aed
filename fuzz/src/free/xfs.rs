//! XFS as plainly as can be: where things lie, their checksums, what the trees by block number say.

use std::ops::Range;

use snapcow::free::Runs;

use super::ext::Repair;
use super::sparse::Image;
use super::sums::crc32c;

/// A filesystem that begins with the disk.
#[derive(Clone, Debug)]
pub struct Xfs {
    block: u64,
    sector: u64,
    group_blocks: u64,
    groups: u64,
    is_v5: bool,
    /// Where the log lies, in bytes.
    pub log: Range<u64>,
}

/// Bytes of a block of the log.
const LOG_BLOCK: u64 = 512;
/// Blocks that a tree is followed for: far more than those of the bases have.
const BLOCKS_MAX: usize = 64;
const NONE: u64 = 0xffff_ffff;

impl Xfs {
    pub fn of(image: &Image<'_>) -> Option<Self> {
        let block = 1u64.checked_shl(image.u8(120).into()).filter(|block| (512..=65536).contains(block))?;
        let sector = image.be16(102);
        let (group_blocks, groups) = (image.be32(84), image.be32(88));
        let group_log = image.u8(124).min(32);
        let (start, blocks) = (image.be64(48), image.be32(96));
        let at = ((start >> group_log).saturating_mul(group_blocks))
            .saturating_add(start & ((1 << group_log) - 1))
            .saturating_mul(block);
        let log = at..at.saturating_add(blocks * block);
        let is_sane = image.get(0, 4) == b"XFSB" && (512..=block).contains(&sector) && group_blocks >= 4;
        (is_sane && (1..1 << 10).contains(&groups) && log.end <= image.len).then_some(Self {
            block,
            sector,
            group_blocks,
            groups,
            is_v5: image.be16(100) & 0xf == 5,
            log,
        })
    }

    fn at(&self, group: u64, block: u64) -> u64 {
        (group * self.group_blocks + block).saturating_mul(self.block)
    }

    /// The headers of a group: free space, inodes, kept blocks.
    fn header(&self, group: u64, which: u64) -> u64 {
        self.at(group, 0) + which * self.sector
    }

    fn header_bytes(&self) -> u64 {
        if self.is_v5 { 56 } else { 16 }
    }

    /// Where the blocks of a tree lie: the one by block number (0) or by size (1).
    fn tree(&self, image: &Image<'_>, group: u64, which: u64) -> Vec<u64> {
        let mut found = vec![self.at(group, image.be32(self.header(group, 1) + 16 + 4 * which))];
        let mut seen = 0;
        while let Some(&at) = found.get(seen).filter(|_| found.len() < BLOCKS_MAX) {
            seen += 1;
            if image.be16(at.saturating_add(4)) == 0 || at >= image.len {
                continue;
            }
            let most = (self.block - self.header_bytes()) / 12;
            let pointers = at + self.header_bytes() + most * 8;
            for index in 0..image.be16(at + 6).min(most) {
                found.push(self.at(group, image.be32(pointers + index * 4)));
            }
        }
        found.retain(|at| at + self.block <= image.len);
        found
    }

    /// The roots of the trees of inodes, of owners and of references, and the blocks that are kept for trees.
    fn roots(&self, image: &Image<'_>, group: u64) -> Vec<u64> {
        let (agf, agi, list) = (self.header(group, 1), self.header(group, 2), self.header(group, 3));
        let features = if self.is_v5 { image.be32(212) } else { 0 };
        let places = [(1, agi + 328), (2, agf + 24), (4, agf + 88)];
        let has = |(bit, _): &(u64, u64)| features & bit != 0;
        let mut roots = vec![image.be32(agi + 20)];
        roots.extend(places.into_iter().filter(has).map(|(_, at)| image.be32(at)));
        let first = if self.is_v5 { list + 36 } else { list };
        let slots = (self.header(group, 4) - first) / 4;
        let kept = (0..image.be32(agf + 48).min(slots)).map(|index| (image.be32(agf + 40) + index) % slots);
        roots.extend(kept.map(|slot| image.be32(first + slot * 4)));
        roots
    }

    /// Free bytes by the leaves of the tree by block number: from the leftmost one to the right.
    fn free(&self, image: &Image<'_>, group: u64) -> Vec<Range<u64>> {
        let mut at = self.at(group, image.be32(self.header(group, 1) + 16));
        let most = (self.block - self.header_bytes()) / 12;
        for _ in 0..9 {
            if image.be16(at.saturating_add(4)) > 0 {
                at = self.at(group, image.be32(at + self.header_bytes() + most * 8));
            }
        }
        let mut free = Vec::new();
        for _ in 0..BLOCKS_MAX {
            let count = image.be16(at.saturating_add(6)).min(self.block / 8);
            for record in (0..count).map(|index| at + self.header_bytes() + index * 8) {
                let (start, len) = (image.be32(record), image.be32(record + 4));
                let start = self.at(group, start);
                free.push(start..start.saturating_add(len * self.block));
            }
            let right = image.be32(at.saturating_add(12));
            if right == NONE || at >= image.len {
                break;
            }
            at = self.at(group, right);
        }
        free
    }

    /// All that is said to be free is free by the trees.
    ///
    /// # Panics
    /// If it is not.
    pub fn trees_agree(&self, image: &Image<'_>, free: &Runs) {
        let mut by_trees = Runs::new();
        for range in (0..self.groups).flat_map(|group| self.free(image, group)) {
            by_trees.push(range).expect("a tree that was believed");
        }
        for run in free.as_slice() {
            let has = by_trees.within(run.clone()).next();
            assert_eq!(has.as_ref(), Some(run), "free by no tree");
        }
    }

    /// What is known to be in use: headers, trees, the log.
    pub fn metadata(&self, image: &Image<'_>) -> Vec<Range<u64>> {
        let mut all = vec![self.log.clone()];
        for group in 0..self.groups {
            all.push(self.header(group, 0)..self.header(group, 4));
            // Below its root, the tree by size of version 5 is not read.
            let by_size =
                self.tree(image, group, 1).into_iter().take(if self.is_v5 { 1 } else { BLOCKS_MAX });
            let other = self.roots(image, group).into_iter().map(|block| self.at(group, block));
            let blocks = self.tree(image, group, 0).into_iter().chain(by_size).chain(other);
            all.extend(blocks.map(|at| at..at + self.block));
        }
        all
    }

    /// Makes the log as short as it can be with what was written to it: a whole one costs most of a case.
    pub fn shorten(&mut self, image: &mut Image<'_>) {
        let blocks = (self.log.end - self.log.start) / LOG_BLOCK;
        let is_zero = |number: &u64| image.be32(self.log.start + number * LOG_BLOCK) == 0;
        let Some(end) = (0..blocks).find(is_zero) else { return };
        let len = (end * LOG_BLOCK + self.block).next_multiple_of(self.block);
        for group in 0..self.groups {
            image.put(self.at(group, 0) + 96, &((len / self.block) as u32).to_be_bytes());
        }
        self.log.end = self.log.start + len;
        Repair::Sums.apply_xfs(image);
    }

    /// Where the header of the last record of the log lies, in bytes.
    fn last_record(&self, image: &Image<'_>) -> Option<u64> {
        let blocks = (self.log.end - self.log.start) / LOG_BLOCK;
        let place = |number: u64| self.log.start + number * LOG_BLOCK;
        let is_header = |at: u64| image.be32(at) == 0xfeed_babe;
        let latest = image.be32(self.log.start + 4);
        (0..blocks).rev().map(place).find(|at| is_header(*at) && image.be32(at + 4) == latest)
    }

    fn fit_log(&self, image: &mut Image<'_>) {
        let Some(at) = self.last_record(image) else { return };
        let (len, size) = (image.be32(at + 12), image.be32(at + 320));
        if len > 256 << 10 || image.le32(at + 32) == 0 {
            return;
        }
        image.put(at + 32, &[0; 4]);
        let headers = if size > 32768 { size.div_ceil(32768).min(8) } else { 1 };
        let mut sum = crc32c(!0, &image.get(at, 328));
        for other in 1..headers.min(len.div_ceil(32768)) {
            sum = crc32c(sum, &image.get(at + other * LOG_BLOCK, 260));
        }
        sum = crc32c(sum, &image.get(at + headers * LOG_BLOCK, len as usize));
        image.put(at + 32, &(!sum).to_le_bytes());
    }

    /// Places worth a change.
    pub fn spots(&self, image: &Image<'_>) -> Vec<Range<u64>> {
        let mut spots: Vec<Range<u64>> = FIELDS.iter().map(|&(at, len)| at..at + len).collect();
        for group in 0..self.groups {
            let copy = self.header(group, 0);
            spots.extend([copy..copy + 128]);
            spots.extend((0..24).map(|word| self.header(group, 1) + word * 4).map(|at| at..at + 4));
            spots.extend([208, 216, 64].map(|at| self.header(group, 1) + at).map(|at| at..at + 8));
            spots.extend((0..8).map(|word| self.header(group, 2) + word * 4).map(|at| at..at + 4));
            spots.extend([self.header(group, 2) + 296..self.header(group, 2) + 328]);
            spots.extend([self.header(group, 3)..self.header(group, 4)]);
            for at in (0..2).flat_map(|which| self.tree(image, group, which)) {
                let body = at + self.header_bytes();
                let used = image.be16(at + 6) * 8;
                spots.extend([
                    at..at + 16,
                    at..body,
                    body..body + 64,
                    body..body + used.max(8),
                    at..at + self.block,
                ]);
            }
        }
        if let Some(at) = self.last_record(image) {
            spots.extend([0, 4, 8, 12, 16, 20, 32, 36, 40, 304, 320].map(|more| at + more..at + more + 4));
            spots.extend((1..4).map(|block| at + block * LOG_BLOCK).map(|at| at..at + 32));
            spots.extend([at..at + 4 * LOG_BLOCK]);
        }
        spots.push(self.log.clone());
        spots
    }
}

impl Repair {
    /// As [`Repair::apply`], for an XFS.
    pub fn apply_xfs(self, image: &mut Image<'_>) {
        let Some(xfs) = Xfs::of(image).filter(|_| self != Self::Nothing) else { return };
        let mut sum = 0;
        for group in 0..xfs.groups {
            let agf = xfs.header(group, 1);
            if agf >= image.len {
                return;
            }
            if self == Self::SumsAndCounts {
                let lens = xfs.free(image, group);
                let lens = lens.iter().map(|range| (range.end - range.start) / xfs.block);
                let (all, longest) =
                    lens.fold((0u64, 0), |(all, most), len| (all.saturating_add(len), len.max(most)));
                image.put(agf + 52, &(all as u32).to_be_bytes());
                image.put(agf + 56, &(longest as u32).to_be_bytes());
            }
            sum += image.be32(agf + 52) + image.be32(agf + 48) + image.be32(agf + 60);
        }
        if self == Self::SumsAndCounts {
            image.put(144, &sum.to_be_bytes());
        }
        if !xfs.is_v5 {
            return;
        }
        for group in 0..xfs.groups {
            let trees: Vec<u64> = (0..2).flat_map(|which| xfs.tree(image, group, which)).collect();
            for at in trees {
                fit(image, at, xfs.block, 52);
            }
            [216, 312, 32].into_iter().zip(1..).for_each(|(crc, which)| {
                fit(image, xfs.header(group, which), xfs.sector, crc);
            });
        }
        xfs.fit_log(image);
        fit(image, 0, xfs.sector, 224);
    }
}

/// Puts the checksum of a block or sector.
fn fit(image: &mut Image<'_>, at: u64, len: u64, crc: u64) {
    image.put(at + crc, &[0; 4]);
    let sum = !crc32c(!0, &image.get(at, len as usize));
    image.put(at + crc, &sum.to_le_bytes());
}

/// Fields of the superblock: where, how long.
const FIELDS: [(u64, u64); 33] = [
    (0, 4),
    (4, 4),
    (8, 8),
    (16, 8),
    (32, 16),
    (48, 8),
    (56, 8),
    (84, 4),
    (88, 4),
    (96, 4),
    (100, 2),
    (102, 2),
    (120, 1),
    (121, 1),
    (122, 1),
    (123, 1),
    (124, 1),
    (126, 1),
    (144, 8),
    (179, 1),
    (200, 4),
    (204, 4),
    (208, 4),
    (212, 4),
    (216, 4),
    (220, 4),
    (224, 4),
    (240, 8),
    (248, 16),
    (120, 8),
    (84, 8),
    (200, 24),
    (0, 272),
];
