//! Where a source puts its chunks.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use super::gather::{Gathered, IsZero};
use crate::buffers::{Buffer, Pool};
use crate::error::{Error, Kind, Stage};
use crate::flow::{Body, CHUNK_BYTES, Chunk, ReadAt, Room};
use crate::holes::Holes;
use crate::units::{ClusterIndex, ClusterSize};

/// The other side does not want any more chunks; it knows why.
#[derive(Clone, Copy, Debug)]
pub struct Stopped;

impl From<Stopped> for Error {
    fn from(_: Stopped) -> Self {
        Self::new(Stage::Source, Kind::Other, "the run was stopped")
    }
}

/// See [`Outlet::stop_signal`].
#[derive(Debug)]
pub struct StopSignal(async_channel::Sender<Chunk>);

impl StopSignal {
    /// Resolves when no more chunks are wanted.
    pub async fn wait(&self) {
        self.0.closed().await;
    }
}

/// Sends chunks on, with the buffers for their bytes. Sending waits while too many are under way:
/// that is the back-pressure of a run.
pub struct Outlet {
    chunks: async_channel::Sender<Chunk>,
    bytes: Pool,
    rooms: Pool,
    cluster_size: ClusterSize,
    sequence: u64,
    read_bytes: Arc<AtomicU64>,
    resume: Option<Room>,
    is_zero: IsZero,
    /// The cluster behind the last one that was sent, where gaps are holes.
    filled: Option<u64>,
    expected: Option<Expected>,
}

/// What a map says of the bytes that come.
struct Expected {
    holes: Holes,
    /// The first stretch that is not wholly behind.
    at: usize,
    /// Where it was wrong.
    found: Arc<OnceLock<u64>>,
}

impl Outlet {
    /// `bytes` and `rooms` are pools of buffers of [`CHUNK_BYTES`]; `read_bytes` counts what came in.
    pub fn new(
        chunks: async_channel::Sender<Chunk>,
        bytes: Pool,
        rooms: Pool,
        cluster_size: ClusterSize,
        read_bytes: Arc<AtomicU64>,
    ) -> Self {
        Self {
            chunks,
            bytes,
            rooms,
            cluster_size,
            sequence: 0,
            read_bytes,
            resume: None,
            is_zero: |_| false,
            filled: None,
            expected: None,
        }
    }

    /// An outlet with the same buffers whose chunks go elsewhere: for a source that wraps another one, and hands
    /// on by [`Self::forward`] what that one gives.
    #[must_use]
    pub fn divert(&self, chunks: async_channel::Sender<Chunk>) -> Self {
        Self {
            chunks,
            bytes: self.bytes.clone(),
            rooms: self.rooms.clone(),
            cluster_size: self.cluster_size,
            sequence: 0,
            read_bytes: Arc::clone(&self.read_bytes),
            resume: self.resume.clone(),
            is_zero: self.is_zero,
            filled: None,
            expected: None,
        }
    }

    /// From now on clusters that are left out, from the beginning of the disk on, are sent as holes.
    pub fn fill_gaps(&mut self) {
        self.filled = Some(0);
    }

    /// Sends what is missing up to a cluster as a hole.
    ///
    /// # Errors
    /// [`Stopped`] if no more chunks are wanted.
    pub fn fill_up_to(&mut self, end: ClusterIndex) -> Result<(), Stopped> {
        match self.gap(end) {
            Some(gap) => self.chunks.send_blocking(gap).map_err(|_| Stopped),
            None => Ok(()),
        }
    }

    /// From now on bytes that come are held against a map. Where it calls zero what is not, sending fails, and the
    /// disk offset is told here.
    pub fn expect_zeros(&mut self, holes: Holes) -> Arc<OnceLock<u64>> {
        let found = Arc::new(OnceLock::new());
        self.expected = Some(Expected { holes, at: 0, found: Arc::clone(&found) });
        found
    }

    /// Sends a chunk on that came by a diverted outlet.
    ///
    /// # Errors
    /// [`Stopped`] if no more chunks are wanted.
    pub fn forward(&mut self, chunk: Chunk) -> Result<(), Stopped> {
        let chunk = Chunk { sequence: self.next(), ..chunk };
        self.chunks.send_blocking(chunk).map_err(|_| Stopped)
    }

    /// Permits a source on another machine to hang up when it would have to wait for a buffer, and
    /// to come back when this says that there is room.
    #[must_use]
    pub fn may_hang_up(mut self, resume: Option<Room>) -> Self {
        self.resume = resume;
        self
    }

    /// Gives sources that collect their bytes a way to see zeros; without one they take none for granted.
    #[must_use]
    pub fn find_zeros(mut self, is_zero: IsZero) -> Self {
        self.is_zero = is_zero;
        self
    }

    /// See [`Self::find_zeros`].
    pub fn is_zero(&self) -> IsZero {
        self.is_zero
    }

    /// See [`Self::may_hang_up`].
    pub fn resume(&self) -> Option<&Room> {
        self.resume.as_ref()
    }

    /// Size of a cluster.
    pub fn cluster_size(&self) -> ClusterSize {
        self.cluster_size
    }

    /// Clusters of a full chunk.
    pub fn chunk_clusters(&self) -> u64 {
        CHUNK_BYTES as u64 / self.cluster_size.bytes()
    }

    /// Counts bytes that came from the source, wanted or not.
    pub fn count_read(&self, bytes: u64) {
        self.read_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Waits for a buffer.
    ///
    /// # Errors
    /// [`Stopped`] if no more chunks are wanted.
    pub fn buffer(&self) -> Result<Buffer, Stopped> {
        self.bytes.take().filter(|_| !self.chunks.is_closed()).ok_or(Stopped)
    }

    /// The pool that the buffers come from.
    pub fn pool(&self) -> &Pool {
        &self.bytes
    }

    /// Whether no more chunks are wanted.
    pub fn is_stopped(&self) -> bool {
        self.chunks.is_closed()
    }

    /// Something to wait on until no more chunks are wanted.
    pub fn stop_signal(&self) -> StopSignal {
        StopSignal(self.chunks.clone())
    }

    /// Sends zeros; `clusters` may be any number.
    ///
    /// # Errors
    /// [`Stopped`] if no more chunks are wanted.
    pub fn hole(&mut self, first: ClusterIndex, clusters: u64) -> Result<(), Stopped> {
        if clusters == 0 {
            return Ok(());
        }
        self.fill_up_to(first)?;
        let chunk = self.chunk(first, clusters, Body::Hole);
        self.chunks.send_blocking(chunk).map_err(|_| Stopped)
    }

    /// Sends `len` bytes, at most [`CHUNK_BYTES`], that are read by whoever needs them.
    ///
    /// # Errors
    /// [`Stopped`] if no more chunks are wanted.
    pub fn unread(&mut self, first: ClusterIndex, from: Arc<dyn ReadAt>, len: usize) -> Result<(), Stopped> {
        let bytes = self.buffer()?;
        let room = self.rooms.take().ok_or(Stopped)?;
        let clusters = self.cluster_size.clusters_for(len as u64);
        self.fill_up_to(first)?;
        let chunk = self.chunk(first, clusters, Body::Unread { from, len, bytes, room });
        self.chunks.send_blocking(chunk).map_err(|_| Stopped)
    }

    /// Sends the first `len` bytes of a buffer, padded with zeros to whole clusters.
    ///
    /// # Errors
    /// [`Stopped`] if no more chunks are wanted.
    pub fn data(&mut self, first: ClusterIndex, bytes: Buffer, len: usize) -> Result<(), Stopped> {
        self.compare(first, &bytes[..len])?;
        let room = self.rooms.take().ok_or(Stopped)?;
        self.fill_up_to(first)?;
        let chunk = self.data_chunk(first, bytes, len, room);
        self.chunks.send_blocking(chunk).map_err(|_| Stopped)
    }

    /// Sends what was gathered; for use in a task.
    ///
    /// # Errors
    /// [`Stopped`] if no more chunks are wanted.
    pub async fn gathered(&mut self, first: ClusterIndex, gathered: Gathered) -> Result<(), Stopped> {
        let len = gathered.len;
        if let Some(gap) = self.gap(first) {
            self.chunks.send(gap).await.map_err(|_| Stopped)?;
        }
        let chunk = if let Some(bytes) = gathered.bytes {
            self.compare(first, &bytes[..len])?;
            let room = self.rooms.take_async().await.ok_or(Stopped)?;
            self.data_chunk(first, bytes, len, room)
        } else {
            self.chunk(first, self.cluster_size.clusters_for(len as u64), Body::Zeros { len })
        };
        self.chunks.send(chunk).await.map_err(|_| Stopped)
    }

    fn data_chunk(&mut self, first: ClusterIndex, mut bytes: Buffer, len: usize, room: Buffer) -> Chunk {
        bytes[len..self.cluster_size.round_up(len as u64) as usize].fill(0);
        self.chunk(first, self.cluster_size.clusters_for(len as u64), Body::Data { bytes, len, room })
    }

    /// The hole before a cluster, where there is one to be sent.
    fn gap(&mut self, first: ClusterIndex) -> Option<Chunk> {
        let from = self.filled.filter(|from| *from < first.0)?;
        Some(self.chunk(ClusterIndex(from), first.0 - from, Body::Hole))
    }

    fn compare(&mut self, first: ClusterIndex, bytes: &[u8]) -> Result<(), Stopped> {
        let Some(expected) = &mut self.expected else { return Ok(()) };
        let start = self.cluster_size.start_of(first).0;
        let end = start + bytes.len() as u64;
        while let Some(run) = expected.holes.runs().get(expected.at).filter(|run| run.start < end) {
            let (from, until) = (run.start.max(start), run.end.min(end));
            let zeros = bytes.get((from - start) as usize..(until.max(from) - start) as usize);
            let zeros = zeros.unwrap_or_default();
            if !(self.is_zero)(zeros)
                && let Some(at) = zeros.iter().position(|&byte| byte != 0)
            {
                let _ = expected.found.set(from + at as u64);
                return Err(Stopped);
            }
            if run.end > end {
                break;
            }
            expected.at += 1;
        }
        Ok(())
    }

    fn chunk(&mut self, first: ClusterIndex, clusters: u64, body: Body) -> Chunk {
        if let Some(filled) = &mut self.filled {
            *filled = first.0 + clusters;
        }
        Chunk { sequence: self.next(), first, clusters, body }
    }

    fn next(&mut self) -> u64 {
        self.sequence += 1;
        self.sequence - 1
    }
}

impl std::fmt::Debug for Outlet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Outlet({} chunks sent)", self.sequence)
    }
}
