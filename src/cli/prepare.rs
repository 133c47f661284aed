//! What a conversion needs before it begins, looked up alike by the run itself and by its plan.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use snapcow::convert::{Cancel, Counters, Job, Proof, machine_facts};
use snapcow::encode::{Compression, Family};
use snapcow::error::{Error, Kind, Result, Stage};
use snapcow::free::disk::Findings;
use snapcow::place::Geometry;
use snapcow::plan::{Facts, Plan, Wishes};
use snapcow::qcow2::Compat;
use snapcow::state::Keeper;

use super::args::{CompatName, CompressionName, ConvertArgs, DeflateWindow, OnOff};
#[cfg(feature = "openstack")]
use super::delete_source::{self, Doomed};
#[cfg(feature = "openstack")]
use super::glance::Clouds;
use super::opened::{Opened, open_source};
use super::report::Outcome;
use super::target::TargetWords;
use super::{known_holes, state, trim};

/// A conversion of which nothing has been made yet.
pub struct Prepared<'a> {
    pub target: TargetWords<'a>,
    pub opened: Opened,
    pub plan: Plan,
    pub geometry: Geometry,
    pub compression: Compression,
    pub proof: Proof,
    pub spool_dir: PathBuf,
    pub keeper: Option<Keeper>,
    /// What is left out, where that was asked for.
    pub free: Option<Arc<Findings>>,
    /// The image that is to go once the new one is proven.
    #[cfg(feature = "openstack")]
    pub doomed: Option<Doomed>,
    /// What whoever wants it should know beforehand, besides what the plan notes.
    pub notes: Vec<String>,
}

/// A conversion, or the plan of one, under way.
pub struct Run<'a, 'w> {
    pub options: &'w ConvertArgs,
    pub quiet: bool,
    pub cancel: &'a Cancel,
    #[cfg(feature = "openstack")]
    pub clouds: &'a mut Clouds,
    /// What is found out on the way, for the report.
    pub outcome: &'a mut Outcome,
}

/// Looks up source, target and state file, and plans.
///
/// # Errors
/// Whatever is refused before a byte moves.
pub fn prepare<'w>(run: &mut Run<'_, 'w>) -> Result<Prepared<'w>> {
    let (options, quiet) = (run.options, run.quiet);
    let (geometry, compression) = format(options)?;
    let target = TargetWords::parse(&options.target)?;
    state::check(options, matches!(target, TargetWords::File(_)))?;
    #[cfg(feature = "openstack")]
    delete_source::check(options, &target)?;
    let opened = open_source(
        options,
        #[cfg(feature = "openstack")]
        run.clouds,
    )?;
    let (opened, map_note) = known_holes::apply(options, opened)?;
    target.refuse_source(&opened)?;
    let (opened, free) = trim::apply(options, opened, quiet, run.cancel)?;
    let spool_dir = spool_dir(options);
    let plan = make_plan(options, &opened, &target, &spool_dir)?;
    let mut notes = notes(options, &target, &opened);
    notes.extend(map_note);
    run.outcome.free = free.clone();
    run.outcome.planned(&opened, geometry, compression, &plan);
    #[cfg(feature = "openstack")]
    let doomed = delete_source::before(options, &opened, run.clouds)?;
    #[cfg(feature = "openstack")]
    notes.extend(doomed.iter().flat_map(|doomed| doomed.notes.clone()));
    let words = target.name(
        options,
        #[cfg(feature = "openstack")]
        run.clouds,
    )?;
    let proof = proof(options, &plan, &target);
    let keeper = state::open(options, &opened, words, quiet, (geometry, compression, proof))?;
    Ok(Prepared {
        target,
        opened,
        plan,
        geometry,
        compression,
        proof,
        spool_dir,
        keeper,
        free,
        #[cfg(feature = "openstack")]
        doomed,
        notes,
    })
}

impl Prepared<'_> {
    /// Everything that the engine needs besides plan and target.
    pub fn job(&self, counters: Arc<Counters>, cancel: &Cancel) -> Job {
        Job {
            source: Arc::clone(&self.opened.source),
            source_digest: self.opened.digest.clone(),
            proof: self.proof,
            free: self.free.clone(),
            geometry: self.geometry,
            compression: self.compression,
            spool_dir: self.spool_dir.clone(),
            counters,
            cancel: cancel.clone(),
        }
    }
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

/// Beside a network and the hash of the source the proofs hardly show; between local files they would.
fn proof(options: &ConvertArgs, plan: &Plan, target: &TargetWords<'_>) -> Proof {
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
    if options.how.compression == CompressionName::Zstd {
        notes.push("zstd clusters need QEMU 5.1 or newer wherever the image is used".into());
    }
    notes
}
