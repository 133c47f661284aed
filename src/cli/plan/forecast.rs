//! What a conversion would be, as data.

use std::sync::Arc;
use std::time::Instant;

use snapcow::convert::{Basis, Job, Proof, Sample, SampleWish, sample};
use snapcow::encode::Compression;
use snapcow::error::Result;
use snapcow::free::disk::Findings;
use snapcow::place::Geometry;
use snapcow::plan::estimate::Interval;
use snapcow::plan::time::Limit;
use snapcow::plan::{Plan, Route};
use snapcow::sink::FileSink;
use snapcow::state::Keeper;

use super::super::args::ConvertArgs;
#[cfg(feature = "openstack")]
use super::super::glance::{self, Clouds};
use super::super::prepare::{Prepared, Run, prepare};
use super::super::target::TargetWords;
use super::LookArgs;
#[cfg(feature = "openstack")]
use super::probe;
use super::times::{Part, Seconds};

/// Bytes a second that Glance takes where nobody has measured: one stream into a quiet Glance of the lab, which
/// computes two hashes meanwhile, takes 0.11 GB/s (gunicorn, file system store).
pub const ASSUMED_UPLOAD_RATE: f64 = 100e6;
/// Whether the encoded clusters fit the spool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spool {
    /// The route has none.
    None,
    /// How much comes is not known.
    Unknown,
    Fits,
    /// The source will be, or may have to be, read again.
    Rereads {
        surely: bool,
    },
}

/// What is known of the target's place.
#[derive(Default)]
pub struct Place {
    /// The target is an image, and these are its least root disk and the source's, in GiB.
    pub min_disk_gib: Option<(u64, Option<u64>)>,
    pub quota_free_bytes: Option<u64>,
    pub quota_used_bytes: Option<u64>,
    /// Seconds that a request takes.
    pub request_seconds: f64,
    /// Bytes a second and seconds for each PUT, measured.
    pub upload: Option<(f64, f64)>,
}

/// A conversion, foretold.
pub struct Forecast {
    pub source: String,
    pub target: String,
    pub plan: Plan,
    pub geometry: Geometry,
    pub compression: Compression,
    pub proof: Proof,
    /// Whether the source is compared with a hash that is kept of it.
    pub source_hash: bool,
    /// Length of the image; `None` where nothing can be told.
    pub image_bytes: Option<Interval>,
    /// Clusters of data in bytes of the guest.
    pub data_bytes: Option<Interval>,
    /// By what that is known, or why it is not.
    pub known_by: String,
    pub sample: Option<Sample>,
    pub limit: Option<Limit>,
    pub parts: Vec<Part>,
    pub total: Option<Seconds>,
    pub spool: Spool,
    pub place_is_glance: bool,
    pub min_disk_gib: Option<(u64, Option<u64>)>,
    pub quota_free_bytes: Option<u64>,
    pub quota_used_bytes: Option<u64>,
    /// Rate of the upload, and whether it was measured.
    pub upload_rate: Option<(f64, bool)>,
    pub creates: Vec<String>,
    pub deletes: Vec<String>,
    pub notes: Vec<String>,
    /// What filesystems have freed, where that is left out.
    pub free: Option<Arc<Findings>>,
}

/// What has been looked up.
pub(super) struct Looked<'a> {
    options: &'a ConvertArgs,
    prepared: Prepared<'a>,
    pub(super) job: Job,
    pub(super) begin_seconds: f64,
    pub(super) place: Place,
}

/// Looks up, probes, samples.
pub fn make(run: &mut Run<'_, '_>, look: &LookArgs) -> Result<Forecast> {
    let mut looked = Looked::at(run, look)?;
    let survey = looked.prepared.keeper.as_mut().and_then(Keeper::take_survey);
    let wish = SampleWish { bytes: look.sample, ..SampleWish::default() };
    let sample = match (&survey, look.sample) {
        (Some(_), _) | (None, Some(0)) => None,
        _ => sample(looked.plan(), &looked.job, &wish)?,
    };
    let cs = looked.job.geometry.cluster_size.bytes();
    let (image, data) = match (&survey, &sample) {
        (Some(survey), _) => {
            let data = survey.map.data_clusters() * cs;
            (Some(Interval::exactly(survey.image_len)), Some(Interval::exactly(data)))
        }
        (None, Some(sample)) => {
            (Some(sample.image_bytes), Some(sample.content.data_clusters.map(|clusters| clusters * cs)))
        }
        (None, None) => (None, None),
    };
    let known_by = known_by(survey.is_some(), sample.as_ref(), look, looked.plan().facts.source.len);
    Ok(looked.forecast(sample, image, data, known_by, survey.is_some()))
}

/// Whether the target's name is free, and what its place says of itself.
#[cfg_attr(not(feature = "openstack"), expect(unused_variables, reason = "of Glance"))]
fn place(
    options: &ConvertArgs,
    look: &LookArgs,
    prepared: &Prepared<'_>,
    #[cfg(feature = "openstack")] clouds: &mut Clouds,
) -> Result<Place> {
    match &prepared.target {
        #[cfg(feature = "openstack")]
        TargetWords::Glance(name) => {
            let begin = Instant::now();
            clouds.check_target_name(name, options, prepared.keeper.as_ref().and_then(Keeper::image))?;
            // One list of what is shown and one of what is hidden; without a look, one request by itself.
            let mut request_seconds = begin.elapsed().as_secs_f64() / 2.0;
            let begin = Instant::now();
            let usage = clouds.target_usage()?;
            if options.image.allow_duplicate {
                request_seconds = begin.elapsed().as_secs_f64();
            }
            let upload = if look.probe_upload { Some(probe::upload(clouds, options)?) } else { None };
            let source = prepared.opened.image.as_ref();
            let total = usage.and_then(|usage| usage.total_bytes);
            Ok(Place {
                min_disk_gib: Some((
                    glance::min_disk(options, source, &prepared.plan),
                    source.map(|image| image.min_disk),
                )),
                quota_free_bytes: total.and_then(|quota| quota.free()),
                quota_used_bytes: total.map(|quota| quota.used),
                request_seconds,
                upload,
            })
        }
        TargetWords::File(path) => FileSink::check(path, options.force).map(|()| Place::default()),
        _ => Ok(Place::default()),
    }
}

fn known_by(resumed: bool, sample: Option<&Sample>, look: &LookArgs, len: Option<u64>) -> String {
    use snapcow::units::Human;
    let Some(sample) = sample else {
        return match (resumed, look.sample, len) {
            (true, _, _) => "by the state file: pass 1 is done".into(),
            (false, Some(0), _) => "not known: nothing was read (--sample 0)".into(),
            _ => "not known: what can be read only once is not looked at beforehand".into(),
        };
    };
    let read = format!("{} read in {:.1} s", Human(sample.read_bytes), sample.took.as_secs_f64());
    match sample.basis {
        Basis::All => format!("by all of the data, {read}"),
        Basis::Spread { pieces } => format!("by {pieces} pieces from all over the disk, {read}"),
        Basis::FirstPart { bytes } => format!(
            "by the first {} ONLY, {read}: this store cannot be read elsewhere. The bounds are for a rest of zeros and \
             a rest of noise, the likely value for a rest that is like the beginning",
            Human(bytes)
        ),
    }
}

impl<'a> Looked<'a> {
    fn at(run: &mut Run<'_, 'a>, look: &LookArgs) -> Result<Self> {
        let (options, begin) = (run.options, Instant::now());
        let prepared = prepare(run)?;
        let opening_seconds = begin.elapsed().as_secs_f64();
        let place = place(
            options,
            look,
            &prepared,
            #[cfg(feature = "openstack")]
            run.clouds,
        )?;
        let begin_seconds = opening_seconds + 2.0 * place.request_seconds;
        let job = prepared.job(Arc::default(), run.cancel);
        Ok(Self { options, prepared, job, begin_seconds, place })
    }

    pub(super) fn plan(&self) -> &Plan {
        &self.prepared.plan
    }

    /// Images that will be deleted, and when.
    fn deletes(&self) -> Vec<String> {
        #[cfg(feature = "openstack")]
        if self.prepared.doomed.is_some() {
            return vec![format!("{}, once the new image is proven", self.job.source.facts().name)];
        }
        Vec::new()
    }

    fn forecast(
        self,
        sample: Option<Sample>,
        image_bytes: Option<Interval>,
        data_bytes: Option<Interval>,
        known_by: String,
        resumed: bool,
    ) -> Forecast {
        let spool = self.spool(sample.as_ref(), resumed);
        let to_glance = matches!(self.prepared.target, TargetWords::Glance(_));
        let rate = self.place.upload.map_or((ASSUMED_UPLOAD_RATE, false), |(rate, _)| (rate, true));
        let rate = to_glance.then_some(rate);
        let mut limit = None;
        let parts = match (image_bytes, resumed) {
            (Some(image), false) => self.parts(sample.as_ref(), image, spool, rate, &mut limit),
            _ => Vec::new(),
        };
        let total = parts.iter().map(|part| part.seconds).reduce(Seconds::plus);
        let creates = match &self.prepared.target {
            TargetWords::Glance(name) => vec![format!("image `{name}`")],
            TargetWords::File(path) => vec![format!("file {}", path.display())],
            TargetWords::Stdout => Vec::new(),
        };
        let deletes = self.deletes();
        let Prepared { plan, mut notes, .. } = self.prepared;
        notes.extend(plan.notes.iter().cloned());
        Forecast {
            source: self.options.source.clone(),
            target: self.options.target.clone(),
            geometry: self.job.geometry,
            compression: self.job.compression,
            proof: self.job.proof,
            source_hash: self.job.source_digest.is_ok(),
            plan,
            image_bytes,
            data_bytes,
            known_by,
            sample,
            limit,
            parts,
            total,
            spool,
            place_is_glance: to_glance,
            min_disk_gib: self.place.min_disk_gib,
            quota_free_bytes: self.place.quota_free_bytes,
            quota_used_bytes: self.place.quota_used_bytes,
            upload_rate: rate,
            creates,
            deletes,
            notes,
            free: self.job.free,
        }
    }

    fn spool(&self, sample: Option<&Sample>, resumed: bool) -> Spool {
        if self.plan().route == Route::Direct {
            return Spool::None;
        }
        if resumed {
            return Spool::Rereads { surely: true };
        }
        let Some(sample) = sample else { return Spool::Unknown };
        let room = self.plan().budget.spool_memory_bytes + self.plan().budget.spool_disk_bytes;
        let stored = sample.content.stored_bytes;
        if stored.high <= room { Spool::Fits } else { Spool::Rereads { surely: stored.low > room } }
    }
}
