//! Where a raw disk is known to be zero, by somebody else's word: the map of `qemu-img` or of Ceph. A leaf.
//!
//! A map is a claim. What it calls zero and is not would be lost, so whoever uses it must hold it against the disk:
//! by a hash over all of it, by its bytes where these come anyway, or not at all, by order.

#[cfg(feature = "cli")]
mod parse;

use std::ops::Range;

use crate::units::{ClusterSize, SECTOR_BYTES};

#[cfg(feature = "cli")]
pub use parse::{FILE_BYTES_MAX, parse};

/// Stretches of zeros that are kept at most: 64 MiB of memory.
pub const RUNS_MAX: usize = 4 << 20;

/// Stretches of a disk that read as zeros, in rising order, never adjacent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holes {
    runs: Vec<Range<u64>>,
    /// Where what is known ends.
    end: u64,
    /// Whether everything behind that is zero as well.
    is_open: bool,
}

impl Holes {
    /// Nothing is known yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds what lies behind all that is known: zeros or not, up to `end`.
    ///
    /// # Errors
    /// More stretches than are kept.
    pub fn push(&mut self, end: u64, is_zero: bool) -> Result<(), &'static str> {
        let start = self.end;
        self.end = end.max(start);
        // What is shorter than a sector is no cluster of zeros.
        if !is_zero || self.end - start < SECTOR_BYTES && self.runs.last().is_none_or(|run| run.end != start)
        {
            return Ok(());
        }
        let is_full = self.runs.len() == RUNS_MAX;
        match self.runs.last_mut() {
            Some(last) if last.end == start => last.end = self.end,
            _ if is_full => return Err("it has more stretches of zeros than are kept"),
            _ => self.runs.push(start..self.end),
        }
        Ok(())
    }

    /// Everything behind what is known is zero, however long the disk is.
    pub fn open_end(&mut self) {
        self.is_open = true;
    }

    /// The same with whatever comes behind the end, for a disk whose length nobody knows yet.
    #[must_use]
    pub fn endless(&self) -> Self {
        let mut endless = self.clone();
        if self.is_open && endless.push(u64::MAX, true).is_err() {
            // One more than are kept: what comes there is not looked at, but never lost either.
            endless.end = u64::MAX;
        }
        endless
    }

    /// Holds it against the length of the disk in bytes.
    ///
    /// # Errors
    /// What does not fit, in words.
    pub fn fit(&mut self, len: u64) -> Result<(), String> {
        // QEMU sees whole sectors.
        if self.end > len.next_multiple_of(SECTOR_BYTES) {
            return Err(format!("it goes to {}, the disk ends at {len}", self.end));
        }
        if self.end < len && !self.is_open {
            return Err(format!("it ends at {}, the disk at {len}", self.end));
        }
        if self.end < len {
            self.push(len, true).map_err(str::to_owned)?;
        }
        self.is_open = false;
        Ok(())
    }

    /// How many bytes are said to be zero.
    pub fn zero_bytes(&self) -> u64 {
        self.runs.iter().map(|run| run.end - run.start).sum()
    }

    /// The stretches.
    pub fn runs(&self) -> &[Range<u64>] {
        &self.runs
    }

    /// The clusters of a disk of `len` bytes that have to be read, as runs in rising order. Holes of up to
    /// `least` bytes are read along; a last cluster that is not whole always is.
    pub fn wanted(&self, cs: ClusterSize, len: u64, least: u64) -> Vec<Range<u64>> {
        let (total, whole) = (cs.clusters_for(len), len >> cs.bits());
        let mut wanted: Vec<Range<u64>> = Vec::new();
        let mut next = 0;
        for run in &self.runs {
            let first = cs.clusters_for(run.start);
            let end = (run.end >> cs.bits()).min(whole);
            if end <= first || (end - first) << cs.bits() <= least {
                continue;
            }
            if first > next {
                wanted.push(next..first);
            }
            next = end;
        }
        if next < total {
            wanted.push(next..total);
        }
        wanted
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::single_range_in_vec_init, reason = "lists of ranges, and some have one")]

    use super::*;

    fn holes(parts: &[(u64, bool)]) -> Holes {
        let mut holes = Holes::new();
        parts.iter().for_each(|(end, is_zero)| holes.push(*end, *is_zero).unwrap());
        holes
    }

    #[test]
    fn only_whole_clusters_of_zeros_are_left_out() {
        let cs = ClusterSize::from_bytes(4096).unwrap();
        let known = holes(&[(4096, false), (12_000, true), (16_384, false), (40_960, true), (41_000, false)]);
        assert_eq!(known.runs(), [4096..12_000, 16_384..40_960]);
        assert_eq!(known.zero_bytes(), 7904 + 24_576);
        assert_eq!(known.wanted(cs, 41_000, 0), [0..1, 2..4, 10..11]);
        assert_eq!(known.wanted(cs, 41_000, 8192), [0..4, 10..11]);
        assert_eq!(known.wanted(cs, 41_000, 1 << 20), [0..11]);
        // A last cluster that is not whole is read, whatever is said of it.
        assert_eq!(holes(&[(41_000, true)]).wanted(cs, 41_000, 0), [10..11]);
        assert_eq!(holes(&[(40_960, true)]).wanted(cs, 40_960, 0), []);
    }

    #[test]
    fn a_map_has_to_end_where_the_disk_does() {
        let map = || holes(&[(4096, true), (8192, false)]);
        assert_eq!(map().fit(8192), Ok(()));
        assert_eq!(map().fit(7700), Ok(()), "QEMU counts whole sectors");
        assert!(map().fit(7680).unwrap_err().contains("goes to 8192"));
        assert!(map().fit(8193).unwrap_err().contains("ends at 8192"));
        let mut open = map();
        open.open_end();
        open.fit(1 << 40).unwrap();
        assert_eq!(open.zero_bytes(), (1 << 40) - 4096);
        assert!(open.fit(4096).is_err());
    }

    #[test]
    fn there_are_not_more_than_are_kept() {
        let mut holes = Holes::new();
        let failed = (1..=RUNS_MAX as u64 + 1)
            .find(|index| {
                holes.push(index * 1024, true).is_err() || holes.push(index * 1024 + 512, false).is_err()
            })
            .unwrap();
        assert_eq!(failed, RUNS_MAX as u64 + 1);
    }
}
