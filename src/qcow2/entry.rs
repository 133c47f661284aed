//! Entries of the L1 and L2 tables (specification, «L1 table entry», «L2 table entry» and
//! «Compressed Clusters Descriptor»).

use crate::units::{ClusterSize, HostOffset, SECTOR_BYTES};

/// Bit 63 of an L1 or L2 entry: the refcount of what it names is exactly one.
pub const COPIED: u64 = 1 << 63;
/// Bit 62 of an L2 entry: the rest is a compressed cluster descriptor.
pub const COMPRESSED: u64 = 1 << 62;
/// Bytes of an entry of either table (extended L2 entries are never written).
pub const ENTRY_BYTES: u64 = 8;

/// An entry of the L1 table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct L1Entry(pub u64);

impl L1Entry {
    /// Everything that this L2 table would map reads as zeros.
    pub const UNALLOCATED: Self = Self(0);

    /// Names an L2 table that nothing else names.
    pub fn table(offset: HostOffset) -> Self {
        Self(offset.0 | COPIED)
    }
}

/// An entry of an L2 table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct L2Entry(pub u64);

impl L2Entry {
    /// Names a cluster stored as it is, at a cluster-aligned offset.
    pub fn plain(offset: HostOffset) -> Self {
        Self(offset.0 | COPIED)
    }

    /// Names a compressed cluster of `len` bytes at any byte offset.
    ///
    /// With x = 62 - (cluster_bits - 8), bits 0 to x-1 hold the offset, bits x to 61 the number of
    /// 512-byte sectors that it touches beyond the first. `len` is below the cluster size, so that
    /// number always fits.
    pub fn compressed(offset: HostOffset, len: u32, cluster_size: ClusterSize) -> Self {
        debug_assert!(len > 0 && u64::from(len) < cluster_size.bytes());
        let sectors = (offset.0 + u64::from(len) - 1) / SECTOR_BYTES - offset.0 / SECTOR_BYTES;
        Self(COMPRESSED | (sectors << offset_bits(cluster_size)) | offset.0)
    }
}

/// How many low bits of a compressed cluster descriptor hold the host offset.
pub fn offset_bits(cluster_size: ClusterSize) -> u32 {
    62 - (cluster_size.bits() - 8)
}

/// Entries that one L2 table holds.
pub fn entries_per_l2(cluster_size: ClusterSize) -> u64 {
    cluster_size.bytes() / ENTRY_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_compressed_descriptor_counts_the_further_sectors_it_touches() {
        let cs = ClusterSize::DEFAULT;
        for (offset, len, sectors) in
            [(0u64, 1u32, 0u64), (0, 512, 0), (0, 513, 1), (511, 2, 1), (511, 1, 0), (65535, 65535, 128)]
        {
            let L2Entry(entry) = L2Entry::compressed(HostOffset(offset), len, cs);
            assert_eq!(entry & COMPRESSED, COMPRESSED);
            assert_eq!(entry & ((1 << 54) - 1), offset);
            assert_eq!((entry & !COMPRESSED) >> 54, sectors, "{offset}+{len}");
        }
    }

    #[test]
    fn the_sector_count_fits_its_field_at_every_cluster_size() {
        for bits in ClusterSize::MIN_BITS..=ClusterSize::MAX_BITS {
            let cs = ClusterSize::from_bits(bits).unwrap();
            let len = (cs.bytes() - 1) as u32;
            let L2Entry(entry) = L2Entry::compressed(HostOffset(511), len, cs);
            assert_eq!(entry & COPIED, 0);
            let field = (entry & !COMPRESSED) >> offset_bits(cs);
            assert_eq!(field, (511 + cs.bytes() - 2) / 512, "2^{bits}");
        }
    }
}
