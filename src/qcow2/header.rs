//! The header, field by field as in the specification's section «Header».

use crate::units::{ClusterSize, HostOffset};

/// The first four bytes of every qcow2 file: `Q`, `F`, `I`, 0xfb.
pub const MAGIC: [u8; 4] = *b"QFI\xfb";
/// Bytes of a version 2 header.
pub const V2_HEADER_BYTES: usize = 72;
/// Bytes of the version 3 header that we write: up to and with the compression type, padded to 8.
pub const V3_HEADER_BYTES: usize = 112;
/// Incompatible feature bit 3: the compression type is not zlib.
pub const INCOMPATIBLE_COMPRESSION_TYPE: u64 = 1 << 3;
/// `refcount_order` that we write: 2^4 = 16-bit refcounts, the only width that version 2 knows.
pub const REFCOUNT_ORDER: u32 = 4;

/// The version of the format, by QEMU's names for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compat {
    /// Version 2, readable since QEMU 0.10.
    V0_10,
    /// Version 3, readable since QEMU 1.1.
    V1_1,
}

/// How compressed clusters are compressed (header byte 104).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompressionType {
    /// Raw deflate streams (RFC 1951) without a zlib header.
    Zlib,
    /// One zstd frame a cluster; needs QEMU 5.1 or newer.
    Zstd,
}

/// What our headers say.
#[derive(Clone, Copy, Debug)]
pub struct Header {
    /// Version 2 or 3.
    pub compat: Compat,
    /// Size of a cluster.
    pub cluster_size: ClusterSize,
    /// Size of the disk as the guest sees it, in bytes; a multiple of 512.
    pub virtual_size: u64,
    /// Entries of the L1 table.
    pub l1_entries: u32,
    /// Where the L1 table begins; cluster aligned.
    pub l1_offset: HostOffset,
    /// Where the refcount table begins; cluster aligned.
    pub refcount_table_offset: HostOffset,
    /// Clusters of the refcount table.
    pub refcount_table_clusters: u32,
    /// Compression of the compressed clusters.
    pub compression: CompressionType,
}

impl Header {
    /// The header followed by the end-of-extensions marker. The rest of cluster 0 is zeros.
    ///
    /// At most 120 bytes, so it fits the smallest cluster.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(V3_HEADER_BYTES + 8);
        let version = match self.compat {
            Compat::V0_10 => 2u32,
            Compat::V1_1 => 3,
        };
        bytes.extend_from_slice(&MAGIC); // 0: magic
        bytes.extend_from_slice(&version.to_be_bytes()); // 4: version
        bytes.extend_from_slice(&0u64.to_be_bytes()); // 8: backing_file_offset
        bytes.extend_from_slice(&0u32.to_be_bytes()); // 16: backing_file_size
        bytes.extend_from_slice(&self.cluster_size.bits().to_be_bytes()); // 20: cluster_bits
        bytes.extend_from_slice(&self.virtual_size.to_be_bytes()); // 24: size
        bytes.extend_from_slice(&0u32.to_be_bytes()); // 32: crypt_method
        bytes.extend_from_slice(&self.l1_entries.to_be_bytes()); // 36: l1_size
        bytes.extend_from_slice(&self.l1_offset.0.to_be_bytes()); // 40: l1_table_offset
        bytes.extend_from_slice(&self.refcount_table_offset.0.to_be_bytes()); // 48
        bytes.extend_from_slice(&self.refcount_table_clusters.to_be_bytes()); // 56
        bytes.extend_from_slice(&0u32.to_be_bytes()); // 60: nb_snapshots
        bytes.extend_from_slice(&0u64.to_be_bytes()); // 64: snapshots_offset
        if self.compat == Compat::V1_1 {
            let (incompatible, compression_type) = match self.compression {
                CompressionType::Zlib => (0, 0u8),
                CompressionType::Zstd => (INCOMPATIBLE_COMPRESSION_TYPE, 1),
            };
            bytes.extend_from_slice(&incompatible.to_be_bytes()); // 72: incompatible_features
            bytes.extend_from_slice(&0u64.to_be_bytes()); // 80: compatible_features
            bytes.extend_from_slice(&0u64.to_be_bytes()); // 88: autoclear_features
            bytes.extend_from_slice(&REFCOUNT_ORDER.to_be_bytes()); // 96: refcount_order
            bytes.extend_from_slice(&(V3_HEADER_BYTES as u32).to_be_bytes()); // 100: header_length
            bytes.push(compression_type); // 104: compression_type
            bytes.resize(V3_HEADER_BYTES, 0);
        }
        bytes.extend_from_slice(&[0; 8]); // header extension type 0: end of the extension area
        bytes
    }
}

#[cfg(test)]
impl Header {
    /// A header with a different number in every field.
    pub(super) fn sample(compat: Compat, compression: CompressionType) -> Self {
        Self {
            compat,
            cluster_size: ClusterSize::DEFAULT,
            virtual_size: 10 << 30,
            l1_entries: 20,
            l1_offset: HostOffset(3 << 16),
            refcount_table_offset: HostOffset(1 << 16),
            refcount_table_clusters: 1,
            compression,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_lie_where_the_specification_puts_them() {
        let bytes = Header::sample(Compat::V1_1, CompressionType::Zstd).to_bytes();
        assert_eq!(&bytes[..8], b"QFI\xfb\0\0\0\x03");
        assert_eq!(bytes[20..24], 16u32.to_be_bytes());
        assert_eq!(bytes[24..32], (10u64 << 30).to_be_bytes());
        assert_eq!(bytes[40..48], (3u64 << 16).to_be_bytes());
        assert_eq!(bytes[72..80], 8u64.to_be_bytes());
        assert_eq!(bytes[100..104], 112u32.to_be_bytes());
        assert_eq!(bytes[104], 1);
        assert_eq!(bytes.len(), 120);
    }

    #[test]
    fn version_2_ends_after_72_bytes_and_the_extension_marker() {
        let bytes = Header::sample(Compat::V0_10, CompressionType::Zlib).to_bytes();
        assert_eq!(bytes.len(), V2_HEADER_BYTES + 8);
        assert_eq!(bytes[7], 2);
    }
}
