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
use std::process::{Command, Output};

use snapcow::error::Result;
use snapcow::free::{Disk, Freed, Limits, Trouble, Volume, ext4};

pub const LIMITS: Limits = Limits { memory_bytes: 64 << 20 };

/// Whether these tools are here, and the right to mount. If not, the test is skipped, or fails where `SNAPCOW_REQUIRE`
/// is 1.
pub fn ready(tools: &[&str]) -> bool {
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    let is_there = |tool: &&&str| path.split(':').any(|folder| Path::new(folder).join(tool).exists());
    let mut missing: Vec<&str> = tools.iter().filter(|tool| !is_there(tool)).copied().collect();
    let is_root = Command::new("id").arg("-u").output().is_ok_and(|out| out.stdout == b"0\n");
    if tools.contains(&"mount") && !(is_root && Path::new("/dev/loop-control").exists()) {
        missing.push("the right to mount");
    }
    if missing.is_empty() {
        return true;
    }
    assert_ne!(std::env::var("SNAPCOW_REQUIRE").as_deref(), Ok("1"), "missing: {missing:?}");
    eprintln!("skipped: missing {missing:?}");
    false
}

/// Runs a command line; its words have no spaces.
pub fn try_run(line: &str) -> Output {
    let words: Vec<&str> = line.split_whitespace().collect();
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    Command::new(words[0]).args(&words[1..]).env("PATH", path).env("LC_ALL", "C").output().expect(line)
}

pub fn run(line: &str) -> String {
    let out = try_run(line);
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(out.status.success(), "{line}: {text}{}", String::from_utf8_lossy(&out.stderr));
    text
}

/// A mount that ends with it.
pub struct Mounted(pub PathBuf);

impl Mounted {
    pub fn new(image: &Path, on: &Path, options: &str) -> Self {
        fs::create_dir_all(on).unwrap();
        run(&format!("mount -o loop,{options} {} {}", image.display(), on.display()));
        Self(on.to_owned())
    }

    pub fn end(self) {}
}

impl Drop for Mounted {
    fn drop(&mut self) {
        for _ in 0..50 {
            if try_run(&format!("umount {}", self.0.display())).status.success() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        eprintln!("could not unmount {}", self.0.display());
    }
}

/// A file as a disk; checks that it is asked as promised.
pub struct FileDisk(pub File);

impl Disk for FileDisk {
    fn read(&self, wanted: &[Range<u64>]) -> Result<Vec<Vec<u8>>> {
        assert!(wanted.windows(2).all(|pair| pair[0].end <= pair[1].start));
        assert!(wanted.iter().all(|range| !range.is_empty()));
        let one = |range: &Range<u64>| {
            let mut bytes = vec![0; (range.end - range.start) as usize];
            self.0.read_exact_at(&mut bytes, range.start).unwrap();
            bytes
        };
        Ok(wanted.iter().map(one).collect())
    }
}

pub fn freed(image: &Path) -> std::result::Result<Freed, String> {
    let file = File::open(image).unwrap();
    let len = file.metadata().unwrap().len();
    let disk = FileDisk(file);
    freed_of(&disk, len, LIMITS)
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

/// A simple generator of numbers: the same for the same seed.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }
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
