//! The header as it stands in a file, and the records that it names: read without believing them.
//!
//! Nothing here judges more than is needed to find the next field; what is allowed and what is not is for
//! the reader that asked.

use super::header::{MAGIC, V2_HEADER_BYTES, V3_HEADER_BYTES};
use crate::units::SECTOR_BYTES;

/// Incompatible feature bit 0: the image was not closed, its refcounts may be too low.
pub const INCOMPATIBLE_DIRTY: u64 = 1;
/// Incompatible feature bit 1: QEMU found the image damaged.
pub const INCOMPATIBLE_CORRUPT: u64 = 1 << 1;
/// Incompatible feature bit 2: guest data lies in another file.
pub const INCOMPATIBLE_DATA_FILE: u64 = 1 << 2;
/// Incompatible feature bit 4: L2 entries of 16 bytes, with a bitmap of subclusters each.
pub const INCOMPATIBLE_EXTENDED_L2: u64 = 1 << 4;
/// Incompatible feature bits that the specification defines.
pub const INCOMPATIBLE_KNOWN: u64 = (1 << 5) - 1;
/// Compatible feature bits that the specification defines: bit 0, lazy refcounts.
pub const COMPATIBLE_KNOWN: u64 = 1;
/// Autoclear feature bit 0: the bitmaps extension is consistent.
pub const AUTOCLEAR_BITMAPS: u64 = 1;
/// Autoclear feature bits that the specification defines: bit 1 says that the data file is raw.
pub const AUTOCLEAR_KNOWN: u64 = 3;

/// Type of the header extension that names the place of a LUKS header.
pub const EXTENSION_ENCRYPTION: u32 = 0x0537_be77;
/// Type of the header extension that names the bitmap directory.
pub const EXTENSION_BITMAPS: u32 = 0x2385_2875;
/// Type of the header extension that names the external data file.
pub const EXTENSION_DATA_FILE: u32 = 0x4441_5441;

/// Why bytes are not a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoHeader {
    /// They do not begin with the magic.
    OtherFormat,
    /// They begin with the magic and end within the header.
    Cut,
    /// A version other than 2 and 3.
    Version(u32),
}

/// All fields of a header of version 2 or 3, as they stand; those that version 2 lacks have the values that
/// the specification says they stand for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawHeader {
    /// 2 or 3.
    pub version: u32,
    /// Where the name of the backing file stands; 0 for none.
    pub backing_offset: u64,
    /// Length of that name in bytes.
    pub backing_len: u32,
    /// Exponent of the cluster size.
    pub cluster_bits: u32,
    /// Size of the disk as the guest sees it, in bytes.
    pub virtual_size: u64,
    /// 0 none, 1 AES, 2 LUKS.
    pub crypt_method: u32,
    /// Entries of the active L1 table.
    pub l1_entries: u32,
    /// Where the active L1 table begins.
    pub l1_offset: u64,
    /// Where the refcount table begins.
    pub refcount_table_offset: u64,
    /// Clusters of the refcount table.
    pub refcount_table_clusters: u32,
    /// Number of internal snapshots.
    pub snapshots: u32,
    /// Where the snapshot table begins.
    pub snapshots_offset: u64,
    /// Features that a reader must know.
    pub incompatible: u64,
    /// Features that a reader may ignore.
    pub compatible: u64,
    /// Features whose bits a writer that does not know them clears.
    pub autoclear: u64,
    /// Exponent of the number of bits of a refcount.
    pub refcount_order: u32,
    /// Bytes of the header, without extensions.
    pub header_len: u32,
    /// 0 zlib, 1 zstd; 0 where the header is too short to tell.
    pub compression_type: u8,
    /// Whether the bytes behind the compression type, up to the end of the header, are all zeros.
    pub rest_is_zero: bool,
}

impl RawHeader {
    /// From the first bytes of a file; [`V3_HEADER_BYTES`] are enough for all but `rest_is_zero`.
    ///
    /// # Errors
    /// What they are instead.
    pub fn parse(bytes: &[u8]) -> Result<Self, NoHeader> {
        if !bytes.starts_with(&MAGIC) {
            return Err(NoHeader::OtherFormat);
        }
        let u32_at = |at: usize| be32(bytes, at).ok_or(NoHeader::Cut);
        let u64_at = |at: usize| be64(bytes, at).ok_or(NoHeader::Cut);
        let version = u32_at(4)?;
        if !matches!(version, 2 | 3) {
            return Err(NoHeader::Version(version));
        }
        let mut header = Self {
            version,
            backing_offset: u64_at(8)?,
            backing_len: u32_at(16)?,
            cluster_bits: u32_at(20)?,
            virtual_size: u64_at(24)?,
            crypt_method: u32_at(32)?,
            l1_entries: u32_at(36)?,
            l1_offset: u64_at(40)?,
            refcount_table_offset: u64_at(48)?,
            refcount_table_clusters: u32_at(56)?,
            snapshots: u32_at(60)?,
            snapshots_offset: u64_at(64)?,
            incompatible: 0,
            compatible: 0,
            autoclear: 0,
            refcount_order: super::header::REFCOUNT_ORDER,
            header_len: V2_HEADER_BYTES as u32,
            compression_type: 0,
            rest_is_zero: true,
        };
        if version == 3 {
            header.incompatible = u64_at(72)?;
            header.compatible = u64_at(80)?;
            header.autoclear = u64_at(88)?;
            header.refcount_order = u32_at(96)?;
            header.header_len = u32_at(100)?;
            if header.header_len as usize >= V3_HEADER_BYTES {
                header.compression_type = *bytes.get(104).ok_or(NoHeader::Cut)?;
                let end = bytes.len().min(header.header_len as usize);
                header.rest_is_zero = bytes[105.min(end)..end].iter().all(|&byte| byte == 0);
            }
        }
        Ok(header)
    }

    /// Bits of a refcount; callers have made sure that the order is at most 6.
    pub fn refcount_bits(&self) -> u32 {
        1 << self.refcount_order
    }
}

/// A header extension: where its data lie among the bytes that were searched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extension {
    /// Its type.
    pub kind: u32,
    /// Where its data begin.
    pub at: usize,
    /// Bytes of its data, without padding.
    pub len: usize,
}

/// The extensions between `from` and `end` of the first cluster, up to the end marker.
///
/// # Errors
/// The offset of one that does not fit; those before it are given as well.
pub fn extensions(cluster: &[u8], from: usize, end: usize) -> (Vec<Extension>, Result<(), usize>) {
    let mut found = Vec::new();
    let mut at = from;
    while at + 8 <= end {
        let (Some(kind), Some(len)) = (be32(cluster, at), be32(cluster, at + 4)) else {
            return (found, Err(at));
        };
        if kind == 0 {
            break;
        }
        let len = len as usize;
        if len > end - at - 8 || at + 8 + len > cluster.len() {
            return (found, Err(at));
        }
        found.push(Extension { kind, at: at + 8, len });
        at += 8 + len.next_multiple_of(8);
    }
    (found, Ok(()))
}

/// The fixed part of an entry of the snapshot table (40 bytes), and how long the whole entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotHead {
    /// Where its L1 table begins.
    pub l1_offset: u64,
    /// Entries of its L1 table.
    pub l1_entries: u32,
    /// Bytes of extra data, at most 4 GiB by the field.
    pub extra_len: u32,
    /// Bytes of the whole entry, padding included.
    pub entry_len: u64,
}

impl SnapshotHead {
    /// Bytes of the fixed part.
    pub const BYTES: usize = 40;

    /// From the fixed part; `None` if there is less.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let (id_len, name_len) = (be16(bytes, 12)?, be16(bytes, 14)?);
        let extra_len = be32(bytes, 36)?;
        let len = Self::BYTES as u64 + u64::from(extra_len) + u64::from(id_len) + u64::from(name_len);
        Some(Self {
            l1_offset: be64(bytes, 0)?,
            l1_entries: be32(bytes, 8)?,
            extra_len,
            entry_len: len.next_multiple_of(8),
        })
    }
}

/// What the bitmaps extension says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BitmapsExtension {
    /// Number of bitmaps.
    pub bitmaps: u32,
    /// Has to be zero.
    pub reserved: u32,
    /// Bytes of the bitmap directory.
    pub directory_len: u64,
    /// Where the bitmap directory begins.
    pub directory_offset: u64,
}

impl BitmapsExtension {
    /// From the extension's data; `None` unless they are 24 bytes.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        (bytes.len() == 24).then_some(())?;
        Some(Self {
            bitmaps: be32(bytes, 0)?,
            reserved: be32(bytes, 4)?,
            directory_len: be64(bytes, 8)?,
            directory_offset: be64(bytes, 16)?,
        })
    }
}

/// The fixed part of an entry of the bitmap directory (24 bytes), and how long the whole entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BitmapHead {
    /// Where its table begins.
    pub table_offset: u64,
    /// Entries of its table.
    pub table_entries: u32,
    /// Bit 0: it was in use when the image was last closed.
    pub flags: u32,
    /// Bytes of the whole entry, padding included.
    pub entry_len: u64,
}

impl BitmapHead {
    /// Bytes of the fixed part.
    pub const BYTES: usize = 24;

    /// From the fixed part; `None` if there is less.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let len = Self::BYTES as u64 + u64::from(be16(bytes, 18)?) + u64::from(be32(bytes, 20)?);
        Some(Self {
            table_offset: be64(bytes, 0)?,
            table_entries: be32(bytes, 8)?,
            flags: be32(bytes, 12)?,
            entry_len: len.next_multiple_of(8),
        })
    }
}

/// One refcount of a block, by its index and the number of bits (1, 2, 4, … 64). `None` behind the end.
///
/// Refcounts narrower than a byte begin at the lowest bit (specification, «Refcount block entry»).
pub fn refcount(block: &[u8], index: usize, bits: u32) -> Option<u64> {
    match bits {
        8 => block.get(index).map(|&byte| u64::from(byte)),
        16 => be16(block, index * 2).map(u64::from),
        32 => be32(block, index * 4).map(u64::from),
        64 => be64(block, index * 8),
        _ => {
            let a_byte = 8 / bits as usize;
            let byte = *block.get(index / a_byte)?;
            Some(u64::from(byte >> (index % a_byte * bits as usize)) & ((1 << bits) - 1))
        }
    }
}

/// The 64-bit entries of a table.
pub fn entries(table: &[u8]) -> impl Iterator<Item = u64> + '_ {
    table.chunks_exact(8).map(|bytes| u64::from_be_bytes(bytes.try_into().unwrap_or_default()))
}

/// Bytes that a compressed cluster takes: from its first byte to the end of the last sector that its
/// descriptor counts.
pub(super) fn sectors_end(offset: u64, further_sectors: u64) -> u64 {
    (offset / SECTOR_BYTES + 1 + further_sectors) * SECTOR_BYTES
}

fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn be64(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_be_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::qcow2::{Compat, CompressionType, Header};

    fn written(compat: Compat) -> Vec<u8> {
        Header::sample(compat, CompressionType::Zstd).to_bytes()
    }

    #[test]
    fn what_is_written_is_read() {
        let header = RawHeader::parse(&written(Compat::V1_1)).unwrap();
        assert_eq!((header.version, header.cluster_bits, header.virtual_size), (3, 16, 10 << 30));
        assert_eq!((header.l1_entries, header.l1_offset), (20, 3 << 16));
        assert_eq!((header.refcount_table_offset, header.refcount_table_clusters), (1 << 16, 1));
        assert_eq!((header.incompatible, header.compression_type, header.header_len), (8, 1, 112));
        assert_eq!((header.refcount_bits(), header.rest_is_zero), (16, true));
        let old = RawHeader::parse(&written(Compat::V0_10)).unwrap();
        assert_eq!((old.version, old.header_len, old.incompatible, old.refcount_bits()), (2, 72, 0, 16));
    }

    #[test]
    fn a_cut_header_is_told_from_another_format() {
        let whole = written(Compat::V1_1);
        for len in 4..105 {
            assert_eq!(RawHeader::parse(&whole[..len]), Err(NoHeader::Cut), "{len}");
        }
        assert_eq!(RawHeader::parse(&whole[..3]), Err(NoHeader::OtherFormat));
        assert_eq!(RawHeader::parse(b"QFI\xfb\0\0\0\x04"), Err(NoHeader::Version(4)));
    }

    #[test]
    fn extensions_end_at_their_marker_or_at_the_end() {
        let mut bytes = vec![0; 64];
        bytes[8..16].copy_from_slice(b"\0\0\0\x07\0\0\0\x03");
        bytes[24..32].copy_from_slice(b"\0\0\0\x08\0\0\0\x10");
        let both = vec![Extension { kind: 7, at: 16, len: 3 }, Extension { kind: 8, at: 32, len: 16 }];
        assert_eq!(extensions(&bytes, 8, 64), (both.clone(), Ok(())));
        assert_eq!(extensions(&bytes, 8, 48), (both.clone(), Ok(())));
        assert_eq!(extensions(&bytes, 8, 47), (both[..1].to_vec(), Err(24)));
        assert_eq!(extensions(&bytes[..40], 8, 64), (both[..1].to_vec(), Err(24)));
        assert_eq!(extensions(&bytes, 200, 64), (vec![], Ok(())));
    }

    #[test]
    fn narrow_refcounts_begin_at_the_lowest_bit() {
        let block = [0b1101_0010, 0xff, 0, 1, 0, 0, 0, 2];
        let read = |bits, indexes: std::ops::Range<usize>| -> Vec<u64> {
            indexes.map(|index| refcount(&block, index, bits).unwrap()).collect()
        };
        assert_eq!(read(1, 0..8), [0, 1, 0, 0, 1, 0, 1, 1]);
        assert_eq!(read(2, 0..5), [2, 0, 1, 3, 3]);
        assert_eq!(read(4, 0..4), [2, 13, 15, 15]);
        assert_eq!(read(8, 0..2), [0xd2, 0xff]);
        assert_eq!(read(16, 1..2), [1]);
        assert_eq!(read(32, 1..2), [2]);
        assert_eq!(read(64, 0..1), [0xd2ff_0001_0000_0002]);
        for (bits, end) in [(1, 64), (2, 32), (4, 16), (8, 8), (16, 4), (32, 2), (64, 1)] {
            assert_eq!(refcount(&block, end, bits), None, "{bits}");
        }
    }
}
