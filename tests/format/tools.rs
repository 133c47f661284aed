//! The command, the library and the other judges, as the tests here call them.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;
use snapcow::error::Result;
use snapcow::read::{CheckOptions, Class, Input, Report, Severity, check};
use snapcow::verify::{Comparison, Qcow2Disk, RawDisk, compare};

use crate::common::oracles;

/// The command, with no login in its environment.
pub fn command(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_snapcow"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("OS_") {
            command.env_remove(name);
        }
    }
    command.env("OS_CLIENT_CONFIG_FILE", "/nonexistent/clouds.yaml").env("XDG_CONFIG_HOME", "/nonexistent");
    command.args(words).stdin(Stdio::null());
    command
}

/// What the command came to.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    #[track_caller]
    pub fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self:?}");
        assert!(!self.stderr.contains("panicked"), "{self:?}");
        self
    }

    /// The one JSON object on standard output.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

pub fn ran(output: Output) -> Ran {
    Ran {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Runs `snapcow` with these words.
pub fn snapcow(words: &[&str]) -> Ran {
    ran(command(words).output().unwrap())
}

/// Runs `snapcow`, which reads these bytes.
pub fn snapcow_reading(words: &[&str], bytes: &[u8]) -> Ran {
    let mut command = command(words);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    std::thread::scope(|scope| {
        // It may stop reading where it finds a difference.
        scope.spawn(move || drop(stdin.write_all(bytes)));
        ran(child.wait_with_output().unwrap())
    })
}

/// Converts a raw file by the command.
#[track_caller]
pub fn convert(raw: &Path, image: &Path, options: &[&str]) {
    let words = [&["convert", "--quiet", "--force", text(raw), text(image)], options].concat();
    snapcow(&words).exits(0);
}

pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Runs `qemu-img` or `qemu-io`, which has to succeed.
#[track_caller]
pub fn qemu(program: &str, words: &[&str]) -> String {
    let output = Command::new(program).args(words).stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{program} {words:?}: {output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Exit code of `qemu-img check`: 0 clean, 1 not done, 2 damaged, 3 leaks.
pub fn qemu_img_check(image: &Path) -> i32 {
    let words = ["check", "-q", "-f", "qcow2"];
    Command::new("qemu-img").args(words).arg(image).output().unwrap().status.code().unwrap_or(-1)
}

fn input(bytes: Vec<u8>) -> Input {
    Input { len: bytes.len() as u64, bytes: Arc::new(bytes), name: "image".into() }
}

/// Our check of bytes in memory; every compressed cluster is decoded.
pub fn check_bytes(bytes: Vec<u8>) -> Result<Report> {
    check(input(bytes), CheckOptions { decode: true, ..CheckOptions::default() })
}

/// Our check finds neither errors nor leaks.
#[track_caller]
pub fn is_clean(image: &Path, what: &str) -> Report {
    let report = check_bytes(std::fs::read(image).unwrap()).unwrap_or_else(|error| panic!("{what}: {error}"));
    let is_fine = report.worst().is_none_or(|worst| worst == Severity::Note) && report.facts.is_some();
    assert!(is_fine, "{what}: {:#?}", report.findings);
    report
}

/// The same, but QEMU may have left clusters behind the end that it has freed: it does not clear them.
#[track_caller]
pub fn is_clean_up_to_its_end(image: &Path, what: &str) {
    let report = check_bytes(std::fs::read(image).unwrap()).unwrap_or_else(|error| panic!("{what}: {error}"));
    let is_fine = |class: &Class| matches!(class, Class::Note | Class::TrailingData);
    assert!(report.findings.counts().keys().all(is_fine), "{what}: {:#?}", report.findings);
    assert!(report.facts.is_some(), "{what}");
}

/// A raw disk and an image, both in memory, compared.
pub fn compare_bytes(raw: &[u8], image: Vec<u8>) -> Result<Comparison> {
    compare(&RawDisk::new(input(raw.to_vec())), &Qcow2Disk::open(input(image))?, 2)
}

/// The image holds the disk, by our own reader.
#[track_caller]
pub fn holds(image: &Path, raw: &[u8], what: &str) {
    let comparison = compare_bytes(raw, std::fs::read(image).unwrap());
    let comparison = comparison.unwrap_or_else(|error| panic!("{what}: {error}"));
    assert!(comparison.is_equal(), "{what}: {comparison:?}");
}

/// OpenStack's own judge of uploads, `safety_check` of oslo.utils' `format_inspector`, over many images by
/// one process; nothing, loudly, where the lab that has it is not installed.
pub fn inspector_agrees(images: &[(PathBuf, u64)]) {
    const SCRIPT: &str = "
import sys
from oslo_utils.imageutils import format_inspector
for line in sys.stdin.read().splitlines():
    size, path = line.split(' ', 1)
    found = format_inspector.detect_file_format(path)
    assert str(found) == 'qcow2', (path, str(found))
    found.safety_check()
    assert found.virtual_size == int(size), (path, found.virtual_size, size)
print('judged')
";
    let lab = std::env::var_os("SNAPCOW_LAB").map_or_else(|| "target/lab".into(), PathBuf::from);
    let python = lab.join("venv/bin/python");
    if !python.exists() {
        assert!(!oracles::is_required(), "no {}: run tools/openstack up", python.display());
        let _ = writeln!(std::io::stderr(), "SKIPPED: oslo.utils' format_inspector (tools/openstack up)");
        return;
    }
    let lines: Vec<String> = images
        .iter()
        .map(|(path, size)| format!("{size} {}", path.canonicalize().unwrap().display()))
        .collect();
    let mut command = Command::new(python);
    command.args(["-c", SCRIPT]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(lines.join("\n").as_bytes()).unwrap();
    let ran = ran(child.wait_with_output().unwrap()).exits(0);
    assert_eq!(ran.stdout, "judged\n", "{}", ran.stderr);
}

/// Calls `work` for every item, on as many threads as there are cores.
pub fn in_parallel<T: Sync>(items: &[T], work: impl Fn(&T) + Sync) {
    let next = AtomicUsize::new(0);
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
                    work(item);
                }
            });
        }
    });
}
