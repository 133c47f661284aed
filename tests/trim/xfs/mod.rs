//! Real filesystems for tests: tools, images, loop mounts, and what oracles say.

mod hostile;
mod real;
mod signatures;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hasher};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use snapcow::free::{Freed, Limits, Outcome, Trouble, Volume};

pub use crate::tools::{FileDisk, Random, is_there, ready, text};
use crate::tools::{Mounted, try_with};

pub const LIMITS: Limits = Limits { memory_bytes: 256 << 20 };

/// Runs a tool that must succeed; its output.
#[track_caller]
pub fn run(tool: &str, args: &[&str]) -> String {
    let (has_succeeded, said) = tried(tool, args);
    assert!(has_succeeded, "{tool} {args:?}: {said}");
    said
}

/// Runs a tool: whether it succeeded, and what it said on either way.
pub fn tried(tool: &str, args: &[&str]) -> (bool, String) {
    let out = try_with(&[&[tool], args].concat(), "");
    (out.status.success(), String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned())
}

/// What a reader says of a file.
pub fn of_file<T>(path: &Path, reader: impl Fn(&Volume<'_>) -> Outcome<T>) -> Outcome<T> {
    let disk = FileDisk::open(path);
    reader(&Volume::linear(&disk, 0..disk.len()))
}

/// The reason why something is left whole.
pub fn reason<T: std::fmt::Debug>(outcome: Outcome<T>) -> String {
    match outcome {
        Err(Trouble::Whole(reason)) => reason,
        other => panic!("not left whole: {other:?}"),
    }
}

/// A new sparse image in a directory.
pub fn image(dir: &Path, name: &str, len: u64) -> PathBuf {
    let path = dir.join(name);
    File::create(&path).unwrap().set_len(len).unwrap();
    path
}

/// A mount beside the image, with what is in it.
pub struct Mount(Mounted);

impl Mount {
    #[track_caller]
    pub fn new(image: &Path, options: &str) -> Self {
        Self(Mounted::new(image, &image.with_extension("mnt"), options))
    }

    pub fn path(&self) -> &Path {
        &self.0.0
    }

    /// Every file and a hash of its name, length and bytes.
    pub fn hashes(&self) -> BTreeMap<PathBuf, u64> {
        let mut all = BTreeMap::new();
        let mut dirs = vec![self.path().to_owned()];
        while let Some(dir) = dirs.pop() {
            for entry in fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap()) {
                let mut hasher = DefaultHasher::new();
                if entry.file_type().unwrap().is_dir() {
                    dirs.push(entry.path());
                } else {
                    hasher.write(&fs::read(entry.path()).unwrap());
                }
                all.insert(entry.path().strip_prefix(self.path()).unwrap().to_owned(), hasher.finish());
            }
        }
        all
    }
}

/// Writes and deletes files until the free space is in pieces. `bytes` bounds what is written in each round.
pub fn age(dir: &Path, seed: u64, bytes: u64, rounds: usize) {
    let mut random = Random(seed);
    for round in 0..rounds {
        let sub = dir.join(format!("d{round}"));
        fs::create_dir_all(&sub).unwrap();
        let (mut left, mut number) = (bytes, 0);
        let mut files = Vec::new();
        while left > 0 {
            let len = if number % 3 == 0 { random.below(60_000) } else { 1 + random.below(5_000) };
            let path = sub.join(format!("f{number}"));
            fs::write(&path, vec![random.next() as u8; len as usize]).unwrap();
            files.push(path);
            left = left.saturating_sub(len);
            number += 1;
        }
        // What is not written out yet has no blocks whose freeing would leave holes.
        run("sync", &["-f", text(dir)]);
        for (index, path) in files.iter().enumerate() {
            if index % 2 == 0 || random.below(5) == 0 {
                fs::remove_file(path).unwrap();
            }
        }
    }
}

/// Small files side by side, every second one deleted: many short free extents.
pub fn checkerboard(dir: &Path, files: usize) {
    fs::create_dir_all(dir).unwrap();
    let path = |number| dir.join(format!("c{number}"));
    (0..files).for_each(|number| fs::write(path(number), b"a block").unwrap());
    run("sync", &["-f", text(dir)]);
    (0..files).step_by(2).for_each(|number| fs::remove_file(path(number)).unwrap());
}

/// Makes an XFS of version 4 with holes, which kernels of today no longer mount: mkfs.xfs fills it with files of a
/// block, every second inode is wiped, and xfs_repair frees their blocks and builds new trees.
pub fn make_version_4(path: &Path, args: &str, files: usize) {
    let dir = path.parent().unwrap();
    let (one, proto) = (dir.join("one"), dir.join("proto"));
    fs::write(&one, b"a block").unwrap();
    let mut lines = "/stand/boot\n0 0\nd--755 0 0\n".to_owned();
    (0..files).for_each(|number| lines += &format!("f{number} ---644 0 0 {}\n", text(&one)));
    fs::write(&proto, lines + "$\n").unwrap();
    let mut all = vec!["-q", "-f", "-m", "crc=0", "-p", text(&proto)];
    all.extend(args.split_whitespace());
    all.push(text(path));
    run("mkfs.xfs", &all);
    let root = run("xfs_db", &["-r", "-c", "sb 0", "-c", "p rootino", text(path)]);
    let root: u64 = root.trim().strip_prefix("rootino = ").unwrap().parse().unwrap();
    let wipe = |inode: u64| format!("inode {inode}\nwrite core.mode 0\n");
    let commands: String = (root + 40..root + files as u64).step_by(2).map(wipe).collect();
    let script = dir.join("script");
    fs::write(&script, commands + "quit\n").unwrap();
    run("sh", &["-c", "PATH=$PATH:/usr/sbin; xfs_db -x $1 < $0", text(&script), text(path)]);
    tried("xfs_repair", &["-o", "force_geometry", text(path)]);
    run("xfs_repair", &["-n", "-o", "force_geometry", text(path)]);
}

/// Overwrites what is said to be free with bytes that are nothing.
pub fn spoil(path: &Path, freed: &Freed) {
    let file = File::options().write(true).open(path).unwrap();
    let junk = vec![0xa5; 1 << 20];
    for run in freed.free.as_slice() {
        let mut at = run.start;
        while at < run.end {
            let len = (run.end - at).min(junk.len() as u64);
            file.write_all_at(&junk[..len as usize], at).unwrap();
            at += len;
        }
    }
}

/// The free extents of the trees by block number, as `xfs_db` lists them, in bytes. (Its `freesp` adds the blocks that
/// are kept for trees.)
pub fn xfs_db_free(path: &Path) -> Vec<Range<u64>> {
    let sb = run("xfs_db", &["-r", "-c", "sb 0", "-c", "p blocksize agblocks agcount", text(path)]);
    let field = |name: &str| -> u64 {
        let line = sb.lines().find_map(|line| line.strip_prefix(&format!("{name} = ")));
        line.unwrap_or_else(|| panic!("no {name} in {sb}")).trim().parse().unwrap()
    };
    let (block, blocks) = (field("blocksize"), field("agblocks"));
    let mut free: Vec<Range<u64>> = Vec::new();
    for group in 0..field("agcount") {
        let agf = format!("agf {group}");
        let dump = run("xfs_db", &["-r", "-c", &agf, "-c", "addr bnoroot", "-c", "btdump", text(path)]);
        let mut is_leaf = false;
        for line in dump.lines() {
            if line.starts_with("bnobt level") {
                is_leaf = line.starts_with("bnobt level 0 ");
            }
            let record = line.split_once(":[").and_then(|(_, rest)| rest.split_once(']'));
            if let Some((start, len)) = record.and_then(|(pair, _)| pair.split_once(',')).filter(|_| is_leaf)
            {
                let start = (group * blocks + start.parse::<u64>().unwrap()) * block;
                free.push(start..start + len.parse::<u64>().unwrap() * block);
            }
        }
    }
    free.sort_by_key(|range| range.start);
    free
}

/// Castagnoli's CRC-32 over a block with its checksum taken as zero.
pub fn crc32c(block: &[u8], at: usize) -> [u8; 4] {
    let mut crc = !0_u32;
    for (index, &byte) in block.iter().enumerate() {
        crc ^= u32::from(if (at..at + 4).contains(&index) { 0 } else { byte });
        (0..8).for_each(|_| crc = if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 });
    }
    (!crc).to_le_bytes()
}
