//! What a run may use: full disks, a disk that is far larger than memory, disks beyond the format.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::lab::command::{convert, run};
use crate::lab::disk::Noise;
use crate::lab::machine::{SYS_ADMIN, has_capability, left_out};
use crate::proof::{check, equal};

const MIB: u64 = 1 << 20;

/// A file system of its own, of a chosen size, in memory.
struct Small(tempfile::TempDir);

impl Small {
    fn new(size: &str) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"])
            .arg(folder.path())
            .output();
        match mounted {
            Ok(answer) if answer.status.success() => Some(Self(folder)),
            other => {
                left_out(&format!("a tmpfs: {other:?}"), has_capability(SYS_ADMIN));
                None
            }
        }
    }

    fn is_empty(&self) -> bool {
        std::fs::read_dir(self.0.path()).unwrap().count() == 0
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}

#[test]
fn a_full_target_leaves_nothing() {
    let Some(small) = Small::new("4m") else { return };
    let folder = tempfile::tempdir().unwrap();
    let raw = folder.path().join("raw");
    std::fs::write(&raw, Noise(11).bytes(16 * MIB)).unwrap();
    let target = small.0.path().join("t");
    run(&mut convert([&raw, &target])).refuses(7, &["No space left"]);
    assert!(small.is_empty());
    std::fs::write(&target, b"old").unwrap();
    run(convert([&raw, &target]).arg("--force")).refuses(7, &["No space left"]);
    assert_eq!(std::fs::read(&target).unwrap(), b"old");
    let ran =
        run(convert(["-".as_ref(), target.as_os_str()]).arg("--force").stdin(File::open(&raw).unwrap()));
    ran.refuses(7, &["No space left"]);
    assert_eq!(std::fs::read(&target).unwrap(), b"old");
}

#[test]
fn a_full_spool_disk_is_an_overflow_and_no_failure() {
    let Some(small) = Small::new("8m") else { return };
    let folder = tempfile::tempdir().unwrap();
    let (raw, out, report) =
        (folder.path().join("raw"), folder.path().join("out"), folder.path().join("report.json"));
    std::fs::write(&raw, Noise(12).bytes(200 * MIB)).unwrap();
    let spool = small.0.path().to_str().unwrap();
    let little = [
        "--memory",
        "96MiB",
        "--spool-disk",
        "1GiB",
        "--spool-dir",
        spool,
        "--report",
        report.to_str().unwrap(),
    ];
    run(convert([raw.as_os_str(), "-".as_ref()]).args(little).stdout(File::create(&out).unwrap())).ok();
    equal(&out, &raw);
    let receipt: Value = serde_json::from_slice(&std::fs::read(&report).unwrap()).unwrap();
    assert_eq!(receipt["receipt"]["route"], "reread");
    assert!(receipt["receipt"]["spool"]["disk_written_bytes"].as_u64().unwrap() > 0);
    assert!(small.is_empty());
    // A stream cannot be read again.
    let stream = run(convert(["-", "-"]).args(little).stdin(File::open(&raw).unwrap()));
    let stream = stream.refuses(7, &["cannot be read again", "--spool-disk"]);
    assert!(stream.stdout.is_empty() && small.is_empty());
    let receipt: Value = serde_json::from_slice(&std::fs::read(&report).unwrap()).unwrap();
    assert_eq!((&receipt["outcome"], &receipt["exit_code"]), (&"local_resource".into(), &7.into()));
}

/// A file of this length without data, where the file system has such.
fn sparse(folder: &Path, len: u64) -> std::io::Result<std::path::PathBuf> {
    let path = folder.join("sparse");
    File::create(&path)?.set_len(len)?;
    Ok(path)
}

/// A folder in memory: files there may be as long as a file can be.
fn in_memory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap()
}

#[test]
fn a_disk_too_large_for_its_clusters_is_told_which_would_do() {
    let folder = tempfile::tempdir().unwrap();
    let memory = in_memory();
    let target = folder.path().join("t");
    let raw = sparse(memory.path(), 16 << 40).unwrap();
    run(convert([&raw, &target]).args(["--cluster-size", "4k"])).refuses(2, &["8k"]);
    run(convert([&raw, &target]).args(["--cluster-size", "512"])).refuses(2, &["8k"]);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn eleven_bytes_in_fifteen_tebibytes_are_no_work() {
    let folder = tempfile::tempdir().unwrap();
    let memory = in_memory();
    let raw = sparse(folder.path(), 15 << 40).or_else(|_| sparse(memory.path(), 15 << 40)).unwrap();
    let file = File::options().write(true).open(&raw).unwrap();
    let places = (0..11u64).map(|index| (index * (15 << 40) / 11 + index * 7919).min((15 << 40) - 1));
    let bytes: Vec<(u64, u8)> = places.map(|place| (place, 1 + (place % 251) as u8)).collect();
    for (place, byte) in &bytes {
        file.write_all_at(&[*byte], *place).unwrap();
    }
    let target = folder.path().join("t");
    let ran = run(convert([&raw, &target]).args(["--cluster-size", "2M"])).ok();
    println!("15 TiB: {:.2} s, {} MiB peak", ran.wall.as_secs_f64(), ran.peak_rss_bytes / MIB);
    assert!(ran.peak_rss_bytes <= 256 * MIB, "{}", ran.peak_rss_bytes);
    check(&target);
    // Every byte where it was; that all else is zero is in the map.
    let mut read = Command::new("qemu-io");
    read.args(["-r", "-f", "qcow2"]).arg(&target);
    for (place, byte) in &bytes {
        read.args(["-c", &format!("read -P {byte} {place} 1")]);
    }
    let answer = read.output().expect("qemu-io, of Debian's qemu-utils");
    let text = String::from_utf8_lossy(&answer.stdout);
    assert!(answer.status.success() && !text.contains("failed"), "{text}");
    let map =
        Command::new("qemu-img").args(["map", "--output=json", "-f", "qcow2"]).arg(&target).output().unwrap();
    let map: Vec<Value> = serde_json::from_slice(&map.stdout).unwrap();
    let data: u64 =
        map.iter().filter(|part| part["data"] == true).map(|part| part["length"].as_u64().unwrap()).sum();
    assert_eq!(data, 11 << 21);
}
