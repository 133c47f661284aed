//! What the tests with real partition tables and volume groups share.

mod tables;
pub mod volumes;
mod whole;

use std::fs::File;
use std::io::Write;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};

use snapcow::error::Result;
use snapcow::free::{Disk, Limits};

pub const LIMITS: Limits = Limits { memory_bytes: 256 << 20 };
pub const MIB: u64 = 1 << 20;

/// Whether these tools are here, and loop devices. If not, the test is skipped, or fails where `SNAPCOW_REQUIRE` is 1.
pub fn ready(tools: &[&str]) -> bool {
    let path = path();
    let is_there = |tool: &&&str| path.split(':').any(|folder| Path::new(folder).join(tool).exists());
    let mut missing: Vec<&str> = tools.iter().filter(|tool| !is_there(tool)).copied().collect();
    let is_root = Command::new("id").arg("-u").output().is_ok_and(|out| out.stdout == b"0\n");
    if tools.contains(&"losetup") && !(is_root && Path::new("/dev/loop-control").exists()) {
        missing.push("the right to set up loop devices");
    }
    if missing.is_empty() {
        return true;
    }
    assert_ne!(std::env::var("SNAPCOW_REQUIRE").as_deref(), Ok("1"), "missing: {missing:?}");
    eprintln!("skipped: missing {missing:?}");
    false
}

fn path() -> String {
    std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin"
}

/// Runs a command with something to read, and gives what it says.
pub fn run_with(words: &[&str], input: &str) -> String {
    let mut child = Command::new(words[0])
        .args(&words[1..])
        .env("PATH", path())
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect(words[0]);
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let out = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(out.status.success(), "{words:?}: {text}{}", String::from_utf8_lossy(&out.stderr));
    text
}

pub fn run(line: &str) -> String {
    run_with(&line.split_whitespace().collect::<Vec<_>>(), "")
}

/// A sparse file.
pub fn image(path: &Path, len: u64) {
    File::create(path).unwrap().set_len(len).unwrap();
}

/// Copies the whole of a file to a place of another one, holes left out.
pub fn put(from: &Path, to: &Path, at: u64) {
    let (from, to) = (path_text(from), path_text(to));
    let seek = format!("seek={at}");
    run_with(
        &[
            "dd",
            &format!("if={from}"),
            &format!("of={to}"),
            &seek,
            "oflag=seek_bytes",
            "bs=1M",
            "conv=notrunc,sparse",
        ],
        "",
    );
}

pub fn path_text(path: &Path) -> String {
    path.display().to_string()
}

/// A loop device that ends with it.
pub struct Loop(pub String);

impl Loop {
    pub fn new(image: &Path, offset: u64, len: u64, sector: u32) -> Self {
        let line = format!("losetup -f --show -o {offset} --sizelimit {len} -b {sector} {}", image.display());
        Self(run(&line).trim().into())
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup").args(["-d", &self.0]).env("PATH", path()).status();
    }
}

/// A file as a disk; checks that it is asked as promised.
pub struct FileDisk(pub File, pub u64);

impl FileDisk {
    pub fn open(path: &Path) -> Self {
        let file = File::open(path).unwrap();
        let len = file.metadata().unwrap().len();
        Self(file, len)
    }
}

impl Disk for FileDisk {
    fn read(&self, wanted: &[Range<u64>]) -> Result<Vec<Vec<u8>>> {
        assert!(wanted.windows(2).all(|pair| pair[0].end <= pair[1].start), "{wanted:?}");
        assert!(wanted.iter().all(|range| !range.is_empty() && range.end <= self.1), "{wanted:?}");
        let one = |range: &Range<u64>| {
            let mut bytes = vec![0; (range.end - range.start) as usize];
            self.0.read_exact_at(&mut bytes, range.start).unwrap();
            bytes
        };
        Ok(wanted.iter().map(one).collect())
    }
}

pub fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *state >> 20
}

/// The numbers that follow `"name":` in JSON of a kind that is known.
pub fn json_numbers(json: &str, name: &str) -> Vec<u64> {
    let mark = format!("\"{name}\":");
    json.split(&mark)
        .skip(1)
        .map(|rest| rest.trim_start().split(|c: char| !c.is_ascii_digit()).next().unwrap().parse().unwrap())
        .collect()
}
