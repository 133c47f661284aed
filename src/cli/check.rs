//! `snapcow check`: an image, looked at from the header to the last refcount.
//!
//! `--json` prints one object, `schema` is `snapcow/check/1`; lengths and offsets are bytes, leaks count host
//! clusters, and `findings` holds at most 100 of each class.

use clap::Parser;
use serde_json::{Value, json};
use snapcow::convert::Cancel;
use snapcow::error::{Error, Kind, Result, Stage};
use snapcow::qcow2::CompressionType;
use snapcow::read::{CheckOptions, Finding, ImageFacts, Report, Severity, check};
use snapcow::units::{Human, parse_size};

#[cfg(feature = "openstack")]
use super::args::CloudArgs;
#[cfg(feature = "openstack")]
use super::glance::Clouds;
use super::{convert, image};

#[derive(Clone, Debug, Parser)]
pub struct CheckArgs {
    /// PATH of a qcow2 file, or glance:NAME-or-ID
    pub image: String,
    /// Decode every compressed cluster, too
    #[arg(long)]
    pub decode: bool,
    /// Take a backing file or an external data file for meant
    #[arg(long)]
    pub allow_external: bool,
    /// Memory for counters: 1 byte a host cluster, 16 bytes an L2 table
    #[arg(long, default_value = "512MiB", value_parser = parse_size, value_name = "SIZE")]
    pub memory: u64,
    /// Print the result as a JSON object
    #[arg(long)]
    pub json: bool,
    #[cfg(feature = "openstack")]
    #[command(flatten)]
    pub cloud: CloudArgs,
}

/// Runs the command.
pub fn run(options: &CheckArgs, quiet: bool, cancel: &Cancel) -> Result<()> {
    let (input, file) = match options.image.strip_prefix("glance:") {
        #[cfg(feature = "openstack")]
        Some(name) => {
            let mut clouds = Clouds::new(options.cloud.clone(), cancel.clone());
            (image::open_ranges(name, None, &mut clouds)?, None)
        }
        #[cfg(not(feature = "openstack"))]
        Some(_) => return Err(convert::no_openstack()),
        None if options.image == "-" => {
            let what = "standard input cannot be checked: a qcow2 image is not read in order";
            return Err(Error::new(Stage::Plan, Kind::Usage, what).advise("save it to a file first"));
        }
        None => image::open_file(&options.image).map(|(input, file)| (input, Some(file)))?,
    };
    let name = input.name.clone();
    let limits = CheckOptions {
        memory_bytes: options.memory,
        decode: options.decode,
        allow_external: options.allow_external,
    };
    let report = image::interruptible(cancel, move || {
        let report = check(input, limits)?;
        file.map_or(Ok(()), |file| snapcow::source::Source::settle(&*file))?;
        Ok(report)
    })?;
    let verdict = verdict(&report, &name);
    if options.json {
        convert::say(&format!("{:#}", to_json(&report, &name, verdict.as_ref())))?;
    } else if !quiet {
        convert::say(&text(&report))?;
    }
    verdict.map_or(Ok(()), Err)
}

/// What the exit code is about.
fn verdict(report: &Report, name: &str) -> Option<Error> {
    let (errors, leaks) = (report.findings.count(Severity::Error), report.findings.count(Severity::Leak));
    if errors > 0 {
        let what = format!("`{name}` is damaged: {errors} errors, {leaks} leaks");
        Some(Error::new(Stage::Source, Kind::Damaged, what))
    } else if leaks > 0 {
        let what = format!("`{name}` wastes space: {leaks} leaks; its data are sound");
        Some(Error::new(Stage::Source, Kind::Leaks, what).advise("qemu-img check -r leaks frees it"))
    } else {
        None
    }
}

fn text(report: &Report) -> String {
    let mut lines: Vec<String> = report.findings.kept().iter().map(line).collect();
    for (class, count) in report.findings.counts() {
        let kept = report.findings.kept().iter().filter(|finding| finding.class == *class).count() as u64;
        // Leaks and the like count clusters, of which a line may have many.
        if class.severity() != Severity::Leak && *count > kept {
            let (severity, word) = (class.severity().word(), class.word());
            lines.push(format!("{severity}: {} more of {word}", count - kept));
        }
    }
    if let Some(facts) = &report.facts {
        lines.push(facts_line(facts, report.file_len));
    }
    let count = |severity| report.findings.count(severity);
    lines.push(match (count(Severity::Error), count(Severity::Leak)) {
        (0, 0) => "no errors, no leaks".into(),
        (errors, leaks) => format!("{errors} errors, {leaks} leaks"),
    });
    lines.join("\n")
}

fn line(finding: &Finding) -> String {
    let mut line = format!("{}: {}", finding.class.severity().word(), finding.text);
    if let Some(offset) = finding.guest_offset {
        line.push_str(&format!(" (guest offset {offset})"));
    }
    line
}

fn facts_line(facts: &ImageFacts, file_len: u64) -> String {
    let mut line = format!(
        "qcow2 version {}, a disk of {}, clusters of {}: {} plain, {} compressed ({}), {} zero; a file of {}",
        facts.version,
        Human(facts.virtual_size),
        Human(facts.cluster_bytes),
        facts.plain_clusters,
        facts.compressed_clusters,
        compression_word(facts.compression),
        facts.zero_clusters,
        Human(file_len),
    );
    if facts.snapshots > 0 {
        line.push_str(&format!("; {} internal snapshots", facts.snapshots));
    }
    if facts.decoded_clusters > 0 {
        line.push_str(&format!("; {} decoded", facts.decoded_clusters));
    }
    line
}

fn compression_word(compression: CompressionType) -> &'static str {
    match compression {
        CompressionType::Zlib => "zlib",
        CompressionType::Zstd => "zstd",
    }
}

fn to_json(report: &Report, name: &str, verdict: Option<&Error>) -> Value {
    let counts: serde_json::Map<String, Value> =
        report.findings.counts().iter().map(|(class, count)| (class.word().into(), json!(count))).collect();
    let findings: Vec<Value> = report.findings.kept().iter().map(finding_json).collect();
    json!({
        "schema": "snapcow/check/1",
        "snapcow_version": env!("CARGO_PKG_VERSION"),
        "image": name,
        "outcome": verdict.map_or("clean", |error| error.kind().word()),
        "exit_code": verdict.map_or(0, |error| error.kind().exit_code()),
        "is_complete": report.facts.is_some(),
        "errors": report.findings.count(Severity::Error),
        "leaks": report.findings.count(Severity::Leak),
        "notes": report.findings.count(Severity::Note),
        "counts": counts,
        "findings": findings,
        "file_bytes": report.file_len,
        "facts": report.facts.as_ref().map(facts_json),
    })
}

fn finding_json(finding: &Finding) -> Value {
    json!({
        "severity": finding.class.severity().word(),
        "class": finding.class.word(),
        "host_offset": finding.host_offset,
        "guest_offset": finding.guest_offset,
        "text": finding.text,
    })
}

fn facts_json(facts: &ImageFacts) -> Value {
    json!({
        "version": facts.version,
        "virtual_size_bytes": facts.virtual_size,
        "cluster_size_bytes": facts.cluster_bytes,
        "refcount_bits": facts.refcount_bits,
        "compression": compression_word(facts.compression),
        "snapshots": facts.snapshots,
        "plain_clusters": facts.plain_clusters,
        "compressed_clusters": facts.compressed_clusters,
        "zero_clusters": facts.zero_clusters,
        "decoded_clusters": facts.decoded_clusters,
        "end_bytes": facts.end,
    })
}
