//! The plan, beside the stages. Takes facts of source, sink, machine and the user's wishes, gives
//! the route, the budgets and what is to be said beforehand, as a value that can be printed and
//! tested. Holds nothing; touches no byte and does no I/O.

mod budget;
pub mod estimate;
pub mod time;

use std::fmt;

use crate::error::{Error, Kind, Result, Stage};
use crate::facts::{Access, MachineFacts, SinkFacts, SinkOrder, SourceFacts};
use crate::map::ImageMap;
use crate::qcow2::limits::{check_virtual_size, larger_clusters};
use crate::units::{ClusterSize, Human, SECTOR_BYTES};

pub use budget::Budget;

/// How much disk the spool may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpoolDisk {
    /// Half of what is free, leaving 1 GiB; nothing on tmpfs.
    Auto,
    /// At most this many bytes.
    Bytes(u64),
}

/// What the user asked for, as far as planning is concerned.
#[derive(Clone, Copy, Debug)]
pub struct Wishes {
    /// Size of a cluster.
    pub cluster_size: ClusterSize,
    /// Encoder threads; `None` for one a core.
    pub threads: Option<usize>,
    /// Connections for a source with ranges; `None` for the default.
    pub connections: Option<usize>,
    /// Bytes of memory for everything but code and map.
    pub memory_bytes: u64,
    /// Disk for the spool.
    pub spool_disk: SpoolDisk,
}

/// All that a plan is made from.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The source.
    pub source: SourceFacts,
    /// The sink.
    pub sink: SinkFacts,
    /// The machine.
    pub machine: MachineFacts,
    /// The user's wishes.
    pub wishes: Wishes,
}

/// The way that the bytes take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// One pass, the header last.
    Direct,
    /// One pass into the spool, which is then streamed out; what does not fit is handled as told.
    Spool(Overflow),
}

impl Route {
    /// Why it was chosen.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Direct => "the target takes bytes in any order",
            Self::Spool(Overflow::RereadFromStart) => {
                "the target takes bytes in order; the source can be read again, from the beginning only"
            }
            Self::Spool(Overflow::RereadParts) => {
                "the target takes bytes in order; any part of the source can be read again"
            }
            Self::Spool(Overflow::Stop) => {
                "the target takes bytes in order; the source can be read only once"
            }
        }
    }
}

/// What happens when the spool overflows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overflow {
    /// What it let go is read again, by one more read from the beginning that stops early.
    RereadFromStart,
    /// What it let go is read again, and only that.
    RereadParts,
    /// The run stops: the source cannot be read again.
    Stop,
}

/// What will be done.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The facts that it was made from.
    pub facts: Facts,
    /// The way that the bytes take.
    pub route: Route,
    /// Threads, buffers, spool.
    pub budget: Budget,
    /// Bytes that the image map costs if every cluster holds data; `None` if the length of the
    /// source is not known.
    pub map_worst_case_bytes: Option<u64>,
    /// What the user should know beforehand, one sentence each.
    pub notes: Vec<String>,
}

impl Plan {
    /// Decides.
    ///
    /// # Errors
    /// [`Kind::Usage`] or [`Kind::Local`], naming the option to change, if the disk is too large for
    /// its clusters, or the memory too small for the job.
    pub fn new(facts: Facts) -> Result<Self> {
        let route = route(&facts);
        let (budget, mut notes) = budget::budget(&facts, route)?;
        let map_worst_case_bytes = facts.source.len.map(|len| check_map(len, &facts)).transpose()?;
        if let (Route::Spool(Overflow::Stop), true) = (route, budget.spool_disk_bytes == 0) {
            notes.push(format!(
                "{} can be read only once and the spool has no disk: if more than {} of encoded clusters come, the run stops",
                facts.source.name,
                Human(budget.spool_memory_bytes)
            ));
        }
        Ok(Self { facts, route, budget, map_worst_case_bytes, notes })
    }
}

fn route(facts: &Facts) -> Route {
    match (facts.sink.order, facts.source.access) {
        (SinkOrder::Random, _) => Route::Direct,
        (SinkOrder::InOrder, Access::Random) => Route::Spool(Overflow::RereadParts),
        (SinkOrder::InOrder, Access::Sequential) => Route::Spool(Overflow::RereadFromStart),
        (SinkOrder::InOrder, Access::Once) => Route::Spool(Overflow::Stop),
    }
}

/// Refuses a disk that its cluster size cannot describe, or whose map might not fit in memory.
fn check_map(len: u64, facts: &Facts) -> Result<u64> {
    let cs = facts.wishes.cluster_size;
    let virtual_size = len.checked_next_multiple_of(SECTOR_BYTES).unwrap_or(u64::MAX);
    check_virtual_size(Stage::Plan, virtual_size, cs)?;
    let cost = |cs: ClusterSize| ImageMap::worst_case_bytes(cs.clusters_for(len));
    let limit = facts.machine.memory_bytes / 2;
    if cost(cs) > limit {
        let what = format!(
            "the image map of a disk of {} with clusters of {} may take {}, more than half of the memory that is there",
            Human(len),
            Human(cs.bytes()),
            Human(cost(cs))
        );
        let advice = larger_clusters(cs, |larger| cost(larger) <= limit);
        return Err(Error::new(Stage::Plan, Kind::Local, what).advise(advice));
    }
    Ok(cost(cs))
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Facts { source, sink, .. } = &self.facts;
        match source.len {
            Some(len) => writeln!(f, "source   {}, {}", source.name, Human(len))?,
            None => writeln!(f, "source   {}, length not known beforehand", source.name)?,
        }
        let access = match source.access {
            Access::Once => "can be read once",
            Access::Sequential => "can be read again, each time from the beginning",
            Access::Random => "any part can be read at any time",
        };
        writeln!(f, "         {access}")?;
        writeln!(f, "target   {}", sink.name)?;
        let budget = &self.budget;
        match self.route {
            Route::Direct => writeln!(f, "route    direct: one pass, the header last; no spool")?,
            Route::Spool(overflow) => {
                writeln!(
                    f,
                    "route    spool: one pass into {} of memory, then {} of disk, then out",
                    Human(budget.spool_memory_bytes),
                    Human(budget.spool_disk_bytes)
                )?;
                let then = match overflow {
                    Overflow::RereadFromStart => {
                        "reread: the source is read once more, up to what is still spooled"
                    }
                    Overflow::RereadParts => "reread: the missing parts are read again",
                    Overflow::Stop => "stop: the source cannot be read again",
                };
                writeln!(f, "         if that overflows, {then}")?;
            }
        }
        writeln!(f, "threads  {} to encode, {} connections to read", budget.threads, budget.connections)?;
        write!(f, "memory   {} at most, besides code and image map", Human(budget.memory_bytes))?;
        if let Some(bytes) = self.map_worst_case_bytes {
            write!(f, "; the map takes {} if all is data", Human(bytes))?;
        }
        for note in &self.notes {
            write!(f, "\nnote     {note}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
