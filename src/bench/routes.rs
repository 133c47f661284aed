//! Every route as a whole, through [`convert`], set up as the command sets it up.

use std::sync::Arc;

use super::machine::{forget_peak, peak_rss_bytes};
use super::model::{Work, bound};
use super::report::{RouteFigure, StageFigure, find};
use super::service::{Service, Services};
use super::stages::{codec_name, encode_pace, route_codecs};
use super::timing::{Lap, Timing, Watch, at_least, median, nanos};
use super::workload::{CLUSTER_SIZE, Workload};
use super::{Options, memory_bytes};
use crate::convert::{
    Cancel, Counters, Job, Proof, Receipt, RouteTaken, Target, Timed, convert, machine_facts,
};
use crate::embedded::{FileData, ImageData, prove_equal};
use crate::encode::Compression;
use crate::error::{Error, Kind, Result, Stage};
use crate::facts::{SinkFacts, SinkOrder};
use crate::hash::Digest;
use crate::place::Geometry;
use crate::plan::{Facts, Plan, SpoolDisk, Wishes};
use crate::qcow2::Compat;
use crate::sink::FileSink;
use crate::source::Source;

/// Room of the spool's file beyond the disk's data, in bytes.
const SPOOL_SLACK_BYTES: u64 = 16 << 20;
/// Most of the data that the bare loops beside the routes encode, in bytes.
const LOOP_BYTES_MAX: u64 = 32 << 20;
/// Which part of the image the spool may keep where a second read is wanted.
const REREAD_KEEPS: u64 = 4;

/// A route to be timed.
struct Route<'a> {
    name: String,
    compression: Compression,
    ends: Ends<'a>,
}

/// Where the disk comes from and where the image goes.
#[derive(Clone, Copy)]
enum Ends<'a> {
    Files,
    Service { service: &'a Service, has_ranges: bool, rereads: bool },
}

/// What one round came to.
struct Done {
    lap: Lap,
    receipt: Receipt,
    counters: Arc<Counters>,
}

/// What all routes share.
struct Bench<'a> {
    options: &'a Options,
    threads: usize,
    cores: usize,
    workload: &'a Workload,
    stages: &'a [StageFigure],
    cancel: &'a Cancel,
    /// Clusters for the bare loops.
    sample: Vec<u8>,
    /// Length of the encoded clusters, once an image has been made.
    encoded_bytes: u64,
    /// Hash of the first image in a service that was proved: the others have to be the same.
    proved: Option<String>,
}

/// Times all of them.
pub(super) fn all(
    options: &Options,
    threads: usize,
    cores: usize,
    measured: (&Workload, &[StageFigure], &Services),
    cancel: &Cancel,
    say: &mut dyn FnMut(&str),
) -> Result<Vec<RouteFigure>> {
    let (workload, stages, services) = measured;
    let sample = workload.sample(LOOP_BYTES_MAX, cancel)?;
    let mut bench =
        Bench { options, threads, cores, workload, stages, cancel, sample, encoded_bytes: 0, proved: None };
    let mut routes: Vec<Route<'_>> = route_codecs(options)
        .into_iter()
        .map(|compression| Route {
            name: format!("file → file, {}", codec_name(compression)),
            compression,
            ends: Ends::Files,
        })
        .collect();
    for rereads in [false, true] {
        for (service, has_ranges) in [(&services.plain, false), (&services.ranged, true)] {
            let way = if rereads { "reread" } else { "spool" };
            let ranges = if has_ranges { " with ranges" } else { "" };
            let compression = options.compression;
            let name = format!("Glance → Glance, {way}{ranges}, {}", codec_name(compression));
            routes.push(Route { name, compression, ends: Ends::Service { service, has_ranges, rereads } });
        }
    }
    routes
        .iter()
        .map(|route| {
            say(&route.name);
            bench.figure(route)
        })
        .collect()
}

impl Bench<'_> {
    fn figure(&mut self, route: &Route<'_>) -> Result<RouteFigure> {
        let peak_is_known = forget_peak();
        let (mut done, mut paces) = (Vec::new(), Vec::new());
        for round in 0..=self.options.rounds {
            self.cancel.check(Stage::Plan)?;
            let prove = round == self.options.rounds && has_reader(route.compression);
            let run = self.round(route, prove)?;
            self.encoded_bytes = run.receipt.spool.map_or(run.receipt.image_len, |spool| spool.encoded_bytes);
            // The first one warms up.
            if round > 0 {
                done.push(run);
            }
            paces.push(self.pace(route));
        }
        let peak_rss_bytes = if peak_is_known { peak_rss_bytes() } else { 0 };
        let last =
            done.last().ok_or_else(|| Error::new(Stage::Plan, Kind::Usage, "no round was asked for"))?;
        let laps: Vec<Lap> = done.iter().map(|run| run.lap).collect();
        let mut figure = RouteFigure {
            route: route.name.clone(),
            taken: match last.receipt.route {
                Some(RouteTaken::Spool) => "spool",
                Some(RouteTaken::Reread) => "reread",
                Some(RouteTaken::Direct) | None => "direct",
            }
            .into(),
            compression: codec_name(route.compression),
            timing: Timing::of(&laps, self.workload.contents.size_bytes, self.threads),
            peak_rss_bytes,
            source_bytes: Counters::get(&last.counters.source_bytes),
            zero_bytes: Counters::get(&last.counters.zero_bytes),
            data_bytes: Counters::get(&last.counters.data_bytes),
            reencoded_bytes: reencoded_bytes(last),
            image_bytes: last.receipt.image_len,
            engine_encode_seconds: done
                .iter()
                .map(|run| run.counters.time(Timed::Encode).as_secs_f64())
                .collect(),
            proved: has_reader(route.compression),
            ..RouteFigure::default()
        };
        if route.compression != Compression::None {
            figure.bare_encode_seconds = self.bare_encode_seconds(&figure, &paces);
            figure.encode_share_of_bare_loop = Some(encode_share(&figure));
        }
        figure.bound = bound(self.phases(route, &figure)?, self.cores);
        figure.achieved_share =
            nanos(figure.bound.bound_seconds / at_least(figure.timing.median_wall_seconds));
        Ok(figure)
    }

    /// One conversion, as the command would do it; what it made is looked at if asked for, and gone
    /// after it.
    fn round(&mut self, route: &Route<'_>, prove: bool) -> Result<Done> {
        match route.ends {
            Ends::Files => {
                let path = self.workload.dir().join("made.qcow2");
                let watch = Watch::process();
                let source: Arc<dyn Source> = self.workload.source.clone();
                let unverified = Err("a file has no hash to compare with".to_owned());
                let plan = self.plan(&*source, path.display().to_string(), SinkOrder::Random)?;
                let job = self.job(source, unverified, route.compression);
                let target = Target::File(Box::new(FileSink::create(&path, false)?));
                let receipt = convert(&plan, &job, target)?;
                let lap = watch.lap();
                let made = FileData::open(&path);
                let removed = std::fs::remove_file(&path);
                let (made, ()) = made.and_then(|made| removed.map(|()| (made, ()))).map_err(|error| {
                    Error::new(Stage::Sink, Kind::Local, format!("look at `{}`", path.display()))
                        .because(error)
                })?;
                if prove {
                    self.prove(route, Arc::new(made))?;
                }
                Ok(Done { lap, receipt, counters: job.counters })
            }
            Ends::Service { service, rereads, .. } => {
                let watch = Watch::process();
                let source = service.source(self.cancel)?;
                let digest = source.digest();
                let mut plan = self.plan(&source, "image `made`".into(), SinkOrder::InOrder)?;
                if rereads {
                    plan.budget.spool_memory_bytes = self.encoded_bytes / REREAD_KEEPS;
                    plan.budget.spool_disk_bytes = 0;
                }
                let target = service.target("qcow2", plan.budget.upload_queue_bytes, self.cancel)?;
                let job = self.job(Arc::new(source), digest, route.compression);
                let receipt = convert(&plan, &job, Target::Delivery(Box::new(target.sink)))?;
                let lap = watch.lap();
                if prove {
                    self.prove_uploaded(route, service, &target.id, &receipt)?;
                }
                service.forget(&target.id, self.cancel)?;
                Ok(Done { lap, receipt, counters: job.counters })
            }
        }
    }

    fn plan(&self, source: &dyn Source, sink: String, order: SinkOrder) -> Result<Plan> {
        let spool_disk = self.workload.contents.data_cluster_bytes + SPOOL_SLACK_BYTES;
        Plan::new(Facts {
            source: source.facts().clone(),
            sink: SinkFacts { name: sink, order },
            machine: machine_facts(self.workload.dir()),
            wishes: Wishes {
                cluster_size: CLUSTER_SIZE,
                threads: Some(self.threads),
                connections: None,
                memory_bytes: memory_bytes(self.threads),
                spool_disk: SpoolDisk::Bytes(spool_disk),
            },
        })
    }

    fn job(
        &self,
        source: Arc<dyn Source>,
        source_digest: Result<Digest, String>,
        compression: Compression,
    ) -> Job {
        let header = compression.header_type();
        Job {
            source,
            source_digest,
            // Its model has no stage for them.
            proof: Proof::NONE,
            free: None,
            geometry: Geometry { compat: Compat::V1_1, compression: header, cluster_size: CLUSTER_SIZE },
            compression,
            spool_dir: self.workload.dir().to_owned(),
            counters: Arc::new(Counters::default()),
            cancel: self.cancel.clone(),
        }
    }

    fn prove(&self, route: &Route<'_>, made: Arc<dyn ImageData>) -> Result<()> {
        prove_equal(&*self.workload.image, made).map(drop).map_err(|error| {
            let what = format!("the image of the route `{}` is not the disk", route.name);
            Error::new(Stage::Sink, Kind::TargetHash, what).because(error).advise("please report this")
        })
    }

    /// The first upload is read; the others have to have its hash.
    fn prove_uploaded(
        &mut self,
        route: &Route<'_>,
        service: &Service,
        id: &str,
        receipt: &Receipt,
    ) -> Result<()> {
        let verified = receipt.delivered.as_ref().and_then(|delivered| delivered.verified.as_ref());
        let hash = verified.map(|digest| digest.hex.clone());
        if hash.is_some() && hash == self.proved {
            return Ok(());
        }
        self.prove(route, service.data(id)?)?;
        self.proved = hash;
        Ok(())
    }

    /// What a bare loop of the codec takes for a byte just now.
    fn pace(&self, route: &Route<'_>) -> f64 {
        match route.compression {
            Compression::None => 0.0,
            compression => encode_pace(compression, &self.sample, self.threads, self.cancel),
        }
    }

    /// What bare loops of the codec and, where a second read may have to be compared with the first, of the CRC
    /// would take for each round's clusters. `paces` are those of the codec before, between and after the rounds.
    fn bare_encode_seconds(&self, figure: &RouteFigure, paces: &[f64]) -> Vec<f64> {
        let crc = find(self.stages, "crc", "crc32").filter(|_| figure.taken != "direct");
        let crc = crc.map_or(0.0, |crc| 1.0 / at_least(crc.best().bytes_per_cpu_second));
        let bytes = (figure.data_bytes + figure.reencoded_bytes) as f64;
        paces.windows(2).map(|pace| nanos(bytes * ((pace[0] + pace[1]) / 2.0 + crc))).collect()
    }

    /// The work of each stage, by its figure alone and the bytes that it had to do.
    fn phases(&self, route: &Route<'_>, figure: &RouteFigure) -> Result<Vec<(&'static str, Vec<Work>)>> {
        let work = |stage: &str, variant: &str, bytes: u64| {
            let found = find(self.stages, stage, variant).ok_or_else(|| {
                Error::new(Stage::Plan, Kind::Other, format!("the stage {stage} {variant} was not timed"))
            })?;
            let timing = found.best();
            Ok::<_, Error>(Work {
                stage: found.name(),
                alone_seconds: nanos(bytes as f64 / at_least(timing.bytes_per_second)),
                cpu_seconds: nanos(bytes as f64 / at_least(timing.bytes_per_cpu_second)),
            })
        };
        let encode = |bytes: u64| {
            let mut stages = Vec::new();
            if matches!(route.ends, Ends::Service { .. }) {
                stages.push(work("crc", "crc32", bytes)?);
            }
            if route.compression != Compression::None {
                stages.push(work("encode", &figure.compression, bytes)?);
            }
            Ok::<_, Error>(stages)
        };
        let size = self.workload.contents.size_bytes;
        match route.ends {
            Ends::Files => {
                let mut stages = vec![work("source", "file", figure.source_bytes)?];
                if figure.zero_bytes > 0 {
                    stages.push(work("scan", "facade", figure.zero_bytes)?);
                }
                stages.extend(encode(figure.data_bytes)?);
                stages.push(work("place", "tables", figure.data_bytes)?);
                let sink = self.stages.iter().find(|figure| figure.stage == "sink");
                let variant = sink.map(|figure| figure.variant.clone()).unwrap_or_default();
                stages.push(work("sink", &variant, figure.image_bytes)?);
                Ok(vec![("all", stages)])
            }
            Ends::Service { has_ranges, .. } => {
                let way = if has_ranges { "ranges" } else { "sequential" };
                let mut survey = vec![
                    work("network in", way, size)?,
                    work("hash", "sha512", size)?,
                    work("scan", "facade", figure.zero_bytes)?,
                ];
                survey.extend(encode(figure.data_bytes)?);
                let mut delivery = Vec::new();
                if figure.reencoded_bytes > 0 {
                    delivery.push(work("network in", way, figure.source_bytes.saturating_sub(size))?);
                    delivery.extend(encode(figure.reencoded_bytes)?);
                }
                delivery.push(work("place", "tables", figure.data_bytes)?);
                delivery.push(work("network out", "upload", figure.image_bytes)?);
                Ok(vec![("survey", survey), ("delivery", delivery)])
            }
        }
    }
}

/// The rate of encoding inside the engine, by processor time, compared with that of the bare loops beside it: the
/// machine's own speed changes from minute to minute.
fn encode_share(figure: &RouteFigure) -> f64 {
    let rounds = figure.bare_encode_seconds.iter().zip(&figure.engine_encode_seconds);
    median(&rounds.map(|(bare, engine)| nanos(bare / at_least(*engine))).collect::<Vec<f64>>())
}

/// Whether the independent reader knows the codec.
fn has_reader(compression: Compression) -> bool {
    compression.word() != "zstd"
}

/// What the spool let go, in guest bytes, if clusters got as much smaller everywhere.
fn reencoded_bytes(run: &Done) -> u64 {
    let Some(spool) = run.receipt.spool else { return 0 };
    let share = spool.dropped_bytes as f64 / spool.encoded_bytes.max(1) as f64;
    (Counters::get(&run.counters.data_bytes) as f64 * share) as u64
}
