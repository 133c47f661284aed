//! Clocks: wall and CPU time of a piece of work, and what many samples of it come to.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// One sample.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Lap {
    /// Time that passed.
    pub(super) wall_seconds: f64,
    /// CPU time of all threads that took part.
    pub(super) cpu_seconds: f64,
}

/// A stop-watch with both clocks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Watch {
    clock: ClockId,
    wall: Instant,
    cpu: Duration,
}

impl Watch {
    /// Counts the CPU time of the whole process.
    pub(super) fn process() -> Self {
        Self::start(ClockId::ProcessCPUTime)
    }

    /// Counts the CPU time of this thread.
    pub(super) fn thread() -> Self {
        Self::start(ClockId::ThreadCPUTime)
    }

    fn start(clock: ClockId) -> Self {
        Self { clock, cpu: read(clock), wall: Instant::now() }
    }

    /// What has passed since the start.
    pub(super) fn lap(&self) -> Lap {
        let wall_seconds = self.wall.elapsed().as_secs_f64();
        Lap { wall_seconds, cpu_seconds: read(self.clock).saturating_sub(self.cpu).as_secs_f64() }
    }
}

fn read(clock: ClockId) -> Duration {
    let time = clock_gettime(clock);
    Duration::new(time.tv_sec.max(0) as u64, time.tv_nsec.max(0) as u32)
}

/// All samples of one kind of work that moved the same bytes each time, and what they come to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Timing {
    /// Threads that did the work, where it can be shared; else 1.
    pub threads: usize,
    /// Wall time of each round.
    pub wall_seconds: Vec<f64>,
    /// CPU time of each round, over all threads.
    pub cpu_seconds: Vec<f64>,
    /// Median of `wall_seconds`.
    pub median_wall_seconds: f64,
    /// Least of `wall_seconds`.
    pub min_wall_seconds: f64,
    /// Most of `wall_seconds`.
    pub max_wall_seconds: f64,
    /// Median of `cpu_seconds`.
    pub median_cpu_seconds: f64,
    /// Bytes that went in, by the median wall time.
    pub bytes_per_second: f64,
    /// Bytes that went in, by the median CPU time: what a core does.
    pub bytes_per_cpu_second: f64,
}

impl Timing {
    /// Sums samples up; `bytes` went in in each of them.
    pub(super) fn of(laps: &[Lap], bytes: u64, threads: usize) -> Self {
        let wall_seconds: Vec<f64> = laps.iter().map(|lap| nanos(lap.wall_seconds)).collect();
        let cpu_seconds: Vec<f64> = laps.iter().map(|lap| nanos(lap.cpu_seconds)).collect();
        let (median_wall_seconds, median_cpu_seconds) = (median(&wall_seconds), median(&cpu_seconds));
        Self {
            threads,
            median_wall_seconds,
            min_wall_seconds: wall_seconds.iter().copied().fold(f64::INFINITY, f64::min),
            max_wall_seconds: wall_seconds.iter().copied().fold(0.0, f64::max),
            median_cpu_seconds,
            bytes_per_second: (bytes as f64 / at_least(median_wall_seconds)).round(),
            bytes_per_cpu_second: (bytes as f64 / at_least(median_cpu_seconds)).round(),
            wall_seconds,
            cpu_seconds,
        }
    }
}

/// Whole nanoseconds: what a clock tells, and what comes back from JSON as it was.
pub(super) fn nanos(seconds: f64) -> f64 {
    (seconds * 1e9).round() / 1e9
}

/// No work takes less than a clock can tell.
pub(super) fn at_least(seconds: f64) -> f64 {
    seconds.max(1e-9)
}

/// The middle one, or the mean of the two in the middle; 0 of nothing.
pub(super) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match (sorted.len() / 2, sorted.len() % 2) {
        (0, 0) => 0.0,
        (middle, 1) => sorted[middle],
        (middle, _) => nanos((sorted[middle - 1] + sorted[middle]) / 2.0),
    }
}

/// One round to warm up, then as many as asked for.
///
/// # Errors
/// The first failure of a round.
pub(super) fn rounds<E>(count: usize, mut round: impl FnMut() -> Result<Lap, E>) -> Result<Vec<Lap>, E> {
    round()?;
    (0..count).map(|_| round()).collect()
}
