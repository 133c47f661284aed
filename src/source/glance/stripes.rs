//! The download by ranges: a moving window of stripes, each read by a connection of its own.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use super::pace::Pace;
use super::{GlanceSource, begin};
use crate::buffers::Buffer;
use crate::error::{Error, Kind, Result, Stage};
use crate::flow::{CHUNK_BYTES, STRIPE_CHUNKS};
use crate::openstack::{Cloud, Download};
use crate::source::{Outlet, Stopped, Wanted};
use crate::units::ClusterIndex;

/// Tries for one stripe.
const STRIPE_TRIES: u32 = 5;

/// The buffers of a stripe with the number of bytes in each.
type Stripe = Vec<(Buffer, usize)>;

impl GlanceSource {
    /// A moving window of stripes: as many under way as [`Pace`] says, handed on in order.
    pub(super) async fn read_stripes(&self, wanted: &Wanted, outlet: &mut Outlet) -> Result<()> {
        let uploading = outlet.resume().is_some();
        let allowed = if uploading { self.connections_while_uploading } else { self.connections };
        let mut pace = Pace::new(allowed, self.cloud.refusals(), Instant::now());
        // A stripe that needs more buffers than its share of the pool would wait for ever.
        let chunks = (outlet.pool().count() / allowed).clamp(1, STRIPE_CHUNKS);
        let mut stripes = self.stripes(wanted, chunks, outlet.cluster_size().bits());
        let mut window: VecDeque<(u64, JoinHandle<Result<Stripe>>)> = VecDeque::new();
        loop {
            while window.len() < pace.connections() {
                let Some(stripe) = stripes.next() else { break };
                // Buffers are taken for whole stripes in order, so that the stripe everybody waits
                // for never lacks one.
                let mut buffers = Vec::new();
                for _ in 0..(stripe.end - stripe.start).div_ceil(CHUNK_BYTES as u64) {
                    buffers.push(outlet.pool().take_async().await.ok_or(Stopped)?);
                }
                let fetch =
                    fetch(self.cloud.clone(), self.image.id.clone(), stripe.clone(), buffers, uploading);
                window.push_back((stripe.start, tokio::spawn(fetch)));
            }
            let Some((start, stripe)) = window.pop_front() else { return Ok(()) };
            let stripe = stripe
                .await
                .map_err(|error| Error::new(Stage::Source, Kind::Other, "fetch a stripe").because(error))??;
            pace.stripe(
                stripe.iter().map(|(_, len)| *len as u64).sum(),
                self.cloud.refusals(),
                Instant::now(),
            );
            let mut first = start >> outlet.cluster_size().bits();
            for (buffer, len) in stripe {
                outlet.count_read(len as u64);
                if first == 0 {
                    self.warn_of_magic(&buffer[..len]);
                }
                let clusters = outlet.cluster_size().clusters_for(len as u64);
                outlet.data_async(ClusterIndex(first), buffer, len).await?;
                first += clusters;
            }
        }
    }

    fn stripes(&self, wanted: &Wanted, chunks: usize, bits: u32) -> impl Iterator<Item = Range<u64>> + use<> {
        let stripe = (chunks * CHUNK_BYTES) as u64;
        let size = self.size;
        let runs = match wanted {
            Wanted::All => std::iter::once(0..size).collect(),
            Wanted::Runs(runs) => {
                runs.iter().map(|run| run.start << bits..(run.end << bits).min(size)).collect::<Vec<_>>()
            }
        };
        runs.into_iter().flat_map(move |run| {
            (run.start..run.end).step_by(stripe as usize).map(move |start| start..run.end.min(start + stripe))
        })
    }
}

/// Reads one stripe into its buffers; a broken connection goes on where it broke.
async fn fetch(
    cloud: Cloud,
    id: String,
    stripe: Range<u64>,
    buffers: Vec<Buffer>,
    uploading: bool,
) -> Result<Stripe> {
    let mut filling = Filling { buffers, filled: 0 };
    let total = stripe.end - stripe.start;
    let mut tries = 0;
    while (filling.filled as u64) < total {
        let from = stripe.start + filling.filled as u64;
        let Err(error) = fetch_part(&cloud, &id, from..stripe.end, &mut filling, uploading).await else {
            continue;
        };
        tries += 1;
        if !error.is_retryable() || tries >= STRIPE_TRIES {
            return Err(error);
        }
        tracing::info!("{error}; trying again from byte {}", stripe.start + filling.filled as u64);
        tokio::time::sleep(Duration::from_millis(200 << tries)).await;
    }
    let lens =
        (0..filling.buffers.len()).map(|index| (filling.filled - index * CHUNK_BYTES).min(CHUNK_BYTES));
    let lens: Vec<_> = lens.collect();
    Ok(filling.buffers.into_iter().zip(lens).collect())
}

struct Filling {
    buffers: Vec<Buffer>,
    filled: usize,
}

async fn fetch_part(
    cloud: &Cloud,
    id: &str,
    range: Range<u64>,
    filling: &mut Filling,
    uploading: bool,
) -> Result<()> {
    let Download::Part(mut body) = begin(cloud, id, Some(range.clone()), uploading).await? else {
        let what = format!(
            "bytes {} to {} of image {id} were not served as asked, though a probe was",
            range.start,
            range.end - 1
        );
        return Err(Error::new(Stage::Source, Kind::Network, what)
            .advise("run this again; the endpoints behind the service seem to differ"));
    };
    while let Some(frame) = body.next().await? {
        let mut rest: &[u8] = &frame;
        while !rest.is_empty() {
            let (index, at) = (filling.filled / CHUNK_BYTES, filling.filled % CHUNK_BYTES);
            let take = rest.len().min(CHUNK_BYTES - at);
            let Some(buffer) = filling.buffers.get_mut(index) else {
                return Err(Error::new(
                    Stage::Source,
                    Kind::Network,
                    format!("image {id}: more came than was asked for"),
                ));
            };
            buffer[at..at + take].copy_from_slice(&rest[..take]);
            filling.filled += take;
            rest = &rest[take..];
        }
    }
    Ok(())
}
