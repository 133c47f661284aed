//! `snapcow convert`: from words to a plan and a job, and from the receipt to a summary.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use snapcow::convert::{Cancel, Counters, Job, Proof, Receipt, Target, convert_from, machine_facts};
use snapcow::encode::{Compression, Family};
use snapcow::error::{Error, Kind, Result, Stage};
use snapcow::place::Geometry;
use snapcow::plan::{Facts, Plan, Route, Wishes};
use snapcow::qcow2::Compat;
use snapcow::sink::FileSink;

use super::args::{CompatName, CompressionName, ConvertArgs, DeflateWindow, OnOff};
#[cfg(feature = "openstack")]
use super::delete_source;
#[cfg(feature = "openstack")]
use super::glance::Clouds;
use super::opened::{Opened, open_source};
use super::progress::{Progress, Work};
use super::report::{self, Outcome};
use super::target::{TargetWords, to_stdout};
use super::terminal::Plain;
use super::{known_holes, plan, state, summary, tell};

/// Runs the command.
pub fn run(options: &ConvertArgs, quiet: bool, cancel: &Cancel) -> Result<()> {
    #[cfg(feature = "openstack")]
    let mut clouds = Clouds::new(options.cloud.clone(), cancel.clone());
    let (_, result) = recorded(
        options,
        quiet,
        cancel,
        #[cfg(feature = "openstack")]
        &mut clouds,
    );
    result
}

/// Converts, writes the report and settles the state file; gives what is known of the run, also of one that
/// failed. The ID of a new image stands on standard output as soon as it is whole.
pub fn recorded(
    options: &ConvertArgs,
    quiet: bool,
    cancel: &Cancel,
    #[cfg(feature = "openstack")] clouds: &mut Clouds,
) -> (Outcome, Result<()>) {
    let mut outcome = Outcome::begun();
    let go = if options.how.dry_run { plan::dry_run } else { carry_out };
    let result = go(
        options,
        quiet,
        cancel,
        #[cfg(feature = "openstack")]
        clouds,
        &mut outcome,
    );
    #[cfg(feature = "openstack")]
    {
        outcome.insecure = clouds.is_insecure();
    }
    // An interrupted run fails in whatever it was doing; the signal is the reason.
    let result = result.map_err(|error| match error.kind() {
        Kind::Interrupted(_) => error,
        _ => cancel.check(error.stage()).err().unwrap_or(error),
    });
    let result = result.map_err(|error| known_holes::blame(options, error));
    let result = reported(options, &outcome, result);
    // A receipt that cannot be kept keeps the source.
    #[cfg(feature = "openstack")]
    let result = match result {
        Ok(()) if outcome.doomed.is_some() => {
            let deleted = delete_source::after(&mut outcome, clouds, cancel, quiet);
            reported(options, &outcome, deleted)
        }
        result => result,
    };
    state::settle(outcome.keeper.take(), quiet, result.as_ref().err());
    (outcome, result)
}

/// Writes the report, if one is wanted, also of a failure.
pub fn reported(options: &ConvertArgs, outcome: &Outcome, result: Result<()>) -> Result<()> {
    let Some(path) = &options.how.report else { return result };
    match (report::write(path, options, outcome, result.as_ref().err()), result) {
        // What went wrong first is what the exit code is about.
        (Err(unwritten), Err(error)) => {
            tell(format_args!("snapcow: {unwritten}"));
            Err(error)
        }
        (written, result) => result.and(written),
    }
}

/// Everything but the report, and never a dry run.
pub fn carry_out(
    options: &ConvertArgs,
    quiet: bool,
    cancel: &Cancel,
    #[cfg(feature = "openstack")] clouds: &mut Clouds,
    outcome: &mut Outcome,
) -> Result<()> {
    let (geometry, compression) = format(options)?;
    let target = TargetWords::parse(&options.target)?;
    state::check(options, matches!(target, TargetWords::File(_)))?;
    #[cfg(feature = "openstack")]
    delete_source::check(options, &target)?;
    let opened = open_source(
        options,
        #[cfg(feature = "openstack")]
        clouds,
    )?;
    let (opened, map_note) = known_holes::apply(options, opened)?;
    target.refuse_source(&opened)?;
    let spool_dir = spool_dir(options);
    let plan = make_plan(options, &opened, &target, &spool_dir)?;
    let mut notes = notes(options, &target, &opened);
    notes.extend(map_note);
    outcome.planned(&opened, geometry, compression, &plan);
    #[cfg(feature = "openstack")]
    {
        outcome.doomed = delete_source::before(options, &opened, clouds)?;
        notes.extend(outcome.doomed.iter().flat_map(|doomed| doomed.notes.clone()));
    }
    let words = target.name(
        options,
        #[cfg(feature = "openstack")]
        clouds,
    )?;
    let proof = proof(options, &plan, &target);
    let keeper = state::open(options, &opened, words, quiet, (geometry, compression, proof))?;
    outcome.keeper = keeper;
    let counters = Arc::new(Counters::default());
    outcome.counters = Some(Arc::clone(&counters));
    let sink = match target {
        TargetWords::Stdout => to_stdout(cancel, outcome.keeper.as_mut())?,
        TargetWords::File(path) => Target::File(Box::new(FileSink::create(path, options.force)?)),
        #[cfg(feature = "openstack")]
        TargetWords::Glance(name) => {
            let created = clouds.create_target(name, options, &opened, &plan, outcome.keeper.as_mut())?;
            notes.extend(created.notes);
            outcome.image_id = Some(created.id);
            outcome.dropped_properties = created.dropped_properties;
            Target::Delivery(created.sink)
        }
        #[cfg(not(feature = "openstack"))]
        TargetWords::Glance(_) => return Err(no_openstack()),
    };
    notes.extend(plan.notes.iter().cloned());
    notes.iter().filter(|_| !quiet).for_each(|note| tell(format_args!("snapcow: note: {note}")));
    let (source, source_digest) = (opened.source, opened.digest);
    let (shared, cancel) = (Arc::clone(&counters), cancel.clone());
    let job =
        Job { source, source_digest, proof, geometry, compression, spool_dir, counters: shared, cancel };
    let work = Work { len: plan.facts.source.len, sends: plan.route != Route::Direct };
    let progress = Progress::of(options.how.progress, quiet, counters, work);
    let receipt = carry(&plan, &job, sink, progress, outcome)?;
    #[cfg(feature = "openstack")]
    let said = announce(clouds, outcome, &plan, &receipt);
    #[cfg(not(feature = "openstack"))]
    let said = Ok(());
    finish(quiet, receipt, outcome);
    said
}

fn carry(plan: &Plan, job: &Job, sink: Target, progress: Progress, outcome: &mut Outcome) -> Result<Receipt> {
    let result = convert_from(plan, job, sink, outcome.keeper.as_mut());
    progress.end(result.is_ok());
    let receipt = result?;
    outcome.keeper.as_mut().into_iter().for_each(state::done);
    Ok(receipt)
}

/// Tells the new image's ID. If that fails the image is whole and stays; only nobody has heard of it.
#[cfg(feature = "openstack")]
fn announce(clouds: &mut Clouds, outcome: &Outcome, plan: &Plan, receipt: &Receipt) -> Result<()> {
    let Some(id) = &outcome.image_id else { return Ok(()) };
    clouds.complete_target(id, plan, receipt.virtual_size);
    say(id).inspect_err(|_| tell(format_args!("snapcow: the new image is {id}")))
}

pub fn make_plan(
    options: &ConvertArgs,
    opened: &Opened,
    target: &TargetWords<'_>,
    spool_dir: &Path,
) -> Result<Plan> {
    Plan::new(Facts {
        source: opened.source.facts().clone(),
        sink: target.facts(),
        machine: machine_facts(spool_dir),
        wishes: Wishes {
            cluster_size: options.how.cluster_size,
            threads: options.how.threads.map(usize::from),
            connections: options.how.connections.map(usize::from),
            memory_bytes: options.how.memory,
            spool_disk: options.how.spool_disk,
        },
    })
}

/// A line on standard output, which may be closed.
pub fn say(line: &str) -> Result<()> {
    say_bytes(format!("{}\n", Plain(line)).as_bytes())
}

/// Bytes of our own on standard output, which may be closed.
pub fn say_bytes(bytes: &[u8]) -> Result<()> {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).map_err(|error| {
        let kind =
            if error.kind() == std::io::ErrorKind::BrokenPipe { Kind::ClosedPipe } else { Kind::Local };
        Error::new(Stage::Sink, kind, "write to standard output").because(error)
    })
}

fn finish(quiet: bool, receipt: Receipt, outcome: &mut Outcome) {
    if !quiet {
        tell(summary::receipt(&receipt, outcome).trim_end());
    }
    outcome.receipt = Some(receipt);
}

pub fn format(options: &ConvertArgs) -> Result<(Geometry, Compression)> {
    let usage = |what: String| Error::new(Stage::Plan, Kind::Usage, what);
    let small = options.how.deflate_window == DeflateWindow::Small;
    if small && options.how.compression != CompressionName::Zlib {
        return Err(usage("--deflate-window 4k means something for --compression zlib only".into()));
    }
    let family = match options.how.compression {
        CompressionName::Zlib if small => Some(Family::DeflateSmallWindow),
        CompressionName::Zlib => Some(Family::Deflate),
        CompressionName::Zstd => Some(Family::Zstd),
        CompressionName::None => None,
    };
    let compression = match (family, options.how.level) {
        (None, Some(_)) => return Err(usage("--level means nothing with --compression none".into())),
        (None, None) => Compression::None,
        (Some(family), level) => {
            let level = level.unwrap_or_default();
            let (min, max) = family.numbers().into_inner();
            let what =
                || usage(format!("--level {level} is not one of fast, default, small, {min} to {max}"));
            family.at(level).ok_or_else(what)?
        }
    };
    let compat = match options.how.compat {
        CompatName::V1_1 => Compat::V1_1,
        CompatName::V0_10 => Compat::V0_10,
    };
    if compat == Compat::V0_10 && options.how.compression == CompressionName::Zstd {
        return Err(usage("--compat 0.10 cannot hold zstd clusters".into())
            .advise("use --compression zlib, or --compat 1.1"));
    }
    Ok((
        Geometry { compat, compression: compression.header_type(), cluster_size: options.how.cluster_size },
        compression,
    ))
}

/// Beside a network and the hash of the source the proofs hardly show; between local files they would.
pub fn proof(options: &ConvertArgs, plan: &Plan, target: &TargetWords<'_>) -> Proof {
    let in_glance = plan.facts.source.is_remote || matches!(target, TargetWords::Glance(_));
    let has_receipt = options.how.report.is_some();
    Proof {
        verify_encode: options.how.verify_encode.map_or(in_glance, |wish| wish == OnOff::On),
        guest_digest: options.how.guest_digest.map_or(in_glance || has_receipt, |wish| wish == OnOff::On),
    }
}

pub fn spool_dir(options: &ConvertArgs) -> PathBuf {
    options.how.spool_dir.clone().unwrap_or_else(default_spool_dir)
}

/// Where the spool's file is, unless it is told.
pub fn default_spool_dir() -> PathBuf {
    match std::env::var_os("TMPDIR") {
        Some(dir) if !dir.is_empty() => dir.into(),
        _ => "/var/tmp".into(),
    }
}

pub fn notes(options: &ConvertArgs, target: &TargetWords<'_>, opened: &Opened) -> Vec<String> {
    let mut notes = Vec::new();
    if let (Ok(digest), true) = (&opened.digest, opened.source.facts().is_remote) {
        notes.push(format!(
            "the source is compared with its {}, which costs one core 1.5 to 2.5 s for each GB (--verify-source off saves it)",
            digest.algorithm.name()
        ));
    }
    if matches!(target, TargetWords::Glance(_)) {
        notes.push("where Nova keeps its disks in Ceph, a qcow2 image loses copy-on-write cloning and is converted on each host".into());
    }
    if options.how.compression == CompressionName::Zstd {
        notes.push("zstd clusters need QEMU 5.1 or newer wherever the image is used".into());
    }
    notes
}

#[cfg(not(feature = "openstack"))]
pub fn no_openstack() -> Error {
    Error::new(Stage::Plan, Kind::Usage, "this build cannot speak to Glance")
        .advise("build it with --features openstack")
}
