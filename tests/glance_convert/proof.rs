//! What an image must stand up to: the checks of QEMU, an independent reader.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;

use serde_json::Value;
use snapcow::hash::{Algorithm, Hasher};

use crate::lab::rest::Rest;

/// `qemu-img check`, and `qemu-img compare` with the raw disk.
#[track_caller]
pub fn equal(image: &Path, raw: &Path) {
    check(image);
    let mut compare = Command::new("qemu-img");
    compare.args(["compare", "-f", "qcow2", "-F", "raw"]).arg(image).arg(raw);
    let answer = compare.output().expect("qemu-img, of Debian's qemu-utils");
    assert!(answer.status.success(), "{answer:?}");
}

#[track_caller]
pub fn check(image: &Path) {
    let mut check = Command::new("qemu-img");
    check.args(["check", "-q", "-f", "qcow2"]).arg(image);
    let answer = check.output().expect("qemu-img, of Debian's qemu-utils");
    assert!(answer.status.success(), "{answer:?}");
}

/// The SHA-512 of a file: two files that have the same are the same.
pub fn sha512(path: &Path) -> String {
    let mut file = File::open(path).unwrap();
    let mut hasher = Hasher::new(Algorithm::Sha512);
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer).unwrap() {
            0 => return hasher.finish().hex,
            len => hasher.update(&buffer[..len]),
        }
    }
}

/// Downloads an image and proves it equal to the raw disk. Bytes that QEMU has seen already are not
/// shown to it again: the same hash is the same image.
#[track_caller]
pub fn image_equals(rest: &Rest, id: &str, raw: &Path) -> Value {
    static PROVEN: Mutex<Vec<(String, std::path::PathBuf)>> = Mutex::new(Vec::new());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("image.qcow2");
    let image = rest.show(id);
    rest.download(id, &file);
    let hash = sha512(&file);
    assert_eq!(
        (image["os_hash_algo"].as_str(), image["os_hash_value"].as_str()),
        (Some("sha512"), Some(hash.as_str()))
    );
    assert_eq!((&image["status"], &image["disk_format"]), (&"active".into(), &"qcow2".into()));
    assert_eq!(image["size"], file.metadata().unwrap().len());
    let known = (hash, raw.to_owned());
    if !PROVEN.lock().unwrap().contains(&known) {
        equal(&file, raw);
        PROVEN.lock().unwrap().push(known);
    }
    image
}

#[test]
fn the_shared_disk_is_what_the_tests_take_it_for() {
    use std::os::unix::fs::{FileExt, MetadataExt};

    use crate::lab::disk::{PARTITION_START, disk};

    let Some(lab) = crate::lab::lab() else { return };
    let disk = disk(&lab);
    let file = std::fs::File::open(&disk.raw).unwrap();
    let mut magic = [0; 2];
    // The superblock's magic number, 0x38 behind its beginning at 1024.
    file.read_exact_at(&mut magic, PARTITION_START + 1024 + 0x38).unwrap();
    assert_eq!(u16::from_le_bytes(magic), 0xef53);
    let data = file.metadata().unwrap().blocks() * 512;
    // 15 % of content, and what the file system itself takes: inode tables and a journal.
    assert!((disk.len / 10..disk.len / 4).contains(&data), "{data} of {}", disk.len);
}
