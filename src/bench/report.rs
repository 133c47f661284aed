//! The report: all figures of a benchmark, written as and read from JSON.

use serde::{Deserialize, Serialize};

use super::Options;
use super::machine::Machine;
use super::model::Bound;
use super::stages::codec_name;
use super::timing::Timing;
use super::workload::{Contents, Workload};
use crate::error::{Error, Kind, Result, Stage};

/// What the reports of this version call themselves.
pub const SCHEMA: &str = "snapcow/bench/1";

/// All figures of one benchmark.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: String,
    /// When it began, in seconds since 1970 (UTC).
    pub started_unix_seconds: u64,
    /// What was measured.
    pub versions: Versions,
    /// On what.
    pub machine: Machine,
    /// With which wishes.
    pub parameters: Parameters,
    /// What the disk turned out to hold.
    pub workload: Contents,
    /// Each stage alone.
    pub stages: Vec<StageFigure>,
    /// Each route as a whole.
    pub routes: Vec<RouteFigure>,
    /// Most memory of the whole benchmark in bytes, samples and the embedded Glance included; 0
    /// where the kernel does not tell.
    pub peak_rss_bytes: u64,
    /// How long all of it took.
    pub elapsed_seconds: f64,
}

/// Versions of what was measured.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Versions {
    /// This crate.
    pub snapcow: String,
    /// The zstd library.
    pub zstd: String,
    /// Architecture of the build.
    pub architecture: String,
    /// Whether the build is optimised; figures of one that is not mean nothing.
    pub optimised: bool,
}

impl Versions {
    pub(super) fn current() -> Self {
        Self {
            snapcow: env!("CARGO_PKG_VERSION").into(),
            zstd: zstd_safe::version_string().into(),
            architecture: std::env::consts::ARCH.into(),
            optimised: !cfg!(debug_assertions),
        }
    }
}

/// The wishes, with the defaults filled in.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Parameters {
    /// `--size`.
    pub size_bytes: u64,
    /// `--density`.
    pub data_fraction: f64,
    /// `--entropy`.
    pub incompressible_fraction: f64,
    /// `--run-length`; null for the mix of a server's disk.
    pub run_length_bytes: Option<u64>,
    /// `--seed`.
    pub seed: u64,
    /// `--threads`.
    pub threads: usize,
    /// `--rounds`.
    pub rounds: usize,
    /// Memory that a route was given, in bytes.
    pub memory_bytes: u64,
    /// `--compression` and `--level`, as in `variant` of a stage.
    pub compression: String,
    /// Size of a cluster in bytes.
    pub cluster_size_bytes: u64,
    /// Where the files lay.
    pub dir: String,
    /// Whether files were on a disk when their time ended; false in memory.
    pub durable: bool,
}

impl Parameters {
    pub(super) fn new(options: &Options, threads: usize, workload: &Workload) -> Self {
        Self {
            size_bytes: options.size_bytes,
            data_fraction: options.data_fraction,
            incompressible_fraction: options.incompressible_fraction,
            run_length_bytes: options.run_length_bytes,
            seed: options.seed,
            threads,
            rounds: options.rounds,
            memory_bytes: super::memory_bytes(threads),
            compression: codec_name(options.compression),
            cluster_size_bytes: super::workload::CLUSTER_SIZE.bytes(),
            dir: workload.dir_shown.clone(),
            durable: !workload.is_memory,
        }
    }
}

/// One stage alone.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StageFigure {
    /// `source`, `scan`, `hash`, `crc`, `encode`, `place`, `sink`, `network in` or `network out`.
    pub stage: String,
    /// Which way of doing it: a kernel, a hash, a codec with its level, …
    pub variant: String,
    /// Bytes that went in in each round of `one_thread`. For `place`: of the clusters placed.
    pub bytes: u64,
    /// Bytes that came out of them, where a codec was at work; what does not get smaller counts as it
    /// is.
    pub output_bytes: Option<u64>,
    /// The stage on one thread; for those that bring threads of their own (files, network) with
    /// these.
    pub one_thread: Timing,
    /// The stage on `--threads`, where several can share it; their rounds move more bytes, in
    /// proportion.
    pub all_threads: Option<Timing>,
}

impl StageFigure {
    pub(super) fn new(stage: &str, variant: &str, bytes: u64, one_thread: Timing) -> Self {
        let (stage, variant) = (stage.into(), variant.into());
        Self { stage, variant, bytes, output_bytes: None, one_thread, all_threads: None }
    }

    /// Stage and variant.
    pub fn name(&self) -> String {
        format!("{} {}", self.stage, self.variant)
    }

    /// With all threads that it can use.
    pub fn best(&self) -> &Timing {
        self.all_threads.as_ref().unwrap_or(&self.one_thread)
    }
}

/// One route as a whole.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RouteFigure {
    /// Its name.
    pub route: String,
    /// The way that the bytes took: `direct`, `spool` or `reread`.
    pub taken: String,
    /// Codec and level, as in `variant` of a stage.
    pub compression: String,
    /// All rounds; `bytes` is the disk's virtual size.
    pub timing: Timing,
    /// Most memory in any round in bytes, the embedded Glance and what earlier stages left to the process
    /// included; 0 where the kernel does not tell.
    pub peak_rss_bytes: u64,
    /// Bytes that came from the source, in all passes.
    pub source_bytes: u64,
    /// Bytes of clusters that were read and found zero.
    pub zero_bytes: u64,
    /// Bytes of clusters that were encoded in pass 1.
    pub data_bytes: u64,
    /// About how many bytes of clusters were encoded again in pass 2.
    pub reencoded_bytes: u64,
    /// Length of the image.
    pub image_bytes: u64,
    /// Processor time of CRC and encoding inside the engine, of each round.
    pub engine_encode_seconds: Vec<f64>,
    /// Processor time that bare loops take for as many clusters: of the codec right before and after each
    /// round, of the CRC by its figure alone. Empty without compression.
    #[serde(default)]
    pub bare_encode_seconds: Vec<f64>,
    /// The median of the rounds' ratios of the two: the share of a bare loop's throughput that the encode stage
    /// keeps inside the engine. Null without compression.
    pub encode_share_of_bare_loop: Option<f64>,
    /// The least time that the stages' own figures permit.
    pub bound: Bound,
    /// The bound divided by the median wall time.
    pub achieved_share: f64,
    /// Whether an independent reader has read the disk's bytes from the image, or from one with the same
    /// hash. False with zstd, which that reader does not know.
    pub proved: bool,
}

impl Report {
    /// As JSON text.
    pub fn to_json(&self) -> String {
        // Plain fields with names as keys can always be written.
        let mut text = serde_json::to_string_pretty(self).unwrap_or_default();
        text.push('\n');
        text
    }

    /// From JSON text; `name` is for messages.
    ///
    /// # Errors
    /// [`Kind::Usage`] if the text is not a report of this schema.
    pub fn from_json(text: &str, name: &str) -> Result<Self> {
        let foreign = |why: String| {
            Error::new(Stage::Plan, Kind::Usage, format!("`{name}` is no report of snapcow bench: {why}"))
                .advise("make one with: snapcow bench --json FILE")
        };
        let value: serde_json::Value =
            serde_json::from_str(text).map_err(|error| foreign(format!("it is not JSON ({error})")))?;
        match value["schema"].as_str() {
            Some(SCHEMA) => {}
            Some(other) => {
                let other: String = other.chars().take(60).collect();
                return Err(foreign(format!("its schema is `{other}`, not `{SCHEMA}`")));
            }
            None => return Err(foreign(format!("it has no schema `{SCHEMA}`"))),
        }
        serde_json::from_value(value).map_err(|error| foreign(error.to_string()))
    }

    /// The figure of a stage.
    pub fn stage(&self, stage: &str, variant: &str) -> Option<&StageFigure> {
        find(&self.stages, stage, variant)
    }
}

/// The figure of a stage among others.
pub(super) fn find<'a>(figures: &'a [StageFigure], stage: &str, variant: &str) -> Option<&'a StageFigure> {
    figures.iter().find(|figure| figure.stage == stage && figure.variant == variant)
}
