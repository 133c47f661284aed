//! What an encoder thread does with a chunk: fetch it where that is still to be done, scan it, encode its
//! data, and prove it: decode it again, and hash what the guest will read.
//!
//! That happens in pieces that fit a core's own cache, so that bytes are scanned and encoded while they are
//! there. Of a chunk that is fetched here, only clusters that stay plain keep their place in the buffer: the
//! next piece overwrites zeros and what has become smaller.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use super::counters::{Counters, Timed};
use crate::buffers::Buffer;
use crate::encode::{Encoder, Verifier};
use crate::error::{Error, Kind, Result, Stage};
use crate::flow::{Body, Chunk, EncodedChunk, Form, ReadAt, Run};
use crate::free::disk::Findings;
use crate::hash::BlockDigests;
use crate::scan;
use crate::units::{ClusterSize, SECTOR_BYTES};

/// Bytes fetched and encoded at once, at least one cluster: half of a small second-level cache.
const PIECE_BYTES: usize = 256 << 10;

/// One encoder thread's tools.
pub(super) struct Worker {
    pub(super) encoder: Encoder,
    /// Decodes again what has been encoded, where that is wanted.
    pub(super) verifier: Option<Verifier>,
    pub(super) cluster_size: ClusterSize,
    /// What is written as zeros, whatever the source has there.
    pub(super) free: Option<Arc<Findings>>,
    pub(super) counters: Arc<Counters>,
    /// Whether this is the survey: what a second read encodes again is no news about the disk.
    pub(super) surveys: bool,
    /// Whether anybody will compare the guest bytes' CRCs.
    pub(super) with_crc: bool,
    /// Whether the digest of the guest's content is made.
    pub(super) with_digest: bool,
}

/// A chunk in work.
struct Bench {
    bytes: Buffer,
    room: Buffer,
    /// How much of the room is taken.
    room_used: usize,
    plain: u64,
    runs: Vec<Run>,
    /// Clusters of the piece that were compressed: number within the piece, and their place in the room.
    compressed: Vec<(usize, Range<usize>)>,
    verified: u64,
    encoded: EncodedChunk,
    digests: Option<BlockDigests>,
    read_time: Duration,
    scan_time: Duration,
    encode_time: Duration,
    verify_time: Duration,
    digest_time: Duration,
}

impl Worker {
    /// Scans and encodes one chunk.
    pub(super) fn encode(&mut self, chunk: Chunk) -> Result<EncodedChunk> {
        let guest_bytes = chunk.clusters * self.cluster_size.bytes();
        self.count(&self.counters.guest_bytes, guest_bytes);
        let encoded = EncodedChunk::new(chunk.sequence, chunk.first, chunk.clusters, self.cluster_size);
        let (bytes, room, have, unread) = match chunk.body {
            Body::Hole => {
                self.count(&self.counters.hole_bytes, guest_bytes);
                return Ok(encoded);
            }
            Body::Zeros { .. } => {
                self.count(&self.counters.zero_bytes, guest_bytes);
                return Ok(encoded);
            }
            Body::Data { bytes, len, room } => (bytes, room, len, None),
            Body::Unread { from, len, bytes, room } => (bytes, room, len, Some(from)),
        };
        let begin = self.cluster_size.start_of(chunk.first).0;
        let mut bytes = bytes;
        if unread.is_none() {
            self.mask(&mut bytes[..have], begin);
        }
        let mut bench = Bench {
            bytes,
            room,
            room_used: 0,
            plain: 0,
            runs: Vec::new(),
            compressed: Vec::new(),
            verified: 0,
            encoded,
            digests: self.with_digest.then(|| BlockDigests::new(begin)),
            read_time: Duration::ZERO,
            scan_time: Duration::ZERO,
            encode_time: Duration::ZERO,
            verify_time: Duration::ZERO,
            digest_time: Duration::ZERO,
        };
        let total = guest_bytes as usize;
        // The disk ends with a sector, the last cluster may go on behind it.
        let shown = have.next_multiple_of(SECTOR_BYTES as usize).min(total);
        let piece = PIECE_BYTES.max(self.cluster_size.size());
        let mut at = 0;
        for start in (0..total).step_by(piece) {
            let end = total.min(start + piece);
            match &unread {
                None => at = start,
                Some(from) => {
                    let have = have.clamp(start, end) - start;
                    bench.fetch(&**from, begin + start as u64, at, have, end - start)?;
                    self.mask(&mut bench.bytes[at..at + have], begin + start as u64);
                }
            }
            bench.digest(at, shown.clamp(start, end) - start);
            let any_stays = self.encode_piece(&mut bench, at, start, end - start);
            self.verify_piece(&mut bench, at, begin + start as u64)?;
            if any_stays {
                at += end - start;
            }
        }
        Ok(self.finish(bench, guest_bytes))
    }

    /// Clears what is free of these bytes, which are at this guest offset.
    fn mask(&self, bytes: &mut [u8], guest: u64) {
        let Some(findings) = &self.free else { return };
        for run in findings.free.within(guest..guest + bytes.len() as u64) {
            bytes[(run.start - guest) as usize..(run.end - guest) as usize].fill(0);
        }
    }

    /// Encodes the clusters of `bytes[at..at + len]`, which lie `start` bytes behind the beginning of the
    /// chunk. Tells whether any of them stays where it is.
    fn encode_piece(&mut self, bench: &mut Bench, at: usize, start: usize, len: usize) -> bool {
        let cs = self.cluster_size.size();
        let begin = thread_time();
        let used = &bench.bytes[at..at + len];
        bench.runs.clear();
        bench.compressed.clear();
        bench.runs.extend(scan::runs(used, self.cluster_size).filter(|run| run.is_data));
        let scanned = thread_time();
        let plain_before = bench.plain;
        for index in bench.runs.iter().flat_map(|run| run.first..run.first + run.clusters) {
            let cluster = &used[index * cs..][..cs];
            let guest_crc = if self.with_crc { Encoder::guest_crc(cluster) } else { 0 };
            let number = start / cs + index;
            match self.encoder.compress(cluster, &mut bench.room[bench.room_used..]) {
                Some(len) => {
                    bench.encoded.push(number, guest_crc, Form::Compressed(len as u32), bench.room_used);
                    bench.compressed.push((index, bench.room_used..bench.room_used + len));
                    bench.room_used += len;
                }
                None => {
                    bench.encoded.push(number, guest_crc, Form::Plain, at + index * cs);
                    bench.plain += 1;
                }
            }
        }
        bench.scan_time += scanned.saturating_sub(begin);
        bench.encode_time += thread_time().saturating_sub(scanned);
        bench.plain > plain_before
    }

    /// Decodes what has been encoded of the piece that begins at `bytes[at..]` and at this guest offset.
    fn verify_piece(&mut self, bench: &mut Bench, at: usize, guest: u64) -> Result<()> {
        let Some(verifier) = &mut self.verifier else { return Ok(()) };
        let cs = self.cluster_size.size();
        let begin = thread_time();
        for (index, range) in &bench.compressed {
            let cluster = &bench.bytes[at + index * cs..][..cs];
            verifier.check(cluster, &bench.room[range.clone()]).map_err(|why| {
                not_the_same(guest + (index * cs) as u64, self.cluster_size, verifier, &why)
            })?;
        }
        bench.verified += bench.compressed.len() as u64;
        bench.verify_time += thread_time().saturating_sub(begin);
        Ok(())
    }

    fn finish(&self, bench: Bench, guest_bytes: u64) -> EncodedChunk {
        let Bench { bytes, room, room_used, plain, mut encoded, digests, .. } = bench;
        encoded.digests = digests;
        self.counters.spent(Timed::Verify, bench.verify_time);
        self.counters.spent(Timed::Digest, bench.digest_time);
        Counters::add(&self.counters.verified_clusters, bench.verified);
        self.counters.spent(Timed::Read, bench.read_time);
        self.counters.spent(Timed::Scan, bench.scan_time);
        self.counters.spent(Timed::Encode, bench.encode_time);
        let data_bytes = encoded.data_clusters() * self.cluster_size.bytes();
        self.count(&self.counters.data_bytes, data_bytes);
        self.count(&self.counters.zero_bytes, guest_bytes - data_bytes);
        self.count(&self.counters.plain_clusters, plain);
        self.count(&self.counters.stored_bytes, room_used as u64 + plain * self.cluster_size.bytes());
        encoded.attach(bytes, room);
        encoded
    }

    fn count(&self, counter: &AtomicU64, value: u64) {
        if self.surveys {
            Counters::add(counter, value);
        }
    }
}

impl Bench {
    /// Reads `have` bytes to `bytes[at..]` and fills up to `len` with zeros.
    fn fetch(&mut self, from: &dyn ReadAt, offset: u64, at: usize, have: usize, len: usize) -> Result<()> {
        let begin = Instant::now();
        from.read_at(&mut self.bytes[at..at + have], offset)?;
        self.bytes[at + have..at + len].fill(0);
        self.read_time += begin.elapsed();
        Ok(())
    }

    /// Takes the next `len` bytes of the disk, which are `bytes[at..]`, into the digest.
    fn digest(&mut self, at: usize, len: usize) {
        let Some(digests) = &mut self.digests else { return };
        let begin = thread_time();
        digests.add(&self.bytes[at..at + len], scan::zero::is_zero);
        self.digest_time += thread_time().saturating_sub(begin);
    }
}

fn not_the_same(guest: u64, cs: ClusterSize, verifier: &Verifier, why: &str) -> Error {
    let what = format!(
        "cluster {} at guest offset {guest}, encoded and decoded again by {}, is not what it was: {why}",
        guest >> cs.bits(),
        verifier.library()
    );
    Error::new(Stage::Encode, Kind::Other, what).advise(
        "test this machine's memory, run it again, and report it if it happens again with another --level",
    )
}

/// What this thread has had of a processor so far; a thread that has to wait for one does not count that.
fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buffers::Pool;
    use crate::encode::Compression;
    use crate::flow::CHUNK_BYTES;
    use crate::units::ClusterIndex;

    const CS: ClusterSize = ClusterSize::DEFAULT;

    fn worker(compression: Compression, encoder: Encoder) -> Worker {
        Worker {
            encoder,
            verifier: Verifier::new(compression, CS),
            cluster_size: CS,
            free: None,
            counters: Arc::default(),
            surveys: true,
            with_crc: true,
            with_digest: true,
        }
    }

    /// Four clusters from cluster 40 on: zeros, text, noise, text.
    fn chunk() -> Chunk {
        let pool = Pool::new(2, CHUNK_BYTES);
        let (mut bytes, room) = (pool.take().unwrap(), pool.take().unwrap());
        let len = 4 * CS.size();
        let mut state = 1u64;
        for (at, byte) in bytes[..len].iter_mut().enumerate() {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            *byte = match at / CS.size() {
                0 => 0,
                2 => (state >> 56) as u8,
                _ => b"lorem ipsum "[at % 12],
            };
        }
        Chunk { sequence: 0, first: ClusterIndex(40), clusters: 4, body: Body::Data { bytes, len, room } }
    }

    #[test]
    fn a_faulty_encoder_is_noticed_before_anything_is_placed() {
        for compression in [Compression::Deflate(1), Compression::DeflateSmallWindow(3), Compression::Zstd(2)]
        {
            let faulty = Encoder::with_fault(compression, CS, |stored| stored[stored.len() / 2] ^= 16);
            let mut worker = worker(compression, faulty);
            let error = worker.encode(chunk()).unwrap_err();
            assert_eq!((error.stage(), error.kind()), (Stage::Encode, Kind::Other));
            let text = error.to_string();
            assert!(text.contains("cluster 41 at guest offset 2686976"), "{text}");
            assert!(text.contains("memory") && text.contains("--level"), "{text}");
            worker.verifier = None;
            assert_eq!(worker.encode(chunk()).unwrap().data_clusters(), 3, "nobody looked");
        }
    }

    #[test]
    fn what_is_right_is_counted() {
        let mut worker = worker(Compression::Deflate(1), Encoder::new(Compression::Deflate(1), CS));
        let encoded = worker.encode(chunk()).unwrap();
        assert_eq!(encoded.data_clusters(), 3);
        assert_eq!(Counters::get(&worker.counters.verified_clusters), 2, "noise is stored plain");
        assert!(worker.counters.time(Timed::Verify) > Duration::ZERO);
        assert!(worker.counters.time(Timed::Digest) > Duration::ZERO);
    }
}
