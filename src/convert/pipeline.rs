//! One pass: a source thread, a hashing thread where asked for, encoder threads, and an ordered
//! hand-over to the caller.
//!
//! ```text
//! source ─► (hash) ─► N × scan, encode ─► in order ─► caller
//! ```
//! The buffer pools bound what is under way: a chunk takes a buffer when it is read and a room when
//! it is sent on, both in order, so that the chunk everybody waits for always has its own.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use async_channel::{Receiver, Sender, bounded};

use super::Job;
use super::cancel::Cancel;
use super::counters::{Counters, Timed};
use super::proof::Proof;
use super::worker::Worker;
use crate::buffers::Pool;
use crate::encode::{Compression, Encoder, Verifier};
use crate::error::{Error, Kind, Result, Stage};
use crate::facts::Access;
use crate::flow::{Body, CHUNK_BYTES, Chunk, EncodedChunk, Room};
use crate::free::disk::Findings;
use crate::hash::{Algorithm, Digest, Hasher};
use crate::plan::Budget;
use crate::scan;
use crate::source::{Outlet, Source, Wanted};
use crate::units::ClusterSize;

/// What every pass of a run shares.
pub(super) struct Engine {
    pub(super) source: Arc<dyn Source>,
    pub(super) cluster_size: ClusterSize,
    pub(super) compression: Compression,
    pub(super) proof: Proof,
    pub(super) counters: Arc<Counters>,
    pub(super) cancel: Cancel,
    free: Option<Arc<Findings>>,
    threads: usize,
    bytes: Pool,
    rooms: Pool,
}

/// What one pass found.
#[derive(Debug)]
pub(super) struct Pass {
    /// Length of the source in bytes.
    pub(super) len: u64,
    /// Its hash, if one was asked for.
    pub(super) digest: Option<Digest>,
    /// The digest of what the guest reads, if one was asked for; see [`crate::hash::GuestDigest`].
    pub(super) guest_digest: Option<String>,
}

/// What one pass is to do.
pub(super) struct Order {
    pub(super) wanted: Wanted,
    pub(super) hash: Option<Algorithm>,
    /// Whether the guest bytes' CRCs will be compared.
    pub(super) with_crc: bool,
    /// Permits the source to hang up and come back.
    pub(super) resume: Option<Room>,
}

type Chunks = (Sender<Chunk>, Receiver<Chunk>);
type Encoded = Result<EncodedChunk>;

impl Engine {
    pub(super) fn new(job: &Job, budget: &Budget, counters: Arc<Counters>) -> Self {
        Self {
            source: Arc::clone(&job.source),
            cluster_size: job.geometry.cluster_size,
            compression: job.compression,
            proof: job.proof,
            free: job.free.clone(),
            counters,
            cancel: job.cancel.clone(),
            threads: budget.threads,
            bytes: Pool::new(budget.chunk_buffers, CHUNK_BYTES),
            rooms: Pool::new(budget.room_buffers, CHUNK_BYTES),
        }
    }

    /// Runs one pass and hands every chunk, encoded and in order, to `consume`.
    pub(super) fn run(
        &self,
        order: Order,
        consume: &mut dyn FnMut(&mut EncodedChunk) -> Result<()>,
    ) -> Result<Pass> {
        let read: Chunks = bounded(2);
        let work: Chunks = if order.hash.is_some() { bounded(2) } else { read.clone() };
        let (done, encoded) = bounded::<Encoded>(self.threads);
        // Receivers only: a sender kept here would keep its channel from ending by itself.
        let stop = {
            let (read, work, encoded) = (read.1.clone(), work.1.clone(), encoded.clone());
            move || {
                let _ = (read.close(), work.close(), encoded.close());
            }
        };
        let guard = self.cancel.on_trigger(stop.clone());

        let hashing = order
            .hash
            .map(|algorithm| self.spawn_hash(algorithm, read.1.clone(), work.0.clone()))
            .transpose()?;
        let surveys = matches!(order.wanted, Wanted::All);
        for index in 0..self.threads {
            let worker = Worker {
                encoder: Encoder::new(self.compression, self.cluster_size),
                verifier: self
                    .proof
                    .verify_encode
                    .then(|| Verifier::new(self.compression, self.cluster_size))
                    .flatten(),
                cluster_size: self.cluster_size,
                free: self.free.clone(),
                counters: Arc::clone(&self.counters),
                surveys,
                with_crc: order.with_crc,
                with_digest: surveys && self.proof.guest_digest,
            };
            spawn_encoder(index, worker, work.1.clone(), done.clone())?;
        }
        let source = self.spawn_source(order.wanted, order.resume, read.0.clone())?;
        drop((read, work, done));

        let result = self.collect(&encoded, consume);
        if result.is_err() {
            stop();
            // A stream that never ends cannot be waited for; it ends with the process.
            if self.source.facts().access != Access::Once {
                let _ = source.join();
            }
            self.cancel.check(Stage::Source)?;
            return result.map(|()| Pass { len: 0, digest: None, guest_digest: None });
        }
        drop(guard);
        self.cancel.check(Stage::Source)?;
        // A failure of the hashing thread makes the source believe that it was stopped: it comes first.
        let digest = hashing.map(|thread| thread.join().map_err(|_| panicked("hash"))?).transpose()?;
        let len = source.join().map_err(|_| panicked("source"))??;
        self.source.settle()?;
        Ok(Pass { len, digest, guest_digest: None })
    }

    fn collect(
        &self,
        encoded: &Receiver<Encoded>,
        consume: &mut dyn FnMut(&mut EncodedChunk) -> Result<()>,
    ) -> Result<()> {
        let mut early: BTreeMap<u64, EncodedChunk> = BTreeMap::new();
        let mut next = 0;
        while let Ok(chunk) = encoded.recv_blocking() {
            let chunk = chunk?;
            early.insert(chunk.sequence, chunk);
            while let Some(mut chunk) = early.remove(&next) {
                self.cancel.check(Stage::Place)?;
                consume(&mut chunk)?;
                next += 1;
            }
        }
        Ok(())
    }

    fn spawn_source(
        &self,
        wanted: Wanted,
        resume: Option<Room>,
        chunks: Sender<Chunk>,
    ) -> Result<JoinHandle<Result<u64>>> {
        let source = Arc::clone(&self.source);
        let read_bytes = Arc::clone(&self.counters.source_bytes);
        let mut outlet =
            Outlet::new(chunks, self.bytes.clone(), self.rooms.clone(), self.cluster_size, read_bytes)
                .find_zeros(scan::zero::is_zero)
                .may_hang_up(resume);
        spawn("source", move || source.read(&wanted, &mut outlet))
    }

    fn spawn_hash(
        &self,
        algorithm: Algorithm,
        from: Receiver<Chunk>,
        to: Sender<Chunk>,
    ) -> Result<JoinHandle<Result<Digest>>> {
        let counters = Arc::clone(&self.counters);
        let cs = self.cluster_size;
        spawn("hash", move || {
            let mut hasher = Hasher::new(algorithm);
            while let Ok(chunk) = from.recv_blocking() {
                let chunk = fetched(chunk, cs)?;
                let begin = Instant::now();
                match &chunk.body {
                    Body::Data { bytes, len, .. } => hash_data(&mut hasher, &bytes[..*len]),
                    Body::Zeros { len } => hasher.update_zeros(*len as u64),
                    Body::Hole => hasher.update_zeros(chunk.clusters * cs.bytes()),
                    Body::Unread { .. } => unreachable!("it has just been fetched"),
                }
                counters.spent(Timed::Hash, begin.elapsed());
                if to.send_blocking(chunk).is_err() {
                    break;
                }
            }
            Ok(hasher.finish())
        })
    }
}

fn spawn_encoder(
    index: usize,
    mut worker: Worker,
    from: Receiver<Chunk>,
    to: Sender<Encoded>,
) -> Result<JoinHandle<()>> {
    spawn(&format!("encode-{index}"), move || {
        while let Ok(chunk) = from.recv_blocking() {
            // A panic here would leave everybody waiting for this chunk.
            let encoded = catch_unwind(AssertUnwindSafe(|| worker.encode(chunk)));
            if to.send_blocking(encoded.unwrap_or_else(|_| Err(panicked("encode")))).is_err() {
                break;
            }
        }
    })
}

/// A chunk with its bytes.
fn fetched(chunk: Chunk, cs: ClusterSize) -> Result<Chunk> {
    let Body::Unread { from, len, mut bytes, room } = chunk.body else { return Ok(chunk) };
    from.read_at(&mut bytes[..len], cs.start_of(chunk.first).0)?;
    bytes[len..cs.round_up(len as u64) as usize].fill(0);
    Ok(Chunk { body: Body::Data { bytes, len, room }, ..chunk })
}

/// Hashes bytes of a disk, and looks for zeros among them, which are hashed faster by number.
pub fn hash_data(hasher: &mut Hasher, bytes: &[u8]) {
    const PIECE_BYTES: usize = 4096;
    let mut zeros = 0;
    for piece in bytes.chunks(PIECE_BYTES) {
        if scan::zero::is_zero(piece) {
            zeros += piece.len() as u64;
        } else {
            hasher.update_zeros(std::mem::take(&mut zeros));
            hasher.update(piece);
        }
    }
    hasher.update_zeros(zeros);
}

fn spawn<T: Send + 'static>(name: &str, run: impl FnOnce() -> T + Send + 'static) -> Result<JoinHandle<T>> {
    std::thread::Builder::new().name(name.into()).spawn(run).map_err(|error| {
        Error::new(Stage::Plan, Kind::Local, format!("start the thread `{name}`")).because(error)
    })
}

fn panicked(what: &str) -> Error {
    Error::new(Stage::Encode, Kind::Other, format!("the {what} thread panicked")).advise("please report this")
}
