//! Random changes to every block of metadata: no panic, and nothing is said to be free that was not.

use std::ops::Range;
use std::path::Path;
use std::sync::Mutex;

use super::*;
use snapcow::error::Result;
use snapcow::free::{Disk, Outcome, Runs, Trouble, Volume, xfs};

/// A disk in memory, with changes, which remembers what was asked for.
struct Changed<'a> {
    base: &'a [u8],
    changes: Vec<(u64, Vec<u8>)>,
    asked: Mutex<Vec<Range<u64>>>,
}

impl Disk for Changed<'_> {
    fn read(&self, wanted: &[Range<u64>]) -> Result<Vec<Vec<u8>>> {
        self.asked.lock().unwrap().extend_from_slice(wanted);
        let one = |range: &Range<u64>| {
            let mut bytes = self.base[range.start as usize..range.end as usize].to_vec();
            for (at, change) in &self.changes {
                for (byte, at) in change.iter().zip(*at..).filter(|(_, at)| range.contains(at)) {
                    bytes[(at - range.start) as usize] = *byte;
                }
            }
            bytes
        };
        Ok(wanted.iter().map(one).collect())
    }
}

fn freed_of(base: &[u8], changes: Vec<(u64, Vec<u8>)>) -> (Outcome<Runs>, Vec<Range<u64>>) {
    let disk = Changed { base, changes, asked: Mutex::new(Vec::new()) };
    let outcome = xfs::freed(&Volume::linear(&disk, 0..base.len() as u64), LIMITS);
    (outcome.map(|freed| freed.free), disk.asked.into_inner().unwrap())
}

fn is_subset(free: &Runs, of: &Runs) -> bool {
    free.as_slice().iter().all(|run| {
        of.within(run.clone()).map(|part| part.end - part.start).sum::<u64>() == run.end - run.start
    })
}

/// Where the checksum of a block of metadata lies.
fn checksum_at(block: &[u8]) -> Option<usize> {
    let magics: [(&[u8], usize); 5] =
        [(b"XFSB", 224), (b"XAGF", 216), (b"XAGI", 312), (b"XAFL", 32), (b"AB3B", 52)];
    magics.into_iter().find(|(magic, _)| block.starts_with(magic)).map(|(_, at)| at)
}

/// Changes one place of the metadata that a reader asks for; a tenth of the cases lie in the log.
fn change(base: &[u8], asked: &[Range<u64>], random: &mut Random) -> (u64, Vec<u8>) {
    let is_log = random.below(10) == 0;
    let ranges: Vec<&Range<u64>> =
        asked.iter().filter(|range| (range.end - range.start > 1 << 20) == is_log).collect();
    let range = ranges[random.below(ranges.len() as u64) as usize];
    // Most of a block of metadata is beyond its last record.
    let span = range.end - range.start;
    let at =
        range.start + if random.below(2) == 0 { random.below(span) } else { random.below(span.min(400)) };
    let len = [1, 1, 2, 4, 8][random.below(5) as usize].min(range.end - at);
    let old = &base[at as usize..(at + len) as usize];
    let new = match random.below(4) {
        0 => old.iter().map(|&byte| byte ^ 1 << random.below(8)).collect(),
        1 => vec![[0, 0xff][random.below(2) as usize]; len as usize],
        2 => old.iter().map(|&byte| byte.wrapping_add(1)).collect(),
        _ => old.iter().map(|_| random.next() as u8).collect(),
    };
    (at, new)
}

/// Thousands of cases; how many of them were still believed.
fn torture(path: &Path, cases: usize, seed: u64) -> usize {
    let base = std::fs::read(path).unwrap();
    let (good, asked) = freed_of(&base, Vec::new());
    let good = good.unwrap();
    assert!(good.bytes() > 1 << 20);
    let mut random = Random(seed);
    let mut believed = 0;
    for case in 0..cases {
        let changes: Vec<_> = (0..1 + random.below(2)).map(|_| change(&base, &asked, &mut random)).collect();
        match freed_of(&base, changes.clone()).0 {
            Ok(free) => {
                assert!(is_subset(&free, &good), "case {case}: {changes:?}");
                believed += 1;
            }
            Err(Trouble::Whole(_)) => {}
            Err(Trouble::Failed(error)) => panic!("{error}"),
        }
    }
    believed
}

/// The same, with checksums made right again, so that the checks behind them are met. A forged tree may be believed;
/// fixed metadata and the log may never be free.
fn forge(path: &Path, cases: usize, sector: u64) {
    let base = std::fs::read(path).unwrap();
    let (good, asked) = freed_of(&base, Vec::new());
    good.unwrap();
    let log = asked.iter().max_by_key(|range| range.end - range.start).unwrap().clone();
    let mut random = Random(99);
    for _ in 0..cases {
        let (at, new) = change(&base, &asked, &mut random);
        let range = asked.iter().find(|range| range.contains(&at)).unwrap();
        let unit =
            if base[range.start as usize..].starts_with(b"XFSB") { sector } else { range.end - range.start };
        let start = range.start + (at - range.start) / unit * unit;
        let mut block = base[start as usize..(start + unit) as usize].to_vec();
        let within = (at - start) as usize;
        let len = new.len().min(block.len() - within);
        block[within..within + len].copy_from_slice(&new[..len]);
        if let Some(place) = checksum_at(&block) {
            let crc = crc32c(&block, place);
            block[place..place + 4].copy_from_slice(&crc);
        }
        if let (Ok(free), _) = freed_of(&base, vec![(start, block)]) {
            assert_eq!(free.within(0..4 * sector).count() + free.within(log.clone()).count(), 0);
        }
    }
}

#[test]
fn changed_metadata_of_version_4_never_free_what_is_used() {
    if !ready(&["mkfs.xfs", "xfs_db", "xfs_repair"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    for (args, seed) in [
        ("-b size=512 -d agcount=2 -l size=2560k,version=1", 4),
        ("-b size=512 -d agcount=1 -l size=2560k", 5),
    ] {
        let path = image(dir.path(), "4.img", 36 << 20);
        make_version_4(&path, args, 1200);
        let believed = torture(&path, 2000, seed);
        assert!((30..1900).contains(&believed), "{believed}");
    }
}

#[test]
fn changed_metadata_of_version_5_never_free_what_is_used() {
    if !ready(&["mkfs.xfs", "xfs_db", "mount"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = image(dir.path(), "5.img", 40 << 20);
    run(
        "mkfs.xfs",
        &["-q", "-f", "-b", "size=1024", "-d", "agcount=2", "-l", "size=6m", "-m", "rmapbt=1", text(&path)],
    );
    let mount = Mount::new(&path, "noatime");
    age(mount.path(), 5, 1 << 20, 2);
    checkerboard(&mount.path().join("c"), 1200);
    drop(mount);
    let believed = torture(&path, 2000, 6);
    // Only what no checksum covers: the log but its last record, unused bytes of unused sectors.
    assert!((30..1900).contains(&believed), "{believed}");
    forge(&path, 2000, 512);
}
