//! Damaged metadata of real filesystems: never a panic, and never more said to be free than is free.
//!
//! With `metadata_csum` every block that is believed has a checksum, so that any damage is allowed. Without it, single
//! bits are flipped: the counts, and the metadata that must be in use, contradict each of them.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::ops::Range;
use std::path::Path;
use std::time::{Duration, Instant};

use super::{LIMITS, Mounted, Random, age, freed_of, fsck, is_within, oracle, ready, run};
use snapcow::free::Limits;

const TOOLS: &[&str] = &["mke2fs", "dumpe2fs", "e2fsck", "debugfs", "mount", "cp"];

/// An image and where its metadata lie.
struct Image {
    bytes: Vec<u8>,
    free: Vec<Range<u64>>,
    metadata: Vec<Range<u64>>,
}

/// Makes a filesystem of 24 MiB with many groups, some of them untouched.
fn make(folder: &Path, options: &str, is_mounted: bool) -> Image {
    let (image, on) = (folder.join("image"), folder.join("on"));
    let _ = fs::remove_file(&image);
    File::create(&image).unwrap().set_len(24 << 20).unwrap();
    run(&format!("mke2fs -q -F -b 1024 -g 2048 -N 768 {options} {}", image.display()));
    let mounted = Mounted::new(&image, &on, "defaults");
    age(&on, 4 << 20, 5);
    let copy = folder.join("copy");
    if is_mounted {
        for number in 0..4 {
            fs::create_dir_all(on.join("more")).unwrap();
            fs::write(on.join(format!("more/f{number}")), [7; 70_000]).unwrap();
            let _ = fs::remove_dir_all(on.join(format!("d{number}")));
            run(&format!("sync -f {}", on.display()));
        }
        run(&format!("cp {} {}", image.display(), copy.display()));
        mounted.end();
    } else {
        mounted.end();
        fs::copy(&image, &copy).unwrap();
    }
    let bytes = fs::read(&copy).unwrap();
    let metadata = places(&copy);
    if is_mounted {
        fsck(&copy);
    }
    Image { bytes, free: oracle(&copy).0, metadata }
}

/// Superblock, descriptors, bitmaps, and the first inodes of each group, as `dumpe2fs` says.
fn places(image: &Path) -> Vec<Range<u64>> {
    let mut ranges: Vec<Range<u64>> = std::iter::once(1024..2048).collect();
    let text = run(&format!("dumpe2fs {}", image.display()));
    let number = |text: &str| {
        text.trim_start().split(|c: char| !c.is_ascii_digit()).next().unwrap().parse::<u64>().unwrap()
    };
    for line in text.lines() {
        for what in ["Group descriptors at ", "lock bitmap at ", "node bitmap at ", "node table at "] {
            if let Some((_, rest)) = line.split_once(what) {
                let block = number(rest);
                ranges.push(block * 1024..(block + 1) * 1024);
            }
        }
    }
    ranges
}

fn journal_blocks(folder: &Path) -> Vec<u64> {
    let commands = folder.join("commands");
    fs::write(&commands, "blocks <8>\n").unwrap();
    let text = run(&format!("debugfs -f {} {}", commands.display(), folder.join("image").display()));
    text.lines()
        .skip(1)
        .flat_map(|line| line.split_whitespace().map(|block| block.parse().unwrap()))
        .collect()
}

/// What a damaged image says; it must not take long.
fn look(bytes: &Vec<u8>) -> Result<Vec<Range<u64>>, String> {
    let start = Instant::now();
    let found = freed_of(bytes, bytes.len() as u64, LIMITS).map(|freed| freed.free.as_slice().to_vec());
    assert!(start.elapsed() < Duration::from_secs(30));
    found
}

/// Damages a range in one of several ways; gives what was there.
fn damage(bytes: &mut [u8], range: Range<u64>, random: &mut Random, is_bit: bool) -> Vec<u8> {
    let part = &mut bytes[range.start as usize..range.end as usize];
    let before = part.to_vec();
    let at = random.below(part.len() as u64) as usize;
    match if is_bit { 0 } else { random.below(5) } {
        0 => part[at] ^= 1 << random.below(8),
        1 => part[at] = random.next() as u8,
        2 => part.iter_mut().skip(at).take(8).for_each(|byte| *byte = random.next() as u8),
        3 => part.fill([0, 0xff][random.below(2) as usize]),
        _ => part.iter_mut().for_each(|byte| *byte = random.next() as u8),
    }
    before
}

/// Damages `image` `cases` times, each time by itself; gives how often it was left whole.
fn attack(
    image: &mut Image,
    cases: u64,
    seed: u64,
    is_bit: bool,
    allowed: &dyn Fn(u64, &[Range<u64>]) -> bool,
) -> u64 {
    let mut random = Random(seed);
    let mut whole = 0;
    for case in 0..cases {
        let range = image.metadata[random.below(image.metadata.len() as u64) as usize].clone();
        let before = damage(&mut image.bytes, range.clone(), &mut random, is_bit);
        match look(&image.bytes) {
            Ok(free) => {
                let is_right = is_within(&free, &image.free) || allowed(range.start, &free);
                assert!(is_right, "case {case} of {seed}: after damage in {range:?}");
            }
            Err(_) => whole += 1,
        }
        image.bytes[range.start as usize..range.end as usize].copy_from_slice(&before);
    }
    whole
}

#[test]
fn damage_with_checksums_is_seen() {
    if !ready(TOOLS) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    for (seed, options) in
        ["-t ext4", "-t ext4 -O ^flex_bg,^64bit", "-t ext4 -O bigalloc,^resize_inode -C 2048"]
            .iter()
            .enumerate()
    {
        let mut image = make(folder.path(), options, false);
        assert_eq!(look(&image.bytes).unwrap(), image.free, "{options}");
        let first = journal_blocks(folder.path())[0] * 1024;
        image.metadata.push(first..first + 1024);
        let whole = attack(&mut image, 4000, seed as u64, false, &|_, _| false);
        println!("{options}: {whole} of 4000 left whole");
        assert!(whole > 300);
    }
}

#[test]
fn flipped_bits_without_checksums_contradict_something() {
    if !ready(TOOLS) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    for (seed, options) in
        ["-t ext2", "-t ext3", "-t ext4 -O ^metadata_csum,^uninit_bg", "-t ext4 -O ^metadata_csum,uninit_bg"]
            .iter()
            .enumerate()
    {
        let mut image = make(folder.path(), options, false);
        assert_eq!(look(&image.bytes).unwrap(), image.free, "{options}");
        let whole = attack(&mut image, 6000, seed as u64 + 100, true, &|_, _| false);
        println!("{options}: {whole} of 6000 left whole");
        assert!(whole > 300);
        // All bits of the superblock, one by one.
        for bit in 0..8192 {
            image.bytes[1024 + bit / 8] ^= 1 << (bit % 8);
            assert!(
                look(&image.bytes).map_or(true, |free| is_within(&free, &image.free)),
                "{options}: bit {bit}"
            );
            image.bytes[1024 + bit / 8] ^= 1 << (bit % 8);
        }
    }
}

/// The journal's commit blocks: number of the transaction, place in bytes.
fn commits(image: &Image, journal: &[u64]) -> BTreeMap<u32, u64> {
    let word = |at: u64| u32::from_be_bytes(*image.bytes[at as usize..].first_chunk().unwrap());
    let blocks = journal.iter().map(|block| block * 1024);
    blocks.filter(|at| (word(*at), word(at + 4)) == (0xc03b_3998, 2)).map(|at| (word(at + 8), at)).collect()
}

#[test]
fn damage_in_a_journal_that_is_replayed_is_seen() {
    if !ready(TOOLS) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    for (seed, options) in ["-t ext4", "-t ext4 -O ^flex_bg,^64bit"].iter().enumerate() {
        let mut image = make(folder.path(), options, true);
        let free = look(&image.bytes).unwrap();
        assert!(is_within(&free, &image.free), "{options}");
        let journal = journal_blocks(folder.path());
        let commits = commits(&image, &journal);
        assert!(commits.len() > 2, "{options}: {commits:?}");
        // Without its last commit block, the last transaction never was, and no reader can tell.
        let last = *commits.values().last().unwrap();
        let mut before_last = image.bytes.clone();
        before_last[last as usize..last as usize + 12].fill(0);
        let shorter = look(&before_last).unwrap();
        let copy = folder.path().join("shorter");
        fs::write(&copy, &before_last).unwrap();
        fsck(&copy);
        assert!(is_within(&shorter, &oracle(&copy).0));

        let allowed = |at: u64, free: &[Range<u64>]| at == last && free == shorter;
        image.metadata = journal.iter().take(200).map(|block| block * 1024..(block + 1) * 1024).collect();
        let whole = attack(&mut image, 2500, seed as u64 + 200, false, &allowed);
        println!("{options}: {whole} of 2500 left whole");
        assert!(whole > 400);
        image.metadata = places(&folder.path().join("image"));
        attack(&mut image, 2000, seed as u64 + 300, false, &allowed);
    }
}

#[test]
fn a_damaged_journal_without_checksums_does_no_harm_to_the_reader() {
    if !ready(TOOLS) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    for (seed, options) in ["-t ext3", "-t ext4 -O ^metadata_csum,uninit_bg"].iter().enumerate() {
        let mut image = make(folder.path(), options, true);
        assert!(is_within(&look(&image.bytes).unwrap(), &image.free), "{options}");
        let journal = journal_blocks(folder.path());
        image.metadata.extend(journal.iter().take(120).map(|block| block * 1024..(block + 1) * 1024));
        // What such a journal says is what every reader of it believes: only that it ends, without a panic, is asked.
        let whole = attack(&mut image, 2000, seed as u64 + 400, false, &|_, _| true);
        println!("{options}: {whole} of 2000 left whole");
        assert!(whole > 50);
    }
}

#[test]
fn memory_and_lengths_are_bounded() {
    if !ready(TOOLS) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let image = make(folder.path(), "-t ext4", true);
    let len = image.bytes.len() as u64;
    let full = look(&image.bytes).unwrap();
    for memory_bytes in [0, 1 << 10, 64 << 10, 200 << 10, 1 << 20, 3 << 20, 8 << 20] {
        match freed_of(&image.bytes, len, Limits { memory_bytes }) {
            Ok(freed) => assert_eq!(freed.free.as_slice(), full, "{memory_bytes}"),
            Err(reason) => {
                assert!(reason.contains("memory") && memory_bytes < 8 << 20, "{memory_bytes}: {reason}")
            }
        }
    }
    for len in [0, 1023, 1500, 2047, 2048, 4096, 65536, len / 2, len - 1024, len - 1] {
        let cut = image.bytes[..len as usize].to_vec();
        assert!(look(&cut).is_err(), "{len}");
    }
    // Behind the filesystem there may be more.
    let mut longer = image.bytes.clone();
    longer.resize(longer.len() + 12_345, 7);
    assert_eq!(look(&longer).unwrap(), full);
}
