//! A source whose holes are known from elsewhere.
//!
//! Where it can be read at any place, what the map calls zero is not read: the chunks say that it is a hole, and
//! whoever hashes the disk hashes zeros in its place, so that a hash that fits proves the map. Where all bytes come
//! anyway, they are held against the map as they come.

use std::fs::File;
use std::ops::Range;
use std::sync::Arc;

use super::{Outlet, Source, Wanted};
use crate::error::{Error, Kind, Result, Stage};
use crate::facts::{Access, SourceFacts};
use crate::holes::Holes;
use crate::units::ClusterIndex;

/// Holes up to this long are read along with what is around them, in bytes: over a network a request of its own
/// would cost more.
const READ_ALONG_BYTES: u64 = 1 << 20;

/// See the module's text.
pub struct MappedSource {
    inner: Arc<dyn Source>,
    holes: Arc<Holes>,
}

impl MappedSource {
    /// Holes that fit the length of the source, where that is known.
    pub fn new(inner: Arc<dyn Source>, holes: Holes) -> Self {
        Self { inner, holes: Arc::new(holes) }
    }

    /// Only what the map does not call zero; between that, holes.
    fn read_around(&self, len: u64, outlet: &mut Outlet) -> Result<u64> {
        let cs = outlet.cluster_size();
        let least = if self.facts().is_remote { READ_ALONG_BYTES } else { 0 };
        let wanted = self.holes.wanted(cs, len, least);
        outlet.fill_gaps();
        if !wanted.is_empty() {
            self.inner.read(&Wanted::Runs(Arc::new(wanted)), outlet)?;
        }
        outlet.fill_up_to(ClusterIndex(cs.clusters_for(len)))?;
        Ok(len)
    }

    /// All of it, held against the map.
    fn read_and_compare(&self, outlet: &mut Outlet) -> Result<u64> {
        let found = outlet.expect_zeros(self.holes.endless());
        let read = self.inner.read(&Wanted::All, outlet);
        if let Some(at) = found.get() {
            let what = format!("the map calls offset {at} of {} zero, but there is data", self.facts().name);
            return Err(Error::new(Stage::Source, Kind::SourceChanged, what));
        }
        let len = read?;
        // Where it was not known before, only now the length can be compared.
        self.holes.as_ref().clone().fit(len).map_err(|why| {
            let what = format!("the map does not fit {}: {why}", self.facts().name);
            Error::new(Stage::Source, Kind::SourceChanged, what)
        })?;
        Ok(len)
    }
}

impl Source for MappedSource {
    fn facts(&self) -> &SourceFacts {
        self.inner.facts()
    }

    fn read(&self, wanted: &Wanted, outlet: &mut Outlet) -> Result<u64> {
        match (wanted, self.facts().access, self.facts().len) {
            // What is read again holds data.
            (Wanted::Runs(_), ..) => self.inner.read(wanted, outlet),
            (Wanted::All, Access::Random, Some(len)) => self.read_around(len, outlet),
            (Wanted::All, ..) => self.read_and_compare(outlet),
        }
    }

    fn file(&self) -> Option<&File> {
        self.inner.file()
    }

    fn data_behind(&self, from: u64) -> Result<Option<Range<u64>>> {
        let (facts, zeros) = (self.facts(), self.holes.runs());
        let Some(len) = facts.len.filter(|_| facts.access == Access::Random) else {
            return self.inner.data_behind(from);
        };
        let mut at = from;
        for zero in &zeros[zeros.partition_point(|zero| zero.end <= at)..] {
            if zero.start > at {
                return Ok(Some(at..zero.start.min(len)).filter(|_| at < len));
            }
            at = zero.end;
        }
        Ok(Some(at..len).filter(|_| at < len))
    }

    fn settle(&self) -> Result<()> {
        self.inner.settle()
    }
}

impl std::fmt::Debug for MappedSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "MappedSource({})", self.facts().name)
    }
}
