//! `snapcow download`, against an in-process Glance whose faults come when they are wanted, and against the real one
//! of `tools/openstack`.

mod breaks;
mod files;
mod real;

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Map, Value};
use snapcow::embedded::{EmbeddedGlance, EmbeddedOptions, Faults, ImageSpec, SeedHash};

use crate::lab::command::{Ran, run, snapcow};
use crate::lab::disk::Noise;

const MIB: usize = 1 << 20;

/// A Glance of one's own, with a disk of noise and zeros as a raw and as a qcow2 image, and a folder.
struct Bench {
    glance: EmbeddedGlance,
    folder: tempfile::TempDir,
    disk: Vec<u8>,
    qcow2: Vec<u8>,
}

/// Noise, zeros that fill no block, and an odd end; `mib` MiB, a third of it noise.
fn disk(mib: usize) -> Vec<u8> {
    let mut disk = vec![0; mib * MIB + 512];
    let mut noise = Noise(7);
    for start in (0..mib).step_by(3) {
        let at = start * MIB + 700 * (start % 5);
        disk[at..at + MIB].copy_from_slice(&noise.bytes(MIB as u64));
    }
    disk[mib * MIB + 511] = 9;
    disk
}

impl Bench {
    fn new(ranges: bool, faults: Faults, mib: usize) -> Self {
        let options = EmbeddedOptions { ranges, faults, ..EmbeddedOptions::default() };
        let folder = tempfile::tempdir().unwrap();
        let disk = disk(mib);
        let (raw, qcow2) = (folder.path().join("raw"), folder.path().join("qcow2"));
        std::fs::write(&raw, &disk).unwrap();
        let made =
            Command::new("qemu-img").args(["convert", "-c", "-O", "qcow2"]).args([&raw, &qcow2]).status();
        assert!(made.expect("qemu-img, of Debian's qemu-utils").success());
        let image = std::fs::read(&qcow2).unwrap();
        std::fs::remove_file(raw).unwrap();
        std::fs::remove_file(qcow2).unwrap();
        let bench = Self { glance: EmbeddedGlance::start(options).unwrap(), folder, disk, qcow2: image };
        bench.seed("snapshot", "raw", &bench.disk, SeedHash::Compute);
        bench.seed("compact", "qcow2", &bench.qcow2, SeedHash::Compute);
        bench
    }

    fn seed(&self, name: &str, disk_format: &str, data: &[u8], hash: SeedHash) -> String {
        let mut attributes = Map::new();
        attributes.insert("disk_format".into(), Value::from(disk_format));
        let data = Arc::new(Bytes::copy_from_slice(data));
        self.glance.seed(ImageSpec { name: name.into(), attributes, hash, data })
    }

    /// The command in the folder, logged in; a try that fails is soon made again.
    fn download(&self, words: &[&str]) -> Command {
        let mut command = snapcow([&["download"], words].concat());
        command.current_dir(self.folder.path()).env("TMPDIR", self.folder.path());
        command.env("OS_AUTH_TYPE", "admin_token").env("OS_TOKEN", self.glance.token());
        command.env("OS_ENDPOINT", self.glance.endpoint());
        command
    }

    fn ran(&self, words: &[&str]) -> Ran {
        run(&mut self.download(words))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The folder's files.
    fn names(&self) -> Vec<String> {
        names(self.folder.path())
    }

    /// The file is the disk, and takes no room for its zeros.
    #[track_caller]
    fn is_the_disk(&self, name: &str) {
        let path = self.path(name);
        assert!(std::fs::read(&path).unwrap() == self.disk, "{name} is not the disk");
        let allocated = path.metadata().unwrap().blocks() as usize * 512;
        assert!(allocated < self.disk.len() / 2, "{allocated} of {} bytes take room", self.disk.len());
    }
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// What stands on standard output, without the end of its line.
fn said(ran: &Ran) -> String {
    String::from_utf8(ran.stdout.clone()).unwrap().trim_end().to_owned()
}
