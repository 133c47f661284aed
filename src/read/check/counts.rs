//! How often each host cluster is referenced, and by what: one byte a cluster.

use std::collections::HashMap;

use crate::error::{Error, Kind, Result, Stage};
use crate::units::Human;

/// What a host cluster is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Use {
    Free = 0,
    /// Header, a table, or anything else that is not guest data.
    Metadata = 1,
    /// Compressed clusters, as many as fit.
    Compressed = 2,
    /// A plain cluster that only snapshots name: their COPIED flags mean nothing.
    PlainOfSnapshots = 3,
    /// A plain cluster that the active tables name, with the COPIED flag.
    PlainCopied = 4,
    /// The same without the flag.
    PlainShared = 5,
    /// The same with and without the flag.
    PlainMixed = 6,
}

impl Use {
    const ALL: [Self; 7] = [
        Self::Free,
        Self::Metadata,
        Self::Compressed,
        Self::PlainOfSnapshots,
        Self::PlainCopied,
        Self::PlainShared,
        Self::PlainMixed,
    ];

    pub fn is_plain(self) -> bool {
        self as u8 >= Self::PlainOfSnapshots as u8
    }

    /// What a cluster is used for that was used for `self` and now for `new`; `None` if those cannot share it.
    fn with(self, new: Self) -> Option<Self> {
        match (self, new) {
            (Self::Free, new) => Some(new),
            (Self::Compressed, Self::Compressed) => Some(Self::Compressed),
            (old, Self::PlainOfSnapshots) if old.is_plain() => Some(old),
            (Self::PlainOfSnapshots, new) if new.is_plain() => Some(new),
            (old, new) if old.is_plain() && new.is_plain() => {
                Some(if old == new { old } else { Self::PlainMixed })
            }
            _ => None,
        }
    }
}

/// Bits of a byte that count; the others tell the use.
const COUNT_BITS: u32 = 5;
/// This count means that the count is in the map.
const IN_MAP: u8 = (1 << COUNT_BITS) - 1;
/// What an entry of the map may cost, in bytes.
const MAP_ENTRY_BYTES: u64 = 48;

/// A counter for every host cluster of a file.
pub(super) struct Counts {
    cells: Vec<u8>,
    large: HashMap<u64, u64>,
    large_max: u64,
}

impl Counts {
    /// Counters for so many clusters, within `memory_bytes` of memory, of which it gives what is left.
    ///
    /// # Errors
    /// [`Kind::Local`] if they do not fit.
    pub fn new(clusters: u64, memory_bytes: u64) -> Result<(Self, u64)> {
        let left = memory_bytes.checked_sub(clusters).ok_or_else(|| {
            too_much(format!(
                "its {clusters} host clusters need {} of counters, more than the limit of {}",
                Human(clusters),
                Human(memory_bytes)
            ))
        })?;
        // A quarter for clusters that many share, the rest for tables.
        let large_max = left / 4 / MAP_ENTRY_BYTES;
        let cells = vec![0; usize::try_from(clusters).unwrap_or(usize::MAX)];
        Ok((Self { cells, large: HashMap::new(), large_max }, left - left / 4))
    }

    /// How many clusters have a counter.
    pub fn clusters(&self) -> u64 {
        self.cells.len() as u64
    }

    /// Counts `times` references more to a cluster that has a counter; tells whether what it is used for fits
    /// what it was used for before.
    ///
    /// # Errors
    /// [`Kind::Local`] if the memory does not suffice.
    pub fn add(&mut self, cluster: u64, new: Use, times: u64) -> Result<bool> {
        let (old, count) = self.get(cluster);
        let merged = old.with(new);
        let count = count.saturating_add(times);
        let kept = merged.unwrap_or(old);
        let inline = if count < u64::from(IN_MAP) {
            count as u8
        } else {
            self.large.insert(cluster, count);
            if self.large.len() as u64 > self.large_max {
                return Err(too_much("too many of its host clusters are shared by many".into()));
            }
            IN_MAP
        };
        self.cells[cluster as usize] = ((kept as u8) << COUNT_BITS) | inline;
        Ok(merged.is_some())
    }

    /// What a cluster is used for, and how many references it has.
    pub fn get(&self, cluster: u64) -> (Use, u64) {
        let cell = self.cells.get(cluster as usize).copied().unwrap_or(0);
        let count = match cell & IN_MAP {
            IN_MAP => self.large.get(&cluster).copied().unwrap_or(u64::from(IN_MAP)),
            count => u64::from(count),
        };
        (Use::ALL[usize::from(cell >> COUNT_BITS)], count)
    }
}

/// The refusal of an image that is too large for the memory that the check may use.
pub(super) fn too_much(why: String) -> Error {
    Error::new(Stage::Source, Kind::Local, format!("check the image: {why}"))
        .advise("allow more with --memory, 1 byte a host cluster and 16 bytes an L2 table")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_of_any_size_are_kept() {
        let (mut counts, left) = Counts::new(10, 1 << 20).unwrap();
        assert_eq!((left, counts.clusters()), ((1 << 20) - 10 - ((1 << 20) - 10) / 4, 10));
        for expected in 1..=100 {
            assert!(counts.add(3, Use::Compressed, 1).unwrap());
            assert_eq!(counts.get(3), (Use::Compressed, expected));
        }
        assert!(counts.add(9, Use::Metadata, u64::MAX).unwrap());
        assert!(!counts.add(9, Use::Metadata, 5).unwrap());
        assert_eq!(counts.get(9), (Use::Metadata, u64::MAX));
        assert_eq!((counts.get(2), counts.get(1 << 40)), ((Use::Free, 0), (Use::Free, 0)));
    }

    #[test]
    fn who_may_share_a_cluster_with_whom() {
        use Use::*;
        let fits = |old: Use, new: Use| old.with(new);
        for new in Use::ALL {
            assert_eq!(fits(Free, new), Some(new));
            assert_eq!(fits(Metadata, new), None);
        }
        assert_eq!((fits(Compressed, PlainCopied), fits(PlainCopied, Compressed)), (None, None));
        assert_eq!(fits(PlainOfSnapshots, PlainCopied), Some(PlainCopied));
        assert_eq!(fits(PlainShared, PlainOfSnapshots), Some(PlainShared));
        assert_eq!(fits(PlainShared, PlainCopied), Some(PlainMixed));
    }

    #[test]
    fn what_does_not_fit_the_memory_is_refused_with_advice() {
        let error = Counts::new(1 << 30, 1 << 20).err().unwrap();
        assert_eq!(error.kind(), Kind::Local);
        assert!(error.to_string().contains("--memory"), "{error}");
        let (mut counts, _) = Counts::new(1000, 1000 + 4 * 48 * 2).unwrap();
        let shared: Vec<bool> =
            (0..3).map(|cluster| counts.add(cluster, Use::Compressed, 99).is_ok()).collect();
        assert_eq!(shared, [true, true, false]);
    }
}
