//! Crash-consistent copies of a mounted, busy filesystem: what is said to be free after a replay in memory is free after
//! the replay by `e2fsck`, and dropping it changes no file.
//!
//! The image lies on XFS, where `cp --reflink=always` takes it as it is at one moment. The number of copies is 12, or
//! that of `SNAPCOW_COPIES`.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::{Mounted, Random, age, freed, fsck, is_within, oracle, overwrite, ready, run, tree};

/// Options of `mke2fs`, options of `mount`. The first ones count most.
const KINDS: &[(&str, &str)] = &[
    ("-t ext4", "commit=1"),
    ("-t ext4", "defaults"),
    ("-t ext4 -J size=8", "commit=1"),
    ("-t ext4 -b 1024 -J size=4", "commit=1"),
    ("-t ext4 -O ^metadata_csum,uninit_bg", "commit=1,journal_checksum"),
    ("-t ext3", "commit=1"),
    ("-t ext4 -J size=16", "data=journal"),
    ("-t ext4 -O ^metadata_csum,^64bit", "commit=1,data=journal"),
    ("-t ext4 -O bigalloc -C 16384", "commit=1"),
    ("-t ext4 -b 2048 -O meta_bg,^resize_inode", "commit=1,data=writeback"),
    ("-t ext4 -b 1024 -O ^flex_bg,^metadata_csum,^uninit_bg", "commit=1"),
    ("-t ext4 -O orphan_file,inline_data,metadata_csum_seed", "commit=1"),
    ("-t ext4 -O ^metadata_csum,^64bit", "commit=1,data=writeback,journal_async_commit"),
    ("-t ext3 -b 1024 -J size=4", "data=journal"),
];

/// Writes, renames, cuts, and deletes files until told to stop.
fn work(folder: &Path, seed: u64, stop: &AtomicBool) {
    let mut random = Random(seed);
    let magic: Vec<u8> = [0xc0, 0x3b, 0x39, 0x98, 0, 0, 0, 1].repeat(512);
    let mut number = 0u64;
    while !stop.load(Ordering::Relaxed) {
        number += 1;
        let sub = folder.join(format!("d{}", random.below(40)));
        let path = sub.join(format!("f{}", random.below(60)));
        let _ = fs::create_dir_all(&sub);
        let done = match random.below(12) {
            0..5 => File::create(&path).and_then(|mut file| {
                let len = [random.below(3000), random.below(90_000), random.below(700_000)]
                    [random.below(3) as usize];
                let part = random.next().to_le_bytes().repeat(512);
                for at in 0..len / 4096 {
                    file.write_all(if at % 16 == 3 { &magic } else { &part })?;
                }
                if random.below(6) == 0 { file.sync_all() } else { Ok(()) }
            }),
            5..8 => fs::remove_file(&path),
            8 => fs::rename(&path, sub.join(format!("g{}", random.below(30)))),
            9 => File::options().write(true).open(&path).and_then(|file| file.set_len(random.below(200_000))),
            10 => {
                // Deleted while open: an orphan for a while.
                let open = File::create(&path).and_then(|mut file| file.write_all(&magic).map(|()| file));
                let _ = fs::remove_file(&path);
                std::thread::sleep(Duration::from_millis(random.below(30)));
                open.map(drop)
            }
            _ if random.below(5) == 0 => fs::remove_dir_all(&sub),
            _ => File::options()
                .write(true)
                .open(&path)
                .and_then(|file| file.write_all_at(&magic, random.below(99_999))),
        };
        // A full filesystem is emptied a little.
        if done.is_err_and(|error| error.raw_os_error() == Some(28)) {
            let _ = fs::remove_dir_all(&sub);
        }
        if number.is_multiple_of(64) {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// What came of one copy.
struct Outcome {
    /// Of the bytes that are free after the replay: dropped, all.
    dropped: u64,
    free: u64,
    needed_replay: bool,
}

/// Compares a copy with what `e2fsck` makes of it.
fn check(copy: &Path, on: &Path, name: &str) -> Outcome {
    let needed_replay = run(&format!("dumpe2fs -h {}", copy.display())).contains("needs_recovery");
    let found = freed(copy);
    let trimmed = copy.with_extension("trimmed");
    run(&format!("cp --reflink=always {} {}", copy.display(), trimmed.display()));
    fsck(copy);
    let (free, _) = oracle(copy);
    let all = free.iter().map(|range| range.end - range.start).sum();
    let dropped = match found {
        Ok(found) => {
            assert!(
                is_within(found.free.as_slice(), &free),
                "{name}: more is said to be free than e2fsck says"
            );
            assert_eq!(found.note.is_some(), needed_replay);
            overwrite(&trimmed, found.free.as_slice(), 0);
            fsck(&trimmed);
            run(&format!("e2fsck -fn {}", trimmed.display()));
            let mounted = Mounted::new(copy, on, "ro");
            let expected = tree(on);
            mounted.end();
            let mounted = Mounted::new(&trimmed, on, "ro");
            assert_eq!(tree(on), expected, "{name}");
            mounted.end();
            found.free.bytes()
        }
        Err(reason) => {
            println!("{name}: left whole: {reason}");
            0
        }
    };
    fs::remove_file(copy).unwrap();
    fs::remove_file(trimmed).unwrap();
    Outcome { dropped, free: all, needed_replay }
}

#[test]
fn copies_of_a_busy_filesystem_lose_nothing() {
    if !ready(&["mke2fs", "dumpe2fs", "e2fsck", "mkfs.xfs", "mount", "cp"]) {
        return;
    }
    let copies: usize = std::env::var("SNAPCOW_COPIES").map_or(12, |count| count.parse().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let (xfs, lab, on) = (folder.path().join("xfs"), folder.path().join("lab"), folder.path().join("on"));
    File::create(&xfs).unwrap().set_len(8 << 30).unwrap();
    run(&format!("mkfs.xfs -q -m reflink=1 {}", xfs.display()));
    let _lab = Mounted::new(&xfs, &lab, "rw");
    let mut outcomes = Vec::new();
    let mut random = Random(copies as u64);
    let per_kind = copies.div_ceil(KINDS.len()).max(3);
    for (kind, (options, mount)) in KINDS.iter().cycle().enumerate() {
        if outcomes.len() >= copies {
            break;
        }
        let image = lab.join("image");
        let _ = fs::remove_file(&image);
        File::create(&image).unwrap().set_len(400 << 20).unwrap();
        run(&format!("mke2fs -q -F {options} {}", image.display()));
        let busy = Mounted::new(&image, &on, mount);
        age(&on, 120 << 20, kind as u64);
        let stop = AtomicBool::new(false);
        let names: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..2)
                .map(|seed| {
                    let (on, stop) = (&on, &stop);
                    scope.spawn(move || work(on, seed + 7 * kind as u64, stop))
                })
                .collect();
            let take = |number: usize| {
                std::thread::sleep(Duration::from_millis(300 + random.below(2500)));
                let copy = lab.join(format!("copy{number}"));
                run(&format!("cp --reflink=always {} {}", image.display(), copy.display()));
                copy
            };
            let names: Vec<_> = (0..per_kind).map(take).collect();
            stop.store(true, Ordering::Relaxed);
            threads.into_iter().for_each(|thread| thread.join().unwrap());
            names
        });
        busy.end();
        for copy in names {
            let outcome = check(&copy, &folder.path().join("look"), &format!("{options} {mount}"));
            println!(
                "{options} {mount}: {} of {} KiB, replay {}",
                outcome.dropped >> 10,
                outcome.free >> 10,
                outcome.needed_replay
            );
            outcomes.push(outcome);
        }
    }
    let good = outcomes.iter().filter(|outcome| outcome.dropped * 10 >= outcome.free * 9).count();
    let replayed = outcomes.iter().filter(|outcome| outcome.needed_replay).count();
    println!(
        "{} copies, {replayed} with a journal to replay, {good} with 90 % of the free bytes dropped",
        outcomes.len()
    );
    assert!(replayed * 10 >= outcomes.len() * 9);
    assert!(good * 10 >= outcomes.len() * 9);
}
