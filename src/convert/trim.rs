//! What filesystems have freed is looked for before anything is converted, and then left out.
//!
//! A source that can be read anywhere is asked for its metadata, and later what is free is not read. One that comes in
//! order passes by once, or a few times where a question comes too late, before the conversion begins. Whatever the
//! road, free bytes are zeros to the encoders, so that the image does not depend on it.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_channel::bounded;

use super::cancel::Cancel;
use super::counters::Counters;
use crate::buffers::Pool;
use crate::error::{Error, Kind, Result, Stage};
use crate::facts::Access;
use crate::flow::{Body, CHUNK_BYTES, Chunk};
use crate::free::disk::{Findings, look, look_while_passing};
use crate::free::stream::Passing;
use crate::free::{Disk, Limits};
use crate::holes::Holes;
use crate::scan;
use crate::source::{MappedSource, Outlet, Source, Wanted};
use crate::units::ClusterSize;

/// Buffers of [`CHUNK_BYTES`] while a source is looked at.
const BUFFERS: usize = 4;
/// How often a source that comes in order may pass: filesystems whose metadata lie too much across are left whole.
const PASSES_MAX: usize = 4;
/// What lies between two pieces of metadata and is no longer than this is read along, in bytes: over a network a
/// request of its own would cost more.
const READ_ALONG_BYTES: u64 = 256 << 10;
/// What is read at once, in bits of bytes: metadata are no smaller.
const GRAIN_BITS: u32 = 12;

/// Looks at the filesystems of a source. `memory_bytes` is for the metadata of one of them.
///
/// # Errors
/// [`Kind::Usage`] for a source that can be read but once, or whose length nobody knows; whatever keeps the bytes from
/// coming; an end by [`Cancel`].
pub fn look_for_free(
    source: &dyn Source,
    memory_bytes: u64,
    counters: &Counters,
    cancel: &Cancel,
) -> Result<Findings> {
    let facts = source.facts();
    let limits = Limits { memory_bytes };
    let reader = Reader { source, counters, cancel, read_bytes: Arc::default() };
    match (facts.access, facts.len) {
        (Access::Random, Some(len)) => look(&Anywhere(reader), len, limits),
        (Access::Sequential, Some(len)) => reader.in_order(len, limits),
        _ => {
            let what = format!("look at the filesystems of {}, which can be read but once", facts.name);
            Err(Error::new(Stage::Plan, Kind::Usage, what)
                .advise("leave --trim out, or put the disk into a file or into Glance first"))
        }
    }
}

/// The source without what is free, where it can be read anywhere; else as it is.
///
/// # Errors
/// The source cannot be asked where its holes are; there are more stretches than are kept.
pub fn without_free(source: Arc<dyn Source>, findings: &Findings) -> Result<Arc<dyn Source>> {
    let facts = source.facts();
    let Some(len) = facts.len.filter(|_| facts.access == Access::Random && findings.free.bytes() > 0) else {
        return Ok(source);
    };
    let many =
        |why| Error::new(Stage::Plan, Kind::Source, format!("leave out what is free of the disk: {why}"));
    let mut holes = Holes::new();
    let mut at = 0;
    // A hole of the source is none the less one.
    while let Some(data) = source.data_behind(at)? {
        let data = data.start..data.end.min(len);
        holes.push(data.start, true).map_err(many)?;
        for free in findings.free.within(data.clone()) {
            holes.push(free.start, false).map_err(many)?;
            holes.push(free.end, true).map_err(many)?;
        }
        holes.push(data.end, false).map_err(many)?;
        at = data.end.max(at + 1);
    }
    holes.push(len, true).map_err(many)?;
    Ok(Arc::new(MappedSource::new(source, holes)))
}

/// A source, read by whoever looks at it.
struct Reader<'a> {
    source: &'a dyn Source,
    counters: &'a Counters,
    cancel: &'a Cancel,
    read_bytes: Arc<AtomicU64>,
}

/// What comes from a source.
enum Piece<'a> {
    Bytes(&'a [u8]),
    /// So many zeros.
    Zeros(u64),
}

impl Reader<'_> {
    /// Hands on what is wanted, with its place, in rising order.
    fn pass(
        &self,
        wanted: &Wanted,
        cs: ClusterSize,
        take: &mut dyn FnMut(u64, Piece<'_>) -> Result<()>,
    ) -> Result<()> {
        let (sender, receiver) = bounded::<Chunk>(2);
        let pool = || Pool::new(BUFFERS, CHUNK_BYTES);
        let mut outlet = Outlet::new(sender, pool(), pool(), cs, Arc::clone(&self.read_bytes))
            .find_zeros(scan::zero::is_zero);
        let stop = receiver.clone();
        let guard = self.cancel.on_trigger(move || {
            stop.close();
        });
        let result = std::thread::scope(|scope| {
            let thread = std::thread::Builder::new()
                .name("source".into())
                .spawn_scoped(scope, move || self.source.read(wanted, &mut outlet).map(drop))
                .map_err(|error| Error::new(Stage::Source, Kind::Local, "start a thread").because(error))?;
            let mut taken = Ok(());
            while let Ok(chunk) = receiver.recv_blocking() {
                taken = hand_on(chunk, cs, take);
                if taken.is_err() {
                    break;
                }
            }
            // Chunks that wait in the channel hold buffers that the source may be waiting for.
            receiver.close();
            while receiver.try_recv().is_ok() {}
            let read = thread.join().unwrap_or_else(|_| {
                Err(Error::new(Stage::Source, Kind::Other, "the source panicked")
                    .advise("please report this"))
            });
            taken.and(read)
        });
        drop(guard);
        self.cancel.check(Stage::Source)?;
        Counters::add(&self.counters.source_bytes, self.read_bytes.swap(0, Ordering::Relaxed));
        result
    }

    /// A source that comes in order, from its beginning each time.
    fn in_order(&self, len: u64, limits: Limits) -> Result<Findings> {
        let mut passing = Passing::new(limits);
        for _ in 1..PASSES_MAX {
            let findings = self.pass_by(&passing, len, limits)?;
            if passing.missed().is_empty() {
                return Ok(findings);
            }
            passing = passing.again();
        }
        self.pass_by(&passing, len, limits)
    }

    fn pass_by(&self, passing: &Passing, len: u64, limits: Limits) -> Result<Findings> {
        look_while_passing(passing, len, limits, || {
            self.pass(&Wanted::All, ClusterSize::DEFAULT, &mut |offset, piece| {
                match piece {
                    Piece::Bytes(bytes) => passing.offer(offset, bytes),
                    Piece::Zeros(len) => passing.offer_zeros(offset, len),
                }
                Ok(())
            })
        })
    }
}

fn hand_on(chunk: Chunk, cs: ClusterSize, take: &mut dyn FnMut(u64, Piece<'_>) -> Result<()>) -> Result<()> {
    let offset = cs.start_of(chunk.first).0;
    match chunk.body {
        Body::Hole => take(offset, Piece::Zeros(chunk.clusters * cs.bytes())),
        Body::Zeros { len } => take(offset, Piece::Zeros(len as u64)),
        Body::Data { bytes, len, .. } => take(offset, Piece::Bytes(&bytes[..len])),
        Body::Unread { from, len, mut bytes, .. } => {
            from.read_at(&mut bytes[..len], offset)?;
            take(offset, Piece::Bytes(&bytes[..len]))
        }
    }
}

/// A source that can be read anywhere, as a disk.
struct Anywhere<'a>(Reader<'a>);

impl Disk for Anywhere<'_> {
    fn read(&self, wanted: &[Range<u64>]) -> Result<Vec<Vec<u8>>> {
        let grain = ClusterSize::from_bits(GRAIN_BITS)
            .ok_or_else(|| Error::new(Stage::Source, Kind::Other, "the grain of a look is no cluster"))?;
        let along = if self.0.source.facts().is_remote { READ_ALONG_BYTES >> GRAIN_BITS } else { 0 };
        let mut runs: Vec<Range<u64>> = Vec::new();
        for range in wanted {
            let (first, end) = (range.start >> GRAIN_BITS, grain.clusters_for(range.end));
            match runs.last_mut() {
                Some(last) if first <= last.end + along => last.end = last.end.max(end),
                _ => runs.push(first..end),
            }
        }
        let mut out: Vec<Vec<u8>> =
            wanted.iter().map(|range| Vec::with_capacity((range.end - range.start) as usize)).collect();
        let mut next = 0;
        self.0.pass(&Wanted::Runs(Arc::new(runs)), grain, &mut |offset, piece| {
            let end = offset
                + match &piece {
                    Piece::Bytes(bytes) => bytes.len() as u64,
                    Piece::Zeros(len) => *len,
                };
            while let Some(range) = wanted.get(next).filter(|range| range.start < end) {
                let from = range.start + out[next].len() as u64;
                let until = range.end.min(end);
                if from < offset {
                    break;
                }
                match &piece {
                    Piece::Bytes(bytes) => {
                        out[next]
                            .extend_from_slice(&bytes[(from - offset) as usize..(until - offset) as usize]);
                    }
                    Piece::Zeros(_) => out[next].resize((until - range.start) as usize, 0),
                }
                if until < range.end {
                    break;
                }
                next += 1;
            }
            Ok(())
        })?;
        if next < wanted.len() {
            let what = format!("{} ended before what it was asked for", self.0.source.facts().name);
            return Err(Error::new(Stage::Source, Kind::SourceChanged, what));
        }
        Ok(out)
    }
}
