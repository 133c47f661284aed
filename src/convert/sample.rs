//! A look at some of the source beforehand: pieces of it go through the very engine that will convert it, with the
//! same codec, level, cluster size and proofs. Nothing is kept of them but their lengths and times.
//!
//! - A source that can be read anywhere: all of its data where they are few; else a pilot, long enough to time it, and
//!   then small pieces, one of each stratum, drawn by a seed, in rounds that each span the disk, until the time is up.
//!   Holes that the source knows of are neither read nor sampled.
//! - A source that can be read from its beginning only: its first part, until the time is up.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use super::counters::{Counters, Timed};
use super::pipeline::{self, Engine, hash_data};
use super::strata::{Extents, Random, pilot_runs};
use super::{Job, virtual_size_of};
use crate::error::{Error, Kind, Result, Stage};
use crate::facts::Access;
use crate::flow::EncodedChunk;
use crate::hash::{Algorithm, Hasher};
use crate::map::{DataCluster, ImageMap};
use crate::place::{Layout, Order, packed_len};
use crate::plan::estimate::{self, Content, Interval, Looked, Unit};
use crate::plan::time::{Costs, Load, PassModel, Pilot};
use crate::plan::{Plan, Route};
use crate::qcow2::entry::entries_per_l2;
use crate::source::Wanted;
use crate::units::ClusterSize;

/// The least that is read of a source, if it has so much, in bytes.
const LEAST_BYTES: u64 = 96 << 20;
/// The most, unless the caller says otherwise.
const MOST_BYTES: u64 = 512 << 20;
/// The first part of a source that can only be read from its beginning.
const FIRST_PART_BYTES: u64 = 256 << 20;
/// The pilot, in bytes.
const PILOT_BYTES: u64 = 64 << 20;
/// Small pieces that are drawn: each costs a remote source a request.
const UNITS_REMOTE: u64 = 320;
const UNITS_LOCAL: u64 = 2048;
/// The least that a piece is long, in bytes: what a request costs is hardly less for less.
const UNIT_BYTES: u64 = 64 << 10;
/// Rounds in which the pieces are read.
const ROUNDS: u64 = 8;
/// Bytes that are hashed to see how long that takes.
const HASH_BYTES: usize = 4 << 20;

/// How much may be looked at.
#[derive(Clone, Copy, Debug)]
pub struct SampleWish {
    /// Bytes that are read at most; `None`: a 64th of the data, from 96 MiB to 512 MiB, or the first 256 MiB.
    pub bytes: Option<u64>,
    /// After so long no more is begun.
    pub time: Duration,
    /// The same seed draws the same pieces.
    pub seed: u64,
}

impl Default for SampleWish {
    fn default() -> Self {
        Self { bytes: None, time: Duration::from_secs(10), seed: 1 }
    }
}

/// What a sample is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Basis {
    /// All data of the source were read.
    All,
    /// Pieces from all over the source.
    Spread {
        /// How many.
        pieces: u64,
    },
    /// Only the first part of the source: nothing is known of the rest.
    FirstPart {
        /// How long it was, in bytes.
        bytes: u64,
    },
}

/// What some of the source tells about all of it.
#[derive(Clone, Debug)]
pub struct Sample {
    /// What it is of.
    pub basis: Basis,
    /// Bytes that were read for it.
    pub read_bytes: u64,
    /// The time that it took.
    pub took: Duration,
    /// The whole source: clusters of data, and what they take.
    pub content: Content,
    /// Length of the image, tables included.
    pub image_bytes: Interval,
    /// Bytes of the source that a pass reads: all but the holes that it knows of.
    pub to_read_bytes: u64,
    /// Those holes.
    pub hole_bytes: u64,
    /// How long passes take.
    pub model: PassModel,
}

impl Sample {
    /// What a pass over the whole source reads, with so many clusters of data.
    pub fn load(&self, data_clusters: u64, cluster_size: ClusterSize) -> Load {
        let data_bytes = (data_clusters * cluster_size.bytes()).min(self.to_read_bytes);
        Load {
            read_bytes: self.to_read_bytes as f64,
            data_bytes: data_bytes as f64,
            hole_bytes: self.hole_bytes as f64,
        }
    }
}

/// Looks at some of the source. `None` where that would use up what can be read but once, or where nobody knows how
/// long the source is.
///
/// # Errors
/// Of the source; an end by [`Cancel`](super::Cancel).
pub fn sample(plan: &Plan, job: &Job, wish: &SampleWish) -> Result<Option<Sample>> {
    let facts = job.source.facts();
    let Some(len) = facts.len.filter(|_| facts.access != Access::Once) else { return Ok(None) };
    let begin = Instant::now();
    let cs = job.geometry.cluster_size;
    let counters = Arc::new(Counters::default());
    let engine = Engine::new(job, &plan.budget, Arc::clone(&counters));
    let mut look = Look {
        engine: &engine,
        hash: job.source_digest.as_ref().ok().map(|digest| digest.algorithm),
        counters: &counters,
        deadline: begin + wish.time,
        map: ImageMap::new(cs, 0),
        tables: Vec::new(),
        read: Unit::default(),
        pilot: None,
    };
    let extents = Extents::of(job, len)?;
    let (looked, basis) = match facts.access {
        Access::Random => look.anywhere(&extents, wish)?,
        _ => look.in_order(&extents, wish.bytes.unwrap_or(FIRST_PART_BYTES))?,
    };
    let content = estimate::content(&looked, cs.bytes());
    Ok(Some(Sample {
        basis,
        read_bytes: look.read.clusters * cs.bytes(),
        took: begin.elapsed(),
        content,
        image_bytes: look.image_bytes(plan, job, virtual_size_of(len), content, basis)?,
        to_read_bytes: extents.clusters * cs.bytes(),
        hole_bytes: cs.clusters_for(len).saturating_sub(extents.clusters) * cs.bytes(),
        model: look.model(plan),
    }))
}

/// Runs that went through the engine.
struct Passed {
    /// What each of them came to.
    found: Vec<Unit>,
    pilot: Pilot,
    /// Whether the time was up before the end.
    is_late: bool,
}

struct Look<'a> {
    engine: &'a Engine,
    hash: Option<Algorithm>,
    counters: &'a Counters,
    deadline: Instant,
    /// What was sampled for the size, one piece after the other.
    map: ImageMap,
    /// L2 tables that were seen to be needed.
    tables: Vec<u64>,
    /// All that was read.
    read: Unit,
    pilot: Option<Pilot>,
}

impl Look<'_> {
    /// The first so many bytes of the data.
    fn in_order(&mut self, extents: &Extents, bytes: u64) -> Result<(Looked, Basis)> {
        let cs = self.engine.cluster_size;
        let wanted = extents.clusters.min(bytes.div_ceil(cs.bytes()));
        let passed = self.pass(extents.on_disk(0..wanted), Some(self.deadline), true)?;
        let certain = passed.found.into_iter().fold(Unit::default(), Unit::plus);
        self.pilot = Some(passed.pilot);
        let unknown_clusters = extents.clusters - certain.clusters.min(extents.clusters);
        let basis = match unknown_clusters {
            0 => Basis::All,
            _ => Basis::FirstPart { bytes: certain.clusters * cs.bytes() },
        };
        Ok((Looked { certain, unknown_clusters, ..Looked::default() }, basis))
    }

    /// Pieces from all over the data, or all of them.
    fn anywhere(&mut self, extents: &Extents, wish: &SampleWish) -> Result<(Looked, Basis)> {
        let cs = self.engine.cluster_size;
        let all_bytes = extents.clusters * cs.bytes();
        let bytes = wish.bytes.unwrap_or((all_bytes / 64).clamp(LEAST_BYTES, MOST_BYTES));
        let mut random = Random(wish.seed);
        let pilot_bytes = PILOT_BYTES.min(bytes.min(all_bytes) * 2 / 3);
        if all_bytes <= bytes {
            let (looked, basis) = self.in_order(extents, bytes)?;
            if basis == Basis::All {
                return Ok((looked, basis));
            }
            // Too slow for all of it: pieces from all over tell more than the beginning.
            self.map = ImageMap::new(cs, 0);
            self.tables.clear();
            self.deadline = Instant::now() + wish.time / 2;
        } else {
            let runs = pilot_runs(extents, pilot_bytes.div_ceil(cs.bytes()), &mut random);
            let half = Some(Instant::now() + wish.time / 2);
            self.pilot = Some(self.pass(runs, half, false)?.pilot);
        }

        let most = if self.engine.source.facts().is_remote { UNITS_REMOTE } else { UNITS_LOCAL };
        let left = (bytes.min(all_bytes) - pilot_bytes) / cs.bytes();
        let unit = left.div_ceil(most).max(UNIT_BYTES / cs.bytes()).max(1);
        let units = extents.clusters.div_ceil(unit);
        let strata = (left / unit).clamp(ROUNDS, most.max(ROUNDS)).min(units);
        let mut drawn: Vec<(u64, Unit)> = Vec::new();
        for round in 0..ROUNDS {
            // The first round is always made: without it nothing would be known.
            let until = (round > 0).then_some(self.deadline);
            let mut picked: Vec<(u64, Range<u64>)> = Vec::new();
            for stratum in (0..strata).filter(|stratum| stratum % ROUNDS == round) {
                let (from, to) = (stratum * units / strata, (stratum + 1) * units / strata);
                let first = (from + random.below((to - from).max(1))) * unit;
                picked.push((stratum, first..extents.clusters.min(first + unit)));
            }
            let runs: Vec<_> = picked.iter().map(|(_, range)| extents.on_disk(range.clone())).collect();
            let passed = self.pass(runs.concat(), until, true)?;
            if passed.is_late {
                // It ended somewhere on the disk, and is no sample of all of it.
                break;
            }
            let mut found = passed.found.into_iter();
            drawn.extend(picked.iter().zip(&runs).map(|((stratum, _), runs)| {
                (*stratum, found.by_ref().take(runs.len()).fold(Unit::default(), Unit::plus))
            }));
        }
        drawn.sort_by_key(|(stratum, _)| *stratum);
        let pieces = drawn.len() as u64;
        let drawn = drawn.into_iter().map(|(_, piece)| piece).collect();
        let looked = Looked { drawn, clusters_of_drawn: extents.clusters, ..Looked::default() };
        Ok((looked, Basis::Spread { pieces }))
    }

    /// Sends runs through the engine, until the time is up. `counts` tells whether they are to count for the size.
    fn pass(&mut self, runs: Vec<Range<u64>>, until: Option<Instant>, counts: bool) -> Result<Passed> {
        let mut found = vec![Unit::default(); runs.len()];
        let cs = self.engine.cluster_size;
        let per_table = entries_per_l2(cs);
        let runs = Arc::new(runs);
        let order = pipeline::Order {
            wanted: Wanted::Runs(Arc::clone(&runs)),
            hash: self.hash,
            with_crc: true,
            resume: None,
        };
        let started = (Instant::now(), process_time());
        let (mut begin, mut cpu) = started;
        // What a pass costs to begin is no matter of its length: the time counts from when the first bytes are there.
        let mut before = Unit::default();
        let mut is_late = false;
        let result = self.engine.run(order, &mut |chunk: &mut EncodedChunk| {
            let at = runs.partition_point(|run| run.end <= chunk.first.0);
            let Some(unit) = found.get_mut(at) else { return Ok(()) };
            let mut here = Unit { clusters: chunk.clusters, ..Unit::default() };
            for encoded in chunk.encoded() {
                let stored_len = encoded.form.stored_len(cs);
                here.data_clusters += 1;
                here.stored_bytes += u64::from(stored_len);
                if counts {
                    self.map.push_data(DataCluster { stored_len, guest_crc: 0 });
                    let table = encoded.cluster.0 / per_table;
                    if self.tables.last() != Some(&table) {
                        self.tables.push(table);
                    }
                }
            }
            *unit = unit.plus(here);
            if before.clusters == 0 {
                (before, begin, cpu) = (here, Instant::now(), process_time());
            }
            is_late = until.is_some_and(|until| Instant::now() >= until);
            if is_late {
                Err(Error::new(Stage::Plan, Kind::Other, "the time for a sample is up"))
            } else {
                Ok(())
            }
        });
        if !is_late {
            result?;
        }
        self.engine.cancel.check(Stage::Plan)?;
        let all = found.iter().copied().fold(Unit::default(), Unit::plus);
        self.read = self.read.plus(all);
        // A pass of one chunk is all that there is to go by.
        if all.clusters == before.clusters {
            (before, begin, cpu) = (Unit::default(), started.0, started.1);
        }
        let load = Load {
            read_bytes: ((all.clusters - before.clusters) * cs.bytes()) as f64,
            data_bytes: ((all.data_clusters - before.data_clusters) * cs.bytes()) as f64,
            hole_bytes: 0.0,
        };
        let cpu_seconds = process_time().saturating_sub(cpu).as_secs_f64();
        let pilot = Pilot { load, wall_seconds: begin.elapsed().as_secs_f64(), cpu_seconds };
        Ok(Passed { found, pilot, is_late })
    }

    /// The length of the image that holds so much.
    fn image_bytes(
        &mut self,
        plan: &Plan,
        job: &Job,
        virtual_size: u64,
        content: Content,
        basis: Basis,
    ) -> Result<Interval> {
        let cs = job.geometry.cluster_size;
        let order = if plan.route == Route::Direct { Order::HeadLast } else { Order::HeadFirst };
        let len = |tables: u64, data_bytes: u64| {
            Layout::of_sizes(job.geometry, order, virtual_size, tables, data_bytes)
                .map(|layout| layout.file_len)
        };
        self.tables.sort_unstable();
        self.tables.dedup();
        let (seen, packed) = (self.tables.len() as u64, packed_len(cs, &self.map));
        if basis == Basis::All {
            return Ok(Interval::exactly(len(seen, packed)?));
        }
        let stored: u64 = self.map.data().map(|(_, data)| u64::from(data.stored_len)).sum();
        // What placing plain clusters between compressed ones wastes.
        let waste = packed.saturating_sub(stored) as f64 / stored.max(1) as f64;
        let per_table = entries_per_l2(cs);
        let tables = cs.clusters_for(virtual_size).div_ceil(per_table);
        let most = |clusters: u64| clusters.min(tables).max(seen);
        let Content { data_clusters, stored_bytes } = content;
        let likely = stored_bytes.likely as f64 * (1.0 + waste);
        let high = stored_bytes.high as f64 * (1.0 + 1.5 * waste) + cs.bytes() as f64;
        Ok(Interval {
            low: len(data_clusters.low.div_ceil(per_table).max(seen), stored_bytes.low)?,
            likely: len(most(data_clusters.likely), likely as u64)?,
            high: len(most(data_clusters.high), high as u64)?,
        })
    }

    fn model(&self, plan: &Plan) -> PassModel {
        let data_bytes = (self.read.data_clusters * self.engine.cluster_size.bytes()) as f64;
        let times =
            [Timed::Scan, Timed::Encode, Timed::Verify, Timed::Digest].map(|stage| self.counters.time(stage));
        let spent: f64 = times.iter().map(Duration::as_secs_f64).sum();
        let (hash_data, hash_zero) = self.hash.map_or((0.0, 0.0), hash_costs);
        let encode = if data_bytes > 0.0 { spent / data_bytes } else { 0.0 };
        let idle = Pilot { load: Load::default(), wall_seconds: 0.0, cpu_seconds: 0.0 };
        let costs = Costs { encode, hash_data, hash_zero };
        PassModel::new(self.pilot.unwrap_or(idle), costs, plan.facts.machine.cores, plan.budget.threads)
    }
}

/// Seconds that a byte of data and a zero cost to hash.
fn hash_costs(algorithm: Algorithm) -> (f64, f64) {
    let timed = |byte: u8| {
        let bytes = vec![byte; HASH_BYTES];
        let mut hasher = Hasher::new(algorithm);
        let begin = thread_time();
        hash_data(&mut hasher, &bytes);
        std::hint::black_box(hasher.finish());
        thread_time().saturating_sub(begin).as_secs_f64() / HASH_BYTES as f64
    };
    (timed(1).min(timed(1)), timed(0).min(timed(0)))
}

fn process_time() -> Duration {
    processor_time(ClockId::ProcessCPUTime)
}

fn thread_time() -> Duration {
    processor_time(ClockId::ThreadCPUTime)
}

fn processor_time(clock: ClockId) -> Duration {
    let time = clock_gettime(clock);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}
