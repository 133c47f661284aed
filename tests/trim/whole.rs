//! Whole disks, aged by writing and deleting: what is left of them after `--trim`, against `fstrim` on a copy.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use snapcow::hash::{Algorithm, Hasher};

use crate::disk::Loop;
use crate::disk::volumes::lvm;
use crate::lab::disk::Noise;
use crate::tools::{Mounted, feed, ready, run, snapcow, try_run};

const MIB: u64 = 1 << 20;
/// Where the filesystem of a disk begins.
const START: u64 = 8 * MIB;
const FS_BYTES: u64 = 700 * MIB;

/// What a disk is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Ext4,
    Xfs,
    /// ext4 in LVM.
    Lvm,
}

pub struct Scene {
    folder: tempfile::TempDir,
    kind: Kind,
    /// Where the filesystem begins on the disk.
    start: u64,
    files: BTreeMap<OsString, String>,
}

impl Scene {
    /// A disk with a partition table, a boot partition of noise, and an aged filesystem.
    pub fn new(kind: Kind) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (fs, disk) = (folder.path().join("fs"), folder.path().join("disk"));
        File::create(&fs).unwrap().set_len(FS_BYTES).unwrap();
        let mkfs = if kind == Kind::Xfs { "mkfs.xfs -q -f" } else { "mkfs.ext4 -q -F" };
        run(&format!("{mkfs} {}", fs.display()));
        let mut scene = Self { folder, kind, start: START, files: BTreeMap::new() };
        {
            let mounted = Mounted::new(&fs, &scene.path("mounted"), "rw");
            age(&mounted.0);
            scene.files = hashes(&mounted.0);
        }
        let file = File::create(&disk).unwrap();
        file.set_len(START + FS_BYTES + 64 * MIB).unwrap();
        let kind_of_partition = if kind == Kind::Lvm { "E6D6D379-F507-44C2-A23C-238F2A3DF928" } else { "L" };
        scene.partition(kind_of_partition);
        file.write_all_at(&Noise(5).bytes(MIB), 2 * MIB).unwrap();
        if kind == Kind::Lvm {
            scene.start += scene.logical_volume();
        }
        let (from, to) = (fs.display(), disk.display());
        run(&format!(
            "dd if={from} of={to} bs=1M seek={} oflag=seek_bytes conv=notrunc,sparse status=none",
            scene.start
        ));
        fs::remove_file(&fs).unwrap();
        scene
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn partition(&self, kind: &str) {
        let script = format!(
            "label: gpt\nstart=2MiB, size=1MiB, type=21686148-6449-6E6F-744E-656564454649\nstart=8MiB, size={}MiB, type={kind}\n",
            (FS_BYTES + 32 * MIB) / MIB
        );
        feed("sfdisk -q", &self.path("disk"), &script);
    }

    /// Makes the second partition a physical volume with one logical volume; where that begins in the partition.
    fn logical_volume(&self) -> u64 {
        let device = Loop::new(&self.path("disk"), START, FS_BYTES + 32 * MIB, 512);
        let devices = [&device];
        lvm(&devices, &format!("pvcreate -y {}", device.0));
        lvm(&devices, &format!("vgcreate vg0 {}", device.0));
        lvm(&devices, &format!("lvcreate -an -Zn -Wn -y -n root -L {}m vg0", FS_BYTES / MIB));
        let start = lvm(&devices, "pvs --noheadings --nosuffix --units b -o pe_start");
        start.trim().parse().unwrap()
    }

    /// The filesystem of a raw disk, mounted.
    fn mounted(&self, disk: &Path, options: &str) -> Mounted {
        Mounted::new(
            disk,
            &self.path("mounted"),
            &format!("{options},offset={},sizelimit={FS_BYTES}", self.start),
        )
    }

    /// The filesystem of a raw disk has no fault, by its own tool, and all files as they were.
    #[track_caller]
    fn is_whole(&self, disk: &Path) {
        let fs = self.path("fs-again");
        run(&format!(
            "dd if={} of={} bs=1M skip={} count={FS_BYTES} iflag=skip_bytes,count_bytes conv=sparse status=none",
            disk.display(),
            fs.display(),
            self.start
        ));
        match self.kind {
            Kind::Xfs => run(&format!("xfs_repair -n {}", fs.display())),
            Kind::Ext4 | Kind::Lvm => run(&format!("e2fsck -fn {}", fs.display())),
        };
        fs::remove_file(&fs).unwrap();
        let read_only = if self.kind == Kind::Xfs { "ro,norecovery,nouuid" } else { "ro,noload" };
        let mounted = self.mounted(disk, read_only);
        assert!(hashes(&mounted.0) == self.files, "{:?}: other files", self.kind);
    }
}

/// Files of this machine and noise, of which a good part is deleted again.
fn age(root: &Path) {
    let mut noise = Noise(11);
    for index in 0..60u64 {
        let folder = root.join(format!("folder-{}", index % 7));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(format!("noise-{index}")), noise.bytes(5 * MIB + index * 4321)).unwrap();
        for small in 0..40u64 {
            let text = format!("file {small} of {index}\n").repeat(30 + (small * 37 % 400) as usize);
            fs::write(folder.join(format!("text-{index}-{small}")), text).unwrap();
        }
        run("sync");
    }
    for index in (0..60u64).filter(|index| index % 3 != 0) {
        let folder = root.join(format!("folder-{}", index % 7));
        fs::remove_file(folder.join(format!("noise-{index}"))).unwrap();
        for small in (0..40u64).filter(|small| small % 4 != 1) {
            fs::remove_file(folder.join(format!("text-{index}-{small}"))).unwrap();
        }
    }
}

/// All files below a folder, with their hashes.
fn hashes(root: &Path) -> BTreeMap<OsString, String> {
    let mut found = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                folders.push(path);
            } else {
                let mut hasher = Hasher::new(Algorithm::Sha256);
                hasher.update(&fs::read(&path).unwrap());
                found.insert(path.strip_prefix(root).unwrap().as_os_str().to_owned(), hasher.finish().hex);
            }
        }
    }
    found
}

fn len(path: &Path) -> u64 {
    path.metadata().unwrap().len()
}

fn as_small_as_after_fstrim(kind: Kind) {
    let mut tools =
        vec!["mount", "mkfs.ext4", "e2fsck", "mkfs.xfs", "xfs_repair", "sfdisk", "fstrim", "qemu-img"];
    if kind == Kind::Lvm {
        tools.extend(["losetup", "pvcreate", "lvcreate"]);
    }
    if !ready(&tools) {
        return;
    }
    let scene = Scene::new(kind);
    let (disk, image, raw) = (scene.path("disk"), scene.path("trimmed.qcow2"), scene.path("back.raw"));
    let words =
        |from: &Path, to: &Path| format!("convert --compression zstd {} {}", from.display(), to.display());
    let said = snapcow(&format!("{} --trim", words(&disk, &image)));
    run(&format!("qemu-img check -q {}", image.display()));
    snapcow(&format!("verify --trimmed {} {}", disk.display(), image.display()));
    run(&format!("qemu-img convert -O raw {} {}", image.display(), raw.display()));
    scene.is_whole(&raw);
    fs::remove_file(&raw).unwrap();

    let (plain, copy) = (scene.path("plain.qcow2"), scene.path("copy"));
    snapcow(&words(&disk, &plain));
    run(&format!("cp --sparse=always {} {}", disk.display(), copy.display()));
    {
        let mounted = scene.mounted(&copy, "rw");
        run(&format!("fstrim {}", mounted.0.display()));
    }
    let yardstick = scene.path("yardstick.qcow2");
    snapcow(&words(&copy, &yardstick));
    let (trimmed, after_fstrim, untrimmed) = (len(&image), len(&yardstick), len(&plain));
    eprintln!("{kind:?}: {untrimmed} bytes, after fstrim {after_fstrim}, by --trim {trimmed}");
    assert!(trimmed as f64 <= after_fstrim as f64 * 1.05, "{trimmed} of {after_fstrim}: {said}");
    // The yardstick is one only if there was something to trim.
    assert!(untrimmed as f64 > after_fstrim as f64 * 2.0, "{untrimmed} of {after_fstrim}");
    // That all is equal would mean that nothing was there to be left out.
    let differs =
        try_run(&format!("{} verify {} {}", env!("CARGO_BIN_EXE_snapcow"), disk.display(), image.display()));
    assert_eq!(differs.status.code(), Some(10), "{differs:?}");
}

#[test]
fn ext4_becomes_as_small_as_after_fstrim() {
    as_small_as_after_fstrim(Kind::Ext4);
}

#[test]
fn xfs_becomes_as_small_as_after_fstrim() {
    as_small_as_after_fstrim(Kind::Xfs);
}

#[test]
fn lvm_becomes_as_small_as_after_fstrim() {
    as_small_as_after_fstrim(Kind::Lvm);
}
