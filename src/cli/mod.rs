//! The command line. Takes arguments, gives an exit code; everything that counts is in the library.

#[cfg(feature = "openstack")]
mod accept;
mod args;
#[cfg(feature = "bench")]
mod bench;
mod check;
mod completions;
mod config;
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
mod help;
mod image;
mod info;
mod known_holes;
#[cfg(feature = "openstack")]
mod list;
mod man;
mod map;
#[cfg(feature = "openstack")]
mod members;
mod near_file;
#[cfg(feature = "openstack")]
mod nearby;
mod opened;
mod partitions;
mod plan;
mod prepare;
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
#[cfg(feature = "openstack")]
mod target_name;
mod terminal;
mod trim;
#[cfg(feature = "openstack")]
mod upload;
mod verify;
mod versions;

use std::process::ExitCode;

use snapcow::error::{Error, Kind};

use args::Command;
use config::Refused;

/// Parses, runs, and says what went wrong.
pub fn main() -> ExitCode {
    let args = match config::parse(help::command(), std::env::args_os().collect()) {
        Ok(args) => args,
        Err(Refused::Words(error)) => return misunderstood(&error),
        Err(Refused::File(error)) => {
            complain(&error);
            return ExitCode::from(error.kind().exit_code());
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
        Command::Completions(options) => completions::run(&options),
        Command::Man(options) => man::run(&options),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error);
            ExitCode::from(error.kind().exit_code())
        }
    }
}

/// Help and version go to standard output, which may be closed already.
fn misunderstood(error: &clap::Error) -> ExitCode {
    let is_told = error.print();
    ExitCode::from(match is_told {
        _ if error.use_stderr() => Kind::Usage.exit_code(),
        Err(closed) if closed.kind() == std::io::ErrorKind::BrokenPipe => Kind::ClosedPipe.exit_code(),
        _ => 0,
    })
}

/// One sentence, on a terminal in lines of its width, with the next step on a line of its own; nothing for a reader
/// that went away, who cannot want one.
fn complain(error: &Error) {
    if error.kind() == Kind::ClosedPipe {
        return;
    }
    if screen::can_redraw() {
        screen::write(at_a_glance(error, screen::columns(), screen::has_colour()).as_bytes());
    } else {
        tell(format_args!("snapcow: {error}"));
    }
}

fn at_a_glance(error: &Error, columns: usize, colour: bool) -> String {
    let whole = terminal::Plain(error).to_string().replace('\n', " ");
    let advice = error.advice().map(|advice| terminal::Plain(advice).to_string().replace('\n', " "));
    let (red, bold, off) = if colour { ("\x1b[1;31m", "\x1b[1m", "\x1b[0m") } else { ("", "", "") };
    let what = match &advice {
        Some(advice) => {
            whole.strip_suffix(advice.as_str()).and_then(|rest| rest.strip_suffix("; ")).unwrap_or(&whole)
        }
        None => &whole,
    };
    let mut text = String::new();
    let mut add = |head: &str, mark: &str, words: &str| {
        let room = columns.saturating_sub(head.len() + 1);
        for (number, line) in screen::wrap(words, room).iter().enumerate() {
            let head = if number == 0 { format!("{mark}{head}{off}") } else { " ".repeat(head.len()) };
            text.push_str(&format!("{head}{line}\n"));
        }
    };
    add("error: ", red, what);
    if let Some(advice) = &advice {
        add(" next: ", bold, advice);
    }
    text
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

#[cfg(test)]
mod tests {
    use snapcow::error::Stage;

    use super::*;

    #[test]
    fn an_error_is_read_at_a_glance_at_any_width() {
        let error = Error::new(Stage::Sink, Kind::Local, "write 65536 bytes at host offset 0 of `a.qcow2`")
            .because(std::io::Error::from_raw_os_error(28))
            .advise("free some space and run it again");
        assert_eq!(
            at_a_glance(&error, 60, false),
            "error: sink: write 65536 bytes at host offset 0 of\n       `a.qcow2`: No space left on device (os error 28)\n \
             next: free some space and run it again\n"
        );
        for columns in [20, 40, 80] {
            assert!(at_a_glance(&error, columns, false).lines().all(|line| line.len() < columns));
        }
        assert!(at_a_glance(&error, 60, true).starts_with("\x1b[1;31merror: \x1b[0msink"));
    }
}
