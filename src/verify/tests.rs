//! Disks in memory, compared from every kind of source with every other.

use std::io::Read;
use std::sync::Arc;

use super::*;
use crate::read::Input;

fn raw(bytes: &[u8]) -> RawDisk {
    RawDisk::new(Input { bytes: Arc::new(bytes.to_vec()), len: bytes.len() as u64, name: "raw".into() })
}

/// A stream that gives odd pieces.
struct Pieces(Vec<u8>, usize);

impl Read for Pieces {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        let take = out.len().min(self.0.len() - self.1).min(70_001);
        out[..take].copy_from_slice(&self.0[self.1..self.1 + take]);
        self.1 += take;
        Ok(take)
    }
}

fn stream(bytes: &[u8], len: Option<u64>) -> StreamDisk {
    StreamDisk::new("stream", len, Box::new(Pieces(bytes.to_vec(), 0)))
}

/// A disk whose holes are known, and must not be read.
struct Holed(Vec<u8>, std::ops::Range<u64>);

impl Disk for Holed {
    fn name(&self) -> &str {
        "holed"
    }

    fn size(&self) -> Option<u64> {
        Some(self.0.len() as u64)
    }

    fn reader(&self) -> Result<Box<dyn DiskReader + '_>> {
        Ok(Box::new(self))
    }
}

impl DiskReader for &Holed {
    fn extent(&mut self, from: u64, until: u64) -> Result<Extent> {
        let (end, is_zero) = match from {
            from if from < self.1.start => (self.1.start, false),
            from if from < self.1.end => (self.1.end, true),
            _ => (u64::MAX, false),
        };
        Ok(Extent { end: end.min(until), is_zero })
    }

    fn read(&mut self, out: &mut [u8], offset: u64) -> Result<usize> {
        let end = offset + out.len() as u64;
        assert!(end <= self.1.start || offset >= self.1.end, "{offset}..{end} is a hole");
        out.copy_from_slice(&self.0[offset as usize..end as usize]);
        Ok(out.len())
    }
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at / 3 % 250) as u8 + 1).collect()
}

/// The first difference by every way to read the two; all must say the same.
fn first_difference(a: &[u8], b: &[u8]) -> Option<u64> {
    let lens = |bytes: &[u8]| [None, Some(bytes.len() as u64)];
    let mut found = vec![compare(&raw(a), &raw(b), 4).unwrap().first_difference];
    for (len_a, len_b) in lens(a).into_iter().zip(lens(b)) {
        found.push(compare(&stream(a, len_a), &raw(b), 4).unwrap().first_difference);
        found.push(compare(&raw(a), &stream(b, len_b), 4).unwrap().first_difference);
        found.push(compare(&stream(a, len_a), &stream(b, lens(b)[1]), 4).unwrap().first_difference);
    }
    assert!(found.iter().all(|first| *first == found[0]), "{found:?}");
    found[0]
}

#[test]
fn equal_disks_are_equal_and_the_first_difference_is_found() {
    const MIB: usize = 1 << 20;
    for len in [0, 1, 512, 4096, MIB, 3 * MIB + 700] {
        let disk = pattern(len);
        assert_eq!(first_difference(&disk, &disk), None, "{len}");
        for at in [0, len / 2, MIB - 1, MIB, len.wrapping_sub(1)].into_iter().filter(|at| *at < len) {
            let mut other = disk.clone();
            other[at..].iter_mut().for_each(|byte| *byte ^= 0x80);
            assert_eq!(first_difference(&disk, &other), Some(at as u64), "{len}");
        }
    }
}

#[test]
fn sizes_are_compared_in_sectors() {
    let disk = pattern(5000);
    let mut padded = disk.clone();
    padded.resize(5120, 0);
    assert_eq!(first_difference(&disk, &padded), None);
    padded.resize(5632, 0);
    assert_eq!(first_difference(&disk, &padded), Some(5120), "a sector more");
    padded[5119] = 1;
    assert_eq!(first_difference(&disk, &padded), Some(5119), "in the padding");
    assert_eq!(first_difference(&disk, &disk[..4000]), Some(4000));
    assert_eq!(first_difference(&disk, &disk[..4096]), Some(4096));
    assert_eq!(first_difference(&disk, &[]), Some(0));
    let long = pattern(3 << 20);
    assert_eq!(first_difference(&long, &long[..1 << 20]), Some(1 << 20));
    assert_eq!(first_difference(&long, &long[..(2 << 20) - 512]), Some((2 << 20) - 512));
}

#[test]
fn a_stream_that_goes_on_or_ends_early_says_so() {
    let disk = pattern(2 << 20);
    let result = compare(&stream(&disk, None), &raw(&disk[..1 << 20]), 1).unwrap();
    assert_eq!((result.sizes, result.first_difference), ([None, Some(1 << 20)], Some(1 << 20)));
    let result = compare(&raw(&disk), &stream(&disk[..1000], None), 1).unwrap();
    assert_eq!((result.sizes, result.first_difference), ([Some(2 << 20), Some(1000)], Some(1000)));
    let error = compare(&stream(&disk[..1000], Some(2 << 20)), &raw(&disk), 1).unwrap_err();
    assert_eq!(error.kind(), Kind::SourceChanged, "{error}");
    let error = compare(&stream(&disk, None), &stream(&disk, None), 1).unwrap_err();
    assert_eq!(error.kind(), Kind::Usage, "{error}");
}

#[test]
fn what_both_call_zeros_is_not_read_and_what_one_calls_zeros_is_looked_at() {
    let mut disk = pattern(8 << 20);
    disk[1 << 20..6 << 20].fill(0);
    let holed = Holed(disk.clone(), 1 << 20..6 << 20);
    let result = compare(&holed, &holed, 2).unwrap();
    assert_eq!((result.first_difference, result.hole_bytes, result.compared_bytes), (None, 5 << 20, 3 << 20));
    assert!(compare(&holed, &raw(&disk), 2).unwrap().is_equal());
    disk[(5 << 20) + 77] = 1;
    for sides in [[&holed as &dyn Disk, &raw(&disk)], [&raw(&disk), &holed]] {
        let result = compare(sides[0], sides[1], 2).unwrap();
        assert_eq!(result.first_difference, Some((5 << 20) + 77));
    }
}

#[test]
fn of_several_differences_the_first_is_told_whatever_thread_finds_it() {
    let disk = pattern(400 << 20);
    let mut other = disk.clone();
    for at in [70 << 20, 130 << 20, 399 << 20] {
        other[at] ^= 1;
    }
    for threads in [1, 2, 7] {
        let result = compare(&raw(&disk), &raw(&other), threads).unwrap();
        assert_eq!(result.first_difference, Some(70 << 20), "{threads} threads");
    }
}
