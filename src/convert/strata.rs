//! Where a sample of a source is taken from: its data without the holes, as one row of clusters, and random places in it.

use std::ops::Range;

use super::Job;
use crate::error::Result;

/// Extents of a source that are told apart; what lies behind counts as one.
const EXTENTS_MAX: usize = 1 << 20;
/// Runs that a pilot is made of.
const PILOT_RUNS: u64 = 2;

/// Runs of clusters that may hold data.
pub(super) struct Extents {
    runs: Vec<Range<u64>>,
    /// Clusters of all runs before each.
    before: Vec<u64>,
    /// Clusters of all of them.
    pub(super) clusters: u64,
}

impl Extents {
    /// Of a source of `len` bytes.
    pub(super) fn of(job: &Job, len: u64) -> Result<Self> {
        let cs = job.geometry.cluster_size;
        let total = cs.clusters_for(len);
        let mut extents = Self { runs: Vec::new(), before: Vec::new(), clusters: 0 };
        let mut next = 0;
        while let Some(data) = job.source.data_behind(next << cs.bits())? {
            let first = (data.start >> cs.bits()).max(next);
            let full = extents.runs.len() >= EXTENTS_MAX;
            let end = if full { total } else { cs.clusters_for(data.end).min(total) };
            if first >= end {
                break;
            }
            extents.before.push(extents.clusters);
            extents.clusters += end - first;
            extents.runs.push(first..end);
            next = end;
        }
        Ok(extents)
    }

    /// The runs on the disk of some clusters, counted without the holes.
    pub(super) fn on_disk(&self, mut wanted: Range<u64>) -> Vec<Range<u64>> {
        let mut runs = Vec::new();
        let mut index = self.before.partition_point(|before| *before <= wanted.start).saturating_sub(1);
        while let (Some(run), Some(before)) = (self.runs.get(index), self.before.get(index)) {
            if wanted.start >= wanted.end {
                break;
            }
            let first = run.start + (wanted.start - before);
            let end = run.end.min(first + (wanted.end - wanted.start));
            wanted.start += end - first;
            runs.push(first..end);
            index += 1;
        }
        runs
    }
}

/// Long runs, evenly spread but for a random beginning.
pub(super) fn pilot_runs(extents: &Extents, clusters: u64, random: &mut Random) -> Vec<Range<u64>> {
    let len = (clusters / PILOT_RUNS).max(1);
    let share = extents.clusters / PILOT_RUNS;
    let runs = (0..PILOT_RUNS).flat_map(|index| {
        let first = index * share + random.below(share.saturating_sub(len).max(1));
        extents.on_disk(first..extents.clusters.min(first + len))
    });
    runs.collect()
}

/// Numbers that are the same on every machine (SplitMix64).
pub(super) struct Random(pub(super) u64);

impl Random {
    /// One below `end`; 0 where there is none.
    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end.max(1)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::single_range_in_vec_init, reason = "lists of ranges, and some have one")]

    use super::*;

    #[test]
    fn places_are_counted_without_the_holes() {
        let extents = Extents { runs: vec![10..12, 20..25], before: vec![0, 2], clusters: 7 };
        assert_eq!(extents.on_disk(0..7), [10..12, 20..25]);
        assert_eq!(extents.on_disk(1..3), [11..12, 20..21]);
        assert_eq!(extents.on_disk(4..5), [22..23]);
        assert_eq!(extents.on_disk(7..7), []);
        let none = Extents { runs: Vec::new(), before: Vec::new(), clusters: 0 };
        assert_eq!(none.on_disk(0..0), []);
        let mut random = Random(1);
        let long: u64 = pilot_runs(&extents, 4, &mut random).iter().map(|run| run.end - run.start).sum();
        assert!((3..=4).contains(&long), "{long}");
    }
}
