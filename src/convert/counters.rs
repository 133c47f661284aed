//! What a run counts while it runs; progress and report read the same figures.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

/// Where a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// Looking up and planning.
    Preparing = 0,
    /// Pass 1: reading, scanning, encoding.
    Survey = 1,
    /// Sending the image, reading again what is missing.
    Deliver = 2,
    /// Waiting until the target is safe and verified.
    Settle = 3,
}

/// Figures of a run; all of them only grow.
#[derive(Debug, Default)]
pub struct Counters {
    phase: AtomicU8,
    /// Bytes that came from the source in all passes, shared with the source.
    pub source_bytes: Arc<AtomicU64>,
    /// Guest bytes surveyed: read or skipped as holes.
    pub guest_bytes: AtomicU64,
    /// Guest bytes of zero clusters that were read.
    pub zero_bytes: AtomicU64,
    /// Guest bytes of holes that were never read.
    pub hole_bytes: AtomicU64,
    /// Guest bytes of data clusters.
    pub data_bytes: AtomicU64,
    /// Stored bytes of data clusters.
    pub stored_bytes: AtomicU64,
    /// Compressed clusters that were decoded again and compared, in all passes.
    pub verified_clusters: AtomicU64,
    /// Data clusters stored plain.
    pub plain_clusters: AtomicU64,
    /// Bytes handed to the sink, repetitions included.
    pub sink_bytes: AtomicU64,
    /// Bytes of the target that are blocks of the source as well.
    pub shared_bytes: AtomicU64,
    /// Length of the finished image; 0 until it is known.
    pub image_bytes: AtomicU64,
    /// Guest bytes that pass 2 had to encode again.
    pub reread_bytes: AtomicU64,
    read_nanos: AtomicU64,
    scan_nanos: AtomicU64,
    encode_nanos: AtomicU64,
    verify_nanos: AtomicU64,
    digest_nanos: AtomicU64,
    hash_nanos: AtomicU64,
    sink_nanos: AtomicU64,
}

/// A stage whose time is counted.
#[derive(Clone, Copy, Debug)]
pub enum Timed {
    /// Thread time of reading local files.
    Read,
    /// Processor time of the threads that scan for zeros.
    Scan,
    /// Processor time of CRC and compression.
    Encode,
    /// Processor time of decoding again and comparing.
    Verify,
    /// Processor time of the digest of the guest's content, as far as the encoder threads compute it.
    Digest,
    /// Thread time of hashing the source.
    Hash,
    /// Time that the sink took, waiting included.
    Sink,
}

impl Counters {
    /// Adds to a figure.
    pub fn add(counter: &AtomicU64, value: u64) {
        counter.fetch_add(value, Ordering::Relaxed);
    }

    /// Reads a figure.
    pub fn get(counter: &AtomicU64) -> u64 {
        counter.load(Ordering::Relaxed)
    }

    /// Counts time of a stage.
    pub fn spent(&self, stage: Timed, time: Duration) {
        self.nanos(stage).fetch_add(time.as_nanos() as u64, Ordering::Relaxed);
    }

    /// Time of a stage so far.
    pub fn time(&self, stage: Timed) -> Duration {
        Duration::from_nanos(Self::get(self.nanos(stage)))
    }

    /// Where the run is now.
    pub fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Relaxed) {
            0 => Phase::Preparing,
            1 => Phase::Survey,
            2 => Phase::Deliver,
            _ => Phase::Settle,
        }
    }

    /// Notes where the run is.
    pub fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Relaxed);
    }

    fn nanos(&self, stage: Timed) -> &AtomicU64 {
        match stage {
            Timed::Read => &self.read_nanos,
            Timed::Scan => &self.scan_nanos,
            Timed::Encode => &self.encode_nanos,
            Timed::Verify => &self.verify_nanos,
            Timed::Digest => &self.digest_nanos,
            Timed::Hash => &self.hash_nanos,
            Timed::Sink => &self.sink_nanos,
        }
    }
}
