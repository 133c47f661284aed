//! Runs of bytes.

use std::ops::Range;

/// Runs that are kept at most: 64 MiB of memory.
pub const RUNS_MAX: usize = 4 << 20;

/// Runs of bytes in rising order, never empty, never adjacent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Runs {
    runs: Vec<Range<u64>>,
}

impl Runs {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a run that begins at or behind the end of the last one; what is empty adds nothing.
    ///
    /// # Errors
    /// It begins before that end, or there are more runs than are kept.
    pub fn push(&mut self, run: Range<u64>) -> Result<(), &'static str> {
        if run.is_empty() {
            return Ok(());
        }
        let is_full = self.runs.len() == RUNS_MAX;
        match self.runs.last_mut() {
            Some(last) if run.start < last.end => return Err("its free runs overlap"),
            Some(last) if run.start == last.end => last.end = run.end,
            _ if is_full => return Err("it has more free runs than are kept"),
            _ => self.runs.push(run),
        }
        Ok(())
    }

    /// The runs.
    pub fn as_slice(&self) -> &[Range<u64>] {
        &self.runs
    }

    /// How many bytes they hold.
    pub fn bytes(&self) -> u64 {
        self.runs.iter().map(|run| run.end - run.start).sum()
    }

    /// What they and a range have in common.
    pub fn within(&self, range: Range<u64>) -> impl Iterator<Item = Range<u64>> + '_ {
        let first = self.runs.partition_point(|run| run.end <= range.start);
        self.runs[first..]
            .iter()
            .map(move |run| run.start.max(range.start)..run.end.min(range.end))
            .take_while(|run| !run.is_empty())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::single_range_in_vec_init, reason = "lists of ranges, and some have one")]

    use super::*;

    #[test]
    fn runs_join_and_never_overlap() {
        let mut runs = Runs::new();
        for run in [0..0, 4..8, 8..9, 20..30] {
            runs.push(run).unwrap();
        }
        assert_eq!(runs.push(29..40), Err("its free runs overlap"));
        assert_eq!((runs.as_slice(), runs.bytes()), (&[4..9, 20..30][..], 15));
        assert_eq!(runs.within(0..100).collect::<Vec<_>>(), [4..9, 20..30]);
        assert_eq!(runs.within(8..21).collect::<Vec<_>>(), [8..9, 20..21]);
        assert_eq!(runs.within(9..20).count(), 0);
        assert_eq!(runs.within(30..31).count(), 0);
    }
}
