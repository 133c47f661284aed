//! An image in Glance: one sequential download, or a moving window of ranges where the store reads
//! at random.

mod bytes;
mod in_order;
mod pace;
mod stripes;

use std::ops::Range;
use std::time::Duration;

use super::{Outlet, PROBE_BYTES, Source, Stopped, Wanted, image_format};
use crate::error::{Error, Kind, Result, Stage};
use crate::facts::{Access, SourceFacts};
use crate::hash::{Algorithm, Digest};
use crate::openstack::{Cloud, Download, Image};
use crate::retry::Attempts;

pub use bytes::{GlanceBytes, GlanceStream};

/// How long a second download may take to begin while an upload is open, before it is clear that
/// the service does not serve both at once.
const BEGIN_WHILE_UPLOADING: Duration = Duration::from_secs(30);

/// Connections for ranges, unless somebody asks for another number: a conversion is slower than two.
const CONNECTIONS: usize = 2;

/// An image that holds a raw disk.
#[derive(Debug)]
pub struct GlanceSource {
    cloud: Cloud,
    image: Image,
    size: u64,
    facts: SourceFacts,
    connections: usize,
    connections_while_uploading: usize,
    /// Whether its bytes are those of a disk, and not just any.
    is_disk: bool,
}

impl GlanceSource {
    /// An image that has been looked up. `ranges` tells whether a probe found that ranges work;
    /// `connections` is what the plan gives, `explicit` whether the user asked for that number.
    pub fn new(cloud: Cloud, image: Image, ranges: bool, connections: usize, explicit: bool) -> Self {
        let size = image.size.unwrap_or(0);
        let facts = SourceFacts {
            name: format!("image {}", image.label()),
            len: Some(size),
            access: if ranges { Access::Random } else { Access::Sequential },
            is_remote: true,
        };
        let connections_while_uploading = if explicit { connections } else { 1 };
        Self {
            cloud: cloud.for_stage(Stage::Source),
            image,
            size,
            facts,
            connections,
            connections_while_uploading,
            is_disk: true,
        }
    }

    /// Looks up the one image of that name or ID that has data, and finds out whether ranges of it can be read.
    ///
    /// # Errors
    /// [`Kind::Source`] if there is none, or more than one; what Glance refuses.
    pub async fn find(cloud: &Cloud, name_or_id: &str) -> Result<Self> {
        let mut found = cloud.find_images(name_or_id).await?;
        found.retain(|image| image.status == "active");
        let (Some(image), None) = (found.pop(), found.pop()) else {
            let what = format!("there is not one active image `{name_or_id}` in {}", cloud.label());
            return Err(Error::new(Stage::Source, Kind::Source, what).advise("name an image by its ID"));
        };
        let ranges = cloud.probe_range(&image.id, image.size.unwrap_or(0)).await?;
        Ok(Self::new(cloud.clone(), image, ranges, CONNECTIONS, false))
    }

    /// For whoever wants the image's bytes as they are, whatever its format.
    #[must_use]
    pub fn as_bytes(self) -> Self {
        Self { is_disk: false, ..self }
    }

    /// The hash that Glance keeps of the image, or why there is none to compare with.
    ///
    /// # Errors
    /// The reason, as a sentence.
    pub fn digest(&self) -> Result<Digest, String> {
        known_digest(&self.image)
            .ok_or_else(|| "Glance keeps no hash of it (as for snapshots that Ceph made directly)".into())
    }

    async fn read_image(&self, wanted: &Wanted, outlet: &mut Outlet) -> Result<u64> {
        match self.facts.access {
            Access::Random => self.read_stripes(wanted, outlet).await?,
            Access::Sequential | Access::Once => {
                let bits = outlet.cluster_size().bits();
                let end = wanted.end().saturating_mul(1 << bits).min(self.size);
                self.read_in_order(end, outlet).await?;
            }
        }
        Ok(self.size)
    }

    /// The image's disk_format rules; what its bytes look like is only worth a word.
    fn warn_of_magic(&self, head: &[u8]) {
        if self.is_disk
            && let Some(format) = image_format(&head[..head.len().min(PROBE_BYTES)])
        {
            tracing::warn!(
                "{} is raw by its record, but begins like a {format} image; taken as raw",
                self.facts.name
            );
        }
    }
}

impl Source for GlanceSource {
    fn facts(&self) -> &SourceFacts {
        &self.facts
    }

    fn read(&self, wanted: &Wanted, outlet: &mut Outlet) -> Result<u64> {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| {
                Error::new(Stage::Source, Kind::Local, "start the network runtime").because(error)
            })?;
        let stop = outlet.stop_signal();
        runtime.block_on(async {
            tokio::select! {
                result = self.read_image(wanted, outlet) => result,
                () = stop.wait() => Err(Stopped.into()),
            }
        })
    }
}

/// The best hash that Glance keeps of an image.
pub fn known_digest(image: &Image) -> Option<Digest> {
    let strong =
        image.os_hash_algo.as_deref().and_then(Algorithm::from_name).zip(image.os_hash_value.as_ref());
    let weak = image.checksum.as_ref().map(|hex| (Algorithm::Md5, hex));
    strong.or(weak).map(|(algorithm, hex)| Digest { algorithm, hex: hex.to_ascii_lowercase() })
}

/// Begins a download. While an upload is open the service may have nobody left to serve it, and both would
/// wait for each other: that is noticed here.
async fn begin(
    cloud: &Cloud,
    id: &str,
    range: Option<Range<u64>>,
    uploading: bool,
    attempts: &mut Attempts,
) -> Result<Download> {
    const ADVICE: &str = "give a larger --spool-disk or --memory, so that no second download is needed";
    if !uploading {
        return cloud.download_within(id, range, attempts).await;
    }
    loop {
        let mut once = Attempts::new(cloud.retry().once());
        let download = cloud.download_within(id, range.clone(), &mut once);
        let error = match tokio::time::timeout(BEGIN_WHILE_UPLOADING, download).await {
            Ok(Err(error)) if error.is_retryable() => error,
            Ok(answer) => return answer,
            Err(_) => {
                let what = format!(
                    "download image {id} while the upload is open: no answer for {} s; the service seems to serve one request at a time",
                    BEGIN_WHILE_UPLOADING.as_secs()
                );
                return Err(Error::new(Stage::Source, Kind::Network, what).advise(ADVICE));
            }
        };
        let Some(pause) = attempts.after_failure(once.asked()) else { return Err(error.advise(ADVICE)) };
        tracing::info!("{error}; trying again");
        tokio::time::sleep(pause).await;
    }
}
