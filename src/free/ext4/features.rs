//! The feature bits of ext2/3/4 and what each of them means to whoever looks for free blocks.
//!
//! Bits and names: `lib/ext2fs/ext2_fs.h` of e2fsprogs, `fs/ext4/ext4.h` of Linux. What is not listed is unknown and
//! leaves the filesystem whole, also among the `compat` bits, which the kernel lets pass: `sparse_super2` shows that
//! such a bit may move metadata, and e2fsck does not touch a filesystem with one that it does not know.
//!
//! | bit | why it does not matter, or where it does |
//! |---|---|
//! | `dir_prealloc`, `imagic_inodes`, `ext_attr`, `dir_index`, `stable_inodes` | contents of inodes and directories; their blocks are in the bitmaps like all others |
//! | `has_journal` | the journal must be empty, or is replayed; its blocks must be in use |
//! | `resize_inode` | `s_reserved_gdt_blocks` blocks behind each copy of the descriptors must be in use |
//! | `sparse_super`, `sparse_super2` | which groups begin with a copy of superblock and descriptors |
//! | `fast_commit` | only permits them; if the journal has them and is not empty, the filesystem is left whole |
//! | `orphan_file`, `orphan_present` | inodes that a mount will free; they are in use until then and are kept |
//! | `filetype`, `largedir`, `casefold`, `encrypt`, `verity`, `inline_data`, `ea_inode` | contents of files and directories; no block of theirs is outside of the bitmaps |
//! | `needs_recovery` | the journal is replayed in memory |
//! | `meta_bg` | where the descriptors lie |
//! | `extents`, `huge_file`, `large_file`, `dir_nlink`, `extra_isize` | how an inode says what it has; the journal's inode is read in both forms |
//! | `64bit` | longer descriptors |
//! | `mmp` | its block must say that no machine has the filesystem mounted, and must be in use |
//! | `flex_bg` | bitmaps and inode tables of a group may lie in another one |
//! | `metadata_csum_seed` | where the checksums begin |
//! | `uninit_bg`, `metadata_csum` | checksums, and groups whose bitmaps are computed |
//! | `quota`, `project` | hidden files of quotas, in the bitmaps like all others |
//! | `bigalloc` | a bit of a bitmap is a cluster of blocks |
//! | `read-only` | forbids writing only |

use super::super::{Outcome, Trouble};

/// The three sets of bits of a superblock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Features {
    /// `s_feature_compat`.
    pub compat: u32,
    /// `s_feature_incompat`.
    pub incompat: u32,
    /// `s_feature_ro_compat`.
    pub ro_compat: u32,
}

pub(super) const COMPAT_HAS_JOURNAL: u32 = 0x4;
pub(super) const COMPAT_SPARSE_SUPER2: u32 = 0x200;
pub(super) const INCOMPAT_RECOVER: u32 = 0x4;
pub(super) const INCOMPAT_META_BG: u32 = 0x10;
pub(super) const INCOMPAT_64BIT: u32 = 0x80;
pub(super) const INCOMPAT_MMP: u32 = 0x100;
pub(super) const INCOMPAT_FLEX_BG: u32 = 0x200;
pub(super) const INCOMPAT_CSUM_SEED: u32 = 0x2000;
pub(super) const RO_COMPAT_SPARSE_SUPER: u32 = 0x1;
pub(super) const RO_COMPAT_GDT_CSUM: u32 = 0x10;
pub(super) const RO_COMPAT_BIGALLOC: u32 = 0x200;
pub(super) const RO_COMPAT_METADATA_CSUM: u32 = 0x400;
pub(super) const RO_COMPAT_ORPHAN_PRESENT: u32 = 0x1_0000;

const COMPAT_KNOWN: u32 =
    0x1 | 0x2 | COMPAT_HAS_JOURNAL | 0x8 | 0x10 | 0x20 | COMPAT_SPARSE_SUPER2 | 0x400 | 0x800 | 0x1000;
const INCOMPAT_KNOWN: u32 = 0x2
    | INCOMPAT_RECOVER
    | INCOMPAT_META_BG
    | 0x40
    | INCOMPAT_64BIT
    | INCOMPAT_MMP
    | INCOMPAT_FLEX_BG
    | 0x400
    | INCOMPAT_CSUM_SEED
    | 0x4000
    | 0x8000
    | 0x1_0000
    | 0x2_0000;
const RO_COMPAT_KNOWN: u32 = RO_COMPAT_SPARSE_SUPER
    | 0x2
    | 0x8
    | RO_COMPAT_GDT_CSUM
    | 0x20
    | 0x40
    | 0x100
    | RO_COMPAT_BIGALLOC
    | RO_COMPAT_METADATA_CSUM
    | 0x1000
    | 0x2000
    | 0x8000
    | RO_COMPAT_ORPHAN_PRESENT;

/// Names of bits that are known to leave a filesystem whole: words, bit, name.
const REFUSED: [(&str, u32, &str); 11] = [
    ("compat", 0x40, "lazy_bg"),
    ("compat", 0x80, "exclude_inode"),
    ("compat", 0x100, "exclude_bitmap"),
    ("incompat", 0x1, "compression"),
    ("incompat", 0x8, "journal_dev: a journal of another filesystem"),
    ("incompat", 0x1000, "dirdata"),
    ("ro_compat", 0x4, "btree_dir"),
    ("ro_compat", 0x80, "snapshot"),
    ("ro_compat", 0x800, "replica"),
    ("ro_compat", 0x4000, "shared_blocks"),
    ("incompat", 0x20, "reserved"),
];

impl Features {
    /// Whether all are understood.
    pub fn check(self) -> Outcome<()> {
        let sets = [
            ("incompat", self.incompat & !INCOMPAT_KNOWN),
            ("ro_compat", self.ro_compat & !RO_COMPAT_KNOWN),
            ("compat", self.compat & !COMPAT_KNOWN),
        ];
        for (set, unknown) in sets {
            if unknown != 0 {
                let bit = unknown & unknown.wrapping_neg();
                let name = REFUSED.iter().find(|refused| refused.0 == set && refused.1 == bit);
                let name = name.map_or(String::new(), |refused| format!(" ({})", refused.2));
                return Err(Trouble::whole(format_args!(
                    "it has the {set} feature {bit:#x}{name}, which is not understood"
                )));
            }
        }
        Ok(())
    }

    pub fn compat(self, bit: u32) -> bool {
        self.compat & bit != 0
    }

    pub fn incompat(self, bit: u32) -> bool {
        self.incompat & bit != 0
    }

    pub fn ro_compat(self, bit: u32) -> bool {
        self.ro_compat & bit != 0
    }

    /// Whether descriptors have checksums and groups may be uninitialised (`ext4_has_group_desc_csum`).
    pub fn descriptor_checksums(self) -> bool {
        self.ro_compat & (RO_COMPAT_GDT_CSUM | RO_COMPAT_METADATA_CSUM) != 0
    }

    /// Without the bits that come and go while it is mounted.
    pub fn lasting(self) -> Self {
        Self {
            compat: self.compat,
            incompat: self.incompat & !INCOMPAT_RECOVER,
            ro_compat: self.ro_compat & !RO_COMPAT_ORPHAN_PRESENT,
        }
    }

    /// What people call a filesystem with these features: the rule of `blkid`.
    pub fn kind(self) -> &'static str {
        const EXT3_INCOMPAT: u32 = 0x2 | INCOMPAT_RECOVER | INCOMPAT_META_BG;
        if self.incompat & !EXT3_INCOMPAT != 0 || self.ro_compat & !0x7 != 0 {
            "ext4"
        } else if self.compat(COMPAT_HAS_JOURNAL) {
            "ext3"
        } else {
            "ext2"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bit_that_is_not_listed_is_named() {
        let none = Features { compat: 0, incompat: 0, ro_compat: 0 };
        let reason = |features: Features| match features.check() {
            Err(Trouble::Whole(reason)) => reason,
            other => format!("{other:?}"),
        };
        let all = Features { compat: COMPAT_KNOWN, incompat: INCOMPAT_KNOWN, ro_compat: RO_COMPAT_KNOWN };
        assert!(none.check().is_ok() && all.check().is_ok());
        for bit in (0..32).map(|shift| 1 << shift) {
            let cases = [
                (Features { compat: bit, ..none }, COMPAT_KNOWN),
                (Features { incompat: bit, ..none }, INCOMPAT_KNOWN),
                (Features { ro_compat: bit, ..none }, RO_COMPAT_KNOWN),
            ];
            for (features, known) in cases {
                assert_eq!(features.check().is_ok(), known & bit != 0, "{features:?}");
                assert!(known & bit != 0 || reason(features).contains(&format!("{bit:#x}")));
            }
        }
        assert!(reason(Features { incompat: 0x8, ..none }).contains("journal of another"));
        assert_eq!((none.kind(), all.kind()), ("ext2", "ext4"));
        assert_eq!(Features { compat: 4, incompat: 6, ro_compat: 3 }.kind(), "ext3");
    }
}
