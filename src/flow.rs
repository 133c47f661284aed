//! The values that pass between the stages: `Chunk → Run → Encoded → Placed → Part`.
//!
//! A source makes [`Chunk`]s, the scan cuts them into [`Run`]s, the encoder turns them into an
//! [`EncodedChunk`] of [`Encoded`] clusters, placing gives each its offset
//! ([`crate::place::Placed`]), and a sink takes parts: plain byte ranges in the order of the file.

use std::sync::Arc;

use crate::buffers::Buffer;
use crate::units::{ClusterIndex, ClusterSize};

/// Size of a chunk, the unit of work, in bytes. A multiple of every cluster size.
pub const CHUNK_BYTES: usize = 2 << 20;
/// Chunks of a stripe, the unit in which ranges are asked for: 16 MiB.
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
    cluster_size: ClusterSize,
    entries: Vec<Entry>,
    buffers: Option<(Buffer, Buffer)>,
}

#[derive(Debug)]
struct Entry {
    index: u32,
    guest_crc: u32,
    form: Form,
    /// Where the compressed bytes begin in the room; unused for plain clusters.
    at: u32,
}

impl EncodedChunk {
    /// A chunk of zeros.
    pub fn hole(sequence: u64, first: ClusterIndex, clusters: u64, cluster_size: ClusterSize) -> Self {
        Self { sequence, first, clusters, cluster_size, entries: Vec::new(), buffers: None }
    }

    /// A chunk that will get its data clusters by [`Self::push`], and the buffers by
    /// [`Self::attach`].
    pub fn data(sequence: u64, first: ClusterIndex, clusters: u64, cluster_size: ClusterSize) -> Self {
        let entries = Vec::with_capacity(clusters as usize);
        Self { sequence, first, clusters, cluster_size, entries, buffers: None }
    }

    /// Notes the next data cluster: its index within the chunk, and where in the room its
    /// compressed bytes begin.
    pub fn push(&mut self, index: usize, guest_crc: u32, form: Form, at: usize) {
        self.entries.push(Entry { index: index as u32, guest_crc, form, at: at as u32 });
    }

    /// Keeps the guest bytes and the room that the entries refer to.
    pub fn attach(&mut self, bytes: Buffer, room: Buffer) {
        self.buffers = Some((bytes, room));
    }

    /// The data clusters in guest order. Clusters that are not among them are zero.
    pub fn encoded(&self) -> impl Iterator<Item = Encoded<'_>> {
        let cs = self.cluster_size;
        let buffers = self.buffers.as_ref();
        self.entries.iter().filter_map(move |entry| {
            let (bytes, room) = buffers?;
            let stored = match entry.form {
                Form::Plain => &bytes[entry.index as usize * cs.size()..][..cs.size()],
                Form::Compressed(len) => &room[entry.at as usize..][..len as usize],
            };
            let cluster = ClusterIndex(self.first.0 + u64::from(entry.index));
            Some(Encoded { cluster, guest_crc: entry.guest_crc, form: entry.form, stored })
        })
    }

    /// How many of the clusters hold data.
    pub fn data_clusters(&self) -> u64 {
        self.entries.len() as u64
    }
}
