//! Blocks of a volume, from memory where they were read before.

use std::ops::Range;

use super::super::{Limits, Outcome, Trouble, Volume};

/// Reads a volume and keeps what it was told to keep.
pub(super) struct Reader<'a> {
    volume: &'a Volume<'a>,
    limit: u64,
    held: u64,
    /// Stretches of the volume in rising order, and their bytes.
    kept: Vec<(Range<u64>, Vec<u8>)>,
}

impl<'a> Reader<'a> {
    pub fn new(volume: &'a Volume<'a>, limits: Limits) -> Self {
        Self { volume, limit: limits.memory_bytes, held: 0, kept: Vec::new() }
    }

    /// Bytes of the volume.
    pub fn len(&self) -> u64 {
        self.volume.len()
    }

    /// Memory that is left, in bytes.
    pub fn left(&self) -> u64 {
        self.limit - self.held
    }

    /// Counts memory that stays in use.
    ///
    /// # Errors
    /// There is not as much left.
    pub fn hold(&mut self, bytes: u64) -> Outcome<()> {
        self.afford(bytes)?;
        self.held += bytes;
        Ok(())
    }

    /// Whether there is as much memory left.
    pub fn afford(&self, bytes: u64) -> Outcome<()> {
        if bytes > self.left() {
            return Err(Trouble::whole(format_args!(
                "to read its metadata takes more memory than the {} MiB that it may use",
                self.limit >> 20
            )));
        }
        Ok(())
    }

    /// Reads ranges in any order and keeps them. While they are read, they take twice their bytes.
    pub fn keep(&mut self, mut wanted: Vec<Range<u64>>) -> Outcome<()> {
        wanted.retain(|range| !range.is_empty() && self.find(range).is_none());
        wanted.sort_by_key(|range| range.start);
        let mut joined: Vec<Range<u64>> = Vec::new();
        for range in wanted {
            match joined.last_mut() {
                Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
                _ => joined.push(range),
            }
        }
        let bytes = joined.iter().map(|range| range.end - range.start).sum::<u64>();
        self.afford(bytes.saturating_mul(2))?;
        self.hold(bytes)?;
        let read = self.volume.read(&joined)?;
        self.kept.extend(joined.into_iter().zip(read));
        self.kept.sort_by_key(|(range, _)| range.start);
        Ok(())
    }

    /// The bytes of ranges, in the order asked for.
    pub fn read(&self, wanted: &[Range<u64>]) -> Outcome<Vec<Vec<u8>>> {
        let bytes = wanted.iter().map(|range| range.end.saturating_sub(range.start)).sum::<u64>();
        self.afford(bytes.saturating_mul(2))?;
        let missing: Vec<Range<u64>> =
            wanted.iter().filter(|range| self.find(range).is_none()).cloned().collect();
        let mut read = self.volume.read(&missing)?.into_iter();
        let one = |range| match self.find(range) {
            Some(bytes) => bytes.to_vec(),
            None => read.next().unwrap_or_default(),
        };
        Ok(wanted.iter().map(one).collect())
    }

    fn find(&self, range: &Range<u64>) -> Option<&[u8]> {
        // Stretches may overlap (two calls of `keep`): the one that begins last before the range is looked at only,
        // and what is not found is read again.
        let behind = self.kept.partition_point(|(kept, _)| kept.start <= range.start);
        let (kept, bytes) = self.kept.get(behind.checked_sub(1)?)?;
        let (from, to) = (range.start - kept.start, range.end.checked_sub(kept.start)?);
        bytes.get(usize::try_from(from).ok()?..usize::try_from(to).ok()?)
    }
}
