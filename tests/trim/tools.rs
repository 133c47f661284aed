//! What the tests with real filesystems share: their tools, mounts, a disk that is a file, the command.
#![allow(dead_code, reason = "each module uses a part of it")]

use std::fs::{self, File};
use std::io::Write;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};

use snapcow::error::{Error, Kind, Result, Stage};
use snapcow::free::Disk;

use crate::lab::machine::{SYS_ADMIN, has_capability, left_out};

/// Whether these tools are here and, for `mount` and `losetup`, the right to use them. If not, the test is left out,
/// which fails where `SNAPCOW_REQUIRE` is 1.
#[track_caller]
pub fn ready(tools: &[&str]) -> bool {
    let missing: Vec<&str> = tools.iter().filter(|tool| !is_there(tool)).copied().collect();
    let wants_loops = tools.iter().any(|tool| ["mount", "losetup"].contains(tool));
    let has_loops = has_capability(SYS_ADMIN) && Path::new("/dev/loop-control").exists();
    if !missing.is_empty() {
        left_out(&format!("the tools {missing:?}"), true);
    } else if wants_loops && !has_loops {
        left_out("mounting", true);
    } else {
        return true;
    }
    false
}

/// Whether a tool is installed.
pub fn is_there(tool: &str) -> bool {
    search_path().split(':').any(|folder| Path::new(folder).join(tool).exists())
}

fn search_path() -> String {
    std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin"
}

/// Runs a tool with something to read.
pub fn try_with(words: &[&str], input: &str) -> Output {
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).env("PATH", search_path());
    // The first three let mkfs.xfs make filesystems below 300 MiB.
    command.envs([("TEST_DIR", "1"), ("TEST_DEV", "1"), ("QA_CHECK_FS", "1"), ("LC_ALL", "C")]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{words:?}: {error}"));
    // Whoever reads nothing may have ended.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

/// The same, which must succeed; what it prints.
#[track_caller]
pub fn run_with(words: &[&str], input: &str) -> String {
    let out = try_with(words, input);
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(out.status.success(), "{words:?}: {text}{}", String::from_utf8_lossy(&out.stderr));
    text
}

/// Runs a command line; its words have no spaces.
pub fn try_run(line: &str) -> Output {
    try_with(&line.split_whitespace().collect::<Vec<_>>(), "")
}

/// The same, which must succeed; what it prints.
#[track_caller]
pub fn run(line: &str) -> String {
    run_with(&line.split_whitespace().collect::<Vec<_>>(), "")
}

/// Runs a tool on a file, with these lines on its standard input.
#[track_caller]
pub fn feed(tool: &str, file: &Path, lines: &str) {
    let words: Vec<&str> = tool.split_whitespace().chain([text(file)]).collect();
    run_with(&words, lines);
}

/// Our own command; what it tells a person.
#[track_caller]
pub fn snapcow(line: &str) -> String {
    let out = try_run(&format!("{} {line}", env!("CARGO_BIN_EXE_snapcow")));
    let text = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(out.status.success(), "{line}: {text}");
    text
}

pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A mount that ends with it.
pub struct Mounted(pub PathBuf);

impl Mounted {
    #[track_caller]
    pub fn new(image: &Path, on: &Path, options: &str) -> Self {
        fs::create_dir_all(on).unwrap();
        run(&format!("mount -o loop,{options} {} {}", image.display(), on.display()));
        Self(on.to_owned())
    }

    pub fn end(self) {}
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // A search of this machine for files may be inside.
        for _ in 0..50 {
            if try_run(&format!("umount {}", self.0.display())).status.success() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        eprintln!("could not unmount {}", self.0.display());
        try_run(&format!("umount -l {}", self.0.display()));
    }
}

/// A loop device that ends with it.
pub struct Loop(pub String);

impl Loop {
    #[track_caller]
    pub fn new(image: &Path, offset: u64, len: u64, sector: u32) -> Self {
        let line = format!("losetup -f --show -o {offset} --sizelimit {len} -b {sector} {}", image.display());
        Self(run(&line).trim().into())
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        try_run(&format!("losetup -d {}", self.0));
    }
}

/// A file as a disk; checks that it is asked as promised, and counts how often.
pub struct FileDisk {
    file: File,
    len: u64,
    pub rounds: AtomicU64,
}

impl FileDisk {
    #[track_caller]
    pub fn open(path: &Path) -> Self {
        let file = File::open(path).unwrap();
        let len = file.metadata().unwrap().len();
        Self { file, len, rounds: AtomicU64::new(0) }
    }

    pub fn len(&self) -> u64 {
        self.len
    }
}

impl Disk for FileDisk {
    fn read(&self, wanted: &[Range<u64>]) -> Result<Vec<Vec<u8>>> {
        self.rounds.fetch_add(1, Ordering::Relaxed);
        assert!(wanted.windows(2).all(|pair| pair[0].end <= pair[1].start), "{wanted:?}");
        assert!(wanted.iter().all(|range| !range.is_empty() && range.end <= self.len), "{wanted:?}");
        let one = |range: &Range<u64>| {
            let mut bytes = vec![0; (range.end - range.start) as usize];
            self.file
                .read_exact_at(&mut bytes, range.start)
                .map_err(|error| Error::new(Stage::Source, Kind::Local, "read").because(error))?;
            Ok(bytes)
        };
        wanted.iter().map(one).collect()
    }
}

/// A generator of numbers that are the same for the same seed: SplitMix64.
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
