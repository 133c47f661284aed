//! The disks of `fuzz/bases`, which `tools/fuzz.d/bases.py` makes.

use super::sparse::Base;

macro_rules! packed {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_bytes!(concat!("../../bases/", $name, ".zst")))),*]
    };
}

static PACKED: &[(&str, &[u8])] = packed![
    "ext4_1k",
    "ext4_4k",
    "ext4_32bit",
    "ext4_uninit",
    "ext4_nosum",
    "ext4_metabg",
    "ext4_bigalloc",
    "ext4_mmp",
    "ext4_new",
    "ext3",
    "ext2",
    "ext2_rev0",
    "ext4_crash",
    "ext4_crash_v1",
    "ext3_crash",
    "xfs5_4k",
    "xfs5_1k",
    "xfs5_new",
    "xfs4",
    "xfs4_4k",
    "swap",
    "pv",
    "stripes",
    "gpt",
    "mbr",
];

/// What tools that are not ours say of the disks: name, free bytes, what lies in which partitions.
static KNOWN: &str = include_str!("../../bases/known.txt");

/// A disk that a tool has made.
#[derive(Debug)]
pub struct Made {
    pub name: &'static str,
    pub base: Base,
    /// Bytes that are free by another tool than ours.
    pub free_bytes: u64,
}

/// The disks whose names begin so.
pub fn named(beginnings: &[&str]) -> Vec<Made> {
    let is_named = |name: &str| beginnings.iter().any(|beginning| name.starts_with(beginning));
    PACKED.iter().filter(|(name, _)| is_named(name)).map(|(name, packed)| made(name, packed)).collect()
}

fn made(name: &'static str, packed: &[u8]) -> Made {
    let line = KNOWN.lines().find(|line| line.split(' ').next() == Some(name));
    let mut words = line.unwrap_or_else(|| panic!("known.txt lacks {name}")).split(' ').skip(1);
    let free_bytes = words.next().expect("free bytes").parse().expect("a number");
    let mut base = Base::unpack(packed);
    for (inside, at) in words.filter_map(|word| word.split_once('@')) {
        let (_, packed) = PACKED.iter().find(|(name, _)| *name == inside).expect("a disk");
        base.lay(at.parse().expect("a place"), Base::unpack(packed));
    }
    Made { name, base, free_bytes }
}
