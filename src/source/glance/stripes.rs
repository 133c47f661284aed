//! The download by ranges: a moving window of stripes, each read by a connection of its own.
//!
//! The first stripe of the window is handed on as it comes; the others fill at most their share of the
//! buffers and wait for their turn. So a stripe can be much longer than what it may hold in memory, which
//! matters: every range costs the service about as much as a few megabytes of data.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::Instant;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::pace::Pace;
use super::{GlanceSource, begin};
use crate::buffers::Pool;
use crate::error::{Error, Kind, Result, Stage};
use crate::flow::{CHUNK_BYTES, STRIPE_CHUNKS};
use crate::openstack::{Cloud, Download};
use crate::retry::Attempts;
use crate::source::{Gather, Gathered, Outlet, Stopped, Wanted};
use crate::units::ClusterIndex;

/// A stripe under way.
struct Stripe {
    start: u64,
    chunks: mpsc::Receiver<Gathered>,
    fetching: JoinHandle<Result<()>>,
}

impl GlanceSource {
    /// A moving window of stripes: as many under way as [`Pace`] says, handed on in order.
    pub(super) async fn read_stripes(&self, wanted: &Wanted, outlet: &mut Outlet) -> Result<()> {
        let uploading = outlet.resume().is_some();
        let asked = if uploading { self.connections_while_uploading } else { self.connections };
        // Were all buffers held by stripes whose turn has not come, nobody would move.
        let allowed = asked.min(outlet.pool().count() / 2).max(1);
        let share = (outlet.pool().count() / allowed).clamp(2, STRIPE_CHUNKS);
        let is_zero = outlet.is_zero();
        let mut pace = Pace::new(allowed, self.cloud.refusals(), Instant::now());
        let mut ahead = self.runs(wanted, outlet.cluster_size().bits());
        let mut window: VecDeque<Stripe> = VecDeque::new();
        let mut top_up = |window: &mut VecDeque<Stripe>, under_way: usize, pace: &Pace, pool: &Pool| {
            while window.len() + under_way < pace.connections() {
                let Some(stripe) = next_stripe(&mut ahead, pace.stripe_bytes()) else { break };
                window.push_back(self.spawn(stripe, share, Gather::new(is_zero), pool.clone(), uploading));
            }
        };
        loop {
            top_up(&mut window, 0, &pace, outlet.pool());
            let Some(mut stripe) = window.pop_front() else { return Ok(()) };
            let mut first = stripe.start >> outlet.cluster_size().bits();
            let mut bytes = 0;
            while let Some(chunk) = stripe.chunks.recv().await {
                let len = chunk.len;
                // A connection that has brought its last byte is free for another stripe.
                top_up(&mut window, usize::from(!stripe.fetching.is_finished()), &pace, outlet.pool());
                outlet.count_read(len as u64);
                if first == 0
                    && let Some(bytes) = &chunk.bytes
                {
                    self.warn_of_magic(&bytes[..len]);
                }
                let clusters = outlet.cluster_size().clusters_for(len as u64);
                outlet.gathered(ClusterIndex(first), chunk).await?;
                first += clusters;
                bytes += len as u64;
            }
            let fetched = stripe.fetching.await;
            fetched
                .map_err(|error| Error::new(Stage::Source, Kind::Other, "fetch a stripe").because(error))??;
            pace.stripe(bytes, self.cloud.refusals(), Instant::now());
        }
    }

    /// The byte ranges that are wanted.
    fn runs(&self, wanted: &Wanted, bits: u32) -> VecDeque<Range<u64>> {
        match wanted {
            Wanted::All => std::iter::once(0..self.size).collect(),
            Wanted::Runs(runs) => {
                runs.iter().map(|run| run.start << bits..(run.end << bits).min(self.size)).collect()
            }
        }
    }

    fn spawn(&self, stripe: Range<u64>, share: usize, gather: Gather, pool: Pool, uploading: bool) -> Stripe {
        // One more buffer is being filled, or waits for room here.
        let (to, chunks) = mpsc::channel(share - 1);
        let start = stripe.start;
        let filling = Filling { pool, to, gather, at: start, end: stripe.end };
        let fetching = tokio::spawn(fetch(self.cloud.clone(), self.image.id.clone(), filling, uploading));
        Stripe { start, chunks, fetching }
    }
}

/// Cuts the next stripe off what is ahead.
fn next_stripe(ahead: &mut VecDeque<Range<u64>>, bytes: u64) -> Option<Range<u64>> {
    while ahead.front()?.is_empty() {
        ahead.pop_front();
    }
    let run = ahead.front_mut()?;
    let stripe = run.start..run.end.min(run.start + bytes);
    run.start = stripe.end;
    Some(stripe)
}

/// Reads one stripe; a broken connection goes on where it broke.
async fn fetch(cloud: Cloud, id: String, mut filling: Filling, uploading: bool) -> Result<()> {
    let mut attempts = Attempts::new(cloud.retry());
    while filling.at < filling.end {
        let from = filling.at;
        let fetched = fetch_part(&cloud, &id, &mut filling, uploading, &mut attempts).await;
        let Err(error) = fetched else { continue };
        if !error.is_retryable() {
            return Err(error);
        }
        if filling.at - from >= CHUNK_BYTES as u64 {
            attempts.progressed();
        }
        let Some(pause) = attempts.after_failure(None) else { return Err(error) };
        tracing::info!("{error}; trying again from byte {}", filling.at);
        tokio::time::sleep(pause).await;
    }
    Ok(())
}

async fn fetch_part(
    cloud: &Cloud,
    id: &str,
    filling: &mut Filling,
    uploading: bool,
    attempts: &mut Attempts,
) -> Result<()> {
    let range = filling.at..filling.end;
    let Download::Part(mut body) = begin(cloud, id, Some(range.clone()), uploading, attempts).await? else {
        let what = format!(
            "bytes {} to {} of image {id} were not served as asked, though a probe was",
            range.start,
            range.end - 1
        );
        return Err(Error::new(Stage::Source, Kind::Network, what)
            .advise("run this again; the endpoints behind the service seem to differ"));
    };
    while let Some(frame) = body.next().await? {
        if frame.len() as u64 > filling.end - filling.at {
            let what = format!("image {id}: more came than was asked for");
            return Err(Error::new(Stage::Source, Kind::Network, what));
        }
        filling.push(&frame).await?;
    }
    Ok(())
}

/// The stripe's end of a [`Stripe`]: gathers bytes.
struct Filling {
    pool: Pool,
    to: mpsc::Sender<Gathered>,
    gather: Gather,
    at: u64,
    end: u64,
}

impl Filling {
    async fn push(&mut self, mut bytes: &[u8]) -> Result<(), Stopped> {
        while !bytes.is_empty() {
            let Some(taken) = self.gather.push(bytes) else {
                self.gather.give_buffer(self.pool.take_async().await.ok_or(Stopped)?);
                continue;
            };
            self.at += taken as u64;
            bytes = &bytes[taken..];
            if self.gather.is_full() || self.at == self.end {
                self.to.send(self.gather.take()).await.map_err(|_| Stopped)?;
            }
        }
        Ok(())
    }
}
