//! Every limit of the engine, from one figure: `--memory`.

use super::{Facts, Overflow, Route, SpoolDisk};
use crate::error::{Error, Kind, Result, Stage};
use crate::facts::{Access, SinkOrder};
use crate::flow::{CHUNK_BYTES, STRIPE_CHUNKS};
use crate::units::Human;

/// Memory of one codec context at most; zstd's highest levels with 2 MiB clusters come near.
const CODEC_BYTES: u64 = 6 << 20;
/// Memory of network, formatting and small things.
const OVERHEAD_BYTES: u64 = 8 << 20;
/// What a file target has under way.
const FILE_BYTES: u64 = 6 << 20;
/// The least that the spool gets: a few blocks.
const SPOOL_MIN_BYTES: u64 = 10 << 20;
/// Disk that is always left free by `--spool-disk auto`.
const DISK_LEFT_BYTES: u64 = 1 << 30;
/// Connections for a source with ranges, unless the user says otherwise: every stream holds one of
/// the service's workers.
const CONNECTIONS: usize = 2;

/// How much of everything a run may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Encoder threads.
    pub threads: usize,
    /// Connections to read with.
    pub connections: usize,
    /// Buffers of a chunk that the source can fill.
    pub chunk_buffers: usize,
    /// Buffers of a chunk that the encoders can fill.
    pub room_buffers: usize,
    /// Bytes that may wait for an upload.
    pub upload_queue_bytes: u64,
    /// Memory of the spool in bytes; 0 where the route has none.
    pub spool_memory_bytes: u64,
    /// Disk of the spool in bytes.
    pub spool_disk_bytes: u64,
    /// The sum that all this was made from.
    pub memory_bytes: u64,
}

/// Shares out the memory; threads are given up first where it is short, and that is said.
pub(super) fn budget(facts: &Facts, route: Route) -> Result<(Budget, Vec<String>)> {
    let memory_bytes = facts.wishes.memory_bytes;
    let wanted = facts.wishes.threads.unwrap_or(facts.machine.cores).max(1);
    let connections = connections(facts);
    let mut notes = Vec::new();
    let Some(fitting) = (1..=wanted).rev().find_map(|threads| share(facts, route, threads, connections))
    else {
        let least = (0..).map(|step| step << 20).find(|&bytes| {
            let mut more = facts.clone();
            more.wishes.memory_bytes = bytes;
            share(&more, route, 1, connections).is_some()
        });
        let what = format!("{} of memory are too little for one thread", Human(memory_bytes));
        let advice = format!("give --memory {}MiB or more", least.unwrap_or(u64::MAX) >> 20);
        return Err(Error::new(Stage::Plan, Kind::Usage, what).advise(advice));
    };
    if fitting.threads < wanted {
        notes.push(format!(
            "{} of memory serve {} of {wanted} threads; --memory gives more",
            Human(memory_bytes),
            fitting.threads
        ));
    }
    Ok((fitting, notes))
}

fn connections(facts: &Facts) -> usize {
    match (facts.source.access, facts.source.is_remote) {
        (Access::Random, true) => facts.wishes.connections.unwrap_or(CONNECTIONS).max(1),
        _ => 1,
    }
}

fn share(facts: &Facts, route: Route, threads: usize, connections: usize) -> Option<Budget> {
    let room_buffers = 2 * threads + 2;
    let stripes = if facts.source.is_remote && facts.source.access == Access::Random {
        connections * STRIPE_CHUNKS
    } else {
        0
    };
    let chunk_buffers = room_buffers + 2 + stripes;
    let memory_bytes = facts.wishes.memory_bytes;
    let engine = (chunk_buffers + room_buffers) as u64 * CHUNK_BYTES as u64
        + threads as u64 * CODEC_BYTES
        + OVERHEAD_BYTES;
    let (out, spool_min) = match facts.sink.order {
        SinkOrder::Random => (FILE_BYTES, 0),
        SinkOrder::InOrder => ((memory_bytes / 8).clamp(4 << 20, 64 << 20), SPOOL_MIN_BYTES),
    };
    let spool_memory_bytes = memory_bytes.checked_sub(engine + out)?;
    if spool_memory_bytes < spool_min {
        return None;
    }
    let spools =
        matches!(route, Route::Spool(Overflow::RereadFromStart | Overflow::RereadParts | Overflow::Stop));
    Some(Budget {
        threads,
        connections,
        chunk_buffers,
        room_buffers,
        upload_queue_bytes: if spools { out } else { 0 },
        spool_memory_bytes: if spools { spool_memory_bytes } else { 0 },
        spool_disk_bytes: if spools { spool_disk(facts) } else { 0 },
        memory_bytes,
    })
}

fn spool_disk(facts: &Facts) -> u64 {
    match facts.wishes.spool_disk {
        SpoolDisk::Bytes(bytes) => bytes,
        SpoolDisk::Auto if facts.machine.spool_is_memory => 0,
        SpoolDisk::Auto => {
            let free = facts.machine.spool_free_bytes.unwrap_or(0);
            (free / 2).min(free.saturating_sub(DISK_LEFT_BYTES))
        }
    }
}
