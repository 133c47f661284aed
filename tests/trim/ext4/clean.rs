//! Cleanly unmounted ext2, ext3 and ext4 over the matrix of features: what is said to be free is what `dumpe2fs` says.

use std::fs::File;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use snapcow::error::Result;
use snapcow::free::Disk;

use super::{
    FileDisk, LIMITS, Mounted, age, freed, freed_of, is_within, oracle, overwrite, ready, run, tree, try_run,
};

/// Name, MiB, options of `mke2fs`.
const MATRIX: &[(&str, u64, &str)] = &[
    ("default", 300, "-t ext4"),
    ("default1k", 100, "-t ext4 -b 1024"),
    ("default2k", 200, "-t ext4 -b 2048"),
    ("tiny", 8, "-t ext4"),
    ("odd", 131, "-t ext4 -b 4096 -g 8184"),
    ("last", 129, "-t ext4 -b 1024 -g 4096"),
    ("large", 20000, "-t ext4"),
    ("larger", 300000, "-t ext4 -O ^64bit"),
    ("ext2", 150, "-t ext2"),
    ("ext2-1k", 60, "-t ext2 -b 1024"),
    ("ext2-rev0", 60, "-t ext2 -r 0"),
    ("ext2-nosparse", 300, "-t ext2 -b 1024 -O ^sparse_super,^resize_inode"),
    ("ext3", 300, "-t ext3"),
    ("ext3-1k", 300, "-t ext3 -b 1024 -J size=80"),
    ("ext3-4k", 600, "-t ext3 -J size=128"),
    ("32bit", 300, "-t ext4 -O ^64bit"),
    ("nocsum", 300, "-t ext4 -O ^metadata_csum,^uninit_bg"),
    ("uninit", 1000, "-t ext4 -O ^metadata_csum,uninit_bg"),
    ("uninit32", 1000, "-t ext4 -O ^metadata_csum,uninit_bg,^64bit"),
    ("uninit1k", 400, "-t ext4 -b 1024 -O ^metadata_csum,uninit_bg,^64bit,^flex_bg"),
    ("seed", 300, "-t ext4 -O metadata_csum_seed"),
    ("noflex", 1000, "-t ext4 -O ^flex_bg"),
    ("flex2", 1000, "-t ext4 -G 2"),
    ("flex64", 3000, "-t ext4 -b 1024 -G 64"),
    ("flex1", 500, "-t ext4 -G 1"),
    ("metabg", 1000, "-t ext4 -O meta_bg,^resize_inode"),
    ("metabg1k", 1000, "-t ext4 -b 1024 -O meta_bg,^resize_inode"),
    ("metabg-noflex", 700, "-t ext4 -b 1024 -O meta_bg,^resize_inode,^flex_bg"),
    ("sparse2", 1000, "-t ext4 -O sparse_super2"),
    ("sparse2-one", 1000, "-t ext4 -O sparse_super2,^resize_inode -E num_backup_sb=1"),
    ("sparse2-none", 1000, "-t ext4 -O sparse_super2,^resize_inode -E num_backup_sb=0"),
    ("bigalloc", 1000, "-t ext4 -O bigalloc -C 65536"),
    ("bigalloc1k", 500, "-t ext4 -b 1024 -O bigalloc -C 16384"),
    ("bigalloc1k-metabg", 500, "-t ext4 -b 1024 -O bigalloc,meta_bg,^resize_inode -C 8192"),
    ("bigalloc-big", 3000, "-t ext4 -O bigalloc -C 1048576"),
    ("nojournal", 300, "-t ext4 -O ^has_journal"),
    ("journal", 600, "-t ext4 -J size=256"),
    ("inode128", 300, "-t ext4 -I 128"),
    ("inode1k", 300, "-t ext4 -I 1024"),
    ("many-inodes", 300, "-t ext4 -i 1024"),
    ("quota", 300, "-t ext4 -O quota,project"),
    ("orphan", 300, "-t ext4 -O orphan_file"),
    ("inline", 300, "-t ext4 -O inline_data,ea_inode,large_dir"),
    ("encrypt", 300, "-t ext4 -O encrypt,verity,stable_inodes"),
    ("casefold", 300, "-t ext4 -O casefold"),
    ("mmp", 300, "-t ext4 -O mmp"),
    ("fastcommit", 300, "-t ext4 -O fast_commit"),
    ("noextent", 300, "-t ext4 -O ^extent,^64bit"),
    ("lazy", 3000, "-t ext4 -E lazy_itable_init=1,lazy_journal_init=1"),
    ("eager", 1000, "-t ext4 -E lazy_itable_init=0,lazy_journal_init=0"),
    ("packed", 1000, "-t ext4 -E packed_meta_blocks=1"),
    ("resize", 500, "-t ext4 -E resize=100000000"),
];

fn check(image: &Path, name: &str) {
    let found = freed(image).unwrap_or_else(|reason| panic!("{name}: {reason}"));
    let (free, header) = oracle(image);
    let blocks: u64 = header["Block count"].parse().unwrap();
    let block: u64 = header["Block size"].parse().unwrap();
    assert_eq!(found.free.as_slice(), free, "{name}");
    assert_eq!(found.len, blocks * block, "{name}");
    assert_eq!(found.note, None, "{name}");
}

#[test]
fn what_is_free_is_what_dumpe2fs_says() {
    if !ready(&["mke2fs", "dumpe2fs", "e2fsck", "debugfs", "mount"]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (image, on) = (folder.path().join("image"), folder.path().join("on"));
    for (seed, (name, mib, options)) in MATRIX.iter().enumerate() {
        let _ = std::fs::remove_file(&image);
        File::create(&image).unwrap().set_len(mib << 20).unwrap();
        run(&format!("mke2fs -q -F {options} {}", image.display()));
        check(&image, name);
        let mount = try_run(&format!("mount -o loop {} {}", image.display(), make(&on).display()));
        if !mount.status.success() {
            eprintln!(
                "{name}: this kernel does not mount it: {}",
                String::from_utf8_lossy(&mount.stderr).trim()
            );
            continue;
        }
        let mounted = Mounted(on.clone());
        age(&on, (mib << 20).min(60 << 20) / 2, seed as u64);
        let before = tree(&on);
        mounted.end();
        check(&image, name);

        // What is in use does not depend on what is free, as `e2fsck` and all files say.
        let found = freed(&image).unwrap();
        if *mib <= 1000 {
            overwrite(&image, found.free.as_slice(), 0xa5);
        }
        run(&format!("e2fsck -fn {}", image.display()));
        let mounted = Mounted::new(&image, &on, "ro");
        assert_eq!(tree(&on), before, "{name}");
        mounted.end();
        check(&image, name);
        println!("{name}: {} of {} MiB free", found.free.bytes() >> 20, mib);
    }
}

fn make(folder: &Path) -> &Path {
    std::fs::create_dir_all(folder).unwrap();
    folder
}

#[test]
fn a_grown_filesystem_is_read_like_any_other() {
    if !ready(&["mke2fs", "dumpe2fs", "resize2fs", "mount"]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (image, on) = (folder.path().join("image"), folder.path().join("on"));
    for options in ["-t ext4", "-t ext4 -b 1024", "-t ext3", "-t ext4 -O meta_bg,^resize_inode"] {
        for is_online in [false, true] {
            let _ = std::fs::remove_file(&image);
            let file = File::create(&image).unwrap();
            file.set_len(200 << 20).unwrap();
            run(&format!("mke2fs -q -F {options} {}", image.display()));
            file.set_len(900 << 20).unwrap();
            if is_online {
                let mounted = Mounted::new(&image, &on, "rw");
                age(&on, 20 << 20, 3);
                let device = run(&format!("findmnt -no SOURCE {}", on.display()));
                let grown = try_run(&format!("resize2fs {}", device.trim()));
                let error = String::from_utf8_lossy(&grown.stderr);
                assert!(grown.status.success() || error.contains("Permission denied"), "{error}");
                age(&on, 30 << 20, 4);
                mounted.end();
            } else {
                run(&format!("e2fsck -fy {}", image.display()));
                run(&format!("resize2fs {}", image.display()));
            }
            check(&image, options);
        }
        run(&format!("e2fsck -fy {}", image.display()));
        run(&format!("resize2fs -M {}", image.display()));
        check(&image, options);
    }
}

#[test]
fn debugfs_says_bit_by_bit_the_same() {
    if !ready(&["mke2fs", "debugfs", "mount"]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (image, on) = (folder.path().join("image"), folder.path().join("on"));
    File::create(&image).unwrap().set_len(40 << 20).unwrap();
    run(&format!("mke2fs -q -F -t ext4 -b 4096 {}", image.display()));
    let mounted = Mounted::new(&image, &on, "rw");
    age(&on, 15 << 20, 11);
    mounted.end();
    let found = freed(&image).unwrap();
    let commands = folder.path().join("commands");
    std::fs::write(&commands, (1..10240).map(|block| format!("testb {block}\n")).collect::<String>())
        .unwrap();
    let text = run(&format!("debugfs -f {} {}", commands.display(), image.display()));
    let mut tested = 0;
    for line in text.lines().filter_map(|line| line.strip_prefix("Block ")) {
        let (block, rest) = line.split_once(' ').unwrap();
        let at = block.parse::<u64>().unwrap() * 4096;
        let range = at..at + 4096;
        let one = std::slice::from_ref(&range);
        assert_eq!(is_within(one, found.free.as_slice()), rest == "not in use", "{line}");
        tested += 1;
    }
    assert_eq!(tested, 10239);
}

#[test]
fn one_pass_over_the_disk_is_enough() {
    if !ready(&["mke2fs", "mount", "cp"]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (image, on, copy) =
        (folder.path().join("image"), folder.path().join("on"), folder.path().join("copy"));
    // The longest journal lies behind a block of extents, and only its first block is read.
    for (mib, options) in [(400, "-t ext4"), (100, "-t ext4 -b 1024"), (450, "-t ext4 -b 1024 -J size=160")] {
        let _ = std::fs::remove_file(&image);
        File::create(&image).unwrap().set_len(mib << 20).unwrap();
        run(&format!("mke2fs -q -F {options} {}", image.display()));
        let mounted = Mounted::new(&image, &on, "rw");
        age(&on, 40 << 20, 1);
        run(&format!("sync -f {}", on.display()));
        run(&format!("cp --sparse=always {} {}", image.display(), copy.display()));
        mounted.end();
        for image in [&image, &copy] {
            let expected = freed(image).unwrap();
            assert_eq!(expected.note.is_some(), image == &copy);
            if image == &copy && options.contains("-J") {
                continue;
            }
            let disk = Stream { disk: FileDisk::open(image), passed: 0.into(), rounds: 0.into() };
            assert_eq!(freed_of(&disk, mib << 20, LIMITS).as_ref(), Ok(&expected), "{options}");
            assert!(disk.rounds.into_inner() <= 3, "{options}");
        }
    }
}

/// A guest agent that freezes the filesystem for a snapshot leaves it as if it were unmounted.
#[test]
fn a_frozen_filesystem_is_clean() {
    if !ready(&["mke2fs", "dumpe2fs", "fsfreeze", "mount", "cp"]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (image, on, copy) =
        (folder.path().join("image"), folder.path().join("on"), folder.path().join("copy"));
    for options in ["-t ext4", "-t ext3", "-t ext4 -O fast_commit"] {
        let _ = std::fs::remove_file(&image);
        File::create(&image).unwrap().set_len(200 << 20).unwrap();
        run(&format!("mke2fs -q -F {options} {}", image.display()));
        let mounted = Mounted::new(&image, &on, "rw");
        age(&on, 30 << 20, 9);
        run(&format!("fsfreeze -f {}", on.display()));
        let copied = try_run(&format!("cp {} {}", image.display(), copy.display()));
        run(&format!("fsfreeze -u {}", on.display()));
        assert!(copied.status.success());
        mounted.end();
        check(&copy, options);
    }
}

/// A disk that passes by once.
struct Stream {
    disk: FileDisk,
    passed: AtomicU64,
    rounds: AtomicU64,
}

impl Disk for Stream {
    fn read(&self, wanted: &[Range<u64>]) -> Result<Vec<Vec<u8>>> {
        let first = wanted.first().map_or(u64::MAX, |range| range.start);
        assert!(first >= self.passed.load(Ordering::Relaxed), "{first} has passed");
        self.passed.store(wanted.last().map_or(0, |range| range.end), Ordering::Relaxed);
        self.rounds.fetch_add(1, Ordering::Relaxed);
        self.disk.read(wanted)
    }
}
