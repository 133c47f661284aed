//! The download from byte 0 on, for stores that do not read at random.
//!
//! It may end before its end: on purpose, to let an upload catch up, or because it broke. What has been handed
//! on is never handed on twice. After a break the rest alone is asked for, once; where the store refuses that,
//! the image is read from its beginning again, and what is skipped on the way must have the CRC-32 of what was
//! there before.

use std::pin::pin;
use std::time::{Duration, Instant};

use super::{GlanceSource, begin};
use crate::error::{Error, Kind, Result, Stage};
use crate::flow::CHUNK_BYTES;
use crate::openstack::{Body, Download};
use crate::retry::Attempts;
use crate::source::{Assembler, Outlet, Stopped};
use crate::units::ClusterIndex;

/// A download that has to wait this long for one chunk's room would fall below 2 MiB/s, at which a
/// service may cut it: better to hang up in good order.
const PATIENCE: Duration = Duration::from_millis(900);
/// A service that has waited for us for so long does not cut slow readers.
const STEADY: Duration = Duration::from_secs(30);
const TOO_SLOW: &str = "this machine encodes more slowly than the bytes come, and services cut slow readers: give a lower --level or more --threads";

/// How far a reading has come, over all its connections.
struct Reading {
    assembler: Assembler,
    /// Bytes handed on.
    done: u64,
    /// Their CRC-32.
    seen: crc32fast::Hasher,
    /// Whether to ask for the rest alone after a break.
    asks_for_rest: bool,
    /// Whether this connection brought anything, be it to be skipped.
    came: bool,
    /// Whether the bytes of this connection waited for us, and not the other way round, and it did not live long.
    slow: bool,
    /// Whether any connection was.
    was_slow: bool,
}

/// How a connection ended.
enum Ended {
    Complete,
    HungUp,
}

impl GlanceSource {
    /// Everything from byte 0 to `end`.
    pub(super) async fn read_in_order(&self, end: u64, outlet: &mut Outlet) -> Result<()> {
        let mut reading = Reading {
            assembler: Assembler::new(ClusterIndex(0), outlet),
            done: 0,
            seen: crc32fast::Hasher::new(),
            asks_for_rest: true,
            came: false,
            slow: false,
            was_slow: false,
        };
        let mut attempts = Attempts::new(self.cloud.retry());
        while reading.done < end {
            let before = reading.done;
            let error = match self.read_on(&mut reading, end, outlet, &mut attempts).await {
                Ok(Ended::Complete) => break,
                Ok(Ended::HungUp) => {
                    tracing::info!(
                        "{}: closed the download at {} to let the upload catch up",
                        self.facts.name,
                        reading.done
                    );
                    wait_for_room(outlet).await?;
                    continue;
                }
                Err(error) => error,
            };
            if !error.is_retryable() {
                return Err(error);
            }
            if reading.done >= end {
                break;
            }
            reading.was_slow |= reading.slow;
            // Who was cut for being slow will be cut again: that is no progress to rely on.
            if reading.done - before >= CHUNK_BYTES as u64 && !reading.slow {
                attempts.progressed();
            } else if reading.came {
                // The way back to where it broke may take longer than all tries together.
                attempts.alive();
            }
            let Some(pause) = attempts.after_failure(None) else {
                return Err(if reading.was_slow { error.advise(TOO_SLOW) } else { error });
            };
            tracing::info!("{error}; trying again from byte {}", reading.done);
            tokio::time::sleep(pause).await;
        }
        Ok(reading.assembler.flush(outlet).await?)
    }

    /// One connection: skips what has been handed on, hands on what is new.
    async fn read_on(
        &self,
        reading: &mut Reading,
        end: u64,
        outlet: &mut Outlet,
        attempts: &mut Attempts,
    ) -> Result<Ended> {
        (reading.came, reading.slow) = (false, false);
        let (mut body, mut at) = self.open(reading, outlet, attempts).await?;
        // What is skipped on the way back is no work of ours, and says nothing of our speed.
        let (opened, mut fresh_since, mut waited) = (Instant::now(), None, Duration::ZERO);
        let mut again = crc32fast::Hasher::new();
        while reading.done < end {
            let Some(frame) = body.next().await? else { return Err(self.wrong_length(at)) };
            if at + frame.len() as u64 > self.size {
                return Err(self.wrong_length(at + frame.len() as u64));
            }
            outlet.count_read(frame.len() as u64);
            reading.came = true;
            if reading.done == 0 {
                self.warn_of_magic(&frame);
            }
            let skip = reading.done.saturating_sub(at).min(frame.len() as u64) as usize;
            if skip > 0 {
                again.update(&frame[..skip]);
                let all_skipped = at + skip as u64 == reading.done;
                if all_skipped && again.clone().finalize() != reading.seen.clone().finalize() {
                    return Err(self.changed_before(reading.done));
                }
            }
            let fresh = &frame[skip..(frame.len() as u64).min(end - at) as usize];
            at += frame.len() as u64;
            if fresh.is_empty() {
                continue;
            }
            reading.seen.update(fresh);
            reading.done += fresh.len() as u64;
            let begin = Instant::now();
            let fresh_since = *fresh_since.get_or_insert(begin);
            if hand_on(&mut reading.assembler, fresh, outlet, &mut body).await? {
                return Ok(Ended::HungUp);
            }
            waited += begin.elapsed();
            reading.slow = opened.elapsed() < STEADY && waited > fresh_since.elapsed() / 2;
        }
        // Where the service did not announce a length, only the end of the body tells it.
        if reading.done == self.size
            && let Some(more) = body.next().await?
        {
            return Err(self.wrong_length(reading.done + more.len() as u64));
        }
        Ok(Ended::Complete)
    }

    /// A body, and where it begins: at what has been handed on, or at byte 0.
    async fn open(
        &self,
        reading: &mut Reading,
        outlet: &Outlet,
        attempts: &mut Attempts,
    ) -> Result<(Body, u64)> {
        let uploading = outlet.resume().is_some();
        if attempts.failures() > 0 && reading.done > 0 && reading.asks_for_rest {
            let rest = Some(reading.done..self.size);
            if let Download::Part(body) =
                begin(&self.cloud, &self.image.id, rest, uploading, attempts).await?
            {
                return Ok((body, reading.done));
            }
            reading.asks_for_rest = false;
        }
        match begin(&self.cloud, &self.image.id, None, uploading, attempts).await? {
            Download::Whole(body) if body.announced().is_none_or(|len| len == self.size) => Ok((body, 0)),
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

    fn changed_before(&self, offset: u64) -> Error {
        let what = format!(
            "{} changed between two downloads: its first {offset} bytes are not what they were",
            self.facts.name
        );
        Error::new(Stage::Source, Kind::SourceChanged, what)
            .advise("run this again; if it happens again, the stored image is damaged")
    }
}

/// Hands bytes on. Where the source may hang up and has to wait too long, its connection is closed here, in
/// good order, before the service cuts it: `true`.
async fn hand_on(
    assembler: &mut Assembler,
    bytes: &[u8],
    outlet: &mut Outlet,
    body: &mut Body,
) -> Result<bool, Stopped> {
    let may_hang_up = outlet.resume().is_some();
    let mut push = pin!(assembler.push(bytes, outlet));
    if !may_hang_up {
        push.await?;
        return Ok(false);
    }
    match tokio::time::timeout(PATIENCE, &mut push).await {
        Ok(pushed) => pushed.map(|()| false),
        Err(_) => {
            body.close();
            push.await.map(|()| true)
        }
    }
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
