//! `check` and `verify` as commands: exit codes, both outputs, every kind of operand.

use std::io::{Seek, SeekFrom, Write};
use std::path::PathBuf;

use crate::anatomy::{Anatomy, put_u16, u64_at};
use crate::common::disks;
use crate::tools::{convert, snapcow, snapcow_reading, text};

const MIB: usize = 1 << 20;

/// A disk, raw and converted.
struct Pair {
    folder: tempfile::TempDir,
    disk: Vec<u8>,
}

impl Pair {
    fn new(disk: Vec<u8>, options: &[&str]) -> Self {
        let pair = Self { folder: tempfile::tempdir().unwrap(), disk };
        disks::write_sparse(&pair.raw(), &pair.disk);
        convert(&pair.raw(), &pair.image(), options);
        pair
    }

    fn raw(&self) -> PathBuf {
        self.folder.path().join("disk.raw")
    }

    fn image(&self) -> PathBuf {
        self.folder.path().join("disk.qcow2")
    }
}

#[test]
fn check_tells_by_exit_code_text_and_json() {
    let pair = Pair::new(disks::mixed(1, 2 * MIB), &[]);
    let image = pair.image();
    let ran = snapcow(&["check", text(&image)]).exits(0);
    assert!(ran.stdout.ends_with("no errors, no leaks\n"), "{}", ran.stdout);
    assert_eq!(snapcow(&["check", "--quiet", text(&image)]).exits(0).stdout, "");
    let json = snapcow(&["check", "--json", "--decode", text(&image)]).exits(0).json();
    assert_eq!((&json["outcome"], &json["exit_code"]), (&"clean".into(), &0.into()));
    assert_eq!(json["facts"]["virtual_size_bytes"], 2 * MIB);
    assert_eq!(json["facts"]["decoded_clusters"], json["facts"]["compressed_clusters"]);
    assert_eq!(json["file_bytes"], image.metadata().unwrap().len());

    let good = std::fs::read(&image).unwrap();
    let anatomy = Anatomy::of(&good);
    let mut leaky = good.clone();
    put_u16(&mut leaky, anatomy.refcount_of(anatomy.l1), 2);
    std::fs::write(&image, &leaky).unwrap();
    let ran = snapcow(&["check", text(&image)]).exits(12);
    assert!(ran.stdout.starts_with("leak: ") && ran.stderr.contains("its data are sound"), "{ran:?}");
    let json = snapcow(&["check", "--json", text(&image)]).exits(12).json();
    assert_eq!(
        (&json["outcome"], &json["leaks"], &json["errors"]),
        (&"image_leaks".into(), &1.into(), &0.into())
    );

    let mut damaged = leaky;
    put_u16(&mut damaged, anatomy.refcount_of(0), 0);
    std::fs::write(&image, &damaged).unwrap();
    let json = snapcow(&["check", "--json", text(&image)]).exits(11).json();
    assert_eq!((&json["outcome"], &json["counts"]["refcount_too_low"]), (&"image_damaged".into(), &1.into()));
    assert_eq!(json["findings"].as_array().unwrap().len(), 2);
    assert_eq!(json["findings"][0]["host_offset"], 0);

    // A table whose many findings are not all shown.
    let mut ruined = good;
    let table = (u64_at(&ruined, anatomy.l1_entries[0]) & snapcow::qcow2::entry::OFFSET) as usize;
    ruined[table..table + anatomy.cluster].fill(0x55);
    std::fs::write(&image, ruined).unwrap();
    let ran = snapcow(&["check", text(&image)]).exits(11);
    assert!(ran.stdout.contains(" more of "), "{}", ran.stdout);
    assert!(ran.stdout.lines().count() < 1000);
}

#[test]
fn what_cannot_be_checked_is_refused() {
    let pair = Pair::new(disks::mixed(2, MIB), &[]);
    let (raw, image) = (pair.raw(), pair.image());
    let ran = snapcow(&["check", text(&raw)]).exits(3);
    assert!(ran.stderr.contains("is not a qcow2 image"), "{}", ran.stderr);
    snapcow(&["check", "/nonexistent/image"]).exits(3);
    snapcow(&["check", "-"]).exits(2);
    let ran = snapcow(&["check", "--memory", "4", text(&image)]).exits(7);
    assert!(ran.stderr.contains("--memory"), "{}", ran.stderr);
}

/// The refcounts of a file of 16 TiB are walked with 1 byte a cluster; with less it is refused.
#[test]
fn a_file_of_16_tib_is_checked_in_bounded_memory() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("huge.qcow2");
    let pair = Pair::new(disks::mixed(3, MIB), &[]);
    std::fs::copy(pair.image(), &image).unwrap();
    let file = std::fs::File::options().write(true).open(&image).unwrap();
    // Just below the largest file of ext4.
    if file.set_len((16 << 40) - (1 << 20)).is_err() {
        eprintln!("SKIPPED: no file of 16 TiB here");
        return;
    }
    let ran = snapcow(&["check", text(&image), "--memory", "255MiB"]).exits(7);
    assert!(ran.stderr.contains("host clusters"), "{}", ran.stderr);
    let begin = std::time::Instant::now();
    let json = snapcow(&["check", "--json", text(&image)]).exits(0).json();
    assert_eq!((&json["notes"], &json["errors"]), (&1.into(), &0.into()));
    assert!(begin.elapsed().as_secs() < 60, "{:?}", begin.elapsed());
}

#[test]
fn verify_compares_every_kind_of_operand() {
    let disk = disks::mixed(4, 3 * MIB + 700);
    let pair = Pair::new(disk.clone(), &["--cluster-size", "4k"]);
    let zstd = pair.folder.path().join("zstd.qcow2");
    convert(&pair.raw(), &zstd, &["--compression", "zstd"]);
    let (raw, image, zstd) = (pair.raw(), pair.image(), zstd);
    let (raw, image, zstd) = (text(&raw), text(&image), text(&zstd));
    for (a, b) in [(raw, image), (image, raw), (image, zstd), (raw, raw), (zstd, zstd)] {
        let ran = snapcow(&["verify", a, b]).exits(0);
        assert!(ran.stdout.starts_with("equal: "), "{}", ran.stdout);
    }
    for words in [["verify", "-", image], ["verify", zstd, "-"], ["verify", raw, "-"]] {
        snapcow_reading(&words, &disk).exits(0);
        let json = snapcow_reading(&[&words[..], &["--json"]].concat(), &disk[..MIB]).exits(10).json();
        assert_eq!((&json["outcome"], &json["first_difference"]), (&"differs".into(), &MIB.into()));
        let mut longer = disk.clone();
        longer.resize(4 * MIB, 0);
        let json = snapcow_reading(&[&words[..], &["--json"]].concat(), &longer).exits(10).json();
        assert_eq!(json["first_difference"], disk.len().next_multiple_of(512));
    }
    let at = 2 * MIB + 12_345;
    let mut file = std::fs::File::options().write(true).open(pair.raw()).unwrap();
    file.seek(SeekFrom::Start(at as u64)).unwrap();
    file.write_all(&[!disk[at]]).unwrap();
    drop(file);
    for (a, b) in [(raw, image), (zstd, raw)] {
        let ran = snapcow(&["verify", a, b]).exits(10);
        assert!(ran.stderr.contains(&format!("guest offset {at}")), "{}", ran.stderr);
        let json = snapcow(&["verify", "--json", a, b]).exits(10).json();
        assert_eq!((&json["first_difference"], &json["is_equal"]), (&at.into(), &false.into()));
    }
    // What is an image to one is a raw disk to another.
    snapcow(&["verify", image, image, "-f", "raw", "-F", "raw"]).exits(0);
    snapcow(&["verify", image, image, "-f", "raw"]).exits(10);
    snapcow(&["verify", raw, raw, "-f", "qcow2"]).exits(3);
    snapcow(&["verify", "-", "-"]).exits(2);
    snapcow(&["verify", "-", raw, "-f", "qcow2"]).exits(2);
    let bytes = std::fs::read(image).unwrap();
    let ran = snapcow_reading(&["verify", "-", image], &bytes).exits(3);
    assert!(ran.stderr.contains("begins like a qcow2 image"), "{}", ran.stderr);
    snapcow_reading(&["verify", "-", image, "-f", "raw", "-F", "raw"], &bytes).exits(0);
}

/// A disk of 8 TiB with a little in it: holes of both are not read, or this would take hours.
#[test]
fn holes_are_not_read() {
    let folder = tempfile::tempdir().unwrap();
    let (raw, image) = (folder.path().join("disk.raw"), folder.path().join("disk.qcow2"));
    let mut file = std::fs::File::create(&raw).unwrap();
    file.set_len(8 << 40).unwrap();
    for at in [0, 5 << 40, (8 << 40) - 700] {
        file.seek(SeekFrom::Start(at)).unwrap();
        file.write_all(&disks::noise(at, 700)).unwrap();
    }
    convert(&raw, &image, &["--cluster-size", "2M"]);
    let begin = std::time::Instant::now();
    let json = snapcow(&["verify", "--json", text(&raw), text(&image)]).exits(0).json();
    assert!(json["compared_bytes"].as_u64().unwrap() <= 6 * MIB as u64, "{json}");
    snapcow(&["verify", text(&image), text(&image)]).exits(0);
    file.seek(SeekFrom::Start(3 << 40)).unwrap();
    file.write_all(&[1]).unwrap();
    let json = snapcow(&["verify", "--json", text(&image), text(&raw)]).exits(10).json();
    assert_eq!(json["first_difference"], 3u64 << 40);
    assert!(begin.elapsed().as_secs() < 60, "{:?}", begin.elapsed());
}
