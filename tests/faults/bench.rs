//! One conversion against a Glance with faults: takes a disk, faults and budgets, gives the outcome and
//! the checks that every outcome has to pass.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use snapcow::convert::{Cancel, Counters, Job, Proof, Receipt, Target, convert, machine_facts};
use snapcow::embedded::{
    EmbeddedGlance, EmbeddedOptions, Faults, ImageData, ImageSpec, Record, Route, SeedHash, prove_equal,
};
use snapcow::encode::Compression;
use snapcow::error::{Error, Kind, Stage};
use snapcow::facts::{SinkFacts, SinkOrder};
use snapcow::hash::Algorithm;
use snapcow::openstack::{Cloud, Created, Image, NewImage, TlsOptions};
use snapcow::place::Geometry;
use snapcow::plan::{Facts, Plan, SpoolDisk, Wishes};
use snapcow::qcow2::Compat;
use snapcow::retry::Retry;
use snapcow::sink::GlanceSink;
use snapcow::source::{GlanceSource, Source};
use snapcow::units::ClusterSize;

pub const MIB: u64 = 1 << 20;

/// Nothing here takes this long unless it hangs.
const HANGS: Duration = Duration::from_secs(150);

/// A disk of zeros with noise in some places: noise does not get smaller, so stored bytes are guest bytes.
#[derive(Clone, Debug)]
pub struct Noise {
    pub len: u64,
    pub extents: Vec<Range<u64>>,
}

impl Noise {
    /// `len` bytes, all of it noise.
    pub fn full(len: u64) -> Arc<Self> {
        Arc::new(Self::at(len, 0..len))
    }

    /// `len` bytes, noise in one place.
    pub fn at(len: u64, extent: Range<u64>) -> Self {
        Self { len, extents: std::iter::once(extent).collect() }
    }
}

impl ImageData for Noise {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) {
        buf.fill(0);
        let end = offset + buf.len() as u64;
        for extent in &self.extents {
            for at in extent.start.max(offset)..extent.end.min(end) {
                // splitmix64 of the number of the word that the byte lies in.
                let mut word = (at / 8).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
                word ^= word >> 31;
                buf[(at - offset) as usize] = word.to_le_bytes()[(at % 8) as usize];
            }
        }
    }

    fn is_hole(&self, offset: u64, len: u64) -> bool {
        self.extents.iter().all(|extent| extent.end <= offset || extent.start >= offset + len)
    }
}

/// What is done differently from the plan's own budgets, which are made for larger disks.
#[derive(Clone)]
pub struct Tune {
    pub threads: usize,
    pub compression: Compression,
    pub spool_memory_bytes: u64,
    pub spool_disk_bytes: u64,
    pub queue_bytes: u64,
    pub spool_dir: PathBuf,
    /// Buffers of a chunk for the source; `None` leaves it to the plan.
    pub chunk_buffers: Option<usize>,
    pub properties: BTreeMap<String, String>,
    pub retry: Retry,
}

/// As many tries as by default, with pauses that no test notices.
pub fn quick() -> Retry {
    let (first, longest) = (Duration::from_millis(20), Duration::from_secs(2));
    Retry { first, longest, ..Retry::default() }
}

impl Tune {
    /// Everything fits in memory.
    pub fn spool() -> Self {
        Self {
            threads: 2,
            compression: Compression::Deflate(1),
            spool_memory_bytes: 256 * MIB,
            spool_disk_bytes: 0,
            queue_bytes: 4 * MIB,
            spool_dir: std::env::temp_dir(),
            chunk_buffers: None,
            properties: BTreeMap::new(),
            retry: quick(),
        }
    }

    /// Two blocks of spool: nearly everything is read again.
    pub fn reread() -> Self {
        Self { spool_memory_bytes: 2 * MIB, queue_bytes: MIB, ..Self::spool() }
    }

    /// As little under way as is possible, so that a slow peer is felt at once.
    pub fn narrow(self) -> Self {
        Self { threads: 1, chunk_buffers: Some(3), ..self }
    }
}

/// A Glance with one image in it.
pub struct Bench {
    pub glance: EmbeddedGlance,
    pub disk: Arc<dyn ImageData>,
    pub source: String,
}

/// What one conversion came to.
#[derive(Debug)]
pub struct Outcome {
    pub result: Result<Receipt, Error>,
    /// The new image, as far as it came.
    pub id: Option<String>,
    pub dropped_properties: Vec<String>,
}

pub fn with(faults: Faults) -> EmbeddedOptions {
    EmbeddedOptions { faults, ..EmbeddedOptions::default() }
}

impl Bench {
    pub fn new(options: EmbeddedOptions, disk: Arc<dyn ImageData>) -> Self {
        Self::with_hash(options, disk, SeedHash::Compute)
    }

    pub fn with_hash(options: EmbeddedOptions, disk: Arc<dyn ImageData>, hash: SeedHash) -> Self {
        let glance = EmbeddedGlance::start(options).unwrap();
        let attributes = serde_json::Map::new();
        let source =
            glance.seed(ImageSpec { name: "snapshot".into(), attributes, hash, data: Arc::clone(&disk) });
        Self { glance, disk, source }
    }

    pub fn cloud(&self) -> Cloud {
        let token = self.glance.token().into();
        Cloud::with_token(self.glance.endpoint(), token, &TlsOptions::default(), Stage::Plan).unwrap()
    }

    /// Converts as the command does it: look up, probe, plan, create, convert.
    pub fn convert(&self, tune: &Tune) -> Outcome {
        run_in(self.cloud().with_retry(tune.retry), &self.source, tune)
    }

    /// The conversion succeeds and its image is the disk.
    pub fn converts(&self, tune: &Tune) -> (Receipt, String) {
        let outcome = self.convert(tune);
        let receipt = outcome.result.unwrap_or_else(|error| panic!("{error}"));
        let id = outcome.id.unwrap();
        self.prove(&id);
        (receipt, id)
    }

    /// The image holds what the disk holds, and nothing else was made.
    pub fn prove(&self, id: &str) {
        assert_eq!(self.glance.image(id).unwrap()["status"], "active");
        assert_eq!(self.glance.images().len(), 2, "source and target, and nothing else");
        let proof = prove_equal(&*self.disk, self.glance.data(id).unwrap()).unwrap();
        assert_eq!(proof.virtual_bytes, self.disk.len().next_multiple_of(512));
    }

    /// The conversion fails in that way, the source stays as it was and nothing else is left.
    pub fn fails(&self, tune: &Tune, stage: Stage, kind: Kind) -> String {
        let before = self.glance.image(&self.source);
        let outcome = self.convert(tune);
        let error = outcome.result.expect_err("this cannot succeed");
        let text = error.to_string();
        assert_eq!((error.stage(), error.kind()), (stage, kind), "{text}");
        let left: Vec<_> = self.glance.images();
        assert_eq!(left.len(), 1, "{text}\nleft: {left:?}");
        assert_eq!(self.glance.image(&self.source), before, "the source was touched");
        text
    }

    pub fn records(&self, route: Route) -> Vec<Record> {
        self.glance.records().into_iter().filter(|record| record.route == route).collect()
    }

    /// Downloads without those that asked for a range.
    pub fn whole_downloads(&self) -> Vec<Record> {
        self.records(Route::Download).into_iter().filter(|record| record.range.is_none()).collect()
    }

    /// The bytes of an image.
    pub fn bytes(&self, id: &str) -> Vec<u8> {
        let data = self.glance.data(id).unwrap();
        let mut bytes = vec![0; data.len() as usize];
        data.read_at(0, &mut bytes);
        bytes
    }
}

/// The same in a cloud of one's own.
pub fn run_in(cloud: Cloud, source: &str, tune: &Tune) -> Outcome {
    let (tune, name, (done, outcome)) = (tune.clone(), source.to_owned(), mpsc::channel());
    std::thread::spawn(move || {
        let _ = done.send(run(cloud, &name, &tune));
    });
    outcome.recv_timeout(HANGS).expect("the conversion hangs, or its thread panicked")
}

fn run(cloud: Cloud, name: &str, tune: &Tune) -> Outcome {
    let mut outcome = Outcome {
        result: Err(Error::new(Stage::Plan, Kind::Other, "not yet")),
        id: None,
        dropped_properties: Vec::new(),
    };
    outcome.result = carry_out(&cloud, name, tune, &mut outcome.id, &mut outcome.dropped_properties);
    outcome
}

pub fn wait<T>(call: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(call)
}

fn carry_out(
    cloud: &Cloud,
    name: &str,
    tune: &Tune,
    id: &mut Option<String>,
    dropped: &mut Vec<String>,
) -> Result<Receipt, Error> {
    let source = open(&cloud.for_stage(Stage::Source), name)?;
    let plan = plan(source.facts().clone(), tune)?;
    let source_digest = source.digest();
    let new = NewImage { properties: tune.properties.clone(), ..NewImage::private("compact", "qcow2") };
    let created = wait(cloud.for_stage(Stage::Sink).create(&new))?;
    *id = Some(new.id);
    *dropped = created.dropped_properties.clone();
    let cancel = Cancel::new();
    let sink = sink(cloud, &created, &plan, cancel.clone());
    let job = job(Arc::new(source), source_digest, tune, cancel);
    convert(&plan, &job, Target::Delivery(Box::new(sink)))
}

/// Looks a source up and probes it.
pub fn open(cloud: &Cloud, name: &str) -> Result<GlanceSource, Error> {
    let image: Image = wait(cloud.find_images(name))?.pop().expect("the image is there");
    let ranges = wait(cloud.probe_range(&image.id, image.size.unwrap_or(0)))?;
    Ok(GlanceSource::new(cloud.clone(), image, ranges, 2, false))
}

pub fn plan(source: snapcow::facts::SourceFacts, tune: &Tune) -> Result<Plan, Error> {
    let mut plan = Plan::new(Facts {
        source,
        sink: SinkFacts { name: "image `compact`".into(), order: SinkOrder::InOrder },
        machine: machine_facts(&tune.spool_dir),
        wishes: Wishes {
            cluster_size: ClusterSize::DEFAULT,
            threads: Some(tune.threads),
            connections: None,
            memory_bytes: 512 * MIB,
            spool_disk: SpoolDisk::Bytes(tune.spool_disk_bytes),
        },
    })?;
    plan.budget.spool_memory_bytes = tune.spool_memory_bytes;
    plan.budget.upload_queue_bytes = tune.queue_bytes;
    if let Some(buffers) = tune.chunk_buffers {
        plan.budget.chunk_buffers = buffers;
        plan.budget.room_buffers = buffers;
    }
    Ok(plan)
}

pub fn sink(cloud: &Cloud, created: &Created, plan: &Plan, cancel: Cancel) -> GlanceSink {
    let on_cancel = move |wake| Box::new(cancel.on_trigger(wake)) as Box<dyn std::any::Any + Send>;
    GlanceSink::new(
        cloud,
        &created.image,
        None,
        plan.budget.upload_queue_bytes,
        Algorithm::Sha512,
        Box::new(on_cancel),
    )
}

pub fn job(
    source: Arc<dyn Source>,
    source_digest: Result<snapcow::hash::Digest, String>,
    tune: &Tune,
    cancel: Cancel,
) -> Job {
    let compression = tune.compression;
    Job {
        source,
        source_digest,
        proof: Proof::default(),
        free: None,
        geometry: Geometry {
            compat: Compat::V1_1,
            compression: compression.header_type(),
            cluster_size: ClusterSize::DEFAULT,
        },
        compression,
        spool_dir: tune.spool_dir.clone(),
        counters: Arc::new(Counters::default()),
        cancel,
    }
}
