//! `snapcow verify`: two disks, compared as their guests read them.
//!
//! `--json` prints one object, `schema` is `snapcow/verify/1`; all numbers are bytes.

use clap::Parser;
use serde_json::json;
use snapcow::convert::Cancel;
use snapcow::error::{Error, Kind, Result, Stage};
use snapcow::source::Source;
use snapcow::units::Human;
use snapcow::verify::{Comparison, compare, compare_trimmed, look_for_free};

#[cfg(feature = "openstack")]
use super::args::CloudPairArgs;
use super::convert;
#[cfg(feature = "openstack")]
use super::glance::Clouds;
use super::image::{Format, interruptible, open_disk};

/// Threads at most: decoding gains from them, and each holds a few MiB.
const THREADS_MAX: usize = 16;
/// Memory for the metadata of one filesystem, in bytes.
const MEMORY_BYTES: u64 = 256 << 20;

#[derive(Clone, Debug, Parser)]
pub struct VerifyArgs {
    /// PATH of a raw or qcow2 file or a block device, - for a raw disk on standard input, or glance:NAME-or-ID
    pub a: String,
    /// The same; at most one of the two is standard input
    pub b: String,
    /// Format of A [default: a file's by its first bytes, an image's by its record]
    #[arg(short = 'f', long, value_name = "FORMAT")]
    pub format_a: Option<Format>,
    /// Format of B
    #[arg(short = 'F', long, value_name = "FORMAT")]
    pub format_b: Option<Format>,
    /// A is the raw disk, B an image made of it with --trim: where filesystems of A hold nothing, B may have zeros
    #[arg(long)]
    pub trimmed: bool,
    /// Comparing threads [default: one a core]; streams are compared by one
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
    /// Print the result as a JSON object
    #[arg(long)]
    pub json: bool,
    // For A the cloud is that of the source, for B that of the target.
    #[cfg(feature = "openstack")]
    #[command(flatten)]
    pub cloud: CloudPairArgs,
}

/// Runs the command.
pub fn run(options: &VerifyArgs, quiet: bool, cancel: &Cancel) -> Result<()> {
    if options.trimmed && (options.a == "-" || options.b == "-") {
        let what = "--trimmed needs two disks that can be read at any place, and standard input is none";
        return Err(Error::new(Stage::Plan, Kind::Usage, what).advise("save it to a file"));
    }
    if options.a == "-" && options.b == "-" {
        let what = "only one of the two can be standard input";
        return Err(Error::new(Stage::Plan, Kind::Usage, what).advise("save the other to a file"));
    }
    #[cfg(feature = "openstack")]
    let mut clouds = Clouds::new(options.cloud.clone(), cancel.clone());
    let mut open = |words: &str, format, is_a: bool| {
        #[cfg(feature = "openstack")]
        let cloud = if is_a { &options.cloud.source_cloud } else { &options.cloud.target_cloud };
        #[cfg(not(feature = "openstack"))]
        let _ = is_a;
        open_disk(
            words,
            format,
            #[cfg(feature = "openstack")]
            &mut clouds,
            #[cfg(feature = "openstack")]
            cloud.clone(),
        )
    };
    let (a, b) = (open(&options.a, options.format_a, true)?, open(&options.b, options.format_b, false)?);
    let threads = options.threads.map_or_else(
        || std::thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX),
        usize::from,
    );
    let trimmed = options.trimmed;
    let names = [a.disk.name().to_owned(), b.disk.name().to_owned()];
    let comparison = interruptible(cancel, move || {
        let comparison = if trimmed {
            let findings = look_for_free(&*a.disk, MEMORY_BYTES)?;
            compare_trimmed(&*a.disk, &*b.disk, &findings.free, threads)?
        } else {
            compare(&*a.disk, &*b.disk, threads)?
        };
        [a.file, b.file].into_iter().flatten().try_for_each(|file| file.settle())?;
        Ok(comparison)
    })?;
    let verdict = verdict(&comparison, &names);
    if options.json {
        convert::say(&to_json(&comparison, &names, verdict.as_ref()))?;
    } else if verdict.is_none() && !quiet {
        convert::say(&format!(
            "equal: {} compared, {} zeros on both sides by their own word",
            Human(comparison.compared_bytes),
            Human(comparison.hole_bytes)
        ))?;
    }
    verdict.map_or(Ok(()), Err)
}

fn verdict(comparison: &Comparison, names: &[String; 2]) -> Option<Error> {
    let first = comparison.first_difference?;
    let size = |side: usize| match comparison.sizes[side] {
        Some(size) => format!("`{}` has {size} bytes", names[side]),
        None => format!("`{}` was not read to its end", names[side]),
    };
    let what = format!("the disks differ from guest offset {first} on; {}, {}", size(0), size(1));
    Some(Error::new(Stage::Source, Kind::Differs, what))
}

fn to_json(comparison: &Comparison, names: &[String; 2], verdict: Option<&Error>) -> String {
    let value = json!({
        "schema": "snapcow/verify/1",
        "snapcow_version": env!("CARGO_PKG_VERSION"),
        "a": names[0],
        "b": names[1],
        "outcome": verdict.map_or("equal", |error| error.kind().word()),
        "exit_code": verdict.map_or(0, |error| error.kind().exit_code()),
        "is_equal": comparison.is_equal(),
        "first_difference": comparison.first_difference,
        "size_a_bytes": comparison.sizes[0],
        "size_b_bytes": comparison.sizes[1],
        "compared_bytes": comparison.compared_bytes,
        "hole_bytes": comparison.hole_bytes,
    });
    format!("{value:#}")
}
