//! How many connections a download by ranges uses, and how much each asks for at once: as few as bring the
//! bytes as fast as they can come, and as much as comes in half a second.
//!
//! Every connection holds one of the service's workers. So it begins with one, another is added while that
//! makes the download clearly faster, the last one is given back where it did not, and half of them at once
//! where the service said that it has too much to do (429, 503). What was tried in vain is tried again
//! later: a service that was busy may have become idle.

use std::time::{Duration, Instant};

use crate::flow::CHUNK_BYTES;

/// An addition has to bring so much, as a factor, to stay.
const WORTH: f64 = 1.1;
/// Stripes that are measured for each connection before the next decision; the first of them was still
/// asked for under the old number.
const STRIPES: u32 = 2;
/// A measurement takes at least so long.
const SHORTEST: Duration = Duration::from_millis(200);
/// Decisions that are left out after an addition that did not pay, or after a refusal.
const REST: u32 = 8;

/// A stripe is what a connection brings in so many seconds: long enough for a range's own cost not to count,
/// short enough for the stripes that wait for their turn not to be cut as idle.
const STRIPE_SECONDS: f64 = 0.5;
/// The shortest stripe, in bytes.
const STRIPE_MIN_BYTES: u64 = 16 << 20;
/// The longest stripe, in bytes.
const STRIPE_MAX_BYTES: u64 = 128 << 20;

/// See the module's text.
#[derive(Debug)]
pub(super) struct Pace {
    allowed: usize,
    now: usize,
    stripe_bytes: u64,
    /// The rate before the last addition, in bytes a second, until it is known whether it paid.
    before: Option<f64>,
    rest: u32,
    refusals: u64,
    begin: Instant,
    bytes: u64,
    stripes: u32,
}

impl Pace {
    /// At most `allowed` connections; `refusals` is the service's count so far.
    pub(super) fn new(allowed: usize, refusals: u64, now: Instant) -> Self {
        Self {
            allowed,
            now: 1,
            stripe_bytes: STRIPE_MIN_BYTES,
            before: None,
            rest: 0,
            refusals,
            begin: now,
            bytes: 0,
            stripes: 0,
        }
    }

    /// Connections to use now.
    pub(super) fn connections(&self) -> usize {
        self.now
    }

    /// Bytes of the next stripe, a multiple of a chunk's.
    pub(super) fn stripe_bytes(&self) -> u64 {
        self.stripe_bytes
    }

    /// Notes a stripe that has been handed on, and decides when enough of them have been.
    pub(super) fn stripe(&mut self, bytes: u64, refusals: u64, now: Instant) {
        self.bytes += bytes;
        self.stripes += 1;
        if refusals > self.refusals {
            self.refusals = refusals;
            self.now = (self.now / 2).max(1);
            self.before = None;
            self.rest = REST;
            return self.measure_anew(now);
        }
        let elapsed = now.saturating_duration_since(self.begin);
        if self.stripes < STRIPES * self.now as u32 || elapsed < SHORTEST {
            return;
        }
        self.decide(self.bytes as f64 / elapsed.as_secs_f64());
        self.measure_anew(now);
    }

    fn decide(&mut self, rate: f64) {
        let stripe = (rate / self.now as f64 * STRIPE_SECONDS) as u64;
        self.stripe_bytes = (stripe - stripe % CHUNK_BYTES as u64).clamp(STRIPE_MIN_BYTES, STRIPE_MAX_BYTES);
        match self.before.take() {
            Some(before) if rate < before * WORTH => {
                self.now -= 1;
                self.rest = REST;
            }
            None if self.rest > 0 => self.rest -= 1,
            _ if self.now < self.allowed => {
                self.now += 1;
                self.before = Some(rate);
            }
            _ => {}
        }
    }

    fn measure_anew(&mut self, now: Instant) {
        (self.begin, self.bytes, self.stripes) = (now, 0, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs `seconds` of a download whose rate, in stripes a second, follows from the number of
    /// connections, and gives the numbers that were used.
    fn run(pace: &mut Pace, start: Instant, stripes: u32, rate: impl Fn(usize) -> f64) -> Vec<usize> {
        let mut now = start;
        (0..stripes)
            .map(|_| {
                let used = pace.connections();
                now += Duration::from_secs_f64(1.0 / rate(used));
                pace.stripe(16 << 20, 0, now);
                used
            })
            .collect()
    }

    #[test]
    fn connections_are_added_as_long_as_that_pays_and_never_beyond_what_is_allowed() {
        let start = Instant::now();
        let used = run(&mut Pace::new(4, 0, start), start, 100, |connections| 5.0 * connections as f64);
        assert_eq!((used[0], used[99], used.iter().max()), (1, 4, Some(&4)));
        assert!(used.windows(2).all(|pair| pair[0] <= pair[1]), "{used:?}");
    }

    #[test]
    fn a_connection_that_brings_nothing_is_given_back_and_seldom_tried_again() {
        let start = Instant::now();
        let used = run(&mut Pace::new(8, 0, start), start, 400, |_| 5.0);
        assert_eq!(used.iter().max(), Some(&2));
        let share = used.iter().filter(|&&used| used == 2).count() as f64 / 400.0;
        assert!((0.01..0.3).contains(&share), "{share}");
    }

    #[test]
    fn a_fast_service_is_asked_for_long_stripes() {
        let start = Instant::now();
        for (stripes_a_second, mib) in [(1.0, 16), (5.0, 40), (1000.0, 128)] {
            let mut pace = Pace::new(1, 0, start);
            run(&mut pace, start, 1000, |_| stripes_a_second);
            assert_eq!(pace.stripe_bytes() >> 20, mib);
        }
    }

    #[test]
    fn a_refusal_halves_them_at_once() {
        let start = Instant::now();
        let mut pace = Pace::new(8, 3, start);
        run(&mut pace, start, 400, |connections| 5.0 * connections as f64);
        assert_eq!(pace.connections(), 8);
        let later = start + Duration::from_secs(1000);
        pace.stripe(16 << 20, 4, later);
        assert_eq!(pace.connections(), 4);
        pace.stripe(16 << 20, 5, later);
        pace.stripe(16 << 20, 9, later);
        pace.stripe(16 << 20, 10, later);
        assert_eq!(pace.connections(), 1, "and never below one");
    }
}
