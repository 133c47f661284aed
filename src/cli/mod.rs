//! The command line. Takes arguments, gives an exit code; everything that counts is in the library.

#[cfg(feature = "openstack")]
mod accept;
mod args;
#[cfg(feature = "bench")]
mod bench;
mod check;
mod convert;
#[cfg(feature = "openstack")]
mod delete_source;
#[cfg(feature = "embedded")]
mod demo;
mod doctor;
#[cfg(feature = "openstack")]
mod download;
#[cfg(feature = "openstack")]
mod glance;
mod image;
mod info;
mod known_holes;
#[cfg(feature = "openstack")]
mod list;
mod map;
#[cfg(feature = "openstack")]
mod members;
#[cfg(feature = "openstack")]
mod nearby;
mod opened;
mod plan;
mod progress;
#[cfg(feature = "openstack")]
mod replace;
mod report;
mod screen;
#[cfg(feature = "openstack")]
mod share;
mod signals;
#[cfg(feature = "openstack")]
mod snapshot;
mod state;
mod stdout;
mod summary;
#[cfg(feature = "openstack")]
mod table;
mod target;
mod terminal;
#[cfg(feature = "openstack")]
mod upload;
mod verify;
mod versions;

use std::process::ExitCode;

use clap::Parser;
use snapcow::error::{Error, Kind};

use args::{Args, Command};

/// Parses, runs, and says what went wrong.
pub fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            let code = if error.use_stderr() { Kind::Usage.exit_code() } else { 0 };
            // Help and version go to standard output, which may be closed already.
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    start_log(args.verbose, args.quiet);
    let cancel = signals::watch();
    let result = match args.command {
        Command::Convert(options) => convert::run(&options, args.quiet, &cancel),
        Command::Plan(options) => plan::run(&options, args.quiet, &cancel),
        Command::Doctor(options) => doctor::run(&options, args.quiet, &cancel),
        Command::Check(options) => check::run(&options, args.quiet, &cancel),
        #[cfg(feature = "openstack")]
        Command::Download(options) => download::run(&options, args.quiet, &cancel),
        #[cfg(feature = "openstack")]
        Command::Snapshot(options) => snapshot::run(&options, args.quiet, &cancel),
        Command::Verify(options) => verify::run(&options, args.quiet, &cancel),
        #[cfg(feature = "openstack")]
        Command::List(options) => list::run(&options, args.quiet, &cancel),
        #[cfg(feature = "openstack")]
        Command::Share(options) => share::run(&options, args.quiet, &cancel),
        #[cfg(feature = "openstack")]
        Command::Unshare(options) => share::run_unshare(&options, args.quiet, &cancel),
        #[cfg(feature = "openstack")]
        Command::Accept(options) => accept::run_accept(&options, args.quiet, &cancel),
        #[cfg(feature = "openstack")]
        Command::Reject(options) => accept::run_reject(&options, args.quiet, &cancel),
        #[cfg(feature = "openstack")]
        Command::Members(options) => members::run(&options, args.quiet, &cancel),
        #[cfg(feature = "openstack")]
        Command::Replace(options) => replace::run(&options, args.quiet, &cancel),
        Command::Info(options) => info::run(&options, args.quiet, &cancel),
        Command::Map(options) => map::run(&options, args.quiet, &cancel),
        #[cfg(feature = "openstack")]
        Command::Upload(options) => upload::run(&options, args.quiet, &cancel),
        #[cfg(feature = "embedded")]
        Command::Demo(options) => demo::run(&options, args.quiet, &cancel),
        #[cfg(feature = "bench")]
        Command::Bench(options) => bench::run(&options, args.quiet, &cancel),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error);
            ExitCode::from(error.kind().exit_code())
        }
    }
}

/// One sentence; none for a reader that went away, who cannot want one.
fn complain(error: &Error) {
    if error.kind() != Kind::ClosedPipe {
        tell(format_args!("snapcow: {error}"));
    }
}

/// A line on standard error, above the progress that stands there.
fn tell(line: impl std::fmt::Display) {
    screen::write(format!("{}\n", terminal::Plain(line)).as_bytes());
}

fn start_log(verbose: u8, quiet: bool) {
    let level = match (quiet, verbose) {
        (true, _) => "error",
        (false, 0) => "warn,openstack_sdk_core=off",
        (false, 1) => "warn,snapcow=info",
        (false, 2) => "warn,snapcow=debug",
        // Never other crates' own logs of requests: they may hold tokens.
        (false, _) => "info,snapcow=trace,openstack_sdk_core=off",
    };
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::new(level))
        .with_writer(|| screen::Writer)
        .with_ansi(screen::has_colour())
        .log_internal_errors(false)
        .without_time()
        .with_target(verbose > 1)
        .init();
}
