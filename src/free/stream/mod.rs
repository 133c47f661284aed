//! A disk that passes by once, as a disk that is asked for byte ranges.
//!
//! The thread of the stream [offers](Passing::offer) what comes; the threads of readers ask and wait. The stream waits
//! until every reader waits for something that has not come yet: so it never runs ahead of a question that the bytes
//! just offered give rise to, and which questions come too late does not depend on who is faster. What was asked for
//! too late is [told](Passing::missed), and kept if the disk [passes once more](Passing::again).

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::{Disk, Limits};
use crate::error::{Error, Kind, Result, Stage};

/// A disk that streams by.
///
/// It is born with one reader counted, the one that is about to look at it ([`look_at_once`]): so the stream waits for
/// its first question, however late its thread begins. That reader must [`leave`](Disk::leave) in the end.
///
/// [`look_at_once`]: super::disk::look_at_once
#[derive(Debug)]
pub struct Passing {
    state: Mutex<State>,
    /// Something came, or nothing more will come.
    came: Condvar,
    /// All readers wait.
    quiet: Condvar,
    memory_bytes: u64,
}

#[derive(Debug, Default)]
struct State {
    /// Everything before has passed; what is offered right now has not.
    at: u64,
    has_ended: bool,
    /// Readers that may ask before something comes.
    busy: usize,
    /// What was asked for and has come, by its place.
    kept: BTreeMap<u64, Vec<u8>>,
    /// What was asked for and is yet to come: begin and end. Never adjacent, never overlapping.
    asked: BTreeMap<u64, u64>,
    /// What was asked for after it had passed.
    missed: BTreeMap<u64, u64>,
    /// Bytes in `kept` and `asked`, and in `missed`, which the next pass will hold.
    held: u64,
    /// Waiting readers: the place up to which the stream must have come for each, and its ticket.
    waiting: BTreeSet<(u64, u64)>,
    next_ticket: u64,
}

/// Bytes that each range in `kept` and `asked` costs besides its contents.
const RANGE_BYTES: u64 = 64;

impl Passing {
    /// A stream from which at most `limits.memory_bytes` are kept, for all readers together.
    pub fn new(limits: Limits) -> Self {
        let state = State { busy: 1, ..State::default() };
        Self::of(state, limits.memory_bytes)
    }

    fn of(state: State, memory_bytes: u64) -> Self {
        Self { state: Mutex::new(state), came: Condvar::new(), quiet: Condvar::new(), memory_bytes }
    }

    /// The same disk, passing by once more: what was kept is still there, what was asked for too late is asked for
    /// from the beginning. To be called when no reader is left; what was kept moves.
    #[must_use]
    pub fn again(&self) -> Self {
        let old = std::mem::take(&mut *self.lock());
        let mut state = State { busy: 1, kept: old.kept, asked: old.missed, ..State::default() };
        let kept = state.kept.values().map(|bytes| bytes.len() as u64 + RANGE_BYTES).sum::<u64>();
        let asked = state.asked.iter().map(|(start, end)| end - start + RANGE_BYTES).sum::<u64>();
        state.held = kept + asked;
        Self::of(state, self.memory_bytes)
    }

    /// What was asked for after it had passed, in rising order: there are reasons to let the disk pass again.
    pub fn missed(&self) -> Vec<Range<u64>> {
        self.lock().missed.iter().map(|(start, end)| *start..*end).collect()
    }

    /// Bytes of memory that this holds, or has promised to.
    pub fn held_bytes(&self) -> u64 {
        self.lock().held
    }

    /// The next bytes of the stream. Returns once every reader waits for something behind them, or has left.
    /// What lies before the end of an earlier offer is passed over; what is left out between two has passed unseen.
    pub fn offer(&self, offset: u64, bytes: &[u8]) {
        self.pass(offset, bytes.len() as u64, |range, out| {
            let at = |place: u64| (place - offset) as usize;
            out.extend_from_slice(&bytes[at(range.start)..at(range.end)]);
        });
    }

    /// As [`offer`](Self::offer), for `len` zeros.
    pub fn offer_zeros(&self, offset: u64, len: u64) {
        self.pass(offset, len, |range, out| out.resize(out.len() + (range.end - range.start) as usize, 0));
    }

    /// Nothing more will come: whoever waits gets an error.
    pub fn end(&self) {
        let mut state = self.lock();
        state.has_ended = true;
        state.wake(u64::MAX);
        self.came.notify_all();
    }

    fn pass(&self, offset: u64, len: u64, copy: impl Fn(Range<u64>, &mut Vec<u8>)) {
        let end = offset.saturating_add(len);
        let mut state = self.lock();
        // Readers ask before the first byte has passed.
        state = self.wait_quiet(state);
        state.at = state.at.max(offset);
        if end <= state.at {
            return;
        }
        loop {
            let at = state.at;
            state.take(at..end, &copy);
            // The answers may give rise to questions about the very bytes that are at hand.
            if !state.wake(end) {
                break;
            }
            self.came.notify_all();
            state = self.wait_quiet(state);
        }
        state.at = end;
    }

    fn wait_quiet<'a>(&self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        while state.busy > 0 && !state.has_ended {
            state = self.quiet.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A reader that panics holds no lock of ours; if it did, the state is whole between any two statements.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One thread fewer is busy.
    fn settle(&self, state: &mut State) {
        state.busy = state.busy.saturating_sub(1);
        if state.busy == 0 {
            self.quiet.notify_all();
        }
    }
}

impl State {
    /// Keeps what was asked for in a range that is at hand.
    fn take(&mut self, range: Range<u64>, copy: &impl Fn(Range<u64>, &mut Vec<u8>)) {
        loop {
            let next = self.asked.range(..range.end).next_back().map(|(start, end)| *start..*end);
            let Some(asked) = next.filter(|asked| asked.end > range.start) else { return };
            self.asked.remove(&asked.start);
            if asked.start < range.start {
                self.asked.insert(asked.start, range.start);
            }
            if asked.end > range.end {
                self.asked.insert(range.end, asked.end);
            }
            let got = asked.start.max(range.start)..asked.end.min(range.end);
            // Chunks of one question join, in the room that was made for it.
            let len = (got.end - got.start) as usize;
            let before = self.kept.range_mut(..got.start).next_back();
            let is_next = |start: u64, bytes: &Vec<u8>| {
                start + bytes.len() as u64 == got.start && bytes.capacity() - bytes.len() >= len
            };
            match before.filter(|(start, bytes)| is_next(**start, bytes)) {
                Some((_, bytes)) => copy(got, bytes),
                None => {
                    // Room for what is to follow: it is counted already.
                    let mut bytes = Vec::with_capacity((asked.end - got.start) as usize);
                    copy(got.clone(), &mut bytes);
                    self.kept.insert(got.start, bytes);
                }
            }
        }
    }

    /// Counts those as busy whose answers are there now that the stream has come to `until`; whether there are any.
    fn wake(&mut self, until: u64) -> bool {
        let before = self.busy;
        while self.waiting.first().is_some_and(|(place, _)| *place <= until) {
            self.waiting.pop_first();
            self.busy += 1;
        }
        self.busy > before
    }

    /// What of a range is not kept.
    fn lacks(&self, range: &Range<u64>) -> Vec<Range<u64>> {
        let mut lacks = Vec::new();
        let mut at = range.start;
        let before = self.kept.range(..=at).next_back();
        for (start, bytes) in before.into_iter().chain(self.kept.range(at + 1..range.end.max(at + 1))) {
            if *start > at {
                lacks.push(at..*start);
            }
            at = at.max(start + bytes.len() as u64);
            if at >= range.end {
                return lacks;
            }
        }
        lacks.push(at..range.end);
        lacks
    }

    fn bytes(&self, range: &Range<u64>) -> Option<Vec<u8>> {
        let mut out = Vec::with_capacity((range.end - range.start) as usize);
        let mut at = range.start;
        while at < range.end {
            let (start, bytes) = self.kept.range(..=at).next_back()?;
            let rest = bytes.get((at - start) as usize..).filter(|rest| !rest.is_empty())?;
            let len = (rest.len() as u64).min(range.end - at);
            out.extend_from_slice(&rest[..len as usize]);
            at += len;
        }
        Some(out)
    }

    /// Notes what is wanted: how far the stream must come, and whether something of it has passed.
    fn ask(&mut self, wanted: &[Range<u64>], memory_bytes: u64) -> Result<(Option<u64>, bool)> {
        let lacks: Vec<Range<u64>> = wanted.iter().flat_map(|range| self.lacks(range)).collect();
        // Passed ones, too: the next pass will hold them.
        let known = |range: &Range<u64>| overlap(&self.asked, range) + overlap(&self.missed, range);
        let cost = |range: &Range<u64>| (range.end - range.start - known(range)).saturating_add(RANGE_BYTES);
        let more = lacks.iter().map(cost).fold(0, u64::saturating_add);
        if self.held.saturating_add(more) > memory_bytes {
            return Err(failed("keep what was asked for: it needs more memory than is allowed"));
        }
        let mut has_passed = false;
        let mut until = None;
        for range in lacks {
            let passed = range.start..range.end.min(self.at);
            if !passed.is_empty() {
                has_passed = true;
                self.held += add(&mut self.missed, passed);
            }
            let ahead = range.start.max(self.at)..range.end;
            if !ahead.is_empty() {
                until = until.max(Some(ahead.end));
                self.held += add(&mut self.asked, ahead);
            }
        }
        Ok((until, has_passed))
    }
}

/// How much of a range is in a set of ranges.
fn overlap(set: &BTreeMap<u64, u64>, range: &Range<u64>) -> u64 {
    let before = set.range(..range.start).next_back();
    let all = before.into_iter().chain(set.range(range.clone()));
    all.map(|(start, end)| (*end).min(range.end).saturating_sub((*start).max(range.start))).sum()
}

/// Adds a range to a set of ranges; what it adds to their costs.
fn add(set: &mut BTreeMap<u64, u64>, range: Range<u64>) -> u64 {
    let cost = range.end - range.start - overlap(set, &range) + RANGE_BYTES;
    let Range { mut start, mut end } = range;
    while let Some((&from, &to)) = set.range(..=end).next_back().filter(|(_, to)| **to >= start) {
        set.remove(&from);
        (start, end) = (start.min(from), end.max(to));
    }
    set.insert(start, end);
    cost
}

fn failed(what: &str) -> Error {
    Error::new(Stage::Source, Kind::Other, what)
}

impl Disk for Passing {
    fn read(&self, wanted: &[Range<u64>]) -> Result<Vec<Vec<u8>>> {
        let mut state = self.lock();
        let (until, has_passed) = state.ask(wanted, self.memory_bytes)?;
        if has_passed {
            return Err(failed("read what has passed by already"));
        }
        if let Some(until) = until.filter(|_| !state.has_ended) {
            let ticket = (until, state.next_ticket);
            state.next_ticket += 1;
            state.waiting.insert(ticket);
            self.settle(&mut state);
            // Whoever takes the ticket away counts this thread as busy, before the stream goes on.
            while state.waiting.contains(&ticket) {
                state = self.came.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
        }
        let bytes: Option<Vec<_>> = wanted.iter().map(|range| state.bytes(range)).collect();
        bytes.ok_or_else(|| failed("read what the stream has left out, or what lies behind its end"))
    }

    fn want(&self, ranges: &[Range<u64>]) -> bool {
        // What takes too much memory is refused when it is read.
        let _ = self.lock().ask(ranges, self.memory_bytes);
        true
    }

    fn enter(&self) {
        self.lock().busy += 1;
    }

    fn leave(&self) {
        self.settle(&mut self.lock());
    }
}
