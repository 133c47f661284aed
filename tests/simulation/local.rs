//! Runs without a network: a disk in memory, and a target in memory or a file. Faults strike at exact places, so
//! a seed comes to the same end each time.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use snapcow::convert::{Cancel, Counters, Job, Proof, Receipt, Target, convert_from, machine_facts};
use snapcow::error::{Error, Kind, Result, Stage};
use snapcow::facts::{Access, SinkFacts, SinkOrder, SourceFacts};
use snapcow::flow::CHUNK_BYTES;
use snapcow::hash::{Algorithm, Digest};
use snapcow::place::Geometry;
use snapcow::plan::{Facts, Plan, SpoolDisk, Wishes};
use snapcow::sink::{Delivered, Delivery, FileSink, InOrder, Produce};
use snapcow::source::{Outlet, Source, Wanted};
use snapcow::state::{Keeper, Key};
use snapcow::units::{ClusterIndex, ClusterSize};

use crate::proof::prove;
use crate::schedule::{Schedule, World, disk};
use crate::shaky::{Shaky, ShakyDelivery, shaky_writer};
use crate::{Verdict, check_error};

/// Attempts that the target in memory makes.
const TRIES: usize = 4;

/// A disk in memory.
struct Memory {
    facts: SourceFacts,
    bytes: Bytes,
    reads: AtomicU64,
}

impl Memory {
    fn send(&self, from: u64, end: u64, outlet: &mut Outlet) -> Result<()> {
        let cs = outlet.cluster_size();
        let mut at = from;
        while at < end {
            let len = (end - at).min(CHUNK_BYTES as u64);
            let piece = &self.bytes[at as usize..(at + len) as usize];
            let first = ClusterIndex(at >> cs.bits());
            if piece.iter().all(|byte| *byte == 0) && len == CHUNK_BYTES as u64 {
                outlet.hole(first, outlet.chunk_clusters())?;
            } else {
                let mut buffer = outlet.buffer()?;
                buffer[..piece.len()].copy_from_slice(piece);
                outlet.data(first, buffer, piece.len())?;
            }
            outlet.count_read(len);
            at += len;
        }
        Ok(())
    }
}

impl Source for Memory {
    fn facts(&self) -> &SourceFacts {
        &self.facts
    }

    fn read(&self, wanted: &Wanted, outlet: &mut Outlet) -> Result<u64> {
        let len = self.bytes.len() as u64;
        if self.reads.fetch_add(1, Ordering::SeqCst) > 0 && self.facts.access == Access::Once {
            return Err(Error::new(Stage::Source, Kind::Local, "the disk can be read only once"));
        }
        let bits = outlet.cluster_size().bits();
        match wanted {
            Wanted::Runs(runs) if self.facts.access == Access::Random => {
                for run in runs.iter() {
                    self.send(run.start << bits, (run.end << bits).min(len), outlet)?;
                }
            }
            _ => self.send(0, wanted.end().saturating_mul(1 << bits).min(len), outlet)?,
        }
        Ok(len)
    }
}

/// What has arrived whole.
type Kept = Arc<Mutex<Option<Vec<u8>>>>;

/// A target in memory whose connection breaks on cue.
struct MemorySink {
    facts: SinkFacts,
    breaks: VecDeque<u64>,
    kept: Kept,
}

struct Arriving {
    bytes: Vec<u8>,
    breaks_at: u64,
    broke: bool,
}

impl InOrder for Arriving {
    fn put(&mut self, part: Bytes) -> Result<()> {
        if (self.bytes.len() + part.len()) as u64 > self.breaks_at {
            self.broke = true;
            return Err(Error::new(Stage::Sink, Kind::Network, "send to memory: it broke off on cue"));
        }
        self.bytes.extend_from_slice(&part);
        Ok(())
    }
}

impl Delivery for MemorySink {
    fn facts(&self) -> &SinkFacts {
        &self.facts
    }

    fn deliver(&mut self, len: u64, produce: Produce<'_>) -> Result<Delivered> {
        for retries in 0..TRIES as u32 {
            let breaks_at = self.breaks.pop_front().unwrap_or(u64::MAX);
            let mut arriving = Arriving { bytes: Vec::new(), breaks_at, broke: false };
            match produce(&mut arriving) {
                Err(_) if arriving.broke => {}
                Err(error) => return Err(error),
                Ok(()) => {
                    assert_eq!(arriving.bytes.len() as u64, len, "the announced length");
                    *self.kept.lock().unwrap() = Some(arriving.bytes);
                    return Ok(Delivered { bytes: len, retries, ..Delivered::default() });
                }
            }
        }
        Err(Error::new(Stage::Sink, Kind::Network, format!("send to memory: it broke off {TRIES} times")))
    }

    fn abandon(&mut self) -> Option<String> {
        *self.kept.lock().unwrap() = None;
        None
    }
}

/// The geometry of a schedule.
pub fn geometry(schedule: &Schedule) -> Geometry {
    Geometry {
        compat: schedule.compat,
        compression: schedule.compression.header_type(),
        cluster_size: ClusterSize::from_bytes(schedule.cluster_bytes).unwrap(),
    }
}

/// Plan and job of a schedule, in a folder of its own.
pub fn prepare(
    schedule: &Schedule,
    source: Arc<dyn Source>,
    sink: SinkFacts,
    dir: &Path,
    cancel: Cancel,
) -> Result<(Plan, Job)> {
    let geometry = geometry(schedule);
    let mut plan = Plan::new(Facts {
        source: source.facts().clone(),
        sink,
        machine: machine_facts(dir),
        wishes: Wishes {
            cluster_size: geometry.cluster_size,
            threads: Some(schedule.threads),
            connections: None,
            memory_bytes: 256 << 20,
            spool_disk: SpoolDisk::Bytes(schedule.spool_disk_bytes),
        },
    })?;
    plan.budget.spool_memory_bytes = schedule.spool_memory_bytes;
    plan.budget.upload_queue_bytes = schedule.queue_bytes;
    plan.budget.chunk_buffers = plan.budget.chunk_buffers.min(schedule.threads + 4);
    plan.budget.room_buffers = plan.budget.chunk_buffers;
    let source_digest = match schedule.verified {
        true => Ok(Digest { algorithm: Algorithm::Sha512, hex: disk(schedule.disk).hashes.sha512.clone() }),
        false => Err("not asked for".into()),
    };
    let job = Job {
        source,
        free: None,
        source_digest,
        geometry,
        compression: schedule.compression,
        proof: Proof::default(),
        spool_dir: dir.to_owned(),
        counters: Arc::new(Counters::default()),
        cancel,
    };
    Ok((plan, job))
}

/// The state file of a schedule.
pub fn keeper(schedule: &Schedule, folder: &Path) -> Result<Keeper> {
    let key = Key {
        build: "this".into(),
        format: format!("{:?}", schedule.compression),
        source: schedule.disk.to_string(),
        target: "there".into(),
    };
    Keeper::open(&folder.join("state"), key, disk(schedule.disk).bytes.len() as u64)
}

/// One run; what has arrived.
fn attempt(schedule: &Schedule, folder: &Path, in_trouble: bool) -> (Result<Receipt>, Option<Vec<u8>>) {
    let access = match schedule.world {
        World::Memory { access } => access,
        _ => Access::Sequential,
    };
    let bytes = disk(schedule.disk).bytes.clone();
    let facts =
        SourceFacts { name: "the disk".into(), len: Some(bytes.len() as u64), access, is_remote: false };
    let memory = Memory { facts, bytes, reads: AtomicU64::new(0) };
    let (cancel, spool) = (Cancel::new(), folder.join("spool"));
    let events = |of: &[_]| if in_trouble { of.to_vec() } else { Vec::new() };
    let source = Shaky {
        inner: memory,
        events: events(&schedule.source),
        cancel: cancel.clone(),
        passes: AtomicU64::new(0),
    };
    let kept = Kept::default();
    let is_file = schedule.world == World::File;
    let order = if is_file { SinkOrder::Random } else { SinkOrder::InOrder };
    let sink_facts = SinkFacts { name: "the target".into(), order };
    let (plan, job) = match prepare(schedule, Arc::new(source), sink_facts.clone(), &spool, cancel.clone()) {
        Ok(prepared) => prepared,
        Err(error) => return (Err(error), None),
    };
    let path = folder.join("target").join("image.qcow2");
    if is_file {
        let troubles = events(&schedule.sink);
        let result =
            FileSink::create_through(&path, false, |inner| shaky_writer(inner, troubles, cancel.clone()))
                .and_then(|file| convert_from(&plan, &job, Target::File(Box::new(file)), None));
        return (result, std::fs::read(&path).ok());
    }
    let breaks = if in_trouble { schedule.breaks.clone().into() } else { VecDeque::new() };
    let inner = Box::new(MemorySink { facts: sink_facts, breaks, kept: Arc::clone(&kept) });
    let delivery = ShakyDelivery { inner, events: events(&schedule.sink), cancel };
    let mut keeper = match schedule.with_state.then(|| keeper(schedule, folder)).transpose() {
        Ok(keeper) => keeper,
        Err(error) => return (Err(error), None),
    };
    let result = convert_from(&plan, &job, Target::Delivery(Box::new(delivery)), keeper.as_mut());
    let kept = kept.lock().unwrap().take();
    (result, kept)
}

/// Runs a schedule.
pub fn run(schedule: &Schedule) -> Verdict {
    let folder = tempfile::tempdir().unwrap();
    for name in ["spool", "target"] {
        std::fs::create_dir(folder.path().join(name)).unwrap();
    }
    let (result, arrived) = attempt(schedule, folder.path(), true);
    let end = judge(schedule, folder.path(), &result, arrived)?;
    let can_go_on = !matches!(schedule.world, World::Memory { access: Access::Once });
    if result.is_ok() || !schedule.with_state || !can_go_on {
        return Ok(end);
    }
    let (again, arrived) = attempt(schedule, folder.path(), false);
    let second = judge(schedule, folder.path(), &again, arrived)?;
    match again {
        Ok(_) => Ok(format!("{end}, then {second}")),
        Err(error) => Err(format!("without faults, from the state file: {error}")),
    }
}

fn judge(schedule: &Schedule, folder: &Path, result: &Result<Receipt>, arrived: Option<Vec<u8>>) -> Verdict {
    let spooled = std::fs::read_dir(folder.join("spool")).unwrap().count();
    let files = std::fs::read_dir(folder.join("target")).unwrap().count();
    if spooled > 0 || files > usize::from(result.is_ok()) {
        return Err(format!("{spooled} temporary files and {files} targets are left"));
    }
    match (result, arrived) {
        (Ok(_), Some(bytes)) => {
            let proof = prove(schedule, Arc::new(Bytes::from(bytes)));
            proof.map(|()| "done".into()).map_err(|why| format!("not equal: {why}"))
        }
        (Ok(_), None) => Err("success, but nothing has arrived".into()),
        (Err(error), Some(_)) => Err(format!("a target is left after: {error}")),
        (Err(error), None) => check_error(error),
    }
}
