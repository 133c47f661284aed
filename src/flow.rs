//! The values that pass between the stages: `Chunk → Run → Encoded → Placed → Part`.
//!
//! A source makes [`Chunk`]s, the scan cuts them into [`Run`]s, the encoder turns them into an
//! [`EncodedChunk`] of [`Encoded`] clusters, placing gives each its offset
//! ([`crate::place::Placed`]), and a sink takes parts: plain byte ranges in the order of the file.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use crate::buffers::{Buffer, Slice};
use crate::error::{Error, Kind, Result, Stage};
use crate::hash::BlockDigests;
use crate::units::{ClusterIndex, ClusterSize};

/// Size of a chunk, the unit of work, in bytes. A multiple of every cluster size.
pub const CHUNK_BYTES: usize = 2 << 20;
/// Chunks that a stripe, the unit in which ranges are asked for, holds at most until its turn comes: 16 MiB.
pub const STRIPE_CHUNKS: usize = 8;

/// Tells whether what comes behind has room for more, once it has had to make others wait.
pub type Room = Arc<dyn Fn() -> bool + Send + Sync>;

/// Some guest clusters, as a source delivers them.
#[derive(Debug)]
pub struct Chunk {
    /// Position among all chunks of one pass, from 0 without gaps.
    pub sequence: u64,
    /// The first cluster of the chunk.
    pub first: ClusterIndex,
    /// How many clusters.
    pub clusters: u64,
    /// Their bytes.
    pub body: Body,
}

/// Something that can be read at any offset from any thread, so that whoever scans the bytes can fetch
/// them, while they are in its cache.
pub trait ReadAt: fmt::Debug + Send + Sync {
    /// Fills `bytes` from the guest offset `offset`.
    ///
    /// # Errors
    /// What keeps the bytes from coming, an end that comes too early included.
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> Result<()>;
}

/// Bytes in memory, as a file that is all there.
impl ReadAt for Vec<u8> {
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> Result<()> {
        let there =
            usize::try_from(offset).ok().and_then(|from| self.get(from..from.checked_add(bytes.len())?));
        match there {
            Some(there) => {
                bytes.copy_from_slice(there);
                Ok(())
            }
            None => {
                let what = format!("read {} bytes at offset {offset} of {} bytes", bytes.len(), self.len());
                Err(Error::new(Stage::Source, Kind::Source, what))
            }
        }
    }
}

/// The bytes of a chunk.
#[derive(Debug)]
pub enum Body {
    /// All zeros, by the source's word; no bytes were read.
    Hole,
    /// Bytes of whole clusters, at most [`CHUNK_BYTES`]; `room` takes what encoding yields.
    Data {
        /// The guest bytes, padded with zeros to whole clusters.
        bytes: Buffer,
        /// How many of the bytes came from the source.
        len: usize,
        /// An empty buffer of [`CHUNK_BYTES`].
        room: Buffer,
    },
    /// Bytes that came from the source, all of them zero.
    Zeros {
        /// How many; the rest of the last cluster is zero as well.
        len: usize,
    },
    /// Bytes that are still to be read, by whoever needs them.
    Unread {
        /// Where they are.
        from: Arc<dyn ReadAt>,
        /// How many there are; the rest of the last cluster is zero.
        len: usize,
        /// A buffer of [`CHUNK_BYTES`] for them.
        bytes: Buffer,
        /// As in [`Body::Data`].
        room: Buffer,
    },
}

/// Adjacent clusters of a chunk that are all zero or all data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// First cluster, counted from the start of the chunk.
    pub first: usize,
    /// How many clusters.
    pub clusters: usize,
    /// Whether any byte of every one of them differs from zero.
    pub is_data: bool,
}

/// How a cluster is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// As it is, cluster aligned.
    Plain,
    /// Compressed to this many bytes, fewer than a cluster.
    Compressed(u32),
}

impl Form {
    /// The form of a cluster stored in `stored_len` bytes.
    pub fn of(stored_len: u32, cluster_size: ClusterSize) -> Self {
        if u64::from(stored_len) < cluster_size.bytes() { Self::Compressed(stored_len) } else { Self::Plain }
    }

    /// Bytes that the cluster takes in the file.
    pub fn stored_len(self, cluster_size: ClusterSize) -> u32 {
        match self {
            Self::Plain => cluster_size.bytes() as u32,
            Self::Compressed(len) => len,
        }
    }
}

/// One data cluster, encoded.
#[derive(Clone, Copy, Debug)]
pub struct Encoded<'a> {
    /// Which guest cluster.
    pub cluster: ClusterIndex,
    /// CRC-32 of its guest bytes.
    pub guest_crc: u32,
    /// How it is stored.
    pub form: Form,
    /// Where it begins in the buffer that it lies in.
    pub at: usize,
    /// What is stored.
    pub stored: &'a [u8],
}

/// A chunk whose data clusters are encoded.
#[derive(Debug)]
pub struct EncodedChunk {
    /// See [`Chunk::sequence`].
    pub sequence: u64,
    /// The first cluster of the chunk.
    pub first: ClusterIndex,
    /// How many clusters.
    pub clusters: u64,
    /// What the chunk adds to the digest of the guest's content, where one is made and there is anything but zeros.
    pub digests: Option<BlockDigests>,
    cluster_size: ClusterSize,
    entries: Vec<Entry>,
    /// Holds the plain clusters.
    bytes: Option<Arc<Buffer>>,
    /// Holds the compressed clusters.
    room: Option<Buffer>,
}

#[derive(Debug)]
struct Entry {
    index: u32,
    guest_crc: u32,
    form: Form,
    /// Where it begins, in the buffer of its form.
    at: u32,
}

impl EncodedChunk {
    /// A chunk that is all zeros until it gets data clusters by [`Self::push`], and the buffers by
    /// [`Self::attach`].
    pub fn new(sequence: u64, first: ClusterIndex, clusters: u64, cluster_size: ClusterSize) -> Self {
        Self {
            sequence,
            first,
            clusters,
            digests: None,
            cluster_size,
            entries: Vec::new(),
            bytes: None,
            room: None,
        }
    }

    /// Notes the next data cluster: its index within the chunk, and where in the buffer of its form it begins:
    /// the room for compressed clusters, the guest bytes for plain ones.
    pub fn push(&mut self, index: usize, guest_crc: u32, form: Form, at: usize) {
        self.entries.push(Entry { index: index as u32, guest_crc, form, at: at as u32 });
    }

    /// Keeps what the entries refer to of the guest bytes and the room.
    pub fn attach(&mut self, bytes: Buffer, room: Buffer) {
        let has = |plain: bool| self.entries.iter().any(|entry| (entry.form == Form::Plain) == plain);
        let (has_plain, has_compressed) = (has(true), has(false));
        self.bytes = has_plain.then(|| Arc::new(bytes));
        self.room = has_compressed.then_some(room);
    }

    /// The data clusters in guest order. Clusters that are not among them are zero.
    pub fn encoded(&self) -> impl Iterator<Item = Encoded<'_>> {
        self.entries.iter().filter_map(move |entry| {
            let (memory, at) = match entry.form {
                Form::Plain => (&**self.bytes.as_deref()?, entry.at as usize),
                Form::Compressed(_) => (&**self.room.as_ref()?, entry.at as usize),
            };
            let stored = &memory[at..at + entry.form.stored_len(self.cluster_size) as usize];
            let cluster = ClusterIndex(self.first.0 + u64::from(entry.index));
            Some(Encoded { cluster, guest_crc: entry.guest_crc, form: entry.form, at, stored })
        })
    }

    /// A part of the buffer that holds the plain clusters, to be kept beyond the chunk; `None` if there
    /// are none.
    pub fn plain(&self, range: Range<usize>) -> Option<Slice> {
        self.bytes.as_ref().map(|bytes| Slice::new(Arc::clone(bytes), range))
    }

    /// How many of the clusters hold data.
    pub fn data_clusters(&self) -> u64 {
        self.entries.len() as u64
    }
}
