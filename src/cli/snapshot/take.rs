//! Step 3: Nova takes the snapshot. Takes a server that is left alone, gives a raw image that is whole; an image that
//! does not become whole is deleted.

use std::time::Duration;

use snapcow::error::{Error, Kind, Result, Stage};
use snapcow::openstack::{Cloud, Compute, Image, NewImage, Server};
use snapcow::units::Human;

use super::super::tell;
use super::watch::Watch;
use super::{Job, ORDER, SNAPSHOT_OF, TARGET, undisturbed};

/// So long may Glance's answers be behind Nova's.
const GRACE: Duration = Duration::from_secs(10);
/// The longest time that putting right after a failure may take.
const RIGHTING: Duration = Duration::from_secs(120);

impl Job<'_> {
    /// Orders the snapshot, or finds the one that an earlier run has ordered, and waits until it is whole and Nova has
    /// let go of the server.
    pub fn take(&mut self) -> Result<Image> {
        let id = match self.left.raw.take() {
            Some(raw) if raw.status == "active" => return self.found_whole(raw),
            Some(raw) if self.server.is_in_snapshot() => {
                let what = format!("take the snapshot: going on with {}, which Nova is taking", raw.label());
                self.step(3, &what);
                raw.id
            }
            Some(raw) => {
                self.say(&format!(
                    "raw image {} ({}), which an earlier run left half-made, is deleted",
                    raw.label(),
                    raw.status
                ));
                self.clouds.wait(Stage::Cloud, self.cloud.delete(&raw.id))?;
                self.order()?
            }
            None => self.order()?,
        };
        let watch = Watch::new(self.options.timeout, self.quiet, self.options.how.progress);
        let (cloud, compute, server) = (self.cloud.clone(), self.compute.clone(), self.server.id.clone());
        let made = self.clouds.wait(Stage::Cloud, made(&cloud, &compute, &server, &id, watch));
        made.inspect_err(|_| self.abandon(&id))
    }

    fn found_whole(&mut self, raw: Image) -> Result<Image> {
        self.step(3, "take the snapshot: not needed");
        self.say(&format!(
            "note: this goes on with raw snapshot {} of {}; for a newer one delete it first: openstack image delete {}",
            raw.label(),
            raw.created_at.as_deref().unwrap_or("an earlier run"),
            raw.id
        ));
        if self.owes_start {
            // Whoever was killed while Nova was at it: it may be so still.
            let (compute, id) = (self.compute.clone(), self.server.id.clone());
            if let Some(server) = self.clouds.wait(Stage::Cloud, compute.show(&id))? {
                self.server = server;
            }
        }
        Ok(raw)
    }

    fn order(&mut self) -> Result<String> {
        let name = self.raw_name();
        self.step(3, &format!("take a snapshot of server {}, as `{name}`", self.server.label()));
        let order = NewImage::new_id();
        let notes = [(ORDER, order.as_str()), (SNAPSHOT_OF, &self.server.id), (TARGET, &self.name)];
        let ordered =
            self.clouds.wait(Stage::Cloud, self.compute.create_image(&self.server.id, &name, &notes));
        let error = match ordered {
            Ok(id) => {
                self.say(&format!("the raw image is {id}"));
                return Ok(id);
            }
            Err(error) => error,
        };
        if matches!(error.kind(), Kind::Interrupted(_)) {
            // The order may have arrived all the same.
            let (compute, order) = (self.compute.clone(), order.clone());
            let found = undisturbed().wait(Stage::Cloud, async {
                tokio::time::sleep(Duration::from_secs(1)).await;
                compute.made_image((ORDER, &order)).await
            });
            if let Ok(Some(id)) = found {
                self.abandon(&id);
            }
        }
        Err(error)
    }

    /// After a failure: an image that is whole is kept for the next run, any other one is deleted; both is said.
    fn abandon(&self, id: &str) {
        let (cloud, image, server) = (self.cloud.clone(), id.to_owned(), self.server.id.clone());
        let settled = undisturbed().wait(Stage::Cloud, async {
            let work = async {
                let found = cloud.find_images(&image).await?.into_iter().find(|found| found.id == image);
                match found {
                    Some(found) if !is_of(&found, &server) => Ok(None),
                    Some(found) if found.status == "active" => Ok(Some(true)),
                    Some(_) => cloud.delete(&image).await.map(|_| Some(false)),
                    None => Ok(None),
                }
            };
            let late = |_| Error::new(Stage::Cloud, Kind::Network, "no answer in time");
            tokio::time::timeout(RIGHTING, work).await.map_err(late)?
        });
        match settled {
            Ok(Some(true)) => self.tell_of_raw(id),
            Ok(Some(false)) => self.say(&format!("the half-made raw image {id} is deleted")),
            Ok(None) => {}
            Err(error) => tell(format_args!(
                "snapcow: WARNING: the half-made raw image {id} may be left: {error}; openstack image delete {id}"
            )),
        }
    }

    /// Says where a whole raw image is, and what it is good for.
    pub fn tell_of_raw(&self, id: &str) {
        tell(format_args!(
            "snapcow: the raw image {id} is whole and kept: the same command goes on from there (or: openstack image \
             delete {id})"
        ));
    }
}

/// Waits until the image is active and the server has no task.
async fn made(
    cloud: &Cloud,
    compute: &Compute,
    server_id: &str,
    image_id: &str,
    mut watch: Watch,
) -> Result<Image> {
    // When Nova was first seen to have let go while the image was not whole.
    let mut let_go = None;
    // When the image was first seen without our notes.
    let mut stranger = None;
    loop {
        let server = compute.show(server_id).await?;
        let image = cloud.find_images(image_id).await?.into_iter().find(|image| image.id == image_id);
        if image.as_ref().is_some_and(|image| !is_of(image, server_id)) {
            // An image that is being deleted loses its properties first.
            if stranger.get_or_insert(watch.elapsed()).saturating_add(GRACE) > watch.elapsed() {
                watch.pause().await;
                continue;
            }
            let what =
                format!("Nova names image {image_id}, which does not bear the notes that were ordered");
            return Err(
                Error::new(Stage::Cloud, Kind::Source, what).advise("see what it is; nothing is done to it")
            );
        }
        watch.note(state(server.as_ref(), image.as_ref()));
        let status = image.as_ref().map_or("deleted".to_owned(), |image| image.status.clone());
        let is_idle = server.as_ref().is_none_or(|server| server.task_state.is_none());
        match (image, status.as_str()) {
            (Some(image), "active") if is_idle => return Ok(image),
            (_, "queued" | "saving" | "importing" | "uploading" | "active") => {}
            // A server that goes takes the image with it, perhaps between the two looks.
            _ if compute.show(server_id).await?.is_none() => return Err(compute.vanished(server_id)),
            (_, status) => return Err(failed(server_id, image_id, &format!("ended as `{status}`"))),
        }
        if server.is_none() {
            return Err(compute.vanished(server_id));
        }
        if is_idle && let_go.get_or_insert(watch.elapsed()).saturating_add(GRACE) <= watch.elapsed() {
            let why = format!("stays `{status}`, and Nova has let go of the server");
            return Err(failed(server_id, image_id, &why));
        }
        if !is_idle {
            let_go = None;
        }
        if watch.is_late() {
            let task = server.and_then(|server| server.task_state).unwrap_or_else(|| "none".into());
            let why = format!("is `{status}` and the server's task `{task}` after {}", watch.bound());
            return Err(failed(server_id, image_id, &why)
                .advise("give Nova longer by --timeout, or ask the operator what holds it"));
        }
        watch.pause().await;
    }
}

/// Whether the image is a snapshot that was ordered here: what Nova says is not enough to delete anything.
fn is_of(image: &Image, server_id: &str) -> bool {
    image.properties.get(SNAPSHOT_OF).is_some_and(|own| own == server_id)
}

fn state(server: Option<&Server>, image: Option<&Image>) -> String {
    let image = image.map_or("image gone".to_owned(), |image| match image.size.filter(|size| *size > 0) {
        Some(size) => format!("image {}, {}", image.status, Human(size)),
        None => format!("image {}", image.status),
    });
    format!("{image}; server {}", server.map_or("gone".to_owned(), Server::state))
}

fn failed(server: &str, image: &str, why: &str) -> Error {
    Error::new(Stage::Cloud, Kind::Source, format!("the snapshot of server {server}, image {image}, {why}"))
        .advise(format!("see why with: openstack server event list {server}"))
}
