//! What an encoder thread does with a chunk: fetch it where that is still to be done, scan it, encode its
//! data.
//!
//! That happens in pieces that fit a core's own cache, so that bytes are scanned and encoded while they are
//! there. Of a chunk that is fetched here, only clusters that stay plain keep their place in the buffer: the
//! next piece overwrites zeros and what has become smaller.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use super::counters::{Counters, Timed};
use crate::buffers::Buffer;
use crate::encode::Encoder;
use crate::error::Result;
use crate::flow::{Body, Chunk, EncodedChunk, Form, ReadAt, Run};
use crate::scan;
use crate::units::ClusterSize;

/// Bytes fetched and encoded at once, at least one cluster: half of a small second-level cache.
const PIECE_BYTES: usize = 256 << 10;

/// One encoder thread's tools.
pub(super) struct Worker {
    pub(super) encoder: Encoder,
    pub(super) cluster_size: ClusterSize,
    pub(super) counters: Arc<Counters>,
    /// Whether this is the survey: what a second read encodes again is no news about the disk.
    pub(super) surveys: bool,
    /// Whether anybody will compare the guest bytes' CRCs.
    pub(super) with_crc: bool,
}

/// A chunk in work.
struct Bench {
    bytes: Buffer,
    room: Buffer,
    /// How much of the room is taken.
    room_used: usize,
    plain: u64,
    runs: Vec<Run>,
    encoded: EncodedChunk,
    read_time: Duration,
    scan_time: Duration,
    encode_time: Duration,
}

impl Worker {
    /// Scans and encodes one chunk.
    pub(super) fn encode(&mut self, chunk: Chunk) -> Result<EncodedChunk> {
        let guest_bytes = chunk.clusters * self.cluster_size.bytes();
        self.count(&self.counters.guest_bytes, guest_bytes);
        let encoded = EncodedChunk::new(chunk.sequence, chunk.first, chunk.clusters, self.cluster_size);
        let (bytes, room, unread) = match chunk.body {
            Body::Hole => {
                self.count(&self.counters.hole_bytes, guest_bytes);
                return Ok(encoded);
            }
            Body::Zeros { .. } => {
                self.count(&self.counters.zero_bytes, guest_bytes);
                return Ok(encoded);
            }
            Body::Data { bytes, room, .. } => (bytes, room, None),
            Body::Unread { from, len, bytes, room } => (bytes, room, Some((from, len))),
        };
        let mut bench = Bench {
            bytes,
            room,
            room_used: 0,
            plain: 0,
            runs: Vec::new(),
            encoded,
            read_time: Duration::ZERO,
            scan_time: Duration::ZERO,
            encode_time: Duration::ZERO,
        };
        let total = guest_bytes as usize;
        let begin = self.cluster_size.start_of(chunk.first).0;
        let piece = PIECE_BYTES.max(self.cluster_size.size());
        let mut at = 0;
        for start in (0..total).step_by(piece) {
            let end = total.min(start + piece);
            match &unread {
                None => at = start,
                Some((from, len)) => {
                    bench.fetch(
                        &**from,
                        begin + start as u64,
                        at,
                        (*len).clamp(start, end) - start,
                        end - start,
                    )?;
                }
            }
            if self.encode_piece(&mut bench, at, start, end - start) {
                at += end - start;
            }
        }
        Ok(self.finish(bench, guest_bytes))
    }

    /// Encodes the clusters of `bytes[at..at + len]`, which lie `start` bytes behind the beginning of the
    /// chunk. Tells whether any of them stays where it is.
    fn encode_piece(&mut self, bench: &mut Bench, at: usize, start: usize, len: usize) -> bool {
        let cs = self.cluster_size.size();
        let begin = thread_time();
        let used = &bench.bytes[at..at + len];
        bench.runs.clear();
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

    fn finish(&self, bench: Bench, guest_bytes: u64) -> EncodedChunk {
        let Bench { bytes, room, room_used, plain, mut encoded, .. } = bench;
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
}

/// What this thread has had of a processor so far; a thread that has to wait for one does not count that.
fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}
