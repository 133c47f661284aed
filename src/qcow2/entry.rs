//! Entries of the L1 and L2 tables (specification, «L1 table entry», «L2 table entry» and
//! «Compressed Clusters Descriptor»).

use super::parse::sectors_end;
use crate::units::{ClusterSize, HostOffset, SECTOR_BYTES};

/// Bit 63 of an L1 or L2 entry: the refcount of what it names is exactly one.
pub const COPIED: u64 = 1 << 63;
/// Bit 62 of an L2 entry: the rest is a compressed cluster descriptor.
pub const COMPRESSED: u64 = 1 << 62;
/// Bit 0 of an L2 entry of version 3: the cluster reads as zeros, whether or not it has a place.
pub const ZERO: u64 = 1;
/// Bits of an entry that hold the offset of a whole cluster (QEMU `L1E_OFFSET_MASK`, `L2E_OFFSET_MASK`).
pub const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
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

    /// The L2 table that it names, wherever that may lie.
    pub fn l2_table(self) -> Option<HostOffset> {
        (self.0 & OFFSET != 0).then_some(HostOffset(self.0 & OFFSET))
    }

    /// Those of its bits that have to be zero and are not.
    pub fn reserved(self) -> u64 {
        self.0 & !(COPIED | OFFSET)
    }
}

/// What an L2 entry says of its guest cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mapping {
    /// Nothing is stored: the backing file's bytes, or zeros where there is none.
    Unallocated,
    /// Zeros, by the entry's own word; a place in the file may be kept for it.
    Zero(Option<HostOffset>),
    /// Stored as it is.
    Plain(HostOffset),
    /// Compressed, somewhere within these bytes of the file.
    Compressed {
        /// Its first byte.
        host: HostOffset,
        /// Bytes to the end of the last sector that it may touch; at most twice a cluster.
        len: u64,
    },
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

    /// What it says, in an image of this version of the format.
    pub fn mapping(self, cluster_size: ClusterSize, version: u32) -> Mapping {
        let Self(entry) = self;
        if entry & COMPRESSED != 0 {
            let bits = offset_bits(cluster_size);
            let host = entry & ((1 << bits) - 1);
            let further = (entry & !(COPIED | COMPRESSED)) >> bits;
            return Mapping::Compressed { host: HostOffset(host), len: sectors_end(host, further) - host };
        }
        let host = Some(HostOffset(entry & OFFSET)).filter(|host| host.0 != 0);
        match host {
            host if entry & ZERO != 0 && version >= 3 => Mapping::Zero(host),
            Some(host) => Mapping::Plain(host),
            None => Mapping::Unallocated,
        }
    }

    /// Those of its bits that have to be zero and are not. All bits of a compressed cluster's descriptor
    /// have a meaning but [`COPIED`], which is for the caller to look at.
    pub fn reserved(self, version: u32) -> u64 {
        let zero = if version >= 3 { ZERO } else { 0 };
        if self.0 & COMPRESSED != 0 { 0 } else { self.0 & !(COPIED | OFFSET | zero) }
    }

    /// Whether it says that the refcount of what it names is one.
    pub fn is_copied(self) -> bool {
        self.0 & COPIED != 0
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
    fn what_is_written_is_read() {
        for bits in ClusterSize::MIN_BITS..=ClusterSize::MAX_BITS {
            let cs = ClusterSize::from_bits(bits).unwrap();
            for (offset, len) in [(1 << 21, 1u32), ((1 << 21) + 511, 2), (7 << 30, cs.bytes() as u32 - 1)] {
                let entry = L2Entry::compressed(HostOffset(offset), len, cs);
                let Mapping::Compressed { host, len: taken } = entry.mapping(cs, 3) else {
                    panic!("{entry:?}")
                };
                assert_eq!((host.0, (offset + taken) % 512, entry.reserved(3)), (offset, 0, 0));
                assert!((u64::from(len)..u64::from(len) + 512).contains(&taken), "{len} {taken}");
            }
        }
        let cs = ClusterSize::DEFAULT;
        let plain = L2Entry::plain(HostOffset(5 << 16));
        assert_eq!((plain.mapping(cs, 3), plain.is_copied()), (Mapping::Plain(HostOffset(5 << 16)), true));
        assert_eq!(L2Entry(0).mapping(cs, 3), Mapping::Unallocated);
        assert_eq!(L2Entry(1).mapping(cs, 3), Mapping::Zero(None));
        assert_eq!(L2Entry(plain.0 | 1).mapping(cs, 3), Mapping::Zero(Some(HostOffset(5 << 16))));
        assert_eq!((L2Entry(1).mapping(cs, 2), L2Entry(1).reserved(2)), (Mapping::Unallocated, 1));
        assert_eq!((L2Entry(1 << 60).reserved(3), L1Entry(1 << 60 | 2).reserved()), (1 << 60, 1 << 60 | 2));
        assert_eq!(L1Entry::table(HostOffset(9 << 16)).l2_table(), Some(HostOffset(9 << 16)));
    }

    #[test]
    fn a_descriptor_of_all_ones_takes_at_most_two_clusters() {
        for bits in ClusterSize::MIN_BITS..=ClusterSize::MAX_BITS {
            let cs = ClusterSize::from_bits(bits).unwrap();
            let Mapping::Compressed { host, len } = L2Entry(u64::MAX).mapping(cs, 3) else { panic!() };
            assert!(host.0 < 1 << 61 && len <= 2 * cs.bytes(), "2^{bits}: {len}");
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
