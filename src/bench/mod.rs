//! The benchmark. Takes the parameters of a made-up disk ([`Options`]), gives a [`Report`]: every
//! stage timed alone, the whole timed for every route, and how far the one explains the other.
//! Holds a sample of the disk (at most 256 MiB) while stages are timed and at most 32 MiB of it while routes
//! are; the disk itself is a sparse file without a name, in a folder that is gone at the end.
//!
//! Nothing has to be set up: files lie in memory if `/dev/shm` is there, and the network routes
//! talk to the embedded Glance, over HTTP on loopback.
//!
//! # The model
//! A stage that works in order (reading, hashing, the network, placing, writing) takes at least its
//! time alone. Stages that every core shares in (scan, CRC, encode) take at least the time of a bare
//! loop on as many threads. And all stages together cannot take less than the sum of their CPU time
//! divided by the number of cores. So for each phase of a route
//!
//! ```text
//! bound = max(time alone of the slowest stage, sum of CPU time / cores)
//! ```
//!
//! and the phases of a route (survey, then delivery) follow each other, so their bounds add up. What is
//! achieved is `bound / wall`. The CPU time of the network stages includes that of the embedded
//! Glance, which works on the same cores. Not in the model, and so part of what is lost: copies
//! between stages, the spool, starting and ending. On a machine where others work at the same time
//! a share can exceed 1.
//!
//! # The JSON
//! [`Report`] is `snapcow/bench/1`; each field is described where it is declared. A rate is always
//! bytes that went **in** a second. The rates of the bare encode loops are the entries of `stages`
//! with `stage` = `encode`; `variant` names codec and level (`zlib-1`, `zstd-3`, `zlib-4k-3`,
//! `zlib-isal`): `one_thread.bytes_per_cpu_second` is the rate of a core, and
//! `all_threads.bytes_per_second` that of all threads.
//!
//! # Decisions
//! - The figures are medians of `--rounds`, with every sample kept; one round more comes before, to
//!   warm up memory, caches and codecs, and is thrown away.
//! - Stages run the engine's own code through its public faces: a faster stage shows here by itself.
//! - SVG is written by hand: a page that explains itself needs bars and text, and no crate for that.

mod compare;
mod html;
mod machine;
mod model;
mod options;
mod report;
mod routes;
mod service;
mod stages;
mod table;
mod timing;
mod workload;

#[cfg(test)]
mod tests;

use std::time::{Instant, SystemTime};

pub use compare::compare;
pub use html::page;
pub use machine::Machine;
pub use model::{Bound, Phase, Work, bound};
pub use options::Options;
pub use report::{Parameters, Report, RouteFigure, SCHEMA, StageFigure, Versions};
pub use table::table;
pub use timing::Timing;
pub use workload::Contents;

use crate::convert::Cancel;
use crate::error::Result;
use service::Services;
use workload::Workload;

/// Memory of a route: the command's default, or more where that would not serve all threads, in bytes.
fn memory_bytes(threads: usize) -> u64 {
    (256 << 20).max(threads as u64 * (32 << 20))
}

/// Makes the disk, times every stage alone and every route as a whole. `say` is told what comes next.
///
/// # Errors
/// [`Kind::Usage`](crate::error::Kind::Usage) for parameters that contradict each other,
/// [`Kind::Local`](crate::error::Kind::Local) where memory or disk do not suffice, otherwise the first
/// failure of a stage or a route. Nothing stays behind.
pub fn run(options: &Options, cancel: &Cancel, say: &mut dyn FnMut(&str)) -> Result<Report> {
    let begin = Instant::now();
    let started = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    options.check()?;
    let machine = Machine::look();
    let threads = options.threads.unwrap_or(machine.cores);
    say("the disk is made");
    let workload = Workload::make(options, cancel)?;
    let services = Services::start(&workload)?;
    let stages = stages::all(options, threads, &workload, &services, cancel, say)?;
    let measured = (&workload, stages.as_slice(), &services);
    let routes = routes::all(options, threads, machine.cores, measured, cancel, say)?;
    Ok(Report {
        schema: SCHEMA.into(),
        started_unix_seconds: started.as_secs(),
        versions: Versions::current(),
        machine,
        parameters: Parameters::new(options, threads, &workload),
        workload: workload.contents,
        stages,
        routes,
        peak_rss_bytes: machine::peak_rss_bytes(),
        elapsed_seconds: begin.elapsed().as_secs_f64(),
    })
}
