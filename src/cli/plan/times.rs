//! The run's time, in its parts.

use snapcow::convert::Sample;
use snapcow::plan::Route;
use snapcow::plan::estimate::Interval;
use snapcow::plan::time::Limit;

use super::forecast::{Looked, Spool};

/// Requests beside the transfers: the record, two looks at it when it has been sent, its name once more.
const REQUESTS: f64 = 5.0;

/// Seconds, as far as they are known.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seconds {
    pub low: f64,
    pub likely: f64,
    pub high: f64,
}

impl Seconds {
    pub(super) fn exactly(seconds: f64) -> Self {
        Self { low: seconds, likely: seconds, high: seconds }
    }

    pub(super) fn plus(self, other: Self) -> Self {
        Self { low: self.low + other.low, likely: self.likely + other.likely, high: self.high + other.high }
    }

    /// By the three values of an interval, of which larger ones take longer.
    pub(super) fn by(interval: Interval, seconds: impl Fn(u64) -> f64) -> Self {
        Self { low: seconds(interval.low), likely: seconds(interval.likely), high: seconds(interval.high) }
    }
}

/// A part of the run's time.
pub struct Part {
    /// Word for programs.
    pub name: &'static str,
    /// For people: what is done.
    pub words: String,
    pub seconds: Seconds,
    /// `measured`, `modelled` or `assumed`.
    pub basis: &'static str,
}

impl Looked<'_> {
    /// The run's time in its parts; they follow each other, but for a second read, which runs beside the upload.
    pub(super) fn parts(
        &self,
        sample: Option<&Sample>,
        image: Interval,
        spool: Spool,
        rate: Option<(f64, bool)>,
        limit: &mut Option<Limit>,
    ) -> Vec<Part> {
        let Some(sample) = sample else { return Vec::new() };
        let cs = self.job.geometry.cluster_size;
        let pass = |clusters: u64| sample.model.seconds(sample.load(clusters, cs)).0;
        *limit = Some(sample.model.seconds(sample.load(sample.content.data_clusters.likely, cs)).1);
        let from_glance = self.plan().facts.source.is_remote;
        let mut parts = vec![Part {
            name: "begin",
            words: if from_glance || rate.is_some() { "log in, look up, probe" } else { "open" }.into(),
            seconds: Seconds::exactly(self.begin_seconds),
            basis: "measured",
        }];
        let to_file = self.plan().route == Route::Direct;
        let reading =
            if self.job.source_digest.is_ok() { "read, hash, scan, encode" } else { "read, scan, encode" };
        parts.push(Part {
            name: "pass_1",
            words: format!("{reading}{}", if to_file { ", write" } else { "" }),
            seconds: Seconds::by(sample.content.data_clusters, pass),
            basis: "modelled",
        });
        if let Some((rate, measured)) = rate {
            let upload = Seconds::by(image, |bytes| bytes as f64 / rate);
            if matches!(spool, Spool::Rereads { .. }) {
                let again = self.second_read(sample, &pass);
                parts.push(Part {
                    name: "second_read",
                    words: "read again what the spool let go, beside the upload".into(),
                    // Only what goes beyond the upload is added.
                    seconds: Seconds {
                        low: (again.low - upload.low).max(0.0),
                        likely: (again.likely - upload.likely).max(0.0),
                        high: (again.high - upload.high).max(0.0),
                    },
                    basis: "modelled",
                });
            }
            parts.push(Part {
                name: "upload",
                words: "upload".into(),
                seconds: upload,
                basis: if measured { "measured" } else { "assumed" },
            });
            let put_seconds = self.place.upload.map_or(0.0, |(_, put)| put);
            parts.push(Part {
                name: "settle",
                words: "make the record, wait until it is active, compare its hash".into(),
                seconds: Seconds::exactly(REQUESTS * self.place.request_seconds + put_seconds),
                basis: "modelled",
            });
        }
        parts
    }

    /// What the second read of a spool that was too small takes.
    fn second_read(&self, sample: &Sample, pass: &dyn Fn(u64) -> f64) -> Seconds {
        let budget = &self.plan().budget;
        let room = (budget.spool_memory_bytes + budget.spool_disk_bytes) as f64;
        let stored = sample.content.stored_bytes;
        let clusters = sample.content.data_clusters;
        let share = |stored: u64| (1.0 - room / (stored as f64).max(1.0)).max(0.0);
        Seconds {
            low: share(stored.low) * pass(clusters.low),
            likely: share(stored.likely) * pass(clusters.likely),
            high: share(stored.high) * pass(clusters.high),
        }
    }
}
