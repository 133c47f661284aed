//! How much an upload must hold back so that it can be kept alive while a second, sequential read
//! of the source crosses runs of zeros, from which nothing new comes, comes back to where it had to hang
//! up, or is kept waiting by its service.

use std::collections::VecDeque;
use std::ops::Range;

use crate::map::ImageMap;
use crate::units::ClusterIndex;

/// Bytes a second that keep an upload alive: twice what the strictest usual rule wants.
pub(super) const TRICKLE_BYTES_PER_SECOND: u64 = 2048;
/// The slowest that a download is allowed to be, in bytes a second.
const SLOWEST_DOWNLOAD: f64 = (2 << 20) as f64;
/// The second read may be so much slower than the first.
const MARGIN: f64 = 4.0;
/// Runs of zeros that take less time than this, in seconds, need no reserve.
const SHORT_SECONDS: f64 = 1.0;
/// A download may fall silent for so long, in seconds, before it counts as broken; that it does not begin
/// is noticed sooner. Until then the upload has to live.
const SILENT_SECONDS: u64 = 60;

/// The reserve to hold at each point of the second read.
#[derive(Debug)]
pub(super) struct Reserve {
    /// For each long run of zeros, the cluster where it ends and what must be in hand before it.
    steps: VecDeque<(u64, u64)>,
    /// Bytes that come in every second at the very least, zeros and skipped ones included.
    slowest: f64,
    cluster_bytes: u64,
    max: u64,
}

impl Reserve {
    /// From the map and the runs of data that are read again. `rate` is in guest bytes a second.
    ///
    /// Computed from the end: before a run of zeros there must be enough for the run itself, and for
    /// whatever the next one needs beyond the data that comes in between.
    pub(super) fn new(map: &ImageMap, runs: &[Range<u64>], rate: f64, max: u64) -> Self {
        let slowest = SLOWEST_DOWNLOAD.max(rate / MARGIN);
        let stored = stored_by_run(map, runs);
        let mut steps = VecDeque::new();
        let (mut need, mut between) = (0u64, 0u64);
        for index in (1..runs.len()).rev() {
            between += stored[index];
            let gap = (runs[index].start - runs[index - 1].end) * map.cluster_size().bytes();
            let seconds = gap as f64 / slowest;
            if seconds >= SHORT_SECONDS {
                let cost = (seconds.ceil() as u64 + 1) * TRICKLE_BYTES_PER_SECOND;
                need = (cost + need.saturating_sub(between)).min(max);
                between = 0;
                steps.push_front((runs[index].start, need));
            }
        }
        Self { steps, slowest, cluster_bytes: map.cluster_size().bytes(), max }
    }

    /// What to hold back now that everything before `seen` has been read: enough for the zeros ahead, and
    /// enough for the way back from byte 0 to here, should the source have to hang up.
    pub(super) fn at(&mut self, seen: ClusterIndex) -> u64 {
        while self.steps.front().is_some_and(|(end, _)| *end <= seen.0) {
            self.steps.pop_front();
        }
        let ahead = self.steps.front().map_or(0, |(_, need)| *need);
        let back = (seen.0 * self.cluster_bytes) as f64 / self.slowest;
        let back = (back.ceil() as u64 + SILENT_SECONDS).saturating_mul(TRICKLE_BYTES_PER_SECOND);
        ahead.max(back).min(self.max)
    }
}

/// Stored bytes of each run.
fn stored_by_run(map: &ImageMap, runs: &[Range<u64>]) -> Vec<u64> {
    let mut stored = vec![0; runs.len()];
    let mut run = 0;
    for (cluster, entry) in map.data() {
        while run < runs.len() && runs[run].end <= cluster.0 {
            run += 1;
        }
        match stored.get_mut(run) {
            Some(sum) => *sum += u64::from(entry.stored_len),
            None => break,
        }
    }
    stored
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::map::DataCluster;
    use crate::units::ClusterSize;

    fn map(parts: &[(u64, u64)], stored_len: u32) -> ImageMap {
        let mut map = ImageMap::new(ClusterSize::DEFAULT, 0);
        for &(zeros, data) in parts {
            map.push_zeros(zeros);
            (0..data).for_each(|_| map.push_data(DataCluster { stored_len, guest_crc: 0 }));
        }
        map
    }

    #[test]
    fn sixty_gb_of_zeros_are_foreseen() {
        let zeros = 60_000_000_000 / 65536;
        let map = map(&[(0, 10), (zeros, 10)], 100);
        let runs: Vec<_> = map.data_runs().collect();
        // At 1 GB/s, a quarter of it assumed: 240 s.
        let mut reserve = Reserve::new(&map, &runs, 1e9, u64::MAX);
        let need = reserve.at(ClusterIndex(0));
        assert!((240..=243).contains(&(need / 2048)), "{need}");
        // Behind them the way back is as long as the way was.
        let back = reserve.at(ClusterIndex(10 + zeros));
        assert!((300..=303).contains(&(back / 2048)), "{back}");
    }

    #[test]
    fn data_between_two_runs_of_zeros_counts() {
        let zeros = (10 << 30) / 65536;
        let of = |stored_len| {
            let map = map(&[(0, 1), (zeros, 1), (zeros, 1)], stored_len);
            let runs: Vec<_> = map.data_runs().collect();
            Reserve::new(&map, &runs, 0.0, u64::MAX).at(ClusterIndex(0)) / 2048
        };
        // 10 GiB at 2 MiB/s take 5120 s; with 100 bytes in between, both must be in hand at once.
        assert_eq!(of(100), 5121 + 5120);
        assert_eq!(of(65536), 5121 + 5121 - 32);
    }

    #[test]
    fn a_second_read_may_always_be_kept_waiting_for_a_while_but_never_costs_more_than_the_limit() {
        let map = map(&[(0, 10)], 100);
        let runs: Vec<_> = map.data_runs().collect();
        assert_eq!(Reserve::new(&map, &runs, 1e9, u64::MAX).at(ClusterIndex(0)), 60 * 2048);
        assert_eq!(Reserve::new(&map, &runs, 1e9, 1000).at(ClusterIndex(5)), 1000);
    }
}
