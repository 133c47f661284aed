//! What has to hold whatever a reader says.

use std::ops::Range;

use arbitrary::Arbitrary;
use snapcow::free::{Freed, Limits, Outcome, Runs, Trouble, Volume};

use super::memory;
use super::sparse::{Asked, Image};

/// Memory that a reader may use.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Room {
    Plenty,
    Enough,
    Little,
    Least,
}

impl Room {
    pub fn limits(self) -> Limits {
        let memory_bytes = match self {
            Self::Plenty => 64 << 20,
            Self::Enough => 4 << 20,
            Self::Little => 512 << 10,
            Self::Least => 96 << 10,
        };
        Limits { memory_bytes }
    }
}

/// What a reader has said, and what it has asked for.
#[derive(Debug)]
pub struct Seen {
    pub said: Result<Freed, String>,
    pub asked: Asked,
}

impl Seen {
    pub fn free(&self) -> Option<&Runs> {
        self.said.as_ref().ok().map(|freed| &freed.free)
    }
}

/// Memory besides that for metadata: reasons, lists of a few ranges, what is read before anything is known.
const SLACK_BYTES: u64 = 192 << 10;

/// Has a reader look at a whole disk.
///
/// # Panics
/// If it breaks a promise.
pub fn look(image: &Image<'_>, room: Room, reader: impl Fn(&Volume<'_>, Limits) -> Outcome<Freed>) -> Seen {
    let limits = room.limits();
    let volume = Volume::linear(image, 0..image.len);
    let (outcome, most) = memory::most(|| reader(&volume, limits));
    let asked = image.asked();
    assert!(most <= limits.memory_bytes + SLACK_BYTES, "{most} bytes of memory, {limits:?}");
    assert!(asked.most <= limits.memory_bytes + SLACK_BYTES, "{} bytes read at once", asked.most);
    // A journal is walked through twice, and nothing else is read more often.
    assert!(asked.bytes <= 4 * image.len + (1 << 20), "{} bytes read of {}", asked.bytes, image.len);
    assert!(asked.calls.len() < 4096, "{} calls", asked.calls.len());
    let said = match outcome {
        Ok(freed) => Ok(freed),
        Err(Trouble::Whole(why)) => {
            let is_clean = !why.is_empty() && !why.ends_with('.') && !why.chars().any(char::is_control);
            assert!(is_clean, "{why:?}");
            Err(why)
        }
        Err(Trouble::Failed(error)) => panic!("this disk can be read: {error}"),
    };
    if let Ok(freed) = &said {
        runs_are_sane(&freed.free, freed.len);
        assert!(freed.len <= image.len, "{} of {}", freed.len, image.len);
    }
    Seen { said, asked }
}

/// Runs in order, within the length.
pub fn runs_are_sane(free: &Runs, len: u64) {
    let runs = free.as_slice();
    assert!(runs.iter().all(|run| run.start < run.end && run.end <= len), "{runs:?} in {len}");
    assert!(runs.windows(2).all(|pair| pair[0].end < pair[1].start), "{runs:?}");
    assert_eq!(free.bytes(), runs.iter().map(|run| run.end - run.start).sum::<u64>());
}

/// Nothing that is in use may be free.
///
/// # Panics
/// If something is.
pub fn keeps(free: &Runs, used: impl IntoIterator<Item = Range<u64>>, what: &str) {
    for range in used {
        if let Some(run) = free.within(range.clone()).next() {
            panic!("{what} at {range:?} is said to be free: {run:?}");
        }
    }
}

/// What is left of ranges if others are taken away.
pub fn without(ranges: Vec<Range<u64>>, taken: &[Range<u64>]) -> Vec<Range<u64>> {
    taken.iter().fold(ranges, |ranges, taken| {
        let pieces = |range: Range<u64>| {
            [range.start..range.end.min(taken.start), range.start.max(taken.end)..range.end]
        };
        ranges.into_iter().flat_map(pieces).filter(|range| range.start < range.end).collect()
    })
}
