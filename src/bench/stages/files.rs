//! The stages that move bytes from and to files.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use async_channel::bounded;
use bytes::Bytes;

use super::Bench;
use crate::bench::report::StageFigure;
use crate::bench::timing::{Lap, Watch};
use crate::bench::workload::CLUSTER_SIZE;
use crate::buffers::Pool;
use crate::convert::Cancel;
use crate::error::{Error, Kind, Result, Stage};
use crate::flow::{CHUNK_BYTES, Chunk};
use crate::scan::zero::is_zero;
use crate::sink::FileSink;
use crate::source::{Outlet, Source, Wanted};
use crate::units::HostOffset;

/// Buffers that a source can fill at once: what the engine gives it at its defaults on two cores.
const CHUNK_BUFFERS: usize = 24;
/// Most that is written in one round, in bytes.
const SINK_BYTES_MAX: u64 = 512 << 20;

/// Buffers for [`drain`]; used again by each round, as chunks are by the engine.
pub(super) struct Pools(Pool, Pool);

impl Pools {
    pub(super) fn new() -> Self {
        Self(Pool::new(CHUNK_BUFFERS, CHUNK_BYTES), Pool::new(CHUNK_BUFFERS, CHUNK_BYTES))
    }
}

/// Reads a source to its end into the engine's buffers and throws the chunks away; the time, and the
/// bytes that came.
pub(super) fn drain(source: &dyn Source, pools: &Pools, cancel: &Cancel) -> Result<(Lap, u64)> {
    let (chunks, taken) = bounded::<Chunk>(2);
    let read_bytes = Arc::new(AtomicU64::new(0));
    let mut outlet =
        Outlet::new(chunks, pools.0.clone(), pools.1.clone(), CLUSTER_SIZE, Arc::clone(&read_bytes))
            .find_zeros(is_zero);
    let stop = taken.clone();
    let _guard = cancel.on_trigger(move || {
        stop.close();
    });
    let watch = Watch::process();
    let result = std::thread::scope(|scope| {
        scope.spawn(|| while taken.recv_blocking().is_ok() {});
        let result = source.read(&Wanted::All, &mut outlet);
        // The other thread waits for the channel's end.
        drop(outlet);
        result
    });
    let lap = watch.lap();
    cancel.check(Stage::Source)?;
    result?;
    Ok((lap, read_bytes.load(std::sync::atomic::Ordering::Relaxed)))
}

/// The disk's file, holes left out.
pub(super) fn source(bench: &Bench<'_>) -> Result<StageFigure> {
    let pools = Pools::new();
    // What comes is what goes in, and is not known before.
    let (_, bytes) = drain(&*bench.workload.source, &pools, bench.cancel)?;
    let one =
        bench.time(bytes, 1, || drain(&*bench.workload.source, &pools, bench.cancel).map(|(lap, _)| lap))?;
    Ok(StageFigure::new("source", "file", bytes, one))
}

/// A file written cluster by cluster, in order, until it is on disk under its name.
pub(super) fn sink(bench: &Bench<'_>, sample: &Bytes) -> Result<StageFigure> {
    let bytes = bench.workload.contents.data_cluster_bytes.min(SINK_BYTES_MAX);
    let path = bench.workload.dir().join("written");
    let one = bench.time(bytes, 1, || {
        let watch = Watch::process();
        let mut sink = FileSink::create(&path, false)?;
        let mut at = 0;
        for cluster in sample.chunks(CLUSTER_SIZE.size()).cycle() {
            if at >= bytes || bench.cancel.signal().is_some() {
                break;
            }
            let cluster = &cluster[..cluster.len().min((bytes - at) as usize)];
            sink.put_at(HostOffset(at), cluster)?;
            at += cluster.len() as u64;
        }
        sink.commit(at)?;
        let lap = watch.lap();
        std::fs::remove_file(&path).map_err(|error| {
            Error::new(Stage::Sink, Kind::Local, format!("remove `{}`", path.display())).because(error)
        })?;
        Ok(lap)
    })?;
    let variant = if bench.workload.is_memory { "file in memory" } else { "file, durable" };
    Ok(StageFigure::new("sink", variant, bytes, one))
}
