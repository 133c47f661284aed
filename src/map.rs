//! The image map: what the survey learnt of every guest cluster.
//!
//! Costs 1 bit a cluster and 8 bytes a data cluster: its stored length and the CRC-32 of its guest
//! bytes. Entries lie in segments of fixed size, so growing never copies them.

use crate::units::{ClusterIndex, ClusterSize};

/// Entries of a segment: 512 KiB.
const SEGMENT_ENTRIES: usize = 1 << 16;

/// What is known of one data cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataCluster {
    /// Bytes that it takes in the file: below the cluster size if compressed, else equal to it.
    pub stored_len: u32,
    /// CRC-32 (IEEE) of its guest bytes, padded with zeros to a whole cluster.
    pub guest_crc: u32,
}

/// Zero or data for every guest cluster from 0 on, in order, and a [`DataCluster`] for each data
/// cluster.
#[derive(Debug)]
pub struct ImageMap {
    cluster_size: ClusterSize,
    clusters: u64,
    data_bits: Vec<u64>,
    entries: Vec<Vec<DataCluster>>,
    data_clusters: u64,
}

impl ImageMap {
    /// An empty map; `clusters_hint` is the expected number of guest clusters (0 if unknown).
    pub fn new(cluster_size: ClusterSize, clusters_hint: u64) -> Self {
        let words = usize::try_from(clusters_hint.div_ceil(64)).unwrap_or(0);
        Self {
            cluster_size,
            clusters: 0,
            data_bits: Vec::with_capacity(words),
            entries: Vec::new(),
            data_clusters: 0,
        }
    }

    /// Bytes that a map of this many clusters can cost, every one of them data.
    pub fn worst_case_bytes(clusters: u64) -> u64 {
        clusters.div_ceil(8).saturating_add(clusters.saturating_mul(8))
    }

    /// Appends `count` zero clusters.
    pub fn push_zeros(&mut self, count: u64) {
        self.clusters += count;
        self.data_bits.resize(self.clusters.div_ceil(64) as usize, 0);
    }

    /// Appends a data cluster.
    pub fn push_data(&mut self, data: DataCluster) {
        let index = self.clusters;
        self.push_zeros(1);
        self.data_bits[(index / 64) as usize] |= 1 << (index % 64);
        match self.entries.last_mut() {
            Some(segment) if segment.len() < SEGMENT_ENTRIES => segment.push(data),
            _ => {
                // The first segment grows by doubling, so that a small image has a small map.
                let capacity = if self.entries.is_empty() { 64 } else { SEGMENT_ENTRIES };
                let mut segment = Vec::with_capacity(capacity);
                segment.push(data);
                self.entries.push(segment);
            }
        }
        self.data_clusters += 1;
    }

    /// Size of a cluster.
    pub fn cluster_size(&self) -> ClusterSize {
        self.cluster_size
    }

    /// Guest clusters known so far.
    pub fn clusters(&self) -> u64 {
        self.clusters
    }

    /// Data clusters known so far.
    pub fn data_clusters(&self) -> u64 {
        self.data_clusters
    }

    /// Whether a cluster holds data. Clusters beyond the end count as zero.
    pub fn is_data(&self, cluster: ClusterIndex) -> bool {
        let word = self.data_bits.get((cluster.0 / 64) as usize).copied().unwrap_or(0);
        word >> (cluster.0 % 64) & 1 == 1
    }

    /// The data clusters in guest order.
    pub fn data(&self) -> DataIter<'_> {
        DataIter { map: self, word: 0, bits: self.data_bits.first().copied().unwrap_or(0), ordinal: 0 }
    }

    /// Runs of adjacent data clusters as `first..end`, in guest order.
    pub fn data_runs(&self) -> impl Iterator<Item = std::ops::Range<u64>> + '_ {
        let mut clusters = self.data().map(|(cluster, _)| cluster.0).peekable();
        std::iter::from_fn(move || {
            let first = clusters.next()?;
            let mut end = first + 1;
            while clusters.next_if_eq(&end).is_some() {
                end += 1;
            }
            Some(first..end)
        })
    }
}

/// Iterator over the data clusters of an [`ImageMap`].
#[derive(Clone, Debug)]
pub struct DataIter<'a> {
    map: &'a ImageMap,
    word: usize,
    bits: u64,
    ordinal: u64,
}

impl Iterator for DataIter<'_> {
    type Item = (ClusterIndex, DataCluster);

    fn next(&mut self) -> Option<Self::Item> {
        while self.bits == 0 {
            self.word += 1;
            self.bits = *self.map.data_bits.get(self.word)?;
        }
        let bit = self.bits.trailing_zeros();
        self.bits &= self.bits - 1;
        let ordinal = self.ordinal as usize;
        self.ordinal += 1;
        let entry = self.map.entries[ordinal / SEGMENT_ENTRIES][ordinal % SEGMENT_ENTRIES];
        Some((ClusterIndex(self.word as u64 * 64 + u64::from(bit)), entry))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_comes_back_in_guest_order_with_its_entry() {
        let mut map = ImageMap::new(ClusterSize::DEFAULT, 0);
        let mut expected = Vec::new();
        for round in 0..3000u32 {
            map.push_zeros(u64::from(round % 70));
            for _ in 0..round % 50 {
                let data = DataCluster { stored_len: round, guest_crc: !round };
                expected.push((ClusterIndex(map.clusters()), data));
                map.push_data(data);
            }
        }
        assert!(expected.len() > SEGMENT_ENTRIES);
        assert_eq!(map.data_clusters(), expected.len() as u64);
        assert!(map.data().eq(expected.iter().copied()));
        assert!(expected.iter().all(|(cluster, _)| map.is_data(*cluster)));
        assert!(!map.is_data(ClusterIndex(0)) && !map.is_data(ClusterIndex(map.clusters())));
    }

    #[test]
    fn runs_join_adjacent_data_clusters() {
        let mut map = ImageMap::new(ClusterSize::DEFAULT, 10);
        let data = DataCluster { stored_len: 1, guest_crc: 1 };
        for zero in [true, false, false, true, false] {
            if zero { map.push_zeros(1) } else { map.push_data(data) }
        }
        assert_eq!(map.data_runs().collect::<Vec<_>>(), [1..3, 4..5]);
    }
}
