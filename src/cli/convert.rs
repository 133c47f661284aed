//! `snapcow convert`: from words to a plan and a job, and from the receipt to a summary.

use std::sync::Arc;

use snapcow::convert::{Cancel, Counters, Job, Receipt, Target, convert_from};
use snapcow::error::{Error, Kind, Result, Stage};
use snapcow::plan::{Plan, Route};
use snapcow::sink::FileSink;

use super::args::ConvertArgs;
#[cfg(feature = "openstack")]
use super::delete_source;
#[cfg(feature = "openstack")]
use super::glance::Clouds;
use super::prepare::{Prepared, Run, prepare};
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
    let result = go(&mut Run {
        options,
        quiet,
        cancel,
        #[cfg(feature = "openstack")]
        clouds,
        outcome: &mut outcome,
    });
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
pub fn carry_out(run: &mut Run<'_, '_>) -> Result<()> {
    let mut prepared = prepare(run)?;
    let (options, quiet, cancel, outcome) = (run.options, run.quiet, run.cancel, &mut *run.outcome);
    let counters = Arc::new(Counters::default());
    let job = prepared.job(Arc::clone(&counters), cancel);
    outcome.counters = Some(Arc::clone(&counters));
    outcome.keeper = prepared.keeper.take();
    #[cfg(feature = "openstack")]
    {
        outcome.doomed = prepared.doomed.take();
    }
    let Prepared { target, plan, mut notes, .. } = prepared;
    let sink = match target {
        TargetWords::Stdout => to_stdout(cancel, outcome.keeper.as_mut())?,
        TargetWords::File(path) => Target::File(Box::new(FileSink::create(path, options.force)?)),
        #[cfg(feature = "openstack")]
        TargetWords::Glance(name) => {
            let created =
                run.clouds.create_target(name, options, &prepared.opened, &plan, outcome.keeper.as_mut())?;
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
    let work = Work { len: plan.facts.source.len, sends: plan.route != Route::Direct };
    let progress = Progress::of(options.how.progress, quiet, counters, work);
    let receipt = carry(&plan, &job, sink, progress, outcome)?;
    #[cfg(feature = "openstack")]
    let said = announce(run.clouds, outcome, &plan, &receipt);
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

#[cfg(not(feature = "openstack"))]
pub fn no_openstack() -> Error {
    Error::new(Stage::Plan, Kind::Usage, "this build cannot speak to Glance")
        .advise("build it with --features openstack")
}
