//! From a sample of a disk to what all of it will come to, as an interval.
//!
//! # Decisions
//! - The disk is cut into units, the units into strata of equal length in the order of the disk, and one unit of each
//!   stratum is looked at. Extents make neighbours alike, so many small units tell more than a few large ones.
//! - One unit a stratum leaves no variance within it to be seen. The differences between neighbouring strata stand for
//!   it (successive differences, Wolter, «Introduction to Variance Estimation», 2007, section 8.2): where the disk
//!   changes slowly they are small, and where it changes they err to the safe side.
//! - Disks are mixtures of zeros and of bytes that do not compress. A kind that no unit showed has no variance either;
//!   so the interval is never narrower than the rule of three has it: of what was not looked at, a share of 3 by the
//!   number of units may be as unlike the rest as can be.

/// How surely the truth is meant to lie in an interval, in per cent.
pub const CONFIDENCE_PERCENT: u32 = 99;
/// The quantile of the normal distribution for that.
const QUANTILE: f64 = 2.576;

/// A number that is not known exactly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Interval {
    /// The least.
    pub low: u64,
    /// The most likely.
    pub likely: u64,
    /// The most.
    pub high: u64,
}

impl Interval {
    /// A number that is known.
    pub fn exactly(value: u64) -> Self {
        Self { low: value, likely: value, high: value }
    }

    /// Whether it is known.
    pub fn is_exact(self) -> bool {
        self.low == self.high
    }

    /// Whether a number lies in it.
    pub fn holds(self, value: u64) -> bool {
        (self.low..=self.high).contains(&value)
    }

    /// The same, each bound by a function that grows.
    #[must_use]
    pub fn map(self, grow: impl Fn(u64) -> u64) -> Self {
        Self { low: grow(self.low), likely: grow(self.likely), high: grow(self.high) }
    }
}

/// What was found in some clusters that were looked at together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unit {
    /// How many clusters.
    pub clusters: u64,
    /// How many of them hold data.
    pub data_clusters: u64,
    /// Bytes that those take in the image.
    pub stored_bytes: u64,
}

impl Unit {
    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            clusters: self.clusters + other.clusters,
            data_clusters: self.data_clusters + other.data_clusters,
            stored_bytes: self.stored_bytes + other.stored_bytes,
        }
    }
}

/// What was looked at, and what was not.
#[derive(Clone, Debug, Default)]
pub struct Looked {
    /// Found where all was looked at.
    pub certain: Unit,
    /// One unit of each stratum, in the order of the disk.
    pub drawn: Vec<Unit>,
    /// Clusters of which the drawn ones are a sample, those included.
    pub clusters_of_drawn: u64,
    /// Clusters of which nothing is known.
    pub unknown_clusters: u64,
}

/// What a disk comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Content {
    /// Clusters that hold data.
    pub data_clusters: Interval,
    /// Bytes that those take in the image, without what placing them wastes.
    pub stored_bytes: Interval,
}

/// Estimates; `cluster_bytes` is the most that a cluster takes.
pub fn content(looked: &Looked, cluster_bytes: u64) -> Content {
    Content {
        data_clusters: total(looked, 1, |unit| unit.data_clusters),
        stored_bytes: total(looked, cluster_bytes, |unit| unit.stored_bytes),
    }
}

/// The sum over all clusters of a value that is at most `most` for each.
fn total(looked: &Looked, most: u64, value: impl Fn(&Unit) -> u64) -> Interval {
    let certain = value(&looked.certain);
    let seen: u64 = looked.drawn.iter().map(&value).sum();
    let seen_clusters: u64 = looked.drawn.iter().map(|unit| unit.clusters).sum();
    let unseen_clusters = looked.clusters_of_drawn.saturating_sub(seen_clusters);
    let known = certain + seen;
    let (mut low, mut likely, mut high) = (known as f64, known as f64, known as f64);
    if unseen_clusters > 0 {
        let count = looked.drawn.len() as f64;
        // Of each unseen cluster, by those seen.
        let mean = seen as f64 / (seen_clusters as f64).max(1.0);
        let unseen = mean * unseen_clusters as f64;
        let room = (most as f64 - mean) * unseen_clusters as f64;
        let spread = spread(looked, &value, unseen_clusters);
        let unlike = (3.0 / count.max(1.0)).min(1.0);
        likely += unseen;
        low += (unseen - spread.max(unlike * unseen)).max(0.0);
        high += unseen + spread.max(unlike * room).min(room);
    }
    if looked.unknown_clusters > 0 {
        let clusters = (looked.certain.clusters + looked.clusters_of_drawn) as f64;
        likely *= 1.0 + looked.unknown_clusters as f64 / clusters.max(1.0);
        high += looked.unknown_clusters as f64 * most as f64;
    }
    Interval { low: low.floor() as u64, likely: likely.round() as u64, high: high.ceil() as u64 }
}

/// Half the width of the interval of what was not seen, by the differences between neighbouring strata.
fn spread(looked: &Looked, value: impl Fn(&Unit) -> u64, unseen_clusters: u64) -> f64 {
    let each = |unit: &Unit| value(unit) as f64 / (unit.clusters as f64).max(1.0);
    let count = looked.drawn.len();
    if count < 2 {
        return f64::INFINITY;
    }
    let squares: f64 =
        looked.drawn.windows(2).map(|pair| (each(&pair[0]) - each(&pair[1])).powi(2)).sum::<f64>();
    let variance = squares / (2.0 * (count - 1) as f64);
    // The mean of those seen errs by that of `count`; those unseen err by their own besides.
    let seen_share = 1.0 - unseen_clusters as f64 / looked.clusters_of_drawn as f64;
    let error = (variance / count as f64 / (1.0 - seen_share).max(f64::EPSILON)).sqrt();
    // Student's quantile by that of the normal distribution (Cornish and Fisher's first term).
    let freedom = (count - 1) as f64;
    let quantile = QUANTILE * (1.0 + (QUANTILE * QUANTILE + 1.0) / (4.0 * freedom));
    quantile * error * unseen_clusters as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLUSTER: u64 = 65536;

    fn unit(stored_bytes: u64) -> Unit {
        Unit { clusters: 1, data_clusters: u64::from(stored_bytes > 0), stored_bytes }
    }

    fn drawn(units: impl Iterator<Item = u64>, of: u64) -> Content {
        let looked = Looked { drawn: units.map(unit).collect(), clusters_of_drawn: of, ..Looked::default() };
        content(&looked, CLUSTER)
    }

    #[test]
    fn what_was_all_looked_at_is_known() {
        let certain = Unit { clusters: 10, data_clusters: 4, stored_bytes: 1234 };
        let found = content(&Looked { certain, ..Looked::default() }, CLUSTER);
        assert_eq!(found.stored_bytes, Interval::exactly(1234));
        assert!(found.data_clusters.is_exact());
        let all = drawn([5, 0, 7].into_iter(), 3);
        assert_eq!(all.stored_bytes, Interval::exactly(12));
    }

    #[test]
    fn what_no_unit_showed_may_still_be_there() {
        let zeros = drawn(std::iter::repeat_n(0, 300), 30_000);
        assert_eq!((zeros.stored_bytes.low, zeros.stored_bytes.likely), (0, 0));
        let share = zeros.stored_bytes.high as f64 / (30_000 * CLUSTER) as f64;
        assert!((0.008..0.012).contains(&share), "{share}");
        let full = drawn(std::iter::repeat_n(CLUSTER, 300), 30_000);
        assert_eq!(full.stored_bytes.high, 30_000 * CLUSTER);
        assert!(full.stored_bytes.low < 30_000 * CLUSTER && full.stored_bytes.low > 29_000 * CLUSTER);
    }

    #[test]
    fn a_first_part_bounds_the_whole_from_both_sides() {
        let certain = Unit { clusters: 100, data_clusters: 50, stored_bytes: 1000 };
        let looked = Looked { certain, unknown_clusters: 300, ..Looked::default() };
        let found = content(&looked, CLUSTER).stored_bytes;
        assert_eq!((found.low, found.likely, found.high), (1000, 4000, 1000 + 300 * CLUSTER));
    }

    /// Disks of long extents, sampled as the product does, many times: how often the interval holds the truth.
    #[test]
    fn the_interval_holds_the_truth_as_often_as_it_says() {
        let mut state = 7u64;
        let mut random = move |end: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % end
        };
        let (mut held, mut rounds, mut width) = (0, 0, 0.0);
        for disk in 0..40u64 {
            let longest = [4, 40, 400, 1500][disk as usize % 4];
            let mut clusters = Vec::new();
            while clusters.len() < 20_000 {
                let stored = [0, 0, CLUSTER, 9_000, 30_000][random(5) as usize];
                for _ in 0..=random(longest) {
                    clusters.push(if stored == 30_000 { stored + random(20_000) } else { stored });
                }
            }
            let of = clusters.len() as u64;
            let truth: u64 = clusters.iter().sum();
            for _ in 0..25 {
                let picks = (0..300u64).map(|stratum| {
                    let (from, to) = (stratum * of / 300, (stratum + 1) * of / 300);
                    from + random(to - from)
                });
                let picked: Vec<u64> = picks.collect();
                let found = drawn(picked.iter().map(|&at| clusters[at as usize]), of).stored_bytes;
                held += u32::from(found.holds(truth));
                rounds += 1;
                width += (found.high - found.low) as f64 / truth as f64;
            }
        }
        assert!(held * 100 >= rounds * 98, "{held} of {rounds}");
        assert!(width / f64::from(rounds) < 0.5, "wider than useful: {}", width / f64::from(rounds));
    }
}
