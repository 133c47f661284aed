//! The embedded Glance with the disk in it, and both ends of a conversion in it.

use crate::bench::workload::Workload;
use crate::convert::Cancel;
use crate::embedded::{EmbeddedGlance, EmbeddedOptions, Hashes, ImageData, ImageSpec, SeedHash};
use crate::error::{Error, Kind, Result, Stage};
use crate::hash::Algorithm;
use crate::openstack::{Cloud, NewImage, TlsOptions};
use crate::sink::GlanceSink;
use crate::source::GlanceSource;

/// Connections where ranges work: the command's default.
const CONNECTIONS: usize = 2;
/// Room that an upload may need beyond the disk's data, in bytes.
const SLACK_BYTES: u64 = 64 << 20;

/// Both kinds of a service.
pub(super) struct Services {
    /// Refuses ranges, as Glance does on most stores.
    pub(super) plain: Service,
    /// Serves ranges, as on a file system.
    pub(super) ranged: Service,
}

impl Services {
    /// Starts both; the disk's hashes are computed once.
    pub(super) fn start(workload: &Workload) -> Result<Self> {
        let hashes = Hashes::of(&*workload.data());
        let plain = Service::start(workload, hashes.clone(), false)?;
        Ok(Self { plain, ranged: Service::start(workload, hashes, true)? })
    }
}

/// One service.
pub(super) struct Service {
    glance: EmbeddedGlance,
    cloud: Cloud,
    disk: String,
}

/// A new image whose record exists.
pub(super) struct NewTarget {
    pub(super) id: String,
    pub(super) sink: GlanceSink,
}

impl Service {
    fn start(workload: &Workload, hashes: Hashes, ranges: bool) -> Result<Self> {
        let upload_limit_bytes = workload.contents.data_cluster_bytes + SLACK_BYTES;
        let options = EmbeddedOptions { ranges, upload_limit_bytes, ..EmbeddedOptions::default() };
        let glance = EmbeddedGlance::start(options).map_err(|error| {
            Error::new(Stage::Plan, Kind::Local, "start the embedded Glance").because(error)
        })?;
        let disk = glance.seed(ImageSpec {
            name: "disk".into(),
            attributes: serde_json::Map::new(),
            hash: SeedHash::Known(hashes),
            data: workload.data(),
        });
        let token = glance.token().into();
        let cloud = Cloud::with_token(glance.endpoint(), token, &TlsOptions::default(), Stage::Plan)?;
        Ok(Self { glance, cloud, disk })
    }

    /// Looks the disk up and probes for ranges, as the command does.
    pub(super) fn source(&self, cancel: &Cancel) -> Result<GlanceSource> {
        let cloud = self.cloud.for_stage(Stage::Source);
        let image = wait(cancel, Stage::Source, cloud.show(&self.disk))?;
        let size = image.size.unwrap_or(0);
        let ranges = wait(cancel, Stage::Source, cloud.probe_range(&image.id, size))?;
        Ok(GlanceSource::new(cloud, image, ranges, CONNECTIONS, false))
    }

    /// Creates a record.
    pub(super) fn target(&self, disk_format: &str, queue_bytes: u64, cancel: &Cancel) -> Result<NewTarget> {
        let new = NewImage::private("made", disk_format);
        let cloud = self.cloud.for_stage(Stage::Sink);
        let created = wait(cancel, Stage::Sink, cloud.create(&new))?;
        let on_cancel = {
            let cancel = cancel.clone();
            Box::new(move |wake| Box::new(cancel.on_trigger(wake)) as Box<dyn std::any::Any + Send>)
        };
        let sink = GlanceSink::new(&cloud, &created.image, None, queue_bytes, Algorithm::Sha512, on_cancel);
        Ok(NewTarget { id: new.id, sink })
    }

    /// The data of an image that was made.
    pub(super) fn data(&self, id: &str) -> Result<std::sync::Arc<dyn ImageData>> {
        self.glance.data(id).ok_or_else(|| {
            Error::new(Stage::Sink, Kind::Target, "the embedded Glance does not have the new image")
        })
    }

    /// Deletes an image that was made, and forgets the requests so far: their memory is not the
    /// engine's.
    pub(super) fn forget(&self, id: &str, cancel: &Cancel) -> Result<()> {
        self.glance.clear_records();
        wait(cancel, Stage::Sink, self.cloud.delete(id)).map(drop)
    }
}

/// Runs a call to its end, unless a signal comes first.
fn wait<T>(cancel: &Cancel, stage: Stage, call: impl Future<Output = Result<T>>) -> Result<T> {
    let (wake, woken) = async_channel::bounded::<()>(1);
    let _guard = cancel.on_trigger(move || {
        wake.close();
    });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::new(stage, Kind::Local, "start the network runtime").because(error))?;
    runtime.block_on(async {
        tokio::select! {
            result = call => result,
            _ = woken.recv() => Err(cancel
                .check(stage)
                .err()
                .unwrap_or_else(|| Error::new(stage, Kind::Other, "stopped"))),
        }
    })
}
