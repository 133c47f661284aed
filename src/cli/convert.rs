//! `snapcow convert`: from words to a plan and a job, and from the receipt to a summary.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use snapcow::convert::{Cancel, Counters, Job, Receipt, Target, convert, machine_facts};
use snapcow::encode::{Compression, Family};
use snapcow::error::{Error, Kind, Result, Stage};
use snapcow::facts::{SinkFacts, SinkOrder};
use snapcow::hash::Digest;
use snapcow::place::Geometry;
use snapcow::plan::{Facts, Plan, Wishes};
use snapcow::qcow2::Compat;
use snapcow::sink::{FileSink, StreamSink};
use snapcow::source::{FileSource, Source, StreamSource};

use super::args::{CompatName, CompressionName, ConvertArgs, DeflateWindow, SourceFormat};
#[cfg(feature = "openstack")]
use super::glance::{self, Clouds};
use super::progress::Progress;
use super::report::{self, Outcome};
use super::stdout::Stdout;
use super::{summary, tell};

/// An opened source.
pub struct Opened {
    pub source: Arc<dyn Source>,
    pub digest: Result<Digest, String>,
    /// Device and inode, where the source is a file.
    identity: Option<(u64, u64)>,
    #[cfg(feature = "openstack")]
    pub image: Option<snapcow::openstack::Image>,
}

/// Where the image goes, as far as the words tell.
enum TargetWords<'a> {
    Stdout,
    #[cfg_attr(not(feature = "openstack"), expect(dead_code, reason = "only to be refused"))]
    Glance(&'a str),
    File(&'a Path),
}

/// Runs the command.
pub fn run(options: ConvertArgs, quiet: bool, cancel: &Cancel) -> Result<()> {
    #[cfg(feature = "openstack")]
    let mut clouds = Clouds::new(options.cloud.clone(), cancel.clone());
    let mut outcome = Outcome::default();
    let result = carry_out(
        &options,
        quiet,
        cancel,
        #[cfg(feature = "openstack")]
        &mut clouds,
        &mut outcome,
    );
    // An interrupted run fails in whatever it was doing; the signal is the reason.
    let result = result.map_err(|error| match error.kind() {
        Kind::Interrupted(_) => error,
        _ => cancel.check(error.stage()).err().unwrap_or(error),
    });
    let Some(path) = &options.report else { return result };
    match (report::write(path, &options, &outcome, result.as_ref().err()), result) {
        // What went wrong first is what the exit code is about.
        (Err(unwritten), Err(error)) => {
            tell(format_args!("snapcow: {unwritten}"));
            Err(error)
        }
        (written, result) => result.and(written),
    }
}

/// Everything but the report.
pub fn carry_out(
    options: &ConvertArgs,
    quiet: bool,
    cancel: &Cancel,
    #[cfg(feature = "openstack")] clouds: &mut Clouds,
    outcome: &mut Outcome,
) -> Result<()> {
    let (geometry, compression) = format(options)?;
    let target = target_words(&options.target)?;
    let opened = open_source(
        options,
        #[cfg(feature = "openstack")]
        clouds,
    )?;
    refuse_same_file(&opened, &target)?;
    let spool_dir = spool_dir(options);
    let plan = make_plan(options, &opened, &target, &spool_dir)?;
    let mut notes = notes(options, &target, &opened);
    outcome.plan = Some(plan.clone());
    if options.dry_run {
        return rehearse(
            options,
            &target,
            #[cfg(feature = "openstack")]
            clouds,
            &summary::plan(&plan, &notes),
        );
    }
    let counters = Arc::new(Counters::default());
    outcome.counters = Some(Arc::clone(&counters));
    let sink = match target {
        TargetWords::Stdout => {
            Target::Delivery(Box::new(StreamSink::new("standard output", stdout(cancel)?)))
        }
        TargetWords::File(path) => Target::File(Box::new(FileSink::create(path, options.force)?)),
        #[cfg(feature = "openstack")]
        TargetWords::Glance(name) => {
            let created = clouds.create_target(name, options, &opened, &plan)?;
            notes.extend(created.notes);
            outcome.image_id = Some(created.id);
            outcome.dropped_properties = created.dropped_properties;
            Target::Delivery(created.sink)
        }
        #[cfg(not(feature = "openstack"))]
        TargetWords::Glance(_) => return Err(no_openstack()),
    };
    if !quiet {
        notes.iter().chain(&plan.notes).for_each(|note| tell(format_args!("snapcow: note: {note}")));
    }
    let (source, source_digest) = (opened.source, opened.digest);
    let (shared, cancel) = (Arc::clone(&counters), cancel.clone());
    let job = Job { source, source_digest, geometry, compression, spool_dir, counters: shared, cancel };
    let progress = Progress::start(options.progress, quiet, counters, plan.facts.source.len);
    let result = convert(&plan, &job, sink);
    drop(progress);
    let receipt = result?;
    #[cfg(feature = "openstack")]
    if let Some(id) = &outcome.image_id {
        clouds.complete_target(id, &plan, receipt.virtual_size);
        if let Err(error) = say(id) {
            // The image is whole and stays; only nobody has heard of it.
            tell(format_args!("snapcow: the new image is {id}"));
            finish(quiet, receipt, outcome);
            return Err(error);
        }
    }
    finish(quiet, receipt, outcome);
    Ok(())
}

/// What can be found out without doing it: whether the target's name is free, and the plan.
fn rehearse(
    options: &ConvertArgs,
    target: &TargetWords<'_>,
    #[cfg(feature = "openstack")] clouds: &mut Clouds,
    plan: &str,
) -> Result<()> {
    match target {
        #[cfg(feature = "openstack")]
        TargetWords::Glance(name) => clouds.check_target_name(name, options)?,
        TargetWords::File(path) => FileSink::check(path, options.force)?,
        _ => {}
    }
    say(plan)
}

fn make_plan(
    options: &ConvertArgs,
    opened: &Opened,
    target: &TargetWords<'_>,
    spool_dir: &Path,
) -> Result<Plan> {
    Plan::new(Facts {
        source: opened.source.facts().clone(),
        sink: sink_facts(target),
        machine: machine_facts(spool_dir),
        wishes: Wishes {
            cluster_size: options.cluster_size,
            threads: options.threads.map(usize::from),
            connections: options.connections.map(usize::from),
            memory_bytes: options.memory,
            spool_disk: options.spool_disk,
        },
    })
}

fn stdout(cancel: &Cancel) -> Result<Box<dyn std::io::Write + Send>> {
    match Stdout::new(cancel) {
        Ok(stdout) => Ok(Box::new(stdout)),
        Err(error) => Err(Error::new(Stage::Sink, Kind::Local, "open standard output").because(error)),
    }
}

/// A line on standard output, which may be closed.
pub fn say(line: &str) -> Result<()> {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).map_err(|error| {
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
    let small = options.deflate_window == DeflateWindow::Small;
    if small && options.compression != CompressionName::Zlib {
        return Err(usage("--deflate-window 4k means something for --compression zlib only".into()));
    }
    let family = match options.compression {
        CompressionName::Zlib if small => Some(Family::DeflateSmallWindow),
        CompressionName::Zlib => Some(Family::Deflate),
        CompressionName::Zstd => Some(Family::Zstd),
        CompressionName::None => None,
    };
    let compression = match (family, options.level) {
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
    let compat = match options.compat {
        CompatName::V1_1 => Compat::V1_1,
        CompatName::V0_10 => Compat::V0_10,
    };
    if compat == Compat::V0_10 && options.compression == CompressionName::Zstd {
        return Err(usage("--compat 0.10 cannot hold zstd clusters".into())
            .advise("use --compression zlib, or --compat 1.1"));
    }
    Ok((
        Geometry { compat, compression: compression.header_type(), cluster_size: options.cluster_size },
        compression,
    ))
}

fn target_words(words: &str) -> Result<TargetWords<'_>> {
    match words.strip_prefix("glance:") {
        Some("") => {
            Err(Error::new(Stage::Sink, Kind::Usage, "`glance:` names no image").advise("write glance:NAME"))
        }
        Some(name) => Ok(TargetWords::Glance(name)),
        None if words == "-" => Ok(TargetWords::Stdout),
        None => Ok(TargetWords::File(Path::new(words))),
    }
}

fn sink_facts(target: &TargetWords<'_>) -> SinkFacts {
    match target {
        TargetWords::Stdout => SinkFacts { name: "standard output".into(), order: SinkOrder::InOrder },
        TargetWords::Glance(name) => SinkFacts { name: format!("image `{name}`"), order: SinkOrder::InOrder },
        TargetWords::File(path) => SinkFacts { name: path.display().to_string(), order: SinkOrder::Random },
    }
}

fn open_source(options: &ConvertArgs, #[cfg(feature = "openstack")] clouds: &mut Clouds) -> Result<Opened> {
    let raw_by_order = options.source_format == Some(SourceFormat::Raw);
    let unverified = |what: &str| Err(format!("{what} has no hash to compare with"));
    if let Some(name) = options.source.strip_prefix("glance:") {
        #[cfg(feature = "openstack")]
        return glance::open_source(name, options, clouds);
        #[cfg(not(feature = "openstack"))]
        {
            let _ = name;
            return Err(no_openstack());
        }
    }
    if options.source == "-" {
        let source = StreamSource::new("standard input", Box::new(std::io::stdin()), raw_by_order);
        return Ok(Opened {
            source: Arc::new(source),
            digest: unverified("standard input"),
            identity: None,
            #[cfg(feature = "openstack")]
            image: None,
        });
    }
    let file = FileSource::open(Path::new(&options.source), raw_by_order)?;
    let identity = file.identity().ok();
    Ok(Opened {
        source: Arc::new(file),
        digest: unverified("a file"),
        identity,
        #[cfg(feature = "openstack")]
        image: None,
    })
}

impl Opened {
    /// A source in Glance.
    #[cfg(feature = "openstack")]
    pub fn image(
        source: Arc<dyn Source>,
        digest: Result<Digest, String>,
        image: snapcow::openstack::Image,
    ) -> Self {
        Self { source, digest, identity: None, image: Some(image) }
    }
}

fn refuse_same_file(opened: &Opened, target: &TargetWords<'_>) -> Result<()> {
    use std::os::unix::fs::MetadataExt;
    let TargetWords::File(path) = target else { return Ok(()) };
    let same = std::fs::metadata(path).is_ok_and(|meta| opened.identity == Some((meta.dev(), meta.ino())));
    if same {
        let what = format!("`{}` is both source and target", path.display());
        return Err(Error::new(Stage::Plan, Kind::Usage, what).advise("give the image another name"));
    }
    Ok(())
}

fn spool_dir(options: &ConvertArgs) -> PathBuf {
    options.spool_dir.clone().unwrap_or_else(|| match std::env::var_os("TMPDIR") {
        Some(dir) if !dir.is_empty() => dir.into(),
        _ => "/var/tmp".into(),
    })
}

fn notes(options: &ConvertArgs, target: &TargetWords<'_>, opened: &Opened) -> Vec<String> {
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
    if options.compression == CompressionName::Zstd {
        notes.push("zstd clusters need QEMU 5.1 or newer wherever the image is used".into());
    }
    notes
}

#[cfg(not(feature = "openstack"))]
pub fn no_openstack() -> Error {
    Error::new(Stage::Plan, Kind::Usage, "this build cannot speak to Glance")
        .advise("build it with --features openstack")
}
