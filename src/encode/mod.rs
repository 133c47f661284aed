//! Stage 3 of 5, encode. Takes data clusters, gives each compressed, or tells that it does not get
//! smaller and is to be stored plain. Holds one codec context a thread; never sees I/O.
//!
//! For one build of a codec the output is a pure function of cluster and settings: a context is
//! reused, but no cluster's result depends on the one before.

mod build;
mod codec;
#[cfg(feature = "isal-sys")]
mod isal;
mod level;
mod probe;
mod verify;

pub use build::build;
pub use level::{Family, Level};
pub use verify::Verifier;

use crate::qcow2::CompressionType;
use crate::units::ClusterSize;
use codec::Codec;

/// How clusters are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Every data cluster is stored plain.
    None,
    /// Raw deflate with a window of up to 32 KiB, by libdeflate; level 1 to 12.
    Deflate(i32),
    /// Raw deflate with QEMU's own window of 4 KiB, by zlib-rs; level 1 to 9.
    DeflateSmallWindow(i32),
    /// Raw deflate with a window of up to 32 KiB, by ISA-L's level 2.
    #[cfg(feature = "isal-sys")]
    DeflateIsal,
    /// Raw deflate with QEMU's own window of 4 KiB, by ISA-L's level 2.
    #[cfg(feature = "isal-sys")]
    DeflateIsalSmallWindow,
    /// zstd; level 1 to 19.
    Zstd(i32),
}

impl Compression {
    /// What the header calls it. An image without compressed clusters says zlib, as QEMU's do.
    pub fn header_type(self) -> CompressionType {
        match self {
            Self::Zstd(_) => CompressionType::Zstd,
            _ => CompressionType::Zlib,
        }
    }

    /// The word for it in reports.
    pub fn word(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Zstd(_) => "zstd",
            _ => "zlib",
        }
    }

    /// The library that encodes; `None` where nothing is compressed.
    pub fn library(self) -> Option<&'static str> {
        match self {
            Self::None => None,
            Self::Deflate(_) => Some("libdeflate"),
            Self::DeflateSmallWindow(_) => Some("zlib-rs"),
            #[cfg(feature = "isal-sys")]
            Self::DeflateIsal | Self::DeflateIsalSmallWindow => Some("ISA-L"),
            Self::Zstd(_) => Some("zstd"),
        }
    }

    /// The codec's own number for the level, where it is chosen by one.
    pub fn level(self) -> Option<i32> {
        match self {
            Self::Deflate(level) | Self::DeflateSmallWindow(level) | Self::Zstd(level) => Some(level),
            _ => None,
        }
    }
}

/// An encoder for one thread.
pub struct Encoder {
    cluster_size: ClusterSize,
    codec: Option<Codec>,
    /// Spoils what has been encoded, as a codec with a fault would.
    #[cfg(test)]
    spoil: Option<fn(&mut [u8])>,
}

impl Encoder {
    /// Makes the codec's context.
    pub fn new(compression: Compression, cluster_size: ClusterSize) -> Self {
        Self {
            cluster_size,
            codec: Codec::new(compression),
            #[cfg(test)]
            spoil: None,
        }
    }

    /// An encoder with a fault.
    #[cfg(test)]
    pub(crate) fn with_fault(
        compression: Compression,
        cluster_size: ClusterSize,
        spoil: fn(&mut [u8]),
    ) -> Self {
        Self { spoil: Some(spoil), ..Self::new(compression, cluster_size) }
    }

    /// CRC-32 of a cluster's guest bytes.
    pub fn guest_crc(cluster: &[u8]) -> u32 {
        crc32fast::hash(cluster)
    }

    /// Compresses one whole cluster to the start of `room`, which is at least a cluster long.
    ///
    /// Gives the compressed length, or `None` where the cluster does not get smaller.
    pub fn compress(&mut self, cluster: &[u8], room: &mut [u8]) -> Option<usize> {
        let limit = self.cluster_size.size() - 1;
        let len = self.codec.as_mut()?.compress(cluster, &mut room[..limit])?;
        #[cfg(test)]
        if let Some(spoil) = self.spoil {
            spoil(&mut room[..len]);
        }
        (len > 0).then_some(len)
    }
}

impl std::fmt::Debug for Encoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Encoder")
    }
}
