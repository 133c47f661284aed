//! Bytes on their way from the engine to an upload, bounded, with a reserve that keeps the upload
//! alive while nothing new comes.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::Notify;

/// Nothing has left for so long: send a little from the reserve. uWSGI cuts an upload that is silent
/// for 4 s; Apache's usual rule wants 500 bytes a second.
const TRICKLE_EVERY: Duration = Duration::from_secs(1);
/// So much is sent then, in bytes.
const TRICKLE_BYTES: usize = 2048;

/// The two ends share it.
#[derive(Clone, Debug)]
pub(super) struct Queue(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    capacity: u64,
    taken: Condvar,
    given: Notify,
}

#[derive(Debug, Default)]
struct State {
    parts: VecDeque<Bytes>,
    bytes: u64,
    hold_back: u64,
    /// Bytes that have left so far.
    taken: u64,
    end: Option<End>,
}

/// How a queue ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Everything has been given.
    Complete,
    /// One side gave up; what is in the queue is of no use.
    Broken,
}

impl Queue {
    pub(super) fn new(capacity: u64) -> Self {
        Self(Arc::new(Shared {
            state: Mutex::default(),
            capacity: capacity.max(1 << 20),
            taken: Condvar::new(),
            given: Notify::new(),
        }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds bytes; waits while the queue is full. False if the other side is gone. Where only the reserve is left
    /// nothing but drops would make room, so a part that is larger than the rest goes in all the same.
    pub(super) fn push(&self, part: Bytes) -> bool {
        let mut state = self.state();
        while state.end.is_none()
            && state.bytes > state.hold_back
            && state.bytes + part.len() as u64 > self.0.capacity
        {
            state = self.0.taken.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.end.is_some() {
            return false;
        }
        state.bytes += part.len() as u64;
        state.parts.push_back(part);
        self.0.given.notify_one();
        true
    }

    /// Keeps so many bytes back, at most half of what the queue can hold.
    pub(super) fn hold_back(&self, bytes: u64) {
        self.state().hold_back = bytes.min(self.0.capacity / 2);
        self.0.given.notify_one();
    }

    /// Ends the queue. Whoever gives up is heard also after the last byte; otherwise the first end counts.
    pub(super) fn end(&self, end: End) {
        let mut state = self.state();
        if end == End::Broken || state.end.is_none() {
            state.end = Some(end);
        }
        drop(state);
        self.0.given.notify_one();
        self.0.taken.notify_all();
    }

    /// Whether the other side gave up.
    pub(super) fn is_broken(&self) -> bool {
        self.state().end == Some(End::Broken)
    }

    /// Whether a source that had to hang up may come back: a little before only the reserve is left, so
    /// that the upload has work while the source is on its way.
    pub(super) fn has_room(&self) -> bool {
        let state = self.state();
        state.end.is_some() || state.bytes <= state.hold_back + self.0.capacity / 4
    }

    /// Waits until there is something to send beyond the reserve, or the end.
    pub(super) async fn ready(&self) {
        loop {
            {
                let state = self.state();
                if state.end.is_some() || state.bytes > state.hold_back {
                    return;
                }
            }
            self.0.given.notified().await;
        }
    }

    /// Waits until one side gives up. Never resolves on a queue that completes.
    pub(super) async fn broken(&self) {
        while !self.is_broken() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Bytes that have left so far.
    pub(super) fn taken(&self) -> u64 {
        self.state().taken
    }

    /// Waits until something could have left for so long, and nothing did. Never resolves while there is nothing
    /// to send: that Glance takes its time after the last byte is no fault.
    pub(super) async fn stalled(&self, silence: Duration) {
        let mut last = (self.taken(), Instant::now());
        loop {
            tokio::time::sleep((silence / 4).min(TRICKLE_EVERY)).await;
            let state = self.state();
            if state.taken != last.0 || state.bytes <= state.hold_back {
                last = (state.taken, Instant::now());
            } else if last.1.elapsed() >= silence {
                return;
            }
        }
    }

    /// The next bytes to send: `None` after the last, an error if the queue broke.
    pub(super) async fn next(&self) -> Option<std::io::Result<Bytes>> {
        let in_time = tokio::time::timeout(TRICKLE_EVERY, self.ready()).await.is_ok();
        loop {
            {
                let mut state = self.state();
                match state.end {
                    Some(End::Broken) => return Some(Err(std::io::ErrorKind::ConnectionAborted.into())),
                    Some(End::Complete) if state.parts.is_empty() => return None,
                    _ => {}
                }
                let free = if state.end.is_some() {
                    state.bytes
                } else {
                    state.bytes.saturating_sub(state.hold_back)
                };
                let allowed = if in_time { free as usize } else { TRICKLE_BYTES.max(free as usize) };
                if let Some(part) = state.take(allowed) {
                    drop(state);
                    self.0.taken.notify_all();
                    return Some(Ok(part));
                }
            }
            self.0.given.notified().await;
        }
    }
}

impl State {
    fn take(&mut self, at_most: usize) -> Option<Bytes> {
        if at_most == 0 {
            return None;
        }
        let mut part = self.parts.pop_front()?;
        if part.len() > at_most {
            let rest = part.split_off(at_most);
            self.parts.push_front(rest);
        }
        self.bytes -= part.len() as u64;
        self.taken += part.len() as u64;
        Some(part)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
    }

    #[test]
    fn bytes_come_out_in_order_and_the_end_after_them() {
        let queue = Queue::new(1 << 20);
        assert!(queue.push(Bytes::from_static(b"ab")) && queue.push(Bytes::from_static(b"c")));
        queue.end(End::Complete);
        assert!(!queue.push(Bytes::from_static(b"d")));
        runtime().block_on(async {
            assert_eq!(queue.next().await.unwrap().unwrap(), "ab");
            assert_eq!(queue.next().await.unwrap().unwrap(), "c");
            assert!(queue.next().await.is_none());
        });
    }

    #[test]
    fn the_reserve_leaves_drop_by_drop() {
        let queue = Queue::new(1 << 20);
        queue.hold_back(10_000);
        queue.push(Bytes::from(vec![1; 12_000]));
        runtime().block_on(async {
            assert_eq!(
                queue.next().await.unwrap().unwrap().len(),
                2_000,
                "what is above the reserve goes at once"
            );
            let begin = std::time::Instant::now();
            assert_eq!(queue.next().await.unwrap().unwrap().len(), TRICKLE_BYTES);
            assert!(begin.elapsed() >= TRICKLE_EVERY);
            queue.hold_back(0);
            assert_eq!(queue.next().await.unwrap().unwrap().len(), 10_000 - TRICKLE_BYTES);
        });
    }

    #[test]
    fn a_part_larger_than_the_queue_does_not_wait_for_the_reserve_to_drip_away() {
        let queue = Queue::new(1 << 20);
        queue.hold_back(1 << 19);
        let begin = std::time::Instant::now();
        assert!(queue.push(Bytes::from(vec![0; 1 << 19])));
        assert!(queue.push(Bytes::from(vec![0; 2 << 20])));
        assert!(begin.elapsed() < TRICKLE_EVERY);
    }

    #[test]
    fn giving_up_is_heard_after_the_last_byte_too() {
        let queue = Queue::new(1 << 20);
        queue.end(End::Complete);
        assert!(!queue.is_broken());
        queue.end(End::Broken);
        assert!(queue.is_broken());
        queue.end(End::Complete);
        assert!(queue.is_broken());
    }

    #[test]
    fn a_broken_queue_wakes_both_sides() {
        let queue = Queue::new(1 << 20);
        assert!(queue.push(Bytes::from(vec![0; 1 << 20])));
        let other = queue.clone();
        let pushing = std::thread::spawn(move || other.push(Bytes::from(vec![0; 1 << 20])));
        std::thread::sleep(Duration::from_millis(50));
        queue.end(End::Broken);
        assert!(!pushing.join().unwrap());
        assert!(runtime().block_on(queue.next()).unwrap().is_err());
    }
}
