//! Where header, tables and data lie, and how long the file becomes.

use std::convert::Infallible;

use crate::error::{Error, Kind, Result, Stage};
use crate::flow::Form;
use crate::map::ImageMap;
use crate::place::placer::Placer;
use crate::qcow2::entry::{ENTRY_BYTES, entries_per_l2};
use crate::qcow2::limits::{self, l1_entries, larger_clusters, refcounts_fit, refcounts_per_block};
use crate::qcow2::{Compat, CompressionType};
use crate::units::{ClusterSize, HostOffset, Human, SECTOR_BYTES};

/// What the whole file has in common.
#[derive(Clone, Copy, Debug)]
pub struct Geometry {
    /// Version of the format.
    pub compat: Compat,
    /// Compression of the compressed clusters.
    pub compression: CompressionType,
    /// Size of a cluster.
    pub cluster_size: ClusterSize,
}

/// In which order the parts of the file lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Header, refcount table and blocks, L1, L2 tables, data: for sinks that take bytes in order.
    HeadFirst,
    /// Header's cluster, data, L2 tables, L1, refcount blocks and table: for sinks with random
    /// access, which get the header's bytes last.
    HeadLast,
}

/// A part of the file in whole clusters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// Where it begins.
    pub offset: HostOffset,
    /// How many clusters it takes.
    pub clusters: u64,
}

/// The finished layout of a file.
#[derive(Clone, Debug)]
pub struct Layout {
    /// Version, compression, cluster size.
    pub geometry: Geometry,
    /// Order of the regions.
    pub order: Order,
    /// Guest size in bytes, a multiple of 512.
    pub virtual_size: u64,
    /// Entries of the L1 table.
    pub l1_entries: u64,
    /// The refcount table.
    pub refcount_table: Region,
    /// The refcount blocks.
    pub refcount_blocks: Region,
    /// The L1 table.
    pub l1: Region,
    /// The L2 tables that hold anything.
    pub l2: Region,
    /// The data clusters; the last one may be cut at the end of the file.
    pub data: Region,
    /// Exact length of the file in bytes, a multiple of 512.
    pub file_len: u64,
}

impl Layout {
    /// Lays out the clusters of a map.
    ///
    /// # Errors
    /// [`Kind::Usage`], naming the cluster size to use, if the file would break QEMU's limits.
    pub fn new(geometry: Geometry, order: Order, virtual_size: u64, map: &ImageMap) -> Result<Self> {
        let data_bytes = packed_len(geometry.cluster_size, map);
        Self::of_sizes(geometry, order, virtual_size, l2_tables(map), data_bytes)
    }

    /// Lays out so many L2 tables, and data clusters that take so many bytes when placed: for whoever has no map yet.
    ///
    /// # Errors
    /// As [`Layout::new`].
    pub fn of_sizes(
        geometry: Geometry,
        order: Order,
        virtual_size: u64,
        l2: u64,
        data_bytes: u64,
    ) -> Result<Self> {
        check_virtual_size(virtual_size, geometry.cluster_size)?;
        let cs = geometry.cluster_size;
        let data = cs.clusters_for(data_bytes);
        // An empty disk gets an entry too: without one, the table's cluster would count as leaked,
        // and without the cluster its offset would be another region's.
        let l1_entries = l1_entries(virtual_size, cs).max(1);
        let l1 = cs.clusters_for(l1_entries * ENTRY_BYTES);
        let (table, blocks) = refcount_clusters(1 + l1 + l2 + data, cs)?;

        let mut next = 0;
        let mut region = |clusters: u64| {
            let offset = HostOffset(next);
            next += clusters * cs.bytes();
            Region { offset, clusters }
        };
        region(1);
        let (refcount_table, refcount_blocks, l1, l2, data) = match order {
            Order::HeadFirst => {
                let (table, blocks) = (region(table), region(blocks));
                let (l1, l2) = (region(l1), region(l2));
                (table, blocks, l1, l2, region(data))
            }
            Order::HeadLast => {
                let data = region(data);
                let (l2, l1) = (region(l2), region(l1));
                let (blocks, table) = (region(blocks), region(table));
                (table, blocks, l1, l2, data)
            }
        };
        let file_len = match order {
            Order::HeadFirst => data.offset.0 + data_bytes.next_multiple_of(SECTOR_BYTES),
            Order::HeadLast => next,
        };
        Ok(Self {
            geometry,
            order,
            virtual_size,
            l1_entries,
            refcount_table,
            refcount_blocks,
            l1,
            l2,
            data,
            file_len,
        })
    }

    /// Clusters of the whole file.
    pub fn host_clusters(&self) -> u64 {
        self.geometry.cluster_size.clusters_for(self.file_len)
    }

    /// Where the data of a file with the head last begins: behind the header's cluster.
    pub fn head_last_data_start(cluster_size: ClusterSize) -> HostOffset {
        HostOffset(cluster_size.bytes())
    }
}

/// Refuses a disk whose L1 table would be larger than QEMU opens.
///
/// # Errors
/// [`Kind::Usage`], naming the smallest cluster size that serves.
pub fn check_virtual_size(virtual_size: u64, cluster_size: ClusterSize) -> Result<()> {
    limits::check_virtual_size(Stage::Place, virtual_size, cluster_size)
}

/// Bytes from the first data cluster to the end of the last, by the placing rule.
pub fn packed_len(cs: ClusterSize, map: &ImageMap) -> u64 {
    let mut placer = Placer::new(cs, HostOffset(0));
    let mut ignore = |_| Ok::<(), Infallible>(());
    for (cluster, data) in map.data() {
        let Ok(()) = placer.push(cluster, Form::of(data.stored_len, cs), (), &mut ignore);
    }
    let Ok(()) = placer.flush(&mut ignore);
    placer.end().0
}

/// L2 tables that hold at least one data cluster.
fn l2_tables(map: &ImageMap) -> u64 {
    let per_table = entries_per_l2(map.cluster_size());
    let mut last = None;
    map.data()
        .filter(|(cluster, _)| last.replace(cluster.0 / per_table) != Some(cluster.0 / per_table))
        .count() as u64
}

/// Clusters of the refcount table and of the refcount blocks for a file with `others` clusters
/// besides. They count themselves, so this is the smallest fixed point; it exists because one block
/// counts at least 256 clusters.
fn refcount_clusters(others: u64, cs: ClusterSize) -> Result<(u64, u64)> {
    let (mut table, mut blocks) = (1, 1);
    loop {
        let total = others + table + blocks;
        if !refcounts_fit(total, cs) {
            let what = format!(
                "a file of {} is too large for clusters of {}: its refcount table would exceed 8 MiB",
                Human(total.saturating_mul(cs.bytes())),
                Human(cs.bytes())
            );
            let serves = |larger: ClusterSize| {
                refcounts_fit((total * cs.bytes()).div_ceil(larger.bytes()) + 3, larger)
            };
            return Err(Error::new(Stage::Place, Kind::Usage, what).advise(larger_clusters(cs, serves)));
        }
        let need_blocks = total.div_ceil(refcounts_per_block(cs));
        let need_table = cs.clusters_for(need_blocks * ENTRY_BYTES);
        if need_blocks == blocks && need_table == table {
            return Ok((table, blocks));
        }
        (table, blocks) = (need_table.max(table), need_blocks.max(blocks));
    }
}
