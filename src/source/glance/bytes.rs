//! An image in Glance as bytes for whoever reads no disk but a file: at any place, where the store serves
//! ranges, or from its beginning.

use std::collections::VecDeque;
use std::io::Read;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::runtime::Runtime;

use crate::error::{Error, Kind, Result, Stage};
use crate::flow::ReadAt;
use crate::openstack::{Body, Cloud, Download, Image};
use crate::retry::Attempts;

/// Ranges begin at multiples of this, in bytes.
const ALIGNMENT: u64 = 64 << 10;
/// Length of a range whose neighbours were not asked for, in bytes.
const SMALLEST_WINDOW: u64 = 256 << 10;
/// Length of a range at most, in bytes: whoever reads on and on gets larger ones.
const LARGEST_WINDOW: u64 = 4 << 20;
/// Ranges that are kept: at most 48 MiB.
const WINDOWS: usize = 12;

/// An image whose store serves ranges. What was read last is kept, so that small reads next to each other are
/// one request.
#[derive(Debug)]
pub struct GlanceBytes {
    cloud: Cloud,
    id: String,
    len: u64,
    /// One for each thread that waits for bytes.
    runtimes: Mutex<Vec<Runtime>>,
    windows: Mutex<VecDeque<Window>>,
}

#[derive(Clone, Debug)]
struct Window {
    start: u64,
    bytes: Arc<Vec<u8>>,
}

impl Window {
    fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }

    fn holds(&self, offset: u64) -> bool {
        (self.start..self.end()).contains(&offset)
    }
}

impl GlanceBytes {
    /// An image that has been looked up and whose ranges have been probed.
    pub fn new(cloud: &Cloud, image: &Image) -> Self {
        Self {
            cloud: cloud.for_stage(Stage::Source),
            id: image.id.clone(),
            len: image.size.unwrap_or(0),
            runtimes: Mutex::default(),
            windows: Mutex::default(),
        }
    }

    /// The window that holds the byte at `offset`.
    fn window(&self, offset: u64) -> Result<Window> {
        let (start, len) = {
            let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(at) = windows.iter().position(|window| window.holds(offset))
                && let Some(found) = windows.remove(at)
            {
                windows.push_back(found.clone());
                return Ok(found);
            }
            let start = offset / ALIGNMENT * ALIGNMENT;
            let before = windows.iter().find(|window| window.end() == start);
            let len = before.map_or(SMALLEST_WINDOW, |before| before.bytes.len() as u64 * 2);
            (start, len.min(LARGEST_WINDOW).min(self.len - start))
        };
        let bytes = Arc::new(self.fetch(start, len)?);
        let window = Window { start, bytes };
        let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        if windows.len() >= WINDOWS {
            windows.pop_front();
        }
        windows.push_back(window.clone());
        Ok(window)
    }

    fn fetch(&self, start: u64, len: u64) -> Result<Vec<u8>> {
        let idle = self.runtimes.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let runtime = idle.map_or_else(runtime, Ok)?;
        let fetched = runtime.block_on(async {
            let mut bytes = Vec::with_capacity(len as usize);
            let mut attempts = Attempts::new(self.cloud.retry());
            while (bytes.len() as u64) < len {
                let before = bytes.len();
                let Err(error) = self.fetch_part(start, len, &mut bytes).await else { continue };
                if bytes.len() > before {
                    attempts.progressed();
                }
                pause(&mut attempts, error).await?;
            }
            Ok(bytes)
        });
        self.runtimes.lock().unwrap_or_else(PoisonError::into_inner).push(runtime);
        fetched
    }

    async fn fetch_part(&self, start: u64, len: u64, bytes: &mut Vec<u8>) -> Result<()> {
        let range = start + bytes.len() as u64..start + len;
        let Download::Part(mut body) = self.cloud.download(&self.id, Some(range.clone())).await? else {
            let what = format!(
                "bytes {} to {} of image {} were not served as asked, though a probe was",
                range.start,
                range.end - 1,
                self.id
            );
            return Err(Error::new(Stage::Source, Kind::Network, what)
                .advise("run this again; the endpoints behind the service seem to differ"));
        };
        while let Some(frame) = body.next().await? {
            if (bytes.len() + frame.len()) as u64 > len {
                let what = format!("image {}: more came than was asked for", self.id);
                return Err(Error::new(Stage::Source, Kind::Network, what));
            }
            bytes.extend_from_slice(&frame);
        }
        Ok(())
    }
}

impl ReadAt for GlanceBytes {
    fn read_at(&self, mut bytes: &mut [u8], mut offset: u64) -> Result<()> {
        while !bytes.is_empty() {
            if offset >= self.len {
                let what = format!("image {} has {} bytes, none at {offset}", self.id, self.len);
                return Err(Error::new(Stage::Source, Kind::Source, what));
            }
            let window = self.window(offset)?;
            let from = (offset - window.start) as usize;
            let take = (window.bytes.len() - from).min(bytes.len());
            bytes[..take].copy_from_slice(&window.bytes[from..from + take]);
            bytes = &mut bytes[take..];
            offset += take as u64;
        }
        Ok(())
    }
}

/// An image from its beginning to its end. A download that breaks begins anew; what is skipped up to where it was
/// must have the CRC-32 of what was there before.
pub struct GlanceStream {
    cloud: Cloud,
    id: String,
    runtime: Runtime,
    body: Option<Body>,
    /// What came and was not yet taken.
    frame: Bytes,
    /// Bytes that were taken.
    done: u64,
    /// CRC-32 of the bytes that were given in frames: those that were taken, when the next frame is wanted.
    seen: crc32fast::Hasher,
    /// Bytes of this download, taken or skipped.
    at: u64,
    /// CRC-32 of those that were skipped.
    again: crc32fast::Hasher,
    attempts: Attempts,
}

impl GlanceStream {
    /// An image that has been looked up.
    ///
    /// # Errors
    /// [`Kind::Local`] if there is no network runtime to be had.
    pub fn new(cloud: &Cloud, image: &Image) -> Result<Self> {
        let (cloud, id) = (cloud.for_stage(Stage::Source), image.id.clone());
        let (seen, again) = (crc32fast::Hasher::new(), crc32fast::Hasher::new());
        let (runtime, attempts) = (runtime()?, Attempts::new(cloud.retry()));
        let (body, frame) = (None, Bytes::new());
        Ok(Self { cloud, id, runtime, body, frame, done: 0, seen, at: 0, again, attempts })
    }

    /// The next bytes; none at the end.
    fn next(&mut self) -> Result<Bytes> {
        let (cloud, id, done) = (&self.cloud, &self.id, self.done);
        let (body, at, attempts) = (&mut self.body, &mut self.at, &mut self.attempts);
        let (seen, again) = (&mut self.seen, &mut self.again);
        self.runtime.block_on(async {
            loop {
                if body.is_none() {
                    (*at, *again) = (0, crc32fast::Hasher::new());
                }
                let frame = match next_frame(cloud, id, body).await {
                    Ok(Some(frame)) => frame,
                    Ok(None) => return Ok(Bytes::new()),
                    Err(error) => {
                        *body = None;
                        if *at > 0 {
                            // The way back to where it broke may take longer than all tries together.
                            attempts.alive();
                        }
                        pause(attempts, error).await?;
                        continue;
                    }
                };
                let skip = done.saturating_sub(*at).min(frame.len() as u64) as usize;
                *at += frame.len() as u64;
                if skip > 0 {
                    again.update(&frame[..skip]);
                    if *at >= done && again.clone().finalize() != seen.clone().finalize() {
                        return Err(changed_before(id, done));
                    }
                }
                if skip < frame.len() {
                    attempts.progressed();
                    seen.update(&frame[skip..]);
                    return Ok(frame.slice(skip..));
                }
            }
        })
    }
}

impl Read for GlanceStream {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        if self.frame.is_empty() && !out.is_empty() {
            self.frame = self.next().map_err(std::io::Error::other)?;
        }
        let take = self.frame.len().min(out.len());
        out[..take].copy_from_slice(&self.frame.split_to(take));
        self.done += take as u64;
        Ok(take)
    }
}

impl std::fmt::Debug for GlanceStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "GlanceStream({}, at {})", self.id, self.done)
    }
}

fn changed_before(id: &str, offset: u64) -> Error {
    let what =
        format!("image {id} changed between two downloads: its first {offset} bytes are not what they were");
    Error::new(Stage::Source, Kind::SourceChanged, what)
        .advise("run this again; if it happens again, the stored image is damaged")
}

/// The next frame of a download, which is begun if need be; `None` at its end.
async fn next_frame(cloud: &Cloud, id: &str, body: &mut Option<Body>) -> Result<Option<Bytes>> {
    if body.is_none() {
        *body = match cloud.download(id, None).await? {
            Download::Whole(body) => Some(body),
            _ => {
                let what = format!("download image {id}: Glance answers that it has no data");
                return Err(Error::new(Stage::Source, Kind::Source, what));
            }
        };
    }
    match body {
        Some(body) => body.next().await,
        None => Ok(None),
    }
}

/// Waits before the next try, or gives up.
async fn pause(attempts: &mut Attempts, error: Error) -> Result<()> {
    if !error.is_retryable() {
        return Err(error);
    }
    let Some(pause) = attempts.after_failure(None) else { return Err(error) };
    tracing::info!("{error}; trying again");
    tokio::time::sleep(pause).await;
    Ok(())
}

fn runtime() -> Result<Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::new(Stage::Source, Kind::Local, "start the network runtime").because(error))
}
