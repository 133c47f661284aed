//! A new image in Glance: one PUT of exactly the announced length, verified by the hash that Glance
//! computes, taken back if anything fails.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;

use super::queue::{End, Queue};
use super::{Delivered, Delivery, InOrder, Produce};
use crate::error::{Error, Kind, Result, Stage};
use crate::facts::{SinkFacts, SinkOrder};
use crate::flow::Room;
use crate::hash::{Algorithm, Digest, Hasher};
use crate::openstack::{Cloud, Deleted, Image, Settled, Upload};
use crate::retry::{Attempts, Retry};

/// Registers something that is called when the run is ended from outside; what it gives back keeps
/// the registration alive.
pub type OnCancel = Box<dyn Fn(Box<dyn Fn() + Send>) -> Box<dyn std::any::Any + Send> + Send>;

/// An image whose record exists and whose data is to come.
pub struct GlanceSink {
    cloud: Cloud,
    id: String,
    store: Option<String>,
    facts: SinkFacts,
    queue_bytes: u64,
    likely: Algorithm,
    on_cancel: OnCancel,
    /// Whether the image is not to be taken back (any more).
    keep: bool,
    /// The image, where an earlier run has sent it already.
    arrived: Option<Box<Image>>,
    /// Whether that one has been compared.
    compared: bool,
}

/// Why an upload has to be sent again, and the pause that the service asked for.
type Again = (Error, Option<Duration>);

/// How long a failed run tries to take its image back: whoever interrupts waits for it, and Ceph may take minutes.
const TAKING_BACK: Duration = Duration::from_secs(300);

impl GlanceSink {
    /// Takes over a record that has just been created; from now on it is deleted on failure.
    ///
    /// `likely` is the hash that this Glance probably keeps; if it turns out to keep another one,
    /// the bytes are produced once more for that.
    pub fn new(
        cloud: &Cloud,
        created: &Image,
        store: Option<String>,
        queue_bytes: u64,
        likely: Algorithm,
        on_cancel: OnCancel,
    ) -> Self {
        let facts = SinkFacts { name: format!("image {}", created.label()), order: SinkOrder::InOrder };
        let cloud = cloud.for_stage(Stage::Sink);
        Self {
            cloud,
            id: created.id.clone(),
            store,
            facts,
            queue_bytes,
            likely,
            on_cancel,
            keep: false,
            arrived: None,
            compared: false,
        }
    }

    /// Takes over an image that an earlier run has sent to its end: it is only compared, and never deleted, for
    /// somebody may use it already.
    #[must_use]
    pub fn arrived(mut self, image: Image) -> Self {
        self.keep = true;
        self.arrived = Some(Box::new(image));
        self
    }

    /// One PUT. What is inside otherwise is the reason why it must be sent again.
    fn attempt(
        &self,
        len: u64,
        attempts: &mut Attempts,
        produce: Produce<'_>,
    ) -> Result<Result<(Digest, Image), Again>> {
        let queue = Queue::new(self.queue_bytes);
        let breaker = queue.clone();
        let _registration = (self.on_cancel)(Box::new(move || breaker.end(End::Broken)));
        let upload = self.spawn_upload(len, queue.clone())?;
        let mut sink = Uploading { queue: queue.clone(), hasher: Hasher::new(self.likely) };
        let produced = produce(&mut sink);
        let digest = sink.hasher.finish();
        queue.end(if produced.is_ok() { End::Complete } else { End::Broken });
        let outcome =
            upload.join().map_err(|_| Error::new(Stage::Sink, Kind::Other, "the upload thread panicked"))?;
        if queue.taken() > 0 {
            attempts.alive();
        }
        match (produced, outcome) {
            // The engine failed for a reason of its own; the upload broke because of that.
            (Err(error), _) if !is_hang_up(&error) => Err(error),
            (_, Upload::Refused(error)) => Err(error),
            (Ok(()), Upload::Done) => Ok(Ok((digest, self.settled()?.ok_or_else(|| self.lost_again())?))),
            (Err(error), Upload::Done) => Err(error),
            (produced, Upload::Lost(error, asked)) => {
                tracing::warn!("{error}; asking Glance what became of it");
                match self.settled()? {
                    Some(image) if produced.is_ok() => Ok(Ok((digest, image))),
                    Some(_) => Err(error),
                    None => Ok(Err((error, asked))),
                }
            }
        }
    }

    fn lost_again(&self) -> Error {
        Error::new(
            Stage::Sink,
            Kind::Network,
            format!("{} is queued again although Glance took its data", self.facts.name),
        )
    }

    fn spawn_upload(&self, len: u64, queue: Queue) -> Result<JoinHandle<Upload>> {
        let (cloud, id, store) = (self.cloud.clone(), self.id.clone(), self.store.clone());
        let (silence, name) = (cloud.retry().upload_silence, self.facts.name.clone());
        let run = move || {
            let outcome = run_async(async {
                queue.ready().await;
                if queue.is_broken() {
                    let gone = Error::new(Stage::Sink, Kind::Other, "the upload was not begun");
                    return Ok(Upload::Lost(gone, None));
                }
                let from = queue.clone();
                let body =
                    futures_util::stream::unfold(from, |from| async { Some((from.next().await?, from)) });
                let upload = cloud.upload(&id, len, store.as_deref(), reqwest::Body::wrap_stream(body));
                tokio::select! {
                    outcome = upload => Ok(outcome),
                    () = queue.broken() => {
                        let what = "the upload was broken off";
                        Ok(Upload::Lost(Error::new(Stage::Sink, Kind::Network, what), None))
                    }
                    () = queue.stalled(silence) => {
                        let what = format!("upload {name}: no byte was taken for {} s", silence.as_secs_f64());
                        Ok(Upload::Lost(Error::new(Stage::Sink, Kind::Network, what), None))
                    }
                }
            });
            // Whoever still pushes must not wait for an upload that has ended.
            queue.end(End::Broken);
            outcome.unwrap_or_else(Upload::Refused)
        };
        std::thread::Builder::new()
            .name("upload".into())
            .spawn(run)
            .map_err(|error| Error::new(Stage::Sink, Kind::Local, "start the upload thread").because(error))
    }

    /// The image once it is active; `None` if it is queued again.
    fn settled(&self) -> Result<Option<Image>> {
        match self.wait(self.cloud.settle(&self.id, self.cloud.retry().time))? {
            Settled::Active(image) => Ok(Some(*image)),
            Settled::Queued => Ok(None),
            Settled::Gone(status) => {
                let what = format!("{} did not become active: its status is `{status}`", self.facts.name);
                Err(Error::new(Stage::Sink, Kind::Target, what).advise("run this again"))
            }
        }
    }

    /// Runs a call to the end, unless the run is ended from outside meanwhile.
    fn wait<T>(&self, call: impl Future<Output = Result<T>>) -> Result<T> {
        let (wake, woken) = async_channel::bounded::<()>(1);
        let _registration = (self.on_cancel)(Box::new(move || {
            wake.close();
        }));
        run_async(async {
            tokio::select! {
                result = call => result,
                _ = woken.recv() => Err(Error::new(Stage::Sink, Kind::Other, "the run was stopped")),
            }
        })
    }

    /// The hash of the image, which is made once more for that.
    fn hash_anew(&self, algorithm: Algorithm, produce: Produce<'_>) -> Result<Digest> {
        let mut hashing = Hashing(Hasher::new(algorithm));
        produce(&mut hashing)?;
        Ok(hashing.0.finish())
    }

    /// An image of an earlier run that turns out to be another one.
    fn left_as_it_is(&mut self, error: Error) -> Error {
        if self.arrived.is_none() || error.kind() != Kind::TargetHash {
            return error;
        }
        self.compared = true;
        error.advise(format!(
            "an earlier run has sent image {}, and it is left as it is; delete it and the state file, and run this again",
            self.id
        ))
    }

    /// Holds the hash of what was sent against what Glance found.
    fn verify(
        &self,
        len: u64,
        sent: Digest,
        image: &Image,
        produce: Produce<'_>,
    ) -> Result<(Option<Digest>, Option<String>)> {
        if image.size.is_some_and(|size| size != len) {
            let what = format!(
                "{} has {} bytes in Glance, but {len} were sent",
                self.facts.name,
                image.size.unwrap_or(0)
            );
            return Err(Error::new(Stage::Sink, Kind::TargetHash, what).advise("run this again"));
        }
        let strong =
            image.os_hash_algo.as_deref().and_then(Algorithm::from_name).zip(image.os_hash_value.clone());
        let Some((algorithm, theirs)) =
            strong.or_else(|| image.checksum.clone().map(|hex| (Algorithm::Md5, hex)))
        else {
            return Ok((None, Some("Glance keeps no hash of it".into())));
        };
        let ours = if algorithm == sent.algorithm { sent } else { self.hash_anew(algorithm, produce)? };
        if ours.hex.eq_ignore_ascii_case(&theirs) {
            return Ok((Some(ours), None));
        }
        let what = format!(
            "the {} of what was sent to {} is {}, but Glance found {theirs}",
            algorithm.name(),
            self.facts.name,
            ours.hex
        );
        Err(Error::new(Stage::Sink, Kind::TargetHash, what)
            .advise("run this again; the data was damaged on its way"))
    }
}

impl Delivery for GlanceSink {
    fn facts(&self) -> &SinkFacts {
        &self.facts
    }

    fn deliver(&mut self, len: u64, produce: Produce<'_>) -> Result<Delivered> {
        let mut retries = 0;
        let mut attempts = Attempts::new(self.cloud.retry());
        loop {
            let attempt = match &self.arrived {
                Some(image) => Ok((self.hash_anew(self.likely, produce)?, (**image).clone())),
                None => self.attempt(len, &mut attempts, produce)?,
            };
            let (reason, asked) = match attempt {
                Ok((sent, image)) => {
                    let (verified, unverified) =
                        self.verify(len, sent, &image, produce).map_err(|error| self.left_as_it_is(error))?;
                    (self.keep, self.compared) = (true, true);
                    return Ok(Delivered { bytes: len, retries, verified, unverified });
                }
                Err(reason) => reason,
            };
            retries += 1;
            let Some(pause) = attempts.after_failure(asked) else {
                let what = format!("upload {}: it broke off {} times", self.facts.name, attempts.failures());
                let error = Error::new(Stage::Sink, Kind::Network, what).because(reason);
                return Err(error.advise(
                    "run this again when the network is better; where a quota is full, the answer that says so may have been lost",
                ));
            };
            tracing::info!("{reason}; sending it again from byte 0");
            self.wait(async {
                tokio::time::sleep(pause).await;
                Ok(())
            })?;
        }
    }

    fn abandon(&mut self) -> Option<String> {
        if self.arrived.is_some() && !std::mem::replace(&mut self.compared, true) {
            return Some(format!(
                "image {}, which an earlier run has sent whole, was not compared and is left as it is",
                self.id
            ));
        }
        if self.keep {
            return None;
        }
        self.keep = true;
        // A user who wants few tries does not want a half-made image.
        let cloud = self.cloud.with_retry(Retry { silence: self.cloud.retry().silence, ..Retry::default() });
        let deleted = run_async(async {
            tokio::time::timeout(TAKING_BACK, cloud.delete(&self.id)).await.unwrap_or_else(|_| {
                let what = format!("no answer within {} s", TAKING_BACK.as_secs());
                Err(Error::new(Stage::Sink, Kind::Network, what))
            })
        });
        match deleted {
            Ok(Deleted::Now) => None,
            Ok(Deleted::Absent) => Some(format!(
                "the new image {} was to be deleted, but the service knows of none; make sure with: openstack image show {}",
                self.id, self.id
            )),
            Err(error) => Some(format!(
                "the new image {} could not be deleted ({error}); delete it with: openstack image delete {}",
                self.id, self.id
            )),
        }
    }
}

impl Drop for GlanceSink {
    fn drop(&mut self) {
        if let Some(left) = self.abandon() {
            tracing::error!("{left}");
        }
    }
}

impl std::fmt::Debug for GlanceSink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "GlanceSink({})", self.facts.name)
    }
}

/// The engine's end of an upload.
struct Uploading {
    queue: Queue,
    hasher: Hasher,
}

/// Marks an error that only says that the upload has ended; the upload itself knows why.
#[derive(Debug, thiserror::Error)]
#[error("the upload has ended")]
struct HungUp;

fn is_hang_up(error: &Error) -> bool {
    std::error::Error::source(error).is_some_and(|cause| cause.is::<HungUp>())
}

impl InOrder for Uploading {
    fn put(&mut self, part: Bytes) -> Result<()> {
        self.hasher.update(&part);
        if self.queue.push(part) {
            return Ok(());
        }
        Err(Error::new(Stage::Sink, Kind::Network, "hand bytes to the upload").because(HungUp))
    }

    fn hold_back(&mut self, bytes: u64) {
        self.queue.hold_back(bytes);
    }

    fn room(&self) -> Option<Room> {
        let queue = self.queue.clone();
        Some(Arc::new(move || queue.has_room()))
    }
}

/// Hashes and forgets.
struct Hashing(Hasher);

impl InOrder for Hashing {
    fn put(&mut self, part: Bytes) -> Result<()> {
        self.0.update(&part);
        Ok(())
    }
}

fn run_async<T>(call: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::new(Stage::Sink, Kind::Local, "start the network runtime").because(error))?
        .block_on(call)
}
