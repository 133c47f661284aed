//! What is saved, and under which name.

use std::fs::File;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use serde_json::Value;
use snapcow::embedded::{Faults, SeedHash};

use super::{Bench, MIB, said};
use crate::lab::command::start;
use crate::lab::machine::{SYS_ADMIN, has_capability, left_out};

#[test]
fn raw_and_qcow2_images_are_saved_as_they_are_or_expanded() {
    for ranges in [true, false] {
        let bench = Bench::new(ranges, Faults::default(), 12);
        let ran = bench.ran(&["snapshot"]).ok();
        assert_eq!(said(&ran), "snapshot.raw");
        assert!(ran.stderr.contains("the one that Glance keeps"), "{}", ran.stderr);
        bench.is_the_disk("snapshot.raw");
        assert_eq!(bench.path("snapshot.raw").metadata().unwrap().permissions().mode() & 0o400, 0o400);
        bench.ran(&["glance:compact", "a.qcow2"]).ok();
        assert!(std::fs::read(bench.path("a.qcow2")).unwrap() == bench.qcow2);
        let ran = bench.ran(&["compact", "--to", "raw", "--threads", "3"]).ok();
        assert_eq!(said(&ran), "compact.raw");
        bench.is_the_disk("compact.raw");
        // A raw image is raw already.
        bench.ran(&["snapshot", "--to", "raw", "b.raw"]).ok();
        bench.is_the_disk("b.raw");
        assert_eq!(bench.names(), ["a.qcow2", "b.raw", "compact.raw", "snapshot.raw"]);
    }
}

#[test]
fn standard_output_gets_the_bytes_and_nothing_else() {
    let bench = Bench::new(false, Faults::default(), 9);
    for words in [&["snapshot", "-"][..], &["compact", "-", "--to", "raw"]] {
        let ran = bench.ran(words).ok();
        assert!(ran.stdout == bench.disk, "{words:?}");
    }
    assert!(bench.names().is_empty());
    bench.ran(&["snapshot", "-", "--json"]).refuses(2, &["--json"]);
}

#[test]
fn the_result_as_json_says_what_was_proved() {
    let bench = Bench::new(true, Faults::default(), 9);
    let json = |words: &[&str]| -> Value { serde_json::from_slice(&bench.ran(words).ok().stdout).unwrap() };
    let result = json(&["compact", "--to", "raw", "--json"]);
    assert_eq!(result["schema"], "snapcow/download/1");
    assert_eq!(result["path"], "compact.raw");
    assert_eq!((&result["verified"], &result["unverified"]), (&true.into(), &Value::Null));
    assert_eq!(result["image_bytes"], bench.qcow2.len());
    assert_eq!(
        (&result["virtual_size_bytes"], &result["file_bytes"]),
        (&bench.disk.len().into(), &bench.disk.len().into())
    );
    assert_eq!(result["digest"]["hex"], result["image"]["os_hash_value"]);
    bench.seed("unhashed", "raw", &bench.disk, SeedHash::Missing);
    let ran = bench.ran(&["unhashed", "--json"]).ok();
    let result: Value = serde_json::from_slice(&ran.stdout).unwrap();
    assert_eq!(result["verified"], false);
    assert!(result["unverified"].as_str().unwrap().contains("no hash"), "{result}");
    assert!(
        ran.stderr.contains("cannot be verified") && ran.stderr.contains("NOT verified"),
        "{}",
        ran.stderr
    );
    bench.is_the_disk("unhashed.raw");
}

#[test]
fn a_folder_gets_the_file_and_a_wild_name_stays_in_it() {
    let bench = Bench::new(true, Faults::default(), 3);
    std::fs::create_dir(bench.path("images")).unwrap();
    let wild = bench.seed("../../\u{1b}[2Jevil", "raw", &bench.disk, SeedHash::Compute);
    let ran = bench.ran(&[&wild, "images"]).ok();
    assert_eq!(said(&ran), "images/_.._\u{fffd}[2Jevil.raw".replace('\u{fffd}', "_"));
    assert_eq!(bench.names(), ["images"]);
}

#[test]
fn what_is_there_is_replaced_only_when_asked() {
    let bench = Bench::new(true, Faults::default(), 3);
    std::fs::write(bench.path("a"), b"old").unwrap();
    bench.ran(&["snapshot", "a"]).refuses(6, &["`a` exists already", "--force"]);
    assert_eq!(std::fs::read(bench.path("a")).unwrap(), b"old");
    bench.ran(&["snapshot", "a", "--force"]).ok();
    bench.is_the_disk("a");
    assert_eq!(bench.names(), ["a"]);
}

#[test]
fn what_cannot_be_downloaded_is_refused_with_a_sentence() {
    let bench = Bench::new(true, Faults::default(), 3);
    bench.seed("twice", "raw", &bench.disk, SeedHash::Missing);
    bench.seed("twice", "raw", &bench.disk, SeedHash::Missing);
    bench.seed("disc", "iso", &bench.disk, SeedHash::Compute);
    bench.seed("no qcow2", "qcow2", &bench.disk, SeedHash::Compute);
    bench.ran(&["nobody"]).refuses(3, &["nobody"]);
    bench.ran(&["twice"]).refuses(3, &["names 2 images"]);
    bench.ran(&["disc", "--to", "raw"]).refuses(3, &["iso", "only qcow2 is expanded"]);
    bench.ran(&["no qcow2", "--to", "raw"]).refuses(3, &["no qcow2", "is not a qcow2 image"]);
    bench.ran(&["snapshot", "glance:b"]).refuses(2, &["no file"]);
    bench.ran(&["snapshot", "/nonexistent/a"]).refuses(7, &["/nonexistent/a"]);
    assert!(bench.names().is_empty());
    // As it is, anything can be saved.
    bench.ran(&["disc"]).ok();
    assert_eq!(bench.names(), ["disc.iso"]);
}

#[test]
fn nobody_reads_standard_output_any_more() {
    let bench = Bench::new(true, Faults::default(), 9);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let ran = start(bench.download(&["snapshot", "-"]).stdout(writer)).finish().exits(141);
    assert!(ran.stderr.is_empty(), "{}", ran.stderr);
    // The file is whole; only nobody hears of it.
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    start(bench.download(&["snapshot"]).stdout(writer)).finish().exits(141);
    bench.is_the_disk("snapshot.raw");
    let full = File::options().write(true).open("/dev/full").unwrap();
    let ran = start(bench.download(&["snapshot", "-"]).stdout(Stdio::from(full))).finish();
    ran.refuses(7, &["standard output", "No space left"]);
}

/// A file system of a few MiB in memory.
struct Small(tempfile::TempDir);

impl Small {
    fn new(mib: usize) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let size = format!("size={mib}m");
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(folder.path()).output();
        match mounted {
            Ok(answer) if answer.status.success() => Some(Self(folder)),
            other => {
                left_out(&format!("a small tmpfs: {other:?}"), has_capability(SYS_ADMIN));
                None
            }
        }
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}

#[test]
fn a_full_disk_is_told_and_what_came_so_far_is_of_use() {
    let bench = Bench::new(true, Faults::default(), 30);
    // The disk has 10 MiB that are no zeros, its qcow2 image as many.
    let Some(small) = Small::new(4) else { return };
    let to = |name: &str| small.0.path().join(name).to_str().unwrap().to_owned();
    bench.ran(&["compact", &to("a")]).refuses(7, &["are needed", "are free"]);
    assert!(super::names(small.0.path()).is_empty());
    let ran =
        bench.ran(&["snapshot", &to("b")]).refuses(7, &["No space left", "free some space", "are kept in"]);
    assert!(ran.stderr.contains("zeros take no room"), "{}", ran.stderr);
    assert_eq!(super::names(small.0.path()), ["b.snapcow-part", "b.snapcow-part.txt"]);
    // Nothing is kept where nothing is wanted.
    bench.ran(&["snapshot", &to("b"), "--no-resume"]).refuses(7, &["No space left"]);
    assert!(super::names(small.0.path()).is_empty());
    let Some(enough) = Small::new(13) else { return };
    let to = |name: &str| enough.0.path().join(name).to_str().unwrap().to_owned();
    // The zeros of the raw disk take no room; beside its qcow2 image it does not fit.
    bench.ran(&["snapshot", &to("a")]).ok();
    std::fs::remove_file(to("a")).unwrap();
    bench.ran(&["compact", &to("a"), "--to", "raw"]).refuses(7, &["No space left", "are kept in"]);
    assert_eq!(super::names(enough.0.path()), ["a.snapcow-part", "a.snapcow-part.txt"]);
    assert!(std::fs::metadata(to("a.snapcow-part")).unwrap().len() > 9 * MIB as u64);
}

#[test]
fn a_rehearsal_says_what_would_be_done_and_does_nothing() {
    let bench = Bench::new(true, Faults::default(), 3);
    std::fs::write(bench.path("a.snapcow-part"), vec![1; MIB]).unwrap();
    let ran = bench.ran(&["compact", "a", "--to", "raw", "--dry-run"]).ok();
    let said = said(&ran);
    for words in [
        "compact",
        "ranges, by up to 4",
        "against the sha512",
        "expanded",
        "1 MiB of an earlier run",
        "are free",
    ] {
        assert!(said.contains(words), "no «{words}» in {said}");
    }
    assert_eq!(bench.names(), ["a.snapcow-part"]);
    let ran = bench.ran(&["snapshot", "-", "--dry-run"]).ok();
    assert!(super::said(&ran).contains("standard output") && ran.stdout.len() < 1000);
}
