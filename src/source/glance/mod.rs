//! An image in Glance: one sequential download, or a moving window of ranges where the store reads
//! at random.

mod bytes;
mod pace;
mod stripes;

use std::ops::Range;
use std::pin::pin;
use std::time::{Duration, Instant};

use super::{Assembler, Outlet, PROBE_BYTES, Source, Stopped, Wanted, image_format};
use crate::error::{Error, Kind, Result, Stage};
use crate::facts::{Access, SourceFacts};
use crate::hash::{Algorithm, Digest};
use crate::openstack::{Body, Cloud, Download, Image};
use crate::units::ClusterIndex;

pub use bytes::{GlanceBytes, GlanceStream};

/// A download that has to wait this long for one chunk's room would fall below 2 MiB/s, at which a
/// service may cut it: better to hang up in good order.
const PATIENCE: Duration = Duration::from_millis(900);
/// How long a second download may take to begin while an upload is open, before it is clear that
/// the service does not serve both at once.
const BEGIN_WHILE_UPLOADING: Duration = Duration::from_secs(30);
const TOO_SLOW: &str = "this machine encodes more slowly than the bytes come, and services cut slow readers: give a lower --level or more --threads";
/// An image that holds a raw disk.
#[derive(Debug)]
pub struct GlanceSource {
    cloud: Cloud,
    image: Image,
    size: u64,
    facts: SourceFacts,
    connections: usize,
    connections_while_uploading: usize,
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
        }
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

    /// Everything from byte 0 to `end`. Hangs up and comes back if it may and has to.
    async fn read_in_order(&self, end: u64, outlet: &mut Outlet) -> Result<()> {
        let mut assembler = Assembler::new(ClusterIndex(0), outlet);
        let mut done = 0;
        while done < end {
            let mut body = self.open(outlet).await?;
            let (opened, mut waited) = (Instant::now(), Duration::ZERO);
            let mut at = 0;
            let mut hung_up = false;
            while !hung_up && done < end {
                let next = body.next().await;
                let Some(frame) = next.map_err(|error| {
                    // It was us whom the bytes waited for, and not the other way round.
                    if waited > opened.elapsed() / 2 { error.advise(TOO_SLOW) } else { error }
                })?
                else {
                    break;
                };
                if at + frame.len() as u64 > self.size {
                    return Err(self.wrong_length(at + frame.len() as u64));
                }
                outlet.count_read(frame.len() as u64);
                let begin = at;
                if done == 0 {
                    self.warn_of_magic(&frame);
                }
                at += frame.len() as u64;
                if at <= done {
                    continue;
                }
                let fresh = &frame[(done - begin) as usize..(end.min(at) - begin) as usize];
                done += fresh.len() as u64;
                let may_hang_up = outlet.resume().is_some();
                let mut push = pin!(assembler.push(fresh, outlet));
                if !may_hang_up {
                    let begin = Instant::now();
                    push.await?;
                    waited += begin.elapsed();
                } else if let Ok(pushed) = tokio::time::timeout(PATIENCE, &mut push).await {
                    pushed?;
                } else {
                    hung_up = true;
                    // Closed here, in good order, before the service cuts it.
                    body = body.closed();
                    push.await?;
                }
            }
            if done < end && !hung_up {
                return Err(self.wrong_length(done));
            }
            // Where the service did not announce a length, only the end of the body tells it.
            if done == self.size
                && let Some(more) = body.next().await?
            {
                return Err(self.wrong_length(done + more.len() as u64));
            }
            if hung_up && done < end {
                tracing::info!(
                    "{}: closed the download at {done} to let the upload catch up",
                    self.facts.name
                );
                wait_for_room(outlet).await?;
            }
        }
        Ok(assembler.flush(outlet).await?)
    }

    /// The image's disk_format rules; what its bytes look like is only worth a word.
    fn warn_of_magic(&self, head: &[u8]) {
        if let Some(format) = image_format(&head[..head.len().min(PROBE_BYTES)]) {
            tracing::warn!(
                "{} is raw by its record, but begins like a {format} image; taken as raw",
                self.facts.name
            );
        }
    }

    async fn open(&self, outlet: &Outlet) -> Result<Body> {
        match begin(&self.cloud, &self.image.id, None, outlet.resume().is_some()).await? {
            Download::Whole(body) if body.announced().is_none_or(|len| len == self.size) => Ok(body),
            Download::Whole(body) => Err(self.wrong_length(body.announced().unwrap_or(0))),
            Download::Part(_) | Download::NoRange | Download::NoData => Err(Error::new(
                Stage::Source,
                Kind::Source,
                format!("download {}: Glance answers that it has no data", self.facts.name),
            )
            .advise("look at it with `openstack image show`; an image that is still queued has none")),
        }
    }

    fn wrong_length(&self, found: u64) -> Error {
        let what =
            format!("{} has {} bytes by its record, but {found} were sent", self.facts.name, self.size);
        Error::new(Stage::Source, Kind::SourceChanged, what)
            .advise("run this again; if it happens again, the stored image is damaged")
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

async fn wait_for_room(outlet: &Outlet) -> Result<(), Stopped> {
    while outlet.resume().is_some_and(|room| !room()) {
        if outlet.is_stopped() {
            return Err(Stopped);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

/// Begins a download. While an upload is open the service may have nobody left to serve it, and both would
/// wait for each other: that is noticed here.
async fn begin(cloud: &Cloud, id: &str, range: Option<Range<u64>>, uploading: bool) -> Result<Download> {
    const ADVICE: &str = "give a larger --spool-disk or --memory, so that no second download is needed";
    let download = cloud.download(id, range);
    if !uploading {
        return download.await;
    }
    match tokio::time::timeout(BEGIN_WHILE_UPLOADING, download).await {
        Ok(Err(error)) if error.is_retryable() => Err(error.advise(ADVICE)),
        Ok(answer) => answer,
        Err(_) => {
            let what = format!(
                "download image {id} while the upload is open: no answer for {} s; the service seems to serve one request at a time",
                BEGIN_WHILE_UPLOADING.as_secs()
            );
            Err(Error::new(Stage::Source, Kind::Network, what).advise(ADVICE))
        }
    }
}
