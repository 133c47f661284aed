//! How fast it goes, and how long it will take: figures that a person can look at without seeing them jump.

use std::time::Duration;

use snapcow::convert::Phase;

/// Time over which a rate that is shown is averaged, in seconds.
const SHOWN_SECONDS: f64 = 4.0;
/// Time over which a rate that foretells is averaged: this, and a quarter of what has passed.
const FORETELLING_SECONDS: f64 = 10.0;
/// By how much the remaining time may be put right in a second: a share of itself, and a constant, in seconds.
const CORRECTION: (f64, f64) = (0.10, 1.0);
/// Before so many seconds of a stage nothing is foretold.
const SILENT_SECONDS: f64 = 1.5;
/// An upload's rate before there is one, as a share of the download's: Glance hashes and stores what it takes.
const UPLOAD_SHARE: f64 = 0.5;
/// Whoever is told more than this is told nothing, in seconds.
const FORETOLD_MAX: f64 = 100.0 * 86400.0;

/// What a run has come to at one moment; lengths in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// Since the beginning.
    pub at: Duration,
    pub phase: Phase,
    /// Length of the source, where it is known.
    pub source_len: Option<u64>,
    /// Whether a second pass sends the image.
    pub sends: bool,
    pub source_bytes: u64,
    pub guest_bytes: u64,
    /// Zeros that were read, and holes.
    pub zero_bytes: u64,
    pub hole_bytes: u64,
    pub stored_bytes: u64,
    pub sink_bytes: u64,
    pub image_bytes: u64,
    pub reread_bytes: u64,
}

impl Look {
    /// What is done of this stage, and of how much.
    pub fn part(&self) -> (u64, Option<u64>) {
        match self.phase {
            Phase::Preparing | Phase::Survey => {
                (self.source_len.map_or(self.guest_bytes, |len| self.guest_bytes.min(len)), self.source_len)
            }
            Phase::Deliver | Phase::Settle => {
                let whole = (self.image_bytes > 0).then_some(self.image_bytes);
                (whole.map_or(self.sink_bytes, |len| self.sink_bytes.min(len)), whole)
            }
        }
    }

    /// The same as a share of 1.
    pub fn fraction(&self) -> Option<f64> {
        match self.part() {
            (_, None) => None,
            (_, Some(0)) => Some(1.0),
            (done, Some(whole)) => Some(done as f64 / whole as f64),
        }
    }

    /// What a rate counts: bytes that come in pass 1, bytes that go in pass 2.
    fn moved(&self) -> u64 {
        match self.phase {
            Phase::Preparing | Phase::Survey => self.source_bytes,
            Phase::Deliver | Phase::Settle => self.sink_bytes,
        }
    }
}

/// An average that forgets.
#[derive(Clone, Copy, Debug, Default)]
struct Rate {
    amount: f64,
    seconds: f64,
}

impl Rate {
    fn add(&mut self, amount: f64, seconds: f64, over: f64) {
        let kept = (-seconds / over).exp();
        self.amount = self.amount * kept + amount;
        self.seconds = self.seconds * kept + seconds;
    }

    /// In amounts a second; `None` while nothing has moved.
    fn get(self) -> Option<f64> {
        (self.seconds > 0.0 && self.amount > 0.0).then(|| self.amount / self.seconds)
    }
}

/// Follows one run.
#[derive(Debug, Default)]
pub struct Pace {
    last: Option<Look>,
    stage_began: f64,
    shown: Rate,
    progress: Rate,
    source: Rate,
    left: Option<f64>,
}

impl Pace {
    /// Takes the next look.
    pub fn see(&mut self, look: &Look) {
        let now = look.at.as_secs_f64();
        let last = self.last.replace(*look);
        let Some(last) = last.filter(|last| last.phase == look.phase) else {
            // What the source gave tells nothing of how fast the target takes, except for a first guess.
            self.stage_began = now;
            (self.shown, self.progress) = (Rate::default(), Rate::default());
            return;
        };
        let seconds = now - last.at.as_secs_f64();
        if seconds <= 0.0 {
            return;
        }
        let elapsed = now - self.stage_began;
        let over = FORETELLING_SECONDS + elapsed / 4.0;
        self.shown.add(look.moved().saturating_sub(last.moved()) as f64, seconds, SHOWN_SECONDS);
        self.progress.add(look.part().0.saturating_sub(last.part().0) as f64, seconds, over);
        if look.phase == Phase::Survey {
            self.source.add(look.source_bytes.saturating_sub(last.source_bytes) as f64, seconds, over);
        }
        let estimate = self.estimate(look).filter(|estimate| *estimate < FORETOLD_MAX);
        self.left = match (self.left, estimate) {
            (Some(left), Some(estimate)) => {
                let most = seconds * (CORRECTION.1 + CORRECTION.0 * left);
                let due = (left - seconds).max(0.0);
                Some(due + (estimate - due).clamp(-most, most))
            }
            (Some(left), None) => Some((left - seconds).max(0.0)),
            (None, Some(estimate)) if elapsed >= SILENT_SECONDS => Some(estimate),
            (None, _) => None,
        };
    }

    /// Bytes a second, lately.
    pub fn rate(&self) -> Option<f64> {
        self.shown.get()
    }

    /// Seconds until all is done, both passes; `None` where that cannot be told.
    pub fn left(&self) -> Option<f64> {
        self.left
            .filter(|_| self.last.is_some_and(|look| look.phase != Phase::Settle && look.part().1.is_some()))
    }

    fn estimate(&self, look: &Look) -> Option<f64> {
        let (done, whole) = look.part();
        let left = whole?.saturating_sub(done) as f64;
        match look.phase {
            Phase::Preparing => None,
            Phase::Survey => {
                let own = if left > 0.0 { left / self.progress.get()? } else { 0.0 };
                Some(own + self.sending(look).unwrap_or(0.0))
            }
            Phase::Deliver => match self.progress.get() {
                Some(rate) => Some(left / rate),
                None => self.sending_rate().map(|rate| left / rate),
            },
            Phase::Settle => Some(0.0),
        }
    }

    /// How long the second pass will take: as long an image as the disk so far has become, at a guessed rate.
    fn sending(&self, look: &Look) -> Option<f64> {
        if !look.sends || look.guest_bytes == 0 {
            return None;
        }
        let ratio = look.source_len? as f64 / look.guest_bytes as f64;
        Some(look.stored_bytes as f64 * ratio / self.sending_rate()?)
    }

    fn sending_rate(&self) -> Option<f64> {
        self.source.get().map(|rate| rate * UPLOAD_SHARE)
    }
}

#[cfg(test)]
#[path = "pace_tests.rs"]
mod tests;
