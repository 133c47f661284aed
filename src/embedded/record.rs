//! What was asked of the server and how the bytes flowed, for tests to assert.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::faults::Route;
use super::lock;

/// One request, as far as it has got.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Record {
    /// Which call of the API.
    pub route: Route,
    /// HTTP method.
    pub method: String,
    /// Path, without the query.
    pub path: String,
    /// Query, as sent.
    pub query: Option<String>,
    /// `Range` header, as sent.
    pub range: Option<String>,
    /// Status of the answer; `None` while there is none, or for ever if the client went away first.
    pub status: Option<u16>,
    /// Bytes of the request's body that came in.
    pub received_bytes: u64,
    /// Bytes of the answer's body that were handed to the network (a client that closes early may
    /// have got some hundred KiB less).
    pub sent_bytes: u64,
    /// Whether the answer is whole: for a download, its last byte was handed to the network.
    pub finished: bool,
    /// Longest time that an upload made the server wait for a byte.
    pub longest_silence: Duration,
    /// Fewest bytes of a download that the client took in any stretch of
    /// [`EmbeddedOptions::pace_window`](super::EmbeddedOptions::pace_window), measured at the socket;
    /// `None` if it was over sooner.
    pub slowest_window_bytes: Option<u64>,
    /// When it came in, since the server's start.
    pub began: Duration,
}

/// All requests.
pub(super) struct Log {
    start: Instant,
    window: Duration,
    entries: Mutex<Vec<Arc<Entry>>>,
}

impl Log {
    pub(super) fn new(window: Duration) -> Self {
        Self { start: Instant::now(), window, entries: Mutex::default() }
    }

    /// A new request.
    pub(super) fn begin(&self, route: Route, parts: &axum::http::request::Parts) -> Arc<Entry> {
        let range =
            parts.headers.get("range").map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
        let record = Record {
            route,
            method: parts.method.to_string(),
            path: parts.uri.path().to_owned(),
            query: parts.uri.query().map(str::to_owned),
            range,
            status: None,
            received_bytes: 0,
            sent_bytes: 0,
            finished: false,
            longest_silence: Duration::ZERO,
            slowest_window_bytes: None,
            began: self.start.elapsed(),
        };
        let entry = Arc::new(Entry { record: Mutex::new(record), pace: Mutex::new(Pace::new(self.window)) });
        lock(&self.entries).push(Arc::clone(&entry));
        entry
    }

    /// All requests so far, in the order they came.
    pub(super) fn records(&self) -> Vec<Record> {
        let snapshot = |entry: &Arc<Entry>| {
            let mut record = lock(&entry.record).clone();
            record.slowest_window_bytes = lock(&entry.pace).slowest;
            record
        };
        lock(&self.entries).iter().map(snapshot).collect()
    }

    /// Forgets all requests so far.
    pub(super) fn clear(&self) {
        lock(&self.entries).clear();
    }
}

/// A request under way.
pub(super) struct Entry {
    record: Mutex<Record>,
    pace: Mutex<Pace>,
}

impl Entry {
    /// Whether the whole answer has been handed to the network.
    pub(super) fn is_finished(&self) -> bool {
        lock(&self.record).finished
    }

    /// Changes what is recorded.
    pub(super) fn note(&self, change: impl FnOnce(&mut Record)) {
        change(&mut lock(&self.record));
    }

    /// `bytes` of the answer left through the socket.
    pub(super) fn took(&self, bytes: usize) {
        lock(&self.pace).add(Instant::now(), bytes as u64);
    }

    /// Bytes of the answer that left through the socket so far, headers included.
    pub(super) fn taken(&self) -> u64 {
        lock(&self.pace).total
    }
}

/// The rate of a flow, watched through a sliding window.
struct Pace {
    window: Duration,
    first: Option<Instant>,
    recent: VecDeque<(Instant, u64)>,
    in_window: u64,
    total: u64,
    slowest: Option<u64>,
}

impl Pace {
    fn new(window: Duration) -> Self {
        Self { window, first: None, recent: VecDeque::new(), in_window: 0, total: 0, slowest: None }
    }

    /// Bytes passed now. The stretch that ends right before them is the slowest since the last ones.
    fn add(&mut self, now: Instant, bytes: u64) {
        while let Some(&(when, amount)) = self.recent.front()
            && now.duration_since(when) >= self.window
        {
            self.recent.pop_front();
            self.in_window -= amount;
        }
        let first = *self.first.get_or_insert(now);
        if now.duration_since(first) >= self.window {
            self.slowest = Some(self.slowest.map_or(self.in_window, |slowest| slowest.min(self.in_window)));
        }
        self.recent.push_back((now, bytes));
        self.in_window += bytes;
        self.total += bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slowest_window_is_found_between_bursts() {
        let start = Instant::now();
        let mut pace = Pace::new(Duration::from_secs(2));
        for tenth in 0..30 {
            pace.add(start + Duration::from_millis(100 * tenth), 10);
        }
        assert_eq!(pace.slowest, Some(190));
        pace.add(start + Duration::from_millis(4000), 10);
        assert_eq!(pace.slowest, Some(90));
        pace.add(start + Duration::from_millis(9000), 10);
        assert_eq!(pace.slowest, Some(0));
        assert_eq!(pace.total, 320);
    }
}
