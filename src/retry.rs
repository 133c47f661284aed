//! How often, and for how long, something that broke is tried again. A leaf.
//!
//! One value bounds everything on its own: a request, a range, a sequential download, an upload. What counts is
//! the run of failures without anything new in between: a stream of a day may break every hour, if it comes
//! further each time.

use std::time::{Duration, Instant};

/// The bounds, and the pauses between two tries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// Further tries after the first failure.
    pub retries: u32,
    /// The longest time from the first failure to the last try.
    pub time: Duration,
    /// The first pause; each further one is twice as long.
    pub first: Duration,
    /// The longest pause, whatever the service asks for.
    pub longest: Duration,
    /// A download that brings no byte for so long is broken.
    pub silence: Duration,
    /// An upload of which no byte is taken for so long is broken. Stores pause while they flush.
    pub upload_silence: Duration,
}

impl Default for Retry {
    /// Five more tries within a quarter of an hour: half a minute of pauses, where the service does not ask for
    /// longer ones.
    fn default() -> Self {
        Self {
            retries: 5,
            time: Duration::from_secs(900),
            first: Duration::from_secs(1),
            longest: Duration::from_secs(60),
            silence: Duration::from_secs(60),
            upload_silence: Duration::from_secs(300),
        }
    }
}

impl Retry {
    /// The same without a second try.
    #[must_use]
    pub fn once(self) -> Self {
        Self { retries: 0, ..self }
    }

    /// The pause after failure number `failures` (from 1), with 25 % of jitter so that the streams
    /// of one run do not come back at the same instant; `asked` is the service's own wish, before which nobody
    /// comes back unless it is longer than the longest pause.
    pub fn pause(&self, failures: u32, asked: Option<Duration>) -> Duration {
        let grown = self.first.saturating_mul(1 << (failures.saturating_sub(1)).min(16));
        let (pause, least) = match asked {
            Some(asked) => (asked.max(self.first), 1.0),
            None => (grown, 0.75),
        };
        pause.min(self.longest).mul_f64(rand::random_range(least..1.25))
    }
}

/// The tries of one operation.
#[derive(Clone, Debug)]
pub struct Attempts {
    retry: Retry,
    failures: u32,
    since: Option<Instant>,
    asked: Option<Duration>,
}

impl Attempts {
    /// None yet.
    pub fn new(retry: Retry) -> Self {
        Self { retry, failures: 0, since: None, asked: None }
    }

    /// Failures in a row.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// The pause that the service asked for at the last failure, if it did.
    pub fn asked(&self) -> Option<Duration> {
        self.asked
    }

    /// Something new came: the count and the clock begin anew.
    pub fn progressed(&mut self) {
        self.failures = 0;
        self.since = None;
    }

    /// The other side lives, but nothing new came: the clock begins anew, the count goes on.
    pub fn alive(&mut self) {
        self.since = None;
    }

    /// After a failure: how long to wait before the next try, or `None` if there is none.
    pub fn after_failure(&mut self, asked: Option<Duration>) -> Option<Duration> {
        let begun = *self.since.get_or_insert_with(Instant::now);
        self.failures += 1;
        self.asked = asked;
        let pause = self.retry.pause(self.failures, asked);
        (self.failures <= self.retry.retries && begun.elapsed() + pause <= self.retry.time).then_some(pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_obey_the_service_and_stay_bounded() {
        let retry = Retry::default();
        let between = |pause: Duration, low: f64, high: f64| (low..=high).contains(&pause.as_secs_f64());
        assert!(between(retry.pause(1, None), 0.75, 1.25));
        assert!(between(retry.pause(3, None), 3.0, 5.0));
        assert!(between(retry.pause(60, None), 45.0, 75.0));
        assert!(between(retry.pause(1, Some(Duration::from_secs(8))), 8.0, 10.0));
        assert!(between(retry.pause(1, Some(Duration::from_secs(86400))), 60.0, 75.0));
        let jitter: Vec<_> = (0..20).map(|_| retry.pause(1, None)).collect();
        assert!(jitter.iter().any(|pause| *pause != jitter[0]), "{jitter:?}");
    }

    #[test]
    fn number_and_time_are_bounded_and_only_progress_begins_anew() {
        let quick = Retry { retries: 3, first: Duration::from_millis(1), ..Retry::default() };
        let mut attempts = Attempts::new(quick);
        let tries = |attempts: &mut Attempts| std::iter::from_fn(|| attempts.after_failure(None)).count();
        assert_eq!(tries(&mut attempts), 3);
        attempts.alive();
        assert_eq!(tries(&mut attempts), 0);
        attempts.progressed();
        assert_eq!(tries(&mut attempts), 3);
        assert_eq!(tries(&mut Attempts::new(quick.once())), 0);
        let short = Retry { retries: 1000, time: Duration::from_millis(100), ..quick };
        assert!(tries(&mut Attempts::new(short)) < 10, "the pauses alone are longer than the time");
    }
}
