//! The whole conversion: facts, plan, and then the bytes through
//! `source → scan → encode → place → sink`. The only module that sees all stages.

mod cancel;
mod conversion;
mod counters;
mod direct;
#[cfg(feature = "openstack")]
mod glance;
mod machine;
mod output;
mod pipeline;
mod proof;
mod receipt;
mod reserve;
mod sample;
mod strata;
mod trim;
mod worker;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

pub use cancel::{Cancel, Guard};
pub use conversion::Conversion;
pub use counters::{Counters, Phase, Timed};
pub use machine::machine_facts;
pub use pipeline::hash_data;
pub use proof::Proof;
pub use receipt::{Receipt, RouteTaken, SourceCheck};
pub use sample::{Basis, Sample, SampleWish, sample};
pub use trim::{look_for_free, without_free};

use crate::encode::Compression;
use crate::error::{Error, Kind, Result, Stage};
use crate::flow::EncodedChunk;
use crate::free::disk::Findings;
use crate::hash::{Digest, GuestDigest};
use crate::map::{DataCluster, ImageMap};
use crate::place::{Geometry, Layout, Order, check_virtual_size};
use crate::plan::{Plan, Route};
use crate::sink::{Delivery, FileSink};
use crate::source::{Source, Wanted};
use crate::spool::{Limits, Spool};
use crate::state::{Found, Keeper};
use crate::units::SECTOR_BYTES;
use output::Output;
use pipeline::{Engine, Pass};

/// Where the image goes.
pub enum Target {
    /// A file that appears whole at the end.
    File(Box<FileSink>),
    /// Something that takes it in order.
    Delivery(Box<dyn Delivery>),
}

/// Everything that a conversion needs besides its plan and its target.
pub struct Job {
    /// The raw disk.
    pub source: Arc<dyn Source>,
    /// The hash that the source's service keeps, if it is to be compared; else why it is not.
    pub source_digest: Result<Digest, String>,
    /// Proofs to be made besides.
    pub proof: Proof,
    /// What the filesystems of the disk have freed, and is to be written as zeros; see [`look_for_free`].
    pub free: Option<Arc<Findings>>,
    /// Format of the image.
    pub geometry: Geometry,
    /// Compression of its clusters.
    pub compression: Compression,
    /// Where the spool's file is made.
    pub spool_dir: PathBuf,
    /// What is counted meanwhile.
    pub counters: Arc<Counters>,
    /// Ends the run from outside.
    pub cancel: Cancel,
}

/// Converts, by the plan.
///
/// # Errors
/// The first failure of any stage. What had been made of the target by then is taken back.
pub fn convert(plan: &Plan, job: &Job, target: Target) -> Result<Receipt> {
    convert_from(plan, job, target, None)
}

/// Converts, by the plan, and notes in a state file what pass 1 found; or goes on from what an earlier run noted
/// there, straight to pass 2. A file as the target has no second pass and leaves `keeper` alone.
///
/// # Errors
/// As [`convert`].
pub fn convert_from(
    plan: &Plan,
    job: &Job,
    target: Target,
    mut keeper: Option<&mut Keeper>,
) -> Result<Receipt> {
    let begin = Instant::now();
    let engine = Engine::new(job, &plan.budget, Arc::clone(&job.counters));
    let mut receipt = Receipt::new(&plan.facts.source.name, &plan.facts.sink.name);
    job.counters.enter(Phase::Survey);
    match target {
        Target::File(file) => direct::direct(&engine, job, *file, &mut receipt)?,
        Target::Delivery(mut delivery) => {
            let result = spooled(&engine, plan, job, &mut *delivery, &mut receipt, keeper.as_deref_mut());
            if let Err(error) = result {
                // An interrupted run fails in whatever it was doing; the signal is the reason.
                let error = job.cancel.check(error.stage()).err().unwrap_or(error);
                return Err(match delivery.abandon() {
                    Some(left) => {
                        let first = error.advice().map(|advice| format!("{advice}; ")).unwrap_or_default();
                        error.advise(format!("{first}{left}"))
                    }
                    None => {
                        keeper.into_iter().for_each(Keeper::image_is_gone);
                        error
                    }
                });
            }
        }
    }
    receipt.finish(&job.counters, job.proof, begin.elapsed());
    Ok(receipt)
}

/// One pass into the spool, then the image out of it; what the spool let go is read again.
fn spooled(
    engine: &Engine,
    plan: &Plan,
    job: &Job,
    delivery: &mut dyn Delivery,
    receipt: &mut Receipt,
    mut keeper: Option<&mut Keeper>,
) -> Result<()> {
    let may_drop = !matches!(plan.route, Route::Spool(crate::plan::Overflow::Stop));
    let limits = Limits {
        memory_bytes: plan.budget.spool_memory_bytes,
        disk_bytes: plan.budget.spool_disk_bytes,
        dir: job.spool_dir.clone(),
        may_drop,
    };
    let mut spool = Spool::new(limits, job.geometry.cluster_size);
    let mut map = new_map(job);
    let begin = Instant::now();
    let earlier = keeper.as_mut().and_then(|keeper| keeper.take_survey());
    let planned = earlier.as_ref().map(|survey| survey.image_len);
    receipt.resumed = planned.is_some();
    let pass = match earlier {
        Some(survey) => {
            map = survey.map;
            Pass { len: survey.len, digest: survey.digest, guest_digest: survey.guest_digest }
        }
        None => survey(engine, job, true, &mut map, &mut |chunk| {
            chunk.encoded().try_for_each(|encoded| spool.append(encoded.cluster, encoded.stored))
        })?,
    };
    spool.finish()?;
    receipt.surveyed(&pass, &map, job)?;
    let layout = Layout::new(job.geometry, Order::HeadFirst, virtual_size(&pass), &map)?;
    match (planned, keeper) {
        (Some(planned), _) => check_planned(planned, &layout)?,
        (None, Some(keeper)) => keep(keeper, &pass, &map, &layout),
        (None, None) => {}
    }
    Counters::add(&job.counters.image_bytes, layout.file_len);
    receipt.spooled(&spool, plan);

    job.counters.enter(Phase::Deliver);
    let output = Output {
        engine,
        map: &map,
        spool: &spool,
        layout: &layout,
        // What an earlier run reached is not known: the slowest is assumed.
        source_rate: match planned {
            Some(_) => 0.0,
            None => pass.len as f64 / begin.elapsed().as_secs_f64().max(0.001),
        },
        hold_back_max: plan.budget.upload_queue_bytes / 2,
    };
    let delivered = delivery.deliver(layout.file_len, &mut |sink| output.write(sink))?;
    let taken = if spool.has_dropped() || planned.is_some() { RouteTaken::Reread } else { RouteTaken::Spool };
    receipt.delivered(taken, &layout, Some(delivered));
    Ok(())
}

/// Notes what pass 1 found. A full disk must not end a run that has come so far.
fn keep(keeper: &mut Keeper, pass: &Pass, map: &ImageMap, layout: &Layout) {
    let found = Found {
        len: pass.len,
        digest: pass.digest.as_ref(),
        guest_digest: pass.guest_digest.as_deref(),
        image_len: layout.file_len,
        map,
    };
    if let Err(error) = keeper.surveyed(found) {
        tracing::warn!("{error}; going on without: after a failure this run would have to begin anew");
    }
}

/// The image that follows from an earlier run's map must be as long as that run planned it.
fn check_planned(planned: u64, layout: &Layout) -> Result<()> {
    if planned == layout.file_len {
        return Ok(());
    }
    let what = format!("the state file plans an image of {planned} bytes, its map makes {}", layout.file_len);
    Err(Error::new(Stage::Plan, Kind::Local, what).advise("delete it, and the run begins anew"))
}

/// Pass 1: every cluster into the map, every chunk to `keep`. `with_crc` tells whether the map's CRCs will be
/// compared.
fn survey(
    engine: &Engine,
    job: &Job,
    with_crc: bool,
    map: &mut ImageMap,
    keep: &mut dyn FnMut(&EncodedChunk) -> Result<()>,
) -> Result<Pass> {
    let cs = job.geometry.cluster_size;
    let hash = job.source_digest.as_ref().ok().map(|digest| digest.algorithm);
    let order = pipeline::Order { wanted: Wanted::All, hash, with_crc, resume: None };
    let mut guest = job.proof.guest_digest.then(GuestDigest::new);
    let mut pass = engine.run(order, &mut |chunk: &mut EncodedChunk| {
        check_virtual_size((chunk.first.0 + chunk.clusters).saturating_mul(cs.bytes()), cs)?;
        let mut next = chunk.first.0;
        for encoded in chunk.encoded() {
            map.push_zeros(encoded.cluster.0 - next);
            next = encoded.cluster.0 + 1;
            let stored_len = encoded.form.stored_len(cs);
            map.push_data(DataCluster { stored_len, guest_crc: encoded.guest_crc });
        }
        map.push_zeros(chunk.first.0 + chunk.clusters - next);
        if let (Some(guest), Some(digests)) = (&mut guest, chunk.digests.take()) {
            guest.add(digests);
        }
        keep(chunk)
    })?;
    let len = virtual_size(&pass);
    pass.guest_digest = guest.map(|guest| guest.finish(len));
    Ok(pass)
}

fn new_map(job: &Job) -> ImageMap {
    let cs = job.geometry.cluster_size;
    ImageMap::new(cs, job.source.facts().len.map_or(0, |len| cs.clusters_for(len)))
}

fn virtual_size(pass: &Pass) -> u64 {
    virtual_size_of(pass.len)
}

/// The disk as the guest sees it: in whole sectors.
fn virtual_size_of(len: u64) -> u64 {
    len.checked_next_multiple_of(SECTOR_BYTES).unwrap_or(len)
}
