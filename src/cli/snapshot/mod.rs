//! `snapcow snapshot`: from a server to a compact image in one command.
//!
//! Five steps, each announced: look (`look`), stop the server if that was asked for (`power`), let Nova take the
//! snapshot (`take`), start the server again, convert the raw image and delete it (`compact`). What a step leaves
//! bears notes: the server whether it was stopped here, the raw image whose snapshot it is and which image it is
//! to become, the new image that it is unfinished. By these the same command goes on after any end of an
//! earlier run. Whatever happens, a server that was stopped here is started again.

mod compact;
mod look;
mod power;
mod take;
mod watch;

use std::time::Duration;

use clap::Parser;
use snapcow::convert::Cancel;
use snapcow::error::Result;
use snapcow::openstack::{Cloud, Compute, Image, Server};
use snapcow::units::parse_duration;

use super::args::{CloudArgs, ConversionArgs, ConvertArgs, ImageArgs, ProgressMode};
use super::glance::Clouds;
use super::{convert, tell};

/// The lines of `--progress json` that are not the conversion's own: `event` is `step` (`step` of `steps`, `text`) or
/// `wait` (`state`, `elapsed_seconds`).
const EVENT: &str = "snapcow/snapshot/1";
const STEPS: u32 = 5;

/// On a raw image: the server that it is a snapshot of. On a new one, until it is finished, too.
const SNAPSHOT_OF: &str = "snapcow_snapshot_of";
/// On a raw image: the name of the image that it is to become.
const TARGET: &str = "snapcow_target";
/// On a raw image: the order that made it.
const ORDER: &str = "snapcow_order";
/// On a raw image: the run that goes on from it.
const CLAIM: &str = "snapcow_claim";
/// On a new image: the raw one that it is made of, until that is settled.
const UNFINISHED: &str = "snapcow_unfinished";
/// On a server: it was stopped here, and is to be started again.
const STOPPED: &str = "snapcow_stopped";

#[derive(Clone, Debug, Parser)]
pub struct SnapshotArgs {
    /// Name or ID of the server
    pub server: String,
    /// Name of the new image [default: SERVER-snapshot-DATE]
    pub name: Option<String>,

    /// Stop the server first if it runs, and start it again as soon as Nova has let go of it
    #[arg(long, help_heading = "Server")]
    pub stop: bool,
    /// The longest wait for Nova to take the snapshot
    #[arg(long, value_name = "TIME", default_value = "6h", value_parser = parse_duration, help_heading = "Server")]
    pub timeout: Duration,
    /// The longest wait for the server to stop, and to start
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = parse_duration, help_heading = "Server")]
    pub stop_timeout: Duration,
    /// Keep the raw image
    #[arg(long, help_heading = "Safety")]
    pub keep_raw: bool,
    /// Delete the raw image also where Glance keeps no hash by which it could be verified
    #[arg(long, help_heading = "Safety", conflicts_with = "keep_raw")]
    pub unproven: bool,

    #[command(flatten)]
    pub how: ConversionArgs,
    #[command(flatten)]
    pub image: ImageArgs,
    #[command(flatten)]
    pub cloud: CloudArgs,
}

/// A run under way.
struct Job<'a> {
    options: &'a SnapshotArgs,
    quiet: bool,
    cancel: &'a Cancel,
    clouds: Clouds,
    cloud: Cloud,
    compute: Compute,
    server: Server,
    /// The new image's.
    name: String,
    left: Left,
    /// The server was stopped here, and does not run yet.
    owes_start: bool,
}

/// What an earlier run of the same command left.
#[derive(Debug, Default)]
struct Left {
    /// The raw snapshot, in whatever state.
    raw: Option<Image>,
    /// The new image, in whatever state.
    compact: Option<Image>,
    /// Nothing but the notes is to be done: the new image is whole, and the raw one is settled.
    is_finished: bool,
}

/// Runs the command.
pub fn run(options: &SnapshotArgs, quiet: bool, cancel: &Cancel) -> Result<()> {
    step(options, quiet, 1, &format!("look at server `{}` and at what earlier runs left", options.server));
    let mut job = Job::look(options, quiet, cancel)?;
    if options.how.dry_run {
        return convert::say(&job.rehearsal());
    }
    let result = job.carry_out();
    job.restore();
    // An interrupted run fails in whatever it was doing; the signal is the reason.
    result.map_err(|error| cancel.check(error.stage()).err().filter(|_| !has_code(&error)).unwrap_or(error))
}

/// Whether the error is the signal already, and says more about it.
fn has_code(error: &snapcow::error::Error) -> bool {
    matches!(error.kind(), snapcow::error::Kind::Interrupted(_))
}

impl Job<'_> {
    fn carry_out(&mut self) -> Result<()> {
        if self.left.is_finished {
            self.say("an earlier run has made the image and settled the raw one");
            self.start()?;
            return self.finish_notes();
        }
        self.stop()?;
        let raw = self.take()?;
        self.start().inspect_err(|_| self.tell_of_raw(&raw.id))?;
        self.compact(&raw)
    }

    fn step(&self, number: u32, what: &str) {
        step(self.options, self.quiet, number, what);
    }

    fn say(&self, what: &str) {
        if !self.quiet {
            tell(format_args!("snapcow: {what}"));
        }
    }

    fn raw_name(&self) -> String {
        format!("{}-raw", self.name)
    }

    /// The conversion of the raw image, as the command would be given it.
    fn conversion(&self, raw: &str) -> ConvertArgs {
        let mut image = self.options.image.clone();
        image.properties.push((UNFINISHED.into(), raw.into()));
        image.properties.push((SNAPSHOT_OF.into(), self.server.id.clone()));
        ConvertArgs {
            source: format!("glance:{raw}"),
            target: format!("glance:{}", self.name),
            source_format: None,
            force: false,
            delete_source: None,
            how: self.options.how.clone(),
            image,
            cloud: self.options.cloud.clone().into(),
        }
    }
}

fn step(options: &SnapshotArgs, quiet: bool, number: u32, what: &str) {
    if options.how.progress == ProgressMode::Json {
        tell(serde_json::json!({
            "schema": EVENT, "event": "step", "step": number, "steps": STEPS, "text": what
        }));
    } else if !quiet {
        tell(format_args!("snapcow: step {number} of {STEPS}: {what}"));
    }
}

/// Runs calls that no signal ends: for putting things right after one.
fn undisturbed() -> Clouds {
    Clouds::new(CloudArgs::default(), Cancel::new())
}
