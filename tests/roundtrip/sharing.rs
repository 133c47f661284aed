//! File systems that let two files have blocks in common: a plain image costs them no space, and is no less
//! an image of its own.

use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use super::common::{disks, oracles};
use super::{Compression, FileSource, How, USUAL, to_file};

/// A file system of its own in a file, unmounted when dropped.
struct Mounted(tempfile::TempDir);

impl Mounted {
    /// `None`, loudly, where that is not permitted here; where it is, it must work if it is required.
    fn new(kind: &str) -> Option<Self> {
        let folder = tempfile::tempdir_in("/var/tmp").unwrap();
        let (image, place) = (folder.path().join("image"), folder.path().join("mounted"));
        std::fs::File::create(&image).unwrap().set_len(512 << 20).unwrap();
        std::fs::create_dir(&place).unwrap();
        let mkfs = command(&format!("mkfs.{kind}")).arg("-q").arg(&image).output();
        let mounted = mkfs
            .as_ref()
            .is_ok_and(|made| made.status.success())
            .then(|| command("mount").args(["-o", "loop", "-t", kind]).args([&image, &place]).output());
        if let Some(Ok(answer)) = &mounted
            && answer.status.success()
        {
            return Some(Self(folder));
        }
        let possible = Path::new("/dev/loop-control").exists() && rustix::process::geteuid().is_root();
        assert!(!(oracles::is_required() && possible), "{kind}: {mkfs:?}, {mounted:?}");
        eprintln!("SKIPPED: no {kind} to be had here (mkfs.{kind}, mount, root)");
        None
    }

    fn place(&self) -> std::path::PathBuf {
        self.0.path().join("mounted")
    }

    fn free_bytes(&self) -> u64 {
        command("sync").arg("-f").arg(self.place()).status().unwrap();
        let statfs = rustix::fs::statvfs(self.place()).unwrap();
        statfs.f_bfree * statfs.f_frsize
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = command("umount").arg(self.place()).status();
    }
}

fn command(name: &str) -> Command {
    let mut command = Command::new(name);
    command.env("PATH", format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default()));
    command
}

fn shares_on(kind: &str) {
    let Some(mounted) = Mounted::new(kind) else { return };
    let (raw, image) = (mounted.place().join("raw"), mounted.place().join("image.qcow2"));
    // Data at odd places, noise that fills whole chunks, and an end within a block.
    let mut disk = disks::mixed(11, 20 << 20);
    disk.extend(disks::noise(12, (40 << 20) + 12_345));
    disks::write_sparse(&raw, &disk);
    let before = mounted.free_bytes();
    let how = How { compression: Compression::None, ..USUAL };
    let open = || Arc::new(FileSource::open(&raw, true).unwrap());
    let shared = to_file(open(), &image, how).shared_bytes;
    let cost = before.saturating_sub(mounted.free_bytes());
    assert!(shared > 40 << 20, "{kind}: {shared} bytes are shared");
    assert!(cost < 20 << 20, "{kind}: {cost} bytes of new blocks");
    oracles::qemu_img_agrees(&raw, &image, kind);
    oracles::imago_agrees(&disk, &image, kind);

    // Who writes to the source afterwards writes to blocks of its own.
    let source = std::fs::File::options().write(true).open(&raw).unwrap();
    source.write_all_at(&disks::noise(13, 8 << 20), 30 << 20).unwrap();
    source.sync_all().unwrap();
    oracles::imago_agrees(&disk, &image, kind);

    // Clusters smaller than a block cannot be shared.
    std::fs::remove_file(&image).unwrap();
    source.write_all_at(&disk[30 << 20..38 << 20], 30 << 20).unwrap();
    assert_eq!(to_file(open(), &image, How { cluster_bytes: 2048, ..how }).shared_bytes, 0);
    oracles::imago_agrees(&disk, &image, kind);
}

#[test]
fn xfs() {
    shares_on("xfs");
}

#[test]
fn btrfs() {
    shares_on("btrfs");
}
