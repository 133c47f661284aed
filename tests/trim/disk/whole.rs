//! Whole disks with real filesystems on real partitions and logical volumes: read at random, and streaming by.

use std::fs::OpenOptions;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::{FileDisk, LIMITS, MIB, Random, image, json_numbers, path_text, put, ready, run, run_with};
use snapcow::free::disk::{Findings, Verdict, look, look_at_once, look_while_passing};
use snapcow::free::stream::Passing;
use snapcow::free::{Disk, Limits, Trouble, Volume, ext4, swap, xfs};

const TOOLS: &[&str] = &["sfdisk", "mkfs.ext4", "mkfs.xfs", "mkswap", "dd", "debugfs"];

/// A GPT disk: EFI system (a FAT), ext4, XFS, swap, ext4 again, and one that is empty.
struct Made {
    path: PathBuf,
    starts: Vec<u64>,
    /// What the readers say of the filesystems by themselves, moved to their places: the truth of this test.
    free: Vec<Range<u64>>,
}

const SIZES: [u64; 6] = [4, 24, 320, 8, 12, 4];

fn made(folder: &Path) -> Made {
    let path = folder.join("disk");
    image(&path, (SIZES.iter().sum::<u64>() + 4) * MIB);
    let lines: String = SIZES
        .iter()
        .zip(["uefi", "linux", "linux", "swap", "linux", "linux"])
        .map(|(size, kind)| format!("size={size}MiB,type={kind}\n"))
        .collect();
    run_with(&["sfdisk", path_text(&path)], &format!("label: gpt\n{lines}"));
    let json = run(&format!("sfdisk --json {}", path_text(&path)));
    let starts: Vec<u64> = json_numbers(&json, "start").into_iter().map(|start| start * 512).collect();
    let mut free = Vec::new();
    for (index, tool) in
        [(1, "mkfs.ext4 -q -F"), (2, "mkfs.xfs -q -f"), (3, "mkswap -q"), (4, "mkfs.ext4 -q -F -b 1024")]
    {
        let inside = folder.join(format!("inside{index}"));
        image(&inside, SIZES[index] * MIB);
        run(&format!("{tool} {}", path_text(&inside)));
        if tool.contains("ext4") {
            // Something to hold, and something that was freed.
            let content = folder.join("content");
            std::fs::write(&content, vec![7u8; 300_000]).unwrap();
            let script: String =
                (0..6).map(|file| format!("write {} f{file}\n", path_text(&content))).collect::<String>()
                    + "rm f1\nrm f4\n";
            run_with(&["debugfs", "-w", "-f", "/dev/stdin", path_text(&inside)], &script);
        }
        put(&inside, &path, starts[index]);
        let disk = FileDisk::open(&inside);
        let volume = Volume::linear(&disk, 0..disk.len());
        let freed = match index {
            2 => xfs::freed(&volume, LIMITS),
            3 => swap::freed(&volume, LIMITS),
            _ => ext4::freed(&volume, LIMITS),
        };
        let freed = freed.unwrap_or_else(|trouble| match trouble {
            Trouble::Whole(why) => panic!("{tool}: {why}"),
            Trouble::Failed(error) => panic!("{error}"),
        });
        let moved =
            freed.free.as_slice().iter().map(|run| run.start + starts[index]..run.end + starts[index]);
        free.extend(moved);
    }
    Made { path, starts, free }
}

fn joined(runs: &[Range<u64>]) -> Vec<Range<u64>> {
    let mut out: Vec<Range<u64>> = Vec::new();
    for run in runs {
        match out.last_mut() {
            Some(last) if last.end == run.start => last.end = run.end,
            _ => out.push(run.clone()),
        }
    }
    out
}

fn findings(path: &Path) -> Findings {
    let disk = FileDisk::open(path);
    let found = look(&disk, disk.len(), LIMITS).unwrap();
    assert_eq!(look_at_once(&disk, disk.len(), LIMITS).unwrap(), found, "threads change nothing");
    found
}

fn why<'a>(findings: &'a Findings, name: &str) -> &'a str {
    match &findings.parts.iter().find(|part| part.name == name).unwrap().verdict {
        Verdict::Whole(why) => why,
        freed => panic!("{name}: {freed:?}"),
    }
}

fn change(path: &Path, at: u64, bytes: &[u8]) {
    OpenOptions::new().write(true).open(path).unwrap().write_all_at(bytes, at).unwrap();
}

#[test]
fn each_partition_is_read_by_its_reader() {
    if !ready(TOOLS) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let made = made(folder.path());
    let found = findings(&made.path);
    assert_eq!(found.refused, None, "{found:?}");
    assert_eq!(found.free.as_slice(), joined(&made.free));
    let kinds: Vec<&str> = found.parts.iter().map(|part| part.what.as_deref().unwrap()).collect();
    assert!(kinds[1].starts_with("ext") && kinds[2].starts_with("XFS") && kinds[3] == "swap", "{kinds:?}");
    assert_eq!(why(&found, "partition 1"), "it belongs to firmware or a boot loader");
    assert_eq!(why(&found, "partition 6"), "nothing that is known lies in it");
    // An older filesystem shines through: this one partition.
    change(&made.path, made.starts[1], b"XFSB");
    let other = findings(&made.path);
    assert!(why(&other, "partition 2").contains("more than one thing lies in it"), "{other:?}");
    assert_eq!(
        other.free.bytes(),
        made.free
            .iter()
            .filter(|run| run.start >= made.starts[2])
            .map(|run| run.end - run.start)
            .sum::<u64>()
    );
    change(&made.path, made.starts[1], &[0; 4]);
    // A filesystem on the whole disk is not believed below a valid table.
    change(&made.path, 1080, &[0x53, 0xef]);
    assert_ne!(findings(&made.path).free, Default::default());
    change(&made.path, 1080, &[0; 2]);
    // A sleeping guest: nothing at all.
    for mark in [&b"S1SUSPEND\0"[..], b"ULSUSPEND\0", b"LINHIB0001"] {
        change(&made.path, made.starts[3] + 4086, mark);
        let asleep = findings(&made.path);
        assert!(asleep.refused.as_ref().unwrap().contains("a guest sleeps on it"), "{asleep:?}");
        assert!(asleep.free.as_slice().is_empty());
        assert!(asleep.parts.iter().all(|part| matches!(part.verdict, Verdict::Whole(_))));
    }
}

#[test]
fn a_disk_without_partitions_is_one_filesystem() {
    if !ready(TOOLS) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk");
    image(&path, 24 * MIB);
    run(&format!("mkfs.ext4 -q -F {}", path_text(&path)));
    let found = findings(&path);
    assert_eq!((found.scheme, found.parts.len(), found.parts[0].name.as_str()), (None, 1, "whole disk"));
    let Verdict::Freed { bytes, .. } = found.parts[0].verdict else { panic!("{found:?}") };
    assert_eq!((bytes, found.free.bytes()), (bytes, bytes));
    assert!(bytes > 10 * MIB);
    // Boot code that looks like a table in part.
    change(&path, 446, &[1; 64]);
    change(&path, 510, &[0x55, 0xaa]);
    assert!(findings(&path).refused.is_some());
}

/// Streams a file in order, in pieces; what is a hole in the file at hand is told as zeros.
fn stream(passing: &Passing, disk: &FileDisk, seed: u64, chunk_max: u64) {
    let mut random = Random(seed);
    let mut at = 0;
    while at < disk.len() {
        let len = (random.next() % chunk_max + 1).min(disk.len() - at);
        let bytes = disk.read(std::slice::from_ref(&(at..at + len))).unwrap().concat();
        if bytes.iter().all(|byte| *byte == 0) {
            passing.offer_zeros(at, len);
        } else {
            passing.offer(at, &bytes);
        }
        at += len;
    }
}

#[test]
fn a_stream_gives_the_same_in_few_passes() {
    if !ready(TOOLS) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let made = made(folder.path());
    let disk = FileDisk::open(&made.path);
    let truth = findings(&made.path);
    for (seed, chunk_max) in [(1, 60_000), (3, 4 * MIB), (6, 1 << 40)] {
        let mut passing = Passing::new(LIMITS);
        let mut passes = 0;
        loop {
            let found = look_while_passing(&passing, disk.len(), LIMITS, || {
                stream(&passing, &disk, seed + passes, chunk_max);
                Ok(())
            });
            passes += 1;
            let missed: u64 = passing.missed().iter().map(|range| range.end - range.start).sum();
            println!(
                "chunks up to {chunk_max}: pass {passes}, {missed} bytes came too early, {} held",
                passing.held_bytes()
            );
            if missed == 0 {
                assert_eq!(found.unwrap(), truth);
                break;
            }
            // Until then, nothing more than the truth is said to be free.
            if let Ok(found) = found {
                let truth = &truth.free;
                let within =
                    |run: &Range<u64>| truth.within(run.clone()).map(|one| one.end - one.start).sum::<u64>();
                assert!(found.free.as_slice().iter().all(|run| within(run) == run.end - run.start));
            }
            passing = passing.again();
        }
        // The trees of XFS lie behind the headers of their groups, and all else before what it tells of.
        assert_eq!(passes, 1);
    }
}

#[test]
fn a_stream_that_ends_early_and_too_little_memory_leave_all_whole() {
    if !ready(TOOLS) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let made = made(folder.path());
    let disk = FileDisk::open(&made.path);
    let passing = Passing::new(LIMITS);
    let found = look_while_passing(&passing, disk.len(), LIMITS, || {
        let half = disk.read(std::slice::from_ref(&(0..disk.len() / 2))).unwrap().concat();
        passing.offer(0, &half);
        Ok(())
    });
    let found = found.unwrap();
    assert!(found.refused.is_some() && found.free.as_slice().is_empty(), "{found:?}");
    let passing = Passing::new(Limits { memory_bytes: 200 << 10 });
    let found = look_while_passing(&passing, disk.len(), LIMITS, || {
        stream(&passing, &disk, 1, 4 * MIB);
        Ok(())
    });
    let found = found.unwrap();
    assert!(found.refused.is_some() && found.free.as_slice().is_empty(), "{found:?}");
    assert!(passing.held_bytes() <= 200 << 10);
}
