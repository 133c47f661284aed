//! Free space of XFS against `xfs_db`, `xfs_repair` and the kernel.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::*;
use snapcow::free::{Freed, xfs};

const TOOLS: [&str; 4] = ["mkfs.xfs", "xfs_db", "xfs_repair", "mount"];

fn freed(path: &Path) -> Freed {
    of_file(path, |volume| xfs::freed(volume, LIMITS)).unwrap()
}

fn mkfs(path: &Path, args: &str) {
    let mut all: Vec<&str> = vec!["-q", "-f"];
    all.extend(args.split_whitespace());
    all.push(text(path));
    run("mkfs.xfs", &all);
}

/// The same extents as xfs_db lists, and a filesystem that stays whole without them.
fn agrees(path: &Path) -> Freed {
    let freed = freed(path);
    assert_eq!(freed.free.as_slice(), xfs_db_free(path), "{path:?}");
    let copy = path.with_extension("spoilt");
    fs::copy(path, &copy).unwrap();
    spoil(&copy, &freed);
    let (clean, said) = tried("xfs_repair", &["-n", "-o", "force_geometry", text(&copy)]);
    assert!(clean, "{said}");
    assert_eq!(of_file(&copy, |volume| xfs::freed(volume, LIMITS)).unwrap(), freed);
    fs::remove_file(copy).unwrap();
    freed
}

/// The files of a filesystem before and after all that is free was overwritten.
fn keeps_files(path: &Path, freed: &Freed) {
    let before = Mount::new(path, "ro").hashes();
    let copy = path.with_extension("spoilt");
    fs::copy(path, &copy).unwrap();
    spoil(&copy, freed);
    assert_eq!(Mount::new(&copy, "ro,nouuid").hashes(), before);
    fs::remove_file(copy).unwrap();
}

#[test]
fn aged_filesystems_of_version_5_agree_with_xfs_db() {
    if !ready(&TOOLS) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let matrix = [
        ("-b size=1024 -m crc=1,finobt=0,rmapbt=0,reflink=0", "noatime"),
        ("-b size=1024 -m rmapbt=1 -d agcount=3", "logbsize=256k"),
        ("-b size=2048 -m reflink=1,bigtime=0 -i sparse=0 -d agcount=2", "noatime"),
        ("-b size=4096 -m rmapbt=1,reflink=1,inobtcount=1,bigtime=1", "logbsize=64k"),
        ("-b size=4096 -i nrext64=1 -l su=32k -d su=64k,sw=4", "noatime"),
        ("-b size=4096 -s size=4096 -d agcount=2", "noatime"),
        ("-b size=1024 -l size=4m", "logbsize=32k"),
    ];
    let mut deepest = 0;
    for (index, (args, options)) in matrix.into_iter().enumerate() {
        let path = image(dir.path(), &format!("{index}.img"), 96 << 20);
        mkfs(&path, args);
        agrees(&path);
        for round in 0..2 {
            let mount = Mount::new(&path, options);
            age(mount.path(), round + 10 * index as u64, 6 << 20, 2);
            fs::remove_dir_all(mount.path().join("d0")).ok();
            checkerboard(&mount.path().join(format!("c{round}")), 1500);
            drop(mount);
            let freed = agrees(&path);
            keeps_files(&path, &freed);
            assert_eq!(freed.kind, "XFS v5");
        }
        deepest = deepest.max(levels(&path));
        fs::remove_file(path).unwrap();
    }
    assert!(deepest > 1, "no tree had more than its root");
}

/// The levels of the deepest tree by block number.
fn levels(path: &Path) -> u32 {
    let all = (0..2).map(|group| {
        let agf = format!("agf {group}");
        let said = run("xfs_db", &["-r", "-c", &agf, "-c", "p bnolevel", text(path)]);
        said.trim().strip_prefix("bnolevel = ").unwrap().parse().unwrap()
    });
    all.max().unwrap()
}

#[test]
fn a_log_that_is_not_clean_leaves_it_whole() {
    if !ready(&TOOLS) || !ready(&["fsfreeze"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    for (index, (args, mib)) in
        [("-l size=4m -b size=1024", 96), ("-l su=256k -m rmapbt=1", 256)].into_iter().enumerate()
    {
        let path = image(dir.path(), &format!("{index}.img"), mib << 20);
        let copy = dir.path().join("copy.img");
        mkfs(&path, args);
        for round in 0..6 {
            let mount = Mount::new(&path, "noatime");
            age(mount.path(), round, 2 << 20, 1);
            run("sync", &["-f", text(mount.path())]);
            fs::copy(&path, &copy).unwrap();
            let said = reason(of_file(&copy, |volume| xfs::freed(volume, LIMITS)));
            assert!(said.contains("mount and unmount it"), "{said}");
            run("fsfreeze", &["-f", text(mount.path())]);
            fs::copy(&path, &copy).unwrap();
            run("fsfreeze", &["-u", text(mount.path())]);
            let said = reason(of_file(&copy, |volume| xfs::freed(volume, LIMITS)));
            assert!(said.contains("mount and unmount it"), "{said}");
            // The kernel replays the copy, and then it is clean.
            drop(Mount::new(&copy, "nouuid"));
            agrees(&copy);
            run("mount", &["-o", "remount,ro", text(mount.path())]);
            run("sync", &["-f", text(mount.path())]);
            fs::copy(&path, &copy).unwrap();
            agrees(&copy);
            fs::remove_dir_all(mount.path().join("d0")).ok();
        }
        agrees(&path);
    }
}

/// Log records at all places of the log, also across its end, must be found.
#[test]
fn a_log_that_went_round_is_clean_wherever_it_ends() {
    if !ready(&TOOLS) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    for (index, (args, options)) in [
        ("-l size=4m -b size=1024", "noatime"),
        ("-l size=4m -b size=1024", "logbsize=256k"),
        ("-l size=8m,su=16k -s size=4096", "logbsize=64k"),
    ]
    .into_iter()
    .enumerate()
    {
        let path = image(dir.path(), &format!("{index}.img"), 64 << 20);
        mkfs(&path, args);
        let mut ends = Vec::new();
        for round in 0..25 {
            let mount = Mount::new(&path, options);
            for number in 0..200 + 37 * round {
                let file = mount.path().join(format!("f{}", number % 400));
                fs::write(&file, [number as u8]).unwrap();
                if number % 40 == 0 {
                    run("sync", &["-f", text(mount.path())]);
                }
                fs::rename(&file, mount.path().join(format!("g{}", number % 300))).unwrap();
            }
            drop(mount);
            assert_eq!(freed(&path).free.as_slice(), xfs_db_free(&path));
            let log = run("xfs_logprint", &["-t", text(&path)]);
            assert!(log.contains("<CLEAN>"), "{log}");
            let head = log.split("head: ").nth(1).and_then(|rest| rest.split_whitespace().next());
            ends.push(head.and_then(|head| head.parse::<u64>().ok()).unwrap());
        }
        assert!(ends.windows(2).any(|pair| pair[0] > pair[1]), "it never went round: {ends:?}");
    }
}

#[test]
fn version_4_agrees_with_xfs_db() {
    if !ready(&TOOLS[..3]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    for args in [
        "-b size=512 -d agcount=2 -l size=2560k,version=1",
        "-b size=512 -d agcount=1 -l size=2560k,version=2 -i attr=1",
        "-b size=1024 -l size=4m,lazy-count=0 -d agcount=3",
        "-b size=4096 -l su=32k,version=2 -n ftype=1",
        "-b size=8192 -s size=4096",
    ] {
        let path = image(dir.path(), "4.img", 96 << 20);
        make_version_4(&path, args, 1600);
        let freed = agrees(&path);
        assert_eq!(freed.kind, "XFS v4");
        assert!(freed.free.as_slice().len() > 10, "{args}: {:?}", freed.free);
    }
}

#[test]
fn blocks_of_all_sizes_and_features_that_no_kernel_here_mounts_are_read() {
    if !ready(&TOOLS[..3]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    for args in [
        "-b size=8192",
        "-b size=65536",
        "-b size=65536 -s size=32768 -d agcount=2",
        "-b size=4096 -l su=256k",
        "-m uuid=01234567-89ab-cdef-0123-456789abcdef -d agcount=7",
    ] {
        let path = image(dir.path(), "1.img", 400 << 20);
        mkfs(&path, args);
        agrees(&path);
        // Another UUID: metadata keep the first one, and the log is written anew.
        run("xfs_admin", &["-U", "generate", text(&path)]);
        agrees(&path);
    }
}

#[test]
fn what_is_not_understood_is_left_whole() {
    if !ready(&TOOLS[..3]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = image(dir.path(), "1.img", 64 << 20);
    let whole = |sector: u64, at: usize, bytes: &[u8], why: &str| {
        mkfs(&path, "-b size=4096 -d agcount=4");
        let file = fs::File::options().read(true).write(true).open(&path).unwrap();
        let mut block = vec![0; 512];
        file.read_exact_at(&mut block, sector * 512).unwrap();
        block[at..at + bytes.len()].copy_from_slice(bytes);
        let place = if &block[..4] == b"XAGF" { 216 } else { 224 };
        if at != place {
            let crc = crc32c(&block, place);
            block[place..place + 4].copy_from_slice(&crc);
        }
        file.write_all_at(&block, sector * 512).unwrap();
        match of_file(&path, |volume| xfs::freed(volume, LIMITS)) {
            Err(snapcow::free::Trouble::Whole(said)) => {
                assert!(said.contains(why), "{sector}, {at}: {why}: {said}")
            }
            other => panic!("{sector}, {at}: {other:?}"),
        }
    };
    let group_1 = (16 << 20) / 512;
    whole(0, 126, &[1], "never completely made");
    whole(0, 216, &[0, 0, 0, 0x1b], "xfs_repair");
    whole(0, 216, &[0, 0, 1, 0x0b], "features that are not known (incompat 0x100)");
    whole(0, 212, &[0x80, 0, 0, 5], "features that are not known");
    whole(0, 220, &[0, 0, 0, 2], "features that are not known");
    whole(0, 208, &[0, 0, 0, 1], "features that are not known");
    whole(0, 48, &[0; 8], "on another device");
    whole(0, 144, &[0, 0, 0, 0, 0, 0, 0, 1], "free blocks");
    whole(0, 8, &[0, 0, 0, 0, 0xff], "makes no sense");
    whole(0, 224, &[1, 2, 3, 4], "checksum");
    whole(0, 32, &[7; 16], "belongs to another filesystem");
    whole(0, 240, &[0, 0, 1], "later than its log ends");
    whole(1, 208, &[0, 0, 1], "later than its log ends");
    whole(1, 216, &[1, 2, 3, 4], "checksum");
    whole(group_1 + 1, 52, &[0, 0, 0, 17], "allocation group 1: its counts");
    whole(group_1 + 1, 8, &[0, 0, 0, 2], "is not its own");
    whole(group_1 + 1, 28, &[0, 0, 0, 2], "another level");
    whole(group_1 + 1, 16, &[0, 0, 0, 2], "no such block");
    whole(group_1 + 1, 48, &[0, 0, 0, 2], "kept blocks");
    let log = image(dir.path(), "log", 64 << 20);
    mkfs(&path, &format!("-l logdev={},size=32m", text(&log)));
    assert!(reason(of_file(&path, |volume| xfs::freed(volume, LIMITS))).contains("on another device"));
    mkfs(&path, "");
    fs::File::options().write(true).open(&path).unwrap().set_len((64 << 20) - 512).unwrap();
    assert!(reason(of_file(&path, |volume| xfs::freed(volume, LIMITS))).contains("its place"));
    mkfs(&path, "");
    let with =
        |memory_bytes| of_file(&path, |volume| xfs::freed(volume, snapcow::free::Limits { memory_bytes }));
    assert!(reason(with(100 << 10)).contains("memory"));
    // A log that does not fit into memory is read in pieces.
    assert_eq!(with(1 << 20).unwrap(), freed(&path));
}

/// What is done to a filesystem in its life besides writing and deleting.
#[test]
fn filesystems_that_were_grown_filled_repaired_or_have_a_realtime_device_agree_with_xfs_db() {
    if !ready(&TOOLS) || !ready(&["xfs_growfs"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = image(dir.path(), "1.img", 64 << 20);
    mkfs(&path, "-b size=1024 -d agcount=2");
    fs::File::options().write(true).open(&path).unwrap().set_len((150 << 20) + 4096).unwrap();
    let mount = Mount::new(&path, "noatime");
    age(mount.path(), 77, 4 << 20, 1);
    run("xfs_growfs", &[text(mount.path())]);
    checkerboard(&mount.path().join("c"), 600);
    drop(mount);
    let grown = agrees(&path);
    assert_eq!(grown.len, (150 << 20) + 4096);
    keeps_files(&path, &grown);

    // Not a block is left, but what the kernel keeps for itself.
    let mount = Mount::new(&path, "noatime");
    let mut file = fs::File::create(mount.path().join("all")).unwrap();
    let block = vec![7; 64 << 10];
    while std::io::Write::write_all(&mut file, &block).is_ok() {}
    drop(file);
    drop(mount);
    let full = agrees(&path);
    assert!(full.free.bytes() < grown.free.bytes() / 5, "{}", full.free.bytes());
    keeps_files(&path, &full);
    run("xfs_repair", &[text(&path)]);
    agrees(&path);
    run("xfs_repair", &["-L", text(&path)]);
    agrees(&path);
    drop(Mount::new(&path, "noatime"));
    agrees(&path);

    // Blocks of a realtime device are counted and mapped elsewhere. (Kernels often cannot mount one.)
    let rt = image(dir.path(), "rt.img", 64 << 20);
    mkfs(&path, &format!("-b size=4096 -m reflink=0,rmapbt=0 -r rtdev={}", text(&rt)));
    assert_eq!(freed(&path).free.as_slice(), xfs_db_free(&path));
}
