//! What the tests with real filesystems of the ext family share: tools, mounts, an oracle, a disk that is a file.

mod clean;
mod crash;
mod hostile;
mod whole;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use snapcow::free::{Disk, Freed, Limits, Trouble, Volume, ext4};

pub use crate::tools::{FileDisk, Mounted, Random, ready, run, try_run};

pub const LIMITS: Limits = Limits { memory_bytes: 64 << 20 };

pub fn freed(image: &Path) -> std::result::Result<Freed, String> {
    let disk = FileDisk::open(image);
    freed_of(&disk, disk.len(), LIMITS)
}

pub fn freed_of(disk: &dyn Disk, len: u64, limits: Limits) -> std::result::Result<Freed, String> {
    ext4::freed(&Volume::linear(disk, 0..len), limits).map_err(|trouble| match trouble {
        Trouble::Whole(reason) => reason,
        Trouble::Failed(error) => panic!("{error}"),
    })
}

/// What `dumpe2fs` says is free, in bytes, joined; and the header's values.
pub fn oracle(image: &Path) -> (Vec<Range<u64>>, BTreeMap<String, String>) {
    let text = run(&format!("dumpe2fs {}", image.display()));
    let header: BTreeMap<String, String> = text
        .lines()
        .take_while(|line| !line.starts_with("Group "))
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
        .collect();
    let block: u64 = header["Block size"].parse().unwrap();
    let blocks: u64 = header["Block count"].parse().unwrap();
    // Of clusters `dumpe2fs` names the first block each.
    let cluster = header.get("Cluster size").map_or(1, |size| size.parse::<u64>().unwrap() / block);
    let mut free: Vec<Range<u64>> = Vec::new();
    for line in text.lines().filter_map(|line| line.strip_prefix("  Free blocks: ")) {
        for run in line.split(", ").filter(|run| !run.trim().is_empty()) {
            let (first, last) = run.trim().split_once('-').unwrap_or((run.trim(), run.trim()));
            let (first, last): (u64, u64) = (first.parse().unwrap(), last.parse().unwrap());
            let range = first * block..(last + cluster).min(blocks) * block;
            match free.last_mut() {
                Some(joined) if joined.end == range.start => joined.end = range.end,
                _ => free.push(range),
            }
        }
    }
    (free, header)
}

/// Writes files of `total` bytes altogether into a folder, and deletes about half of them, at random.
pub fn age(folder: &Path, total: u64, seed: u64) {
    let mut random = Random(seed);
    let (mut written, mut files) = (0, Vec::new());
    while written < total {
        let len = [random.below(900), random.below(30_000), random.below(600_000)][random.below(3) as usize];
        let sub = folder.join(format!("d{}", random.below(7)));
        fs::create_dir_all(&sub).unwrap();
        let path = sub.join(format!("f{}", files.len()));
        let bytes: Vec<u8> = (0..len.div_ceil(8)).flat_map(|_| random.next().to_le_bytes()).collect();
        if fs::write(&path, &bytes).is_err() {
            break;
        }
        written += len;
        files.push(path);
        if random.below(2) == 0 {
            let at = random.below(files.len() as u64) as usize;
            let _ = fs::remove_file(&files[at]);
        }
    }
}

/// Every file's path and a sum of its bytes.
pub fn tree(folder: &Path) -> BTreeMap<PathBuf, (u64, u64)> {
    let mut sums = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap().map(std::result::Result::unwrap) {
            let kind = entry.file_type().unwrap();
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file() {
                let bytes = fs::read(entry.path()).unwrap();
                let sum = bytes.iter().fold(0xcbf2_9ce4_8422_2325u64, |sum, byte| {
                    (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
                });
                sums.insert(entry.path(), (bytes.len() as u64, sum));
            }
        }
    }
    sums
}

/// Overwrites ranges of a file.
pub fn overwrite(image: &Path, ranges: &[Range<u64>], with: u8) {
    let file = File::options().write(true).open(image).unwrap();
    let block = vec![with; 1 << 20];
    for range in ranges {
        let mut at = range.start;
        while at < range.end {
            let len = (range.end - at).min(block.len() as u64);
            file.write_all_at(&block[..len as usize], at).unwrap();
            at += len;
        }
    }
}

/// Whether every byte of `inner` is in `outer`; both rise and are joined.
pub fn is_within(inner: &[Range<u64>], outer: &[Range<u64>]) -> bool {
    inner.iter().all(|range| {
        let behind = outer.partition_point(|outer| outer.start <= range.start);
        behind > 0 && outer[behind - 1].end >= range.end
    })
}

/// Replays the journal and repairs what a crash leaves (orphans); there must be nothing else to repair.
pub fn fsck(image: &Path) {
    let out = try_run(&format!("e2fsck -fy {}", image.display()));
    let text = String::from_utf8_lossy(&out.stdout);
    assert!(matches!(out.status.code(), Some(0 | 1)), "{text}");
}
