//! The superblock (`struct ext2_super_block` in `lib/ext2fs/ext2_fs.h` of e2fsprogs; the checks of `ext4_fill_super`
//! in `fs/ext4/super.c` of Linux and of `ext2fs_open2`, whichever is the stricter one).

use super::super::bytes::{le16, le32, le64};
use super::super::checksum::crc32c;
use super::super::{Outcome, Trouble};
use super::features::{
    COMPAT_HAS_JOURNAL, COMPAT_SPARSE_SUPER2, Features, INCOMPAT_64BIT, INCOMPAT_CSUM_SEED, INCOMPAT_META_BG,
    INCOMPAT_MMP, INCOMPAT_RECOVER, RO_COMPAT_BIGALLOC, RO_COMPAT_METADATA_CSUM, RO_COMPAT_SPARSE_SUPER,
};

/// Where the superblock begins, and its length, in bytes.
pub(super) const AT: u64 = 1024;
pub(super) const BYTES: usize = 1024;

/// What does not change while a filesystem is mounted, except by resizing it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Geometry {
    pub block_bytes: u64,
    /// `s_blocks_count`; at most what the volume holds, so that a block's place in bytes fits 64 bits.
    pub blocks: u64,
    /// `s_first_data_block`: the first block of group 0.
    pub first_block: u64,
    /// Blocks of a cluster, which a bit of a bitmap stands for; 1 without `bigalloc`.
    pub cluster_blocks: u64,
    pub clusters_per_group: u64,
    pub groups: u64,
    pub inode_bytes: u64,
    /// Blocks of a group's inode table.
    pub inode_table_blocks: u64,
    pub descriptor_bytes: u64,
    /// Blocks that hold all descriptors.
    pub descriptor_blocks: u64,
    pub reserved_gdt_blocks: u64,
    pub first_meta_bg: u64,
    backup_groups: [u64; 2],
    /// Without the bits that come and go.
    pub features: Features,
    pub uuid: [u8; 16],
    /// With what the checksums of `metadata_csum` begin.
    pub seed: u32,
    pub mmp_block: Option<u64>,
    pub has_journal: bool,
}

/// A superblock.
#[derive(Clone, Debug)]
pub(super) struct Super {
    pub geometry: Geometry,
    /// `s_free_blocks_count`; current only in a filesystem that is not mounted.
    pub free_blocks: u64,
    pub needs_recovery: bool,
    /// The copy of the `i_block` of the journal's inode (`s_jnl_blocks`), if there is one.
    pub journal_hint: Option<Vec<u8>>,
}

fn broken() -> Trouble {
    Trouble::whole("its superblock is cut off")
}

impl Super {
    /// Reads and checks the 1024 bytes of a superblock of a filesystem on `volume_bytes`.
    pub fn parse(bytes: &[u8], volume_bytes: u64) -> Outcome<Self> {
        let bytes = bytes.get(..BYTES).ok_or_else(broken)?;
        let word = |at| le32(bytes, at).ok_or_else(broken);
        let short = |at| le16(bytes, at).ok_or_else(broken);
        if short(0x38)? != 0xef53 {
            return Err(Trouble::whole("its superblock has no magic number"));
        }
        let features = Features { compat: word(0x5c)?, incompat: word(0x60)?, ro_compat: word(0x64)? };
        match word(0x4c)? {
            0 if features == (Features { compat: 0, incompat: 0, ro_compat: 0 }) => {}
            1 => features.check()?,
            revision => {
                return Err(Trouble::whole(format_args!("its revision {revision} is not understood")));
            }
        }
        if features.ro_compat(RO_COMPAT_METADATA_CSUM) {
            if bytes.get(0x175) != Some(&1) {
                return Err(Trouble::whole("the kind of its checksums is not understood"));
            }
            if crc32c(!0, &bytes[..0x3fc]) != word(0x3fc)? {
                return Err(Trouble::whole("the checksum of its superblock is wrong"));
            }
        }
        if word(0x48)? != 0 {
            return Err(Trouble::whole("it was made for another system than Linux"));
        }
        Self::check_state(short(0x3a)?, features, bytes)?;
        let is_64bit = features.incompat(INCOMPAT_64BIT);
        let high = if is_64bit { u64::from(word(0x158)?) << 32 } else { 0 };
        let hint = bytes.get(0xfd) == Some(&1) && features.compat(COMPAT_HAS_JOURNAL);
        Ok(Self {
            geometry: Geometry::parse(bytes, features, volume_bytes)?,
            free_blocks: u64::from(word(0x0c)?) | high,
            needs_recovery: features.incompat(INCOMPAT_RECOVER),
            journal_hint: hint.then(|| bytes[0x10c..0x10c + 60].to_vec()),
        })
    }

    /// `s_state`, and whether it says the same as the features about the journal. A filesystem with a journal keeps
    /// `EXT4_VALID_FS` (1) while it is mounted; without one it loses it (`ext4_setup_super`).
    fn check_state(state: u16, features: Features, bytes: &[u8]) -> Outcome<()> {
        let has_journal = features.compat(COMPAT_HAS_JOURNAL);
        if state & 2 != 0 {
            return Err(Trouble::whole("its superblock says that it has errors; e2fsck would repair them"));
        }
        if state != 1 {
            return Err(Trouble::whole(format_args!(
                "it was not cleanly unmounted and has no journal to tell what happened (state {state:#x})"
            )));
        }
        let inode = le32(bytes, 0xe0).ok_or_else(broken)?;
        let device = le32(bytes, 0xe4).ok_or_else(broken)?;
        if has_journal && (device != 0 || bytes[0xd0..0xe0] != [0; 16]) {
            return Err(Trouble::whole("its journal is on another disk"));
        }
        if has_journal && inode != 8 {
            return Err(Trouble::whole(format_args!("its journal is inode {inode} instead of 8")));
        }
        if !has_journal && (features.incompat(INCOMPAT_RECOVER) || inode != 0) {
            return Err(Trouble::whole("its superblock names a journal, but does not say that there is one"));
        }
        Ok(())
    }
}

/// Sizes of blocks and groups.
struct Sizes {
    block_bytes: u64,
    blocks: u64,
    first_block: u64,
    cluster_blocks: u64,
    clusters_per_group: u64,
}

fn impossible(what: &str) -> Trouble {
    Trouble::whole(format_args!("its superblock has an impossible {what}"))
}

impl Sizes {
    fn parse(bytes: &[u8], features: Features, volume_bytes: u64) -> Outcome<Self> {
        let word = |at| le32(bytes, at).ok_or_else(broken);
        let wide = |at| Ok::<u64, Trouble>(u64::from(word(at)?));
        let (block_log, cluster_log) = (word(0x18)?, word(0x1c)?);
        let is_bigalloc = features.ro_compat(RO_COMPAT_BIGALLOC);
        let cluster_fits = if is_bigalloc { block_log <= cluster_log } else { block_log == cluster_log };
        if block_log > 6 || cluster_log > 19 || !cluster_fits {
            return Err(impossible("block or cluster size"));
        }
        let (block_bytes, cluster_blocks) = (1024u64 << block_log, 1u64 << (cluster_log - block_log));
        let high = if features.incompat(INCOMPAT_64BIT) { wide(0x150)? << 32 } else { 0 };
        let blocks = wide(0x04)? | high;
        if blocks > volume_bytes / block_bytes {
            return Err(Trouble::whole("it is larger than what it lies on"));
        }
        let first_block = wide(0x14)?;
        // Only with 1 KiB blocks the first one lies outside of the groups; with clusters it does not.
        if first_block != u64::from(block_bytes == 1024 && cluster_blocks == 1) || first_block >= blocks {
            return Err(impossible("first data block"));
        }
        let (per_group, clusters_per_group) = (wide(0x20)?, wide(0x24)?);
        if per_group != clusters_per_group << (cluster_log - block_log)
            || !(8..=block_bytes * 8).contains(&clusters_per_group)
            || !clusters_per_group.is_multiple_of(8)
        {
            return Err(impossible("number of blocks per group"));
        }
        Ok(Self { block_bytes, blocks, first_block, cluster_blocks, clusters_per_group })
    }
}

impl Geometry {
    fn parse(bytes: &[u8], features: Features, volume_bytes: u64) -> Outcome<Self> {
        let sizes = Sizes::parse(bytes, features, volume_bytes)?;
        let Sizes { block_bytes, blocks, first_block, cluster_blocks, clusters_per_group } = sizes;
        let word = |at| le32(bytes, at).ok_or_else(broken);
        let wide = |at| Ok::<u64, Trouble>(u64::from(word(at)?));
        let short = |at| Ok::<u64, Trouble>(u64::from(le16(bytes, at).ok_or_else(broken)?));
        let groups = (blocks - first_block).div_ceil(clusters_per_group * cluster_blocks);
        let inodes_per_group = wide(0x28)?;
        let inode_bytes = if word(0x4c)? == 0 { 128 } else { short(0x58)? };
        if !(128..=block_bytes).contains(&inode_bytes) || !inode_bytes.is_power_of_two() {
            return Err(impossible("inode size"));
        }
        // The journal's inode, number 8, must be in the first group.
        if !(8..=block_bytes * 8).contains(&inodes_per_group)
            || groups.checked_mul(inodes_per_group) != Some(wide(0)?)
        {
            return Err(impossible("number of inodes"));
        }
        let is_64bit = features.incompat(INCOMPAT_64BIT);
        let descriptor_bytes = if is_64bit { short(0xfe)? } else { 32 };
        if is_64bit && !((64..=1024).contains(&descriptor_bytes) && descriptor_bytes.is_power_of_two()) {
            return Err(impossible("size of group descriptors"));
        }
        let descriptor_blocks = groups.div_ceil(block_bytes / descriptor_bytes);
        let (reserved_gdt_blocks, has_meta_bg) = (short(0xce)?, features.incompat(INCOMPAT_META_BG));
        let first_meta_bg = if has_meta_bg { wide(0x104)? } else { 0 };
        if reserved_gdt_blocks > block_bytes / 4
            || first_meta_bg > descriptor_blocks
            || has_meta_bg && reserved_gdt_blocks != 0
        {
            return Err(impossible("place for group descriptors"));
        }
        let uuid: [u8; 16] = bytes[0x68..0x78].try_into().map_err(|_| broken())?;
        let seed = if features.incompat(INCOMPAT_CSUM_SEED) { word(0x270)? } else { crc32c(!0, &uuid) };
        let mmp_block = le64(bytes, 0x168).ok_or_else(broken)?;
        Ok(Self {
            block_bytes,
            blocks,
            first_block,
            cluster_blocks,
            clusters_per_group,
            groups,
            inode_bytes,
            inode_table_blocks: (inodes_per_group * inode_bytes).div_ceil(block_bytes),
            descriptor_bytes,
            descriptor_blocks,
            reserved_gdt_blocks,
            first_meta_bg,
            backup_groups: [wide(0x24c)?, wide(0x250)?],
            features: features.lasting(),
            uuid,
            seed,
            mmp_block: features.incompat(INCOMPAT_MMP).then_some(mmp_block),
            has_journal: features.compat(COMPAT_HAS_JOURNAL),
        })
    }

    /// Its length in bytes.
    pub fn bytes(&self) -> u64 {
        self.blocks * self.block_bytes
    }

    pub fn blocks_per_group(&self) -> u64 {
        self.clusters_per_group * self.cluster_blocks
    }

    /// `ext4_group_first_block_no`.
    pub fn group_start(&self, group: u64) -> u64 {
        self.first_block + group * self.blocks_per_group()
    }

    /// The first block behind a group.
    pub fn group_end(&self, group: u64) -> u64 {
        (self.group_start(group) + self.blocks_per_group()).min(self.blocks)
    }

    /// Clusters of a group; the last one may go beyond the end (`num_clusters_in_group`).
    pub fn group_clusters(&self, group: u64) -> u64 {
        (self.group_end(group) - self.group_start(group)).div_ceil(self.cluster_blocks)
    }

    pub fn descriptors_per_block(&self) -> u64 {
        self.block_bytes / self.descriptor_bytes
    }

    /// The block that holds the superblock.
    pub fn super_block(&self) -> u64 {
        AT / self.block_bytes
    }

    /// Whether a group begins with a copy of the superblock (`ext4_bg_has_super`).
    pub fn has_super(&self, group: u64) -> bool {
        if group == 0 {
            return true;
        }
        if self.features.compat(COMPAT_SPARSE_SUPER2) {
            return self.backup_groups.contains(&group);
        }
        if group == 1 || !self.features.ro_compat(RO_COMPAT_SPARSE_SUPER) {
            return true;
        }
        let is_power = |base: u64| {
            let mut power = base;
            while power < group {
                power *= base;
            }
            power == group
        };
        group % 2 == 1 && [3, 5, 7].into_iter().any(is_power)
    }

    /// Whether a group's descriptors lie in its meta group instead of behind the superblock.
    fn is_meta_bg(&self, group: u64) -> bool {
        self.features.incompat(INCOMPAT_META_BG) && group / self.descriptors_per_block() >= self.first_meta_bg
    }

    /// Blocks at the beginning of a group that hold copies of superblock and descriptors, and those reserved for more
    /// descriptors (`ext4_num_base_meta_blocks`).
    pub fn base_blocks(&self, group: u64) -> u64 {
        let has_super = u64::from(self.has_super(group));
        if self.is_meta_bg(group) {
            let (within, per_block) = (group % self.descriptors_per_block(), self.descriptors_per_block());
            return has_super + u64::from(within <= 1 || within == per_block - 1);
        }
        let has_meta_bg = self.features.incompat(INCOMPAT_META_BG);
        let descriptors = if has_meta_bg { self.first_meta_bg } else { self.descriptor_blocks };
        has_super * (1 + descriptors + self.reserved_gdt_blocks)
    }

    /// Where block `index` of the descriptors lies (`descriptor_loc` in `fs/ext4/super.c`).
    pub fn descriptor_block(&self, index: u64) -> u64 {
        let group = index * self.descriptors_per_block();
        if !self.is_meta_bg(group) {
            return self.super_block() + 1 + index;
        }
        // With 1 KiB blocks and clusters, group 0 begins with block 0, but the superblock is block 1.
        let shift = u64::from(index == 0 && self.block_bytes == 1024 && self.first_block == 0);
        self.group_start(group) + u64::from(self.has_super(group)) + shift
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(words: &[(usize, u32)]) -> Outcome<Super> {
        let mut bytes = vec![0; BYTES];
        // 300 groups of 8192 blocks of 1 KiB, 16 inodes each.
        let base = [
            (0, 4800),
            (0x04, 2_457_601),
            (0x14, 1),
            (0x20, 8192),
            (0x24, 8192),
            (0x28, 16),
            (0x38, 0x1_ef53),
            (0x4c, 1),
            (0x58, 128),
        ];
        for (at, value) in base.iter().chain(words) {
            bytes[*at..at + 4].copy_from_slice(&value.to_le_bytes());
        }
        Super::parse(&bytes, 1 << 40)
    }

    fn groups(geometry: &Geometry, holds: impl Fn(u64) -> bool) -> Vec<u64> {
        (0..geometry.groups).filter(|group| holds(*group)).collect()
    }

    #[test]
    fn copies_of_the_superblock_lie_where_the_kernel_looks_for_them() {
        let sparse = made(&[(0x64, 1)]).unwrap().geometry;
        let powers = [0, 1, 3, 5, 7, 9, 25, 27, 49, 81, 125, 243];
        assert_eq!(groups(&sparse, |group| sparse.has_super(group)), powers);
        // 32 descriptors a block, and so ten blocks of them; nothing in the other groups.
        assert_eq!((sparse.base_blocks(3), sparse.base_blocks(4)), (11, 0));
        let all = made(&[]).unwrap().geometry;
        assert_eq!(groups(&all, |group| all.has_super(group)).len(), 300);
        let two = made(&[(0x5c, 0x200), (0x64, 1), (0x24c, 1), (0x250, 299)]).unwrap().geometry;
        assert_eq!(groups(&two, |group| two.has_super(group)), [0, 1, 299]);
    }

    #[test]
    fn descriptors_of_meta_groups_lie_in_their_groups() {
        let meta = made(&[(0x60, 0x10), (0x64, 1), (0x104, 2)]).unwrap().geometry;
        let places: Vec<u64> = (0..4).map(|index| meta.descriptor_block(index)).collect();
        assert_eq!(places, [2, 3, 1 + 64 * 8192, 1 + 96 * 8192]);
        assert_eq!([0, 3, 64, 65, 66, 95, 81].map(|group| meta.base_blocks(group)), [3, 3, 1, 1, 0, 1, 1]);
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let refused: [&[(usize, u32)]; 14] = [
            &[(0x38, 0x1_ef54)],
            &[(0x38, 0x2_ef53)],
            &[(0x38, 0x3_ef53)],
            &[(0x38, 0xef53)],
            &[(0x4c, 2)],
            &[(0x18, 7), (0x1c, 7)],
            &[(0x1c, 1)],
            &[(0x14, 0)],
            &[(0x20, 0), (0x24, 0)],
            &[(0x28, 17)],
            &[(0x58, 96)],
            &[(0x04, u32::MAX), (0x150, 0xff), (0x60, 0x80)],
            &[(0x5c, 4), (0xe0, 8), (0xd0, 1)],
            &[(0x64, 0x400)],
        ];
        assert!(made(&[]).is_ok());
        for words in refused {
            assert!(matches!(made(words), Err(Trouble::Whole(_))), "{words:x?}");
        }
    }
}
