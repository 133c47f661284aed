//! The command line. Takes arguments, gives an exit code; everything that counts is in the library.

#[cfg(feature = "openstack")]
mod accept;
mod args;
#[cfg(feature = "bench")]
mod bench;
mod check;
mod convert;
#[cfg(feature = "embedded")]
mod demo;
#[cfg(feature = "openstack")]
mod glance;
mod image;
#[cfg(feature = "openstack")]
mod list;
#[cfg(feature = "openstack")]
mod members;
#[cfg(feature = "openstack")]
mod nearby;
mod opened;
mod progress;
mod report;
#[cfg(feature = "openstack")]
mod share;
mod signals;
mod state;
mod stdout;
mod summary;
#[cfg(feature = "openstack")]
mod table;
mod target;
mod terminal;
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
        Command::Check(options) => check::run(&options, args.quiet, &cancel),
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

/// A line on standard error. Nobody has to listen: a closed one must not end a run half-way, as the
/// panic of `eprintln!` would.
fn tell(line: impl std::fmt::Display) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr().lock(), "{}", terminal::Plain(line));
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
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .log_internal_errors(false)
        .without_time()
        .with_target(verbose > 1)
        .init();
}
