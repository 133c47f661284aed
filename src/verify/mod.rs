//! Whether two disks are the same for their guests. Takes two [`Disk`]s, gives a [`Comparison`]. Holds a few
//! MiB a thread; reads nothing that both sides call zeros.
//!
//! Sizes are compared as a guest sees them, in whole sectors of 512 bytes: QEMU pads a raw file to that, and
//! what the file lacks reads as zeros.

mod disks;
mod free;
mod stream;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::error::{Error, Kind, Result, Stage};
use crate::free::Runs;
use crate::scan::zero::is_zero;
use crate::units::SECTOR_BYTES;

pub use disks::{Qcow2Disk, RawDisk};
pub use free::look_for_free;
pub use stream::StreamDisk;

pub use crate::read::Extent;

/// How much is compared at once, in bytes.
const PIECE_BYTES: u64 = 1 << 20;
/// How much of the disk a thread takes at once, in bytes.
const SECTION_BYTES: u64 = 64 << 20;

/// Something that holds a disk.
pub trait Disk: Sync {
    /// Name for messages.
    fn name(&self) -> &str;

    /// Size in bytes, where it is known before all has been read.
    fn size(&self) -> Option<u64>;

    /// Whether the disk can be read only once, from its beginning.
    fn is_stream(&self) -> bool {
        false
    }

    /// A reader for one thread; of a stream, the only one.
    ///
    /// # Errors
    /// What keeps it from being read.
    fn reader(&self) -> Result<Box<dyn DiskReader + '_>>;
}

/// Reads a disk for one thread.
pub trait DiskReader {
    /// What lies at `from`, up to `until` at most. What is no hole may still be zeros.
    ///
    /// # Errors
    /// What keeps that from being found out.
    fn extent(&mut self, from: u64, until: u64) -> Result<Extent>;

    /// Fills `out` with the bytes at `offset`, with zeros for those behind the end; gives how many lie before
    /// it. Of a stream offsets rise; what is left out is skipped.
    ///
    /// # Errors
    /// What keeps the bytes from coming.
    fn read(&mut self, out: &mut [u8], offset: u64) -> Result<usize>;
}

/// What a comparison came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Comparison {
    /// Length of either disk in bytes; `None` for a stream that went on behind the end of the other.
    pub sizes: [Option<u64>; 2],
    /// The first guest offset at which a guest reads different bytes, or only one of the two has a byte.
    pub first_difference: Option<u64>,
    /// Bytes that were read from one side or both, and are the same.
    pub compared_bytes: u64,
    /// Bytes that are zeros by the word of both, and were not read.
    pub hole_bytes: u64,
}

impl Comparison {
    /// Whether both disks are the same to their guests.
    pub fn is_equal(&self) -> bool {
        self.first_difference.is_none()
    }
}

/// Compares two disks, on up to `threads` threads where both can be read at any place.
///
/// # Errors
/// What keeps one of them from being read; two streams of unknown length. A difference is no error.
pub fn compare(a: &dyn Disk, b: &dyn Disk, threads: usize) -> Result<Comparison> {
    let sides = [a, b];
    match (a.size(), b.size()) {
        (Some(first), Some(second)) => {
            let common = guest_size(first).min(guest_size(second));
            let threads = if a.is_stream() || b.is_stream() { 1 } else { threads.max(1) };
            let outcome = Task::new(sides, common).run(threads)?;
            let longer = (guest_size(first) != guest_size(second)).then_some(common);
            Ok(outcome.comparison([Some(first), Some(second)], outcome.difference().or(longer)))
        }
        (None, Some(len)) => compare_stream(sides, len).map(|(stream, outcome)| {
            let difference = outcome.difference();
            outcome.comparison([stream, Some(len)], difference)
        }),
        (Some(len), None) => compare_stream([b, a], len).map(|(stream, outcome)| {
            let difference = outcome.difference();
            outcome.comparison([Some(len), stream], difference)
        }),
        (None, None) => {
            let what = format!("neither of {} and {} tells how long it is", a.name(), b.name());
            Err(Error::new(Stage::Plan, Kind::Usage, what).advise("save one of them to a file"))
        }
    }
}

/// Compares a disk that can be read at any place with an image that may have zeros instead of what `free` has of it.
///
/// # Errors
/// As [`compare`]; one of them is a stream.
pub fn compare_trimmed(disk: &dyn Disk, image: &dyn Disk, free: &Runs, threads: usize) -> Result<Comparison> {
    let (Some(disk_len), Some(image_len), false) =
        (disk.size(), image.size(), disk.is_stream() || image.is_stream())
    else {
        let what = format!("one of {} and {} can be read only once", disk.name(), image.name());
        return Err(Error::new(Stage::Plan, Kind::Usage, what).advise("save it to a file"));
    };
    let common = guest_size(disk_len).min(guest_size(image_len));
    let task = Task { free: Some(free), ..Task::new([disk, image], common) };
    let outcome = task.run(threads.max(1))?;
    let longer = (guest_size(disk_len) != guest_size(image_len)).then_some(common);
    Ok(outcome.comparison([Some(disk_len), Some(image_len)], outcome.difference().or(longer)))
}

/// Compares a stream of unknown length, the first of the two, with a disk of `len` bytes.
fn compare_stream(sides: [&dyn Disk; 2], len: u64) -> Result<(Option<u64>, Task<'_>)> {
    let common = guest_size(len);
    let task = Task::new(sides, common);
    let mut pair = task.open()?;
    let mut stream_len = None;
    let mut at = 0;
    while at < common && stream_len.is_none() && task.first.load(Ordering::Relaxed) == u64::MAX {
        let end = (at + PIECE_BYTES).min(common);
        task.section(&mut pair, at..end)?;
        stream_len = pair.ended;
        at = end;
    }
    if let Some(ended) = stream_len.filter(|ended| guest_size(*ended) < common) {
        task.note_difference(guest_size(ended));
    }
    if task.difference().is_some() {
        // Where it differs it need not be read to its end.
        return Ok((stream_len, task));
    }
    // It may go on behind the disk.
    let behind = pair.readers[0].read(&mut pair.buffers[0][..PIECE_BYTES as usize], common)?;
    let stream_len = stream_len.or((behind == 0).then_some(common));
    if stream_len.is_none() {
        task.note_difference(common);
    }
    Ok((stream_len, task))
}

/// Bytes of the disk as a guest sees it.
fn guest_size(len: u64) -> u64 {
    len.checked_next_multiple_of(SECTOR_BYTES).unwrap_or(len)
}

/// A comparison that several threads share.
struct Task<'a> {
    sides: [&'a dyn Disk; 2],
    end: u64,
    /// Where the second side may have zeros instead.
    free: Option<&'a Runs>,
    next_section: AtomicU64,
    /// The lowest offset found to differ so far.
    first: AtomicU64,
    failed: AtomicBool,
    compared: AtomicU64,
    holes: AtomicU64,
}

/// What one thread works with.
struct Pair<'a> {
    readers: [Box<dyn DiskReader + 'a>; 2],
    buffers: [Vec<u8>; 2],
    /// Length of the first side, once it has ended early.
    ended: Option<u64>,
}

impl<'a> Task<'a> {
    fn new(sides: [&'a dyn Disk; 2], end: u64) -> Self {
        Self {
            sides,
            end,
            free: None,
            next_section: AtomicU64::new(0),
            first: AtomicU64::new(u64::MAX),
            failed: AtomicBool::new(false),
            compared: AtomicU64::new(0),
            holes: AtomicU64::new(0),
        }
    }

    fn open(&self) -> Result<Pair<'a>> {
        let [a, b] = self.sides;
        let buffers = [vec![0; PIECE_BYTES as usize], vec![0; PIECE_BYTES as usize]];
        Ok(Pair { readers: [a.reader()?, b.reader()?], buffers, ended: None })
    }

    fn run(self, threads: usize) -> Result<Self> {
        let sections = self.end.div_ceil(SECTION_BYTES).max(1);
        let threads = threads.min(usize::try_from(sections).unwrap_or(usize::MAX));
        if threads <= 1 {
            self.work()?;
            return Ok(self);
        }
        let results: Vec<Result<()>> = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..threads).map(|_| scope.spawn(|| self.work())).collect();
            let broken = || Err(Error::new(Stage::Plan, Kind::Other, "a comparing thread panicked"));
            workers.into_iter().map(|worker| worker.join().unwrap_or_else(|_| broken())).collect()
        });
        results.into_iter().collect::<Result<()>>()?;
        Ok(self)
    }

    /// Takes sections in rising order until none is left or one before it differs.
    fn work(&self) -> Result<()> {
        let result = self.open().and_then(|mut pair| {
            while !self.failed.load(Ordering::Relaxed) {
                let start = self.next_section.fetch_add(SECTION_BYTES, Ordering::Relaxed);
                // Sections below one that differs are all taken already, so the lowest offset is the first.
                if start >= self.end || start >= self.first.load(Ordering::Relaxed) {
                    break;
                }
                self.section(&mut pair, start..(start + SECTION_BYTES).min(self.end))?;
            }
            Ok(())
        });
        if result.is_err() {
            self.failed.store(true, Ordering::Relaxed);
        }
        result
    }

    /// Compares a stretch of the disk, up to its first difference.
    fn section(&self, pair: &mut Pair<'_>, range: std::ops::Range<u64>) -> Result<()> {
        let mut at = range.start;
        let mut known = [Extent { end: at, is_zero: true }; 2];
        while at < range.end {
            for (known, reader) in known.iter_mut().zip(&mut pair.readers) {
                if known.end <= at {
                    *known = reader.extent(at, range.end)?;
                }
            }
            let [a, b] = known;
            let end = a.end.min(b.end).clamp(at + 1, range.end);
            if a.is_zero && b.is_zero {
                self.holes.fetch_add(end - at, Ordering::Relaxed);
                at = end;
                continue;
            }
            let (end, is_free) = self.kind_of(at, end.min(at + PIECE_BYTES));
            if let Some(differs) = pair.differ(at, (end - at) as usize, [a.is_zero, b.is_zero], is_free)? {
                self.compared.fetch_add(differs, Ordering::Relaxed);
                self.note_difference(at + differs);
                return Ok(());
            }
            self.compared.fetch_add(end - at, Ordering::Relaxed);
            at = end;
        }
        Ok(())
    }

    /// How far what is at `at` is all free, or all in use; and which of the two.
    fn kind_of(&self, at: u64, end: u64) -> (u64, bool) {
        match self.free.and_then(|free| free.within(at..end).next()) {
            Some(run) if run.start == at => (run.end, true),
            Some(run) => (run.start, false),
            None => (end, false),
        }
    }

    fn note_difference(&self, at: u64) {
        self.first.fetch_min(at, Ordering::Relaxed);
    }

    fn difference(&self) -> Option<u64> {
        Some(self.first.load(Ordering::Relaxed)).filter(|first| *first != u64::MAX)
    }

    fn comparison(&self, sizes: [Option<u64>; 2], first_difference: Option<u64>) -> Comparison {
        let (compared_bytes, hole_bytes) =
            (self.compared.load(Ordering::Relaxed), self.holes.load(Ordering::Relaxed));
        Comparison { sizes, first_difference, compared_bytes, hole_bytes }
    }
}

impl Pair<'_> {
    /// Where the next `len` bytes differ first, counted from `at`. What is zeros by a side's word is not read. Where all
    /// is free, zeros of the second side differ from nothing.
    fn differ(&mut self, at: u64, len: usize, is_hole: [bool; 2], is_free: bool) -> Result<Option<u64>> {
        if is_free && is_hole[1] {
            return Ok(None);
        }
        for (side, buffer) in self.buffers.iter_mut().enumerate() {
            if is_hole[side] {
                continue;
            }
            let read = self.readers[side].read(&mut buffer[..len], at)?;
            if side == 0 && read < len {
                self.ended.get_or_insert(at + read as u64);
            }
        }
        let [a, b] = [&self.buffers[0][..len], &self.buffers[1][..len]];
        let first_nonzero = |bytes: &[u8]| bytes.iter().position(|&byte| byte != 0);
        let first = match is_hole {
            [true, _] if !is_zero(b) => first_nonzero(b),
            [_, true] if !is_zero(a) => first_nonzero(a),
            [false, false] if a != b => a.iter().zip(b).position(|(a, b)| a != b && !(is_free && *b == 0)),
            _ => None,
        };
        Ok(first.map(|first| first as u64))
    }
}

#[cfg(test)]
mod tests;
