//! The limits that QEMU puts on the tables, and what they mean for a disk.

use super::entry::{ENTRY_BYTES, entries_per_l2};
use crate::error::{Error, Kind, Result, Stage};
use crate::units::{ClusterSize, Human};

/// Largest L1 table that QEMU opens (`QCOW_MAX_L1_SIZE`, `block/qcow2.h`): 32 MiB.
pub const L1_TABLE_BYTES_MAX: u64 = 32 << 20;
/// Largest refcount table that QEMU opens (`QCOW_MAX_REFTABLE_SIZE`): 8 MiB.
pub const REFCOUNT_TABLE_BYTES_MAX: u64 = 8 << 20;
/// Largest refcount of 16 bits.
pub const REFCOUNT_MAX: u32 = u16::MAX as u32;
/// Bytes of one refcount.
pub const REFCOUNT_BYTES: u64 = 2;
/// Largest virtual size that we accept, in bytes: 2^56, where offsets in entries end (QEMU
/// `L1E_OFFSET_MASK`). The L1 limit is stricter for all but the largest clusters.
pub const VIRTUAL_SIZE_MAX: u64 = 1 << 56;

/// Entries that the L1 table of a disk needs.
pub fn l1_entries(virtual_size: u64, cluster_size: ClusterSize) -> u64 {
    cluster_size.clusters_for(virtual_size).div_ceil(entries_per_l2(cluster_size))
}

/// Whether the L1 table of a disk stays within QEMU's limit.
pub fn l1_fits(virtual_size: u64, cluster_size: ClusterSize) -> bool {
    virtual_size <= VIRTUAL_SIZE_MAX
        && l1_entries(virtual_size, cluster_size) * ENTRY_BYTES <= L1_TABLE_BYTES_MAX
}

/// Refcounts that one refcount block holds.
pub fn refcounts_per_block(cluster_size: ClusterSize) -> u64 {
    cluster_size.bytes() / REFCOUNT_BYTES
}

/// Whether a file of `host_clusters` clusters can be described by a permitted refcount table.
pub fn refcounts_fit(host_clusters: u64, cluster_size: ClusterSize) -> bool {
    host_clusters.div_ceil(refcounts_per_block(cluster_size)) * ENTRY_BYTES <= REFCOUNT_TABLE_BYTES_MAX
}

/// Refuses a disk whose L1 table would be larger than QEMU opens.
///
/// # Errors
/// [`Kind::Usage`] of `stage`, naming the smallest cluster size that serves.
pub fn check_virtual_size(stage: Stage, virtual_size: u64, cluster_size: ClusterSize) -> Result<()> {
    if l1_fits(virtual_size, cluster_size) {
        return Ok(());
    }
    let what = format!(
        "a disk of {} is too large for clusters of {}: its L1 table would exceed 32 MiB",
        Human(virtual_size),
        Human(cluster_size.bytes())
    );
    let advice = larger_clusters(cluster_size, |larger| l1_fits(virtual_size, larger));
    Err(Error::new(stage, Kind::Usage, what).advise(advice))
}

/// The advice to take the smallest cluster size above `from` for which `serves` holds.
pub fn larger_clusters(from: ClusterSize, serves: impl Fn(ClusterSize) -> bool) -> String {
    match smallest_fitting(from, serves) {
        Some(size) if size.bytes() < 1 << 20 => format!("use --cluster-size {}k or more", size.bytes() >> 10),
        Some(size) => format!("use --cluster-size {}M or more", size.bytes() >> 20),
        None => "no cluster size of qcow2 serves".to_owned(),
    }
}

/// The smallest cluster size above `from` for which `fits` holds.
fn smallest_fitting(from: ClusterSize, fits: impl Fn(ClusterSize) -> bool) -> Option<ClusterSize> {
    (from.bits() + 1..=ClusterSize::MAX_BITS).filter_map(ClusterSize::from_bits).find(|&cs| fits(cs))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cs(bytes: u64) -> ClusterSize {
        ClusterSize::from_bytes(bytes).unwrap()
    }

    #[test]
    fn sixteen_tib_need_clusters_of_8_kib() {
        let size = 16u64 << 40;
        assert!(!l1_fits(size, cs(4096)));
        assert_eq!(smallest_fitting(cs(4096), |c| l1_fits(size, c)), Some(cs(8192)));
    }

    #[test]
    fn at_512_bytes_the_l1_table_ends_at_128_gib_and_the_refcount_table_before_it_is_full() {
        assert!(l1_fits(128 << 30, cs(512)));
        assert!(!l1_fits((128 << 30) + 512, cs(512)));
        assert!(refcounts_fit((128 << 30) / 512, cs(512)));
        assert!(!refcounts_fit((128 << 30) / 512 + 1, cs(512)));
    }
}
