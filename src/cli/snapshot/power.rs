//! Steps 2 and 4: the server is stopped, and started again whatever happens in between.
//!
//! Before it is stopped a note is put on the server itself: a run that is killed cannot start it, but the next one,
//! from whatever machine, sees the note.

use snapcow::error::{Error, Kind, Result, Stage};
use snapcow::openstack::{Compute, Server};

use super::super::tell;
use super::watch::Watch;
use super::{Job, STOPPED, undisturbed};

/// So long may Nova's own notes of an order need to show.
const GRACE_SECONDS: u64 = 15;

impl Job<'_> {
    /// Stops the server, if that was asked for, and says what kind of snapshot it will be.
    pub fn stop(&mut self) -> Result<()> {
        let whole = self.left.raw.as_ref().filter(|raw| raw.status == "active");
        if let Some(raw) = whole {
            let what = format!("stop the server: not needed, raw snapshot {} is there already", raw.label());
            self.step(2, &what);
            return Ok(());
        }
        if self.owes_start {
            self.go_on_after_a_kill()?;
        }
        match self.server.status.as_str() {
            _ if self.owes_start => {
                self.step(2, "stop the server: an earlier run of this command has done it")
            }
            _ if self.left.raw.is_some() && self.server.is_in_snapshot() => {
                self.step(2, "stop the server: not now, its snapshot is being taken already");
            }
            "ACTIVE" if self.options.stop => return self.stop_now(),
            "ACTIVE" => {
                self.step(2, "stop the server: not asked for (--stop)");
                self.say(
                    "note: the server runs on, so the snapshot is only crash-consistent: as after a power cut, what \
                     its guest had not written yet is missing",
                );
            }
            other => self.step(2, &format!("stop the server: not needed, it is {other}")),
        }
        Ok(())
    }

    fn stop_now(&mut self) -> Result<()> {
        self.step(2, &format!("stop server {}", self.server.label()));
        let (compute, id) = (self.compute.clone(), self.server.id.clone());
        let noted = self.clouds.wait(Stage::Cloud, compute.set_metadata(&id, STOPPED, &self.name));
        if let Err(error) = noted {
            self.cancel.check(Stage::Cloud)?;
            tell(format_args!(
                "snapcow: WARNING: {error}; if this run is killed nobody will know that the server is to be started again"
            ));
        }
        self.owes_start = true;
        self.clouds.wait(Stage::Cloud, compute.stop(&id))?;
        let watch = Watch::new(self.options.stop_timeout, self.quiet, self.options.how.progress);
        self.server = self.clouds.wait(Stage::Cloud, turned(&compute, &id, "SHUTOFF", watch))?;
        Ok(())
    }

    /// The note is there: waits for what is under way, and sees whether it still holds.
    fn go_on_after_a_kill(&mut self) -> Result<()> {
        let (compute, id) = (self.compute.clone(), self.server.id.clone());
        let making = self.left.raw.is_some() && self.server.is_in_snapshot();
        if !making {
            let mut watch = Watch::new(self.options.stop_timeout, self.quiet, self.options.how.progress);
            self.server = self.clouds.wait(Stage::Cloud, idle(&compute, &id, &mut watch))?;
        }
        if self.server.status == "ACTIVE" {
            self.owes_start = false;
            self.clouds.wait(Stage::Cloud, compute.remove_metadata(&id, STOPPED))?;
        }
        Ok(())
    }

    /// Starts the server, if it was stopped here.
    pub fn start(&mut self) -> Result<()> {
        if !self.owes_start {
            self.step(4, "start the server: not needed");
            return Ok(());
        }
        self.step(4, &format!("start server {} again", self.server.label()));
        let (compute, id) = (self.compute.clone(), self.server.id.clone());
        if self.clouds.wait(Stage::Cloud, compute.show(&id))?.is_none() {
            tell(
                "snapcow: WARNING: the server is gone: somebody deleted it meanwhile; its snapshot is whole",
            );
            self.owes_start = false;
            return Ok(());
        }
        let watch = Watch::new(self.options.stop_timeout, self.quiet, self.options.how.progress);
        self.clouds.wait(Stage::Cloud, started(&compute, &id, watch))?;
        self.owes_start = false;
        self.take_note_off();
        Ok(())
    }

    /// The end of every run: a server that was stopped here and does not run yet is started, undisturbed by signals
    /// but bounded in time.
    pub fn restore(&mut self) {
        if !self.owes_start {
            return;
        }
        let bound = self.options.stop_timeout;
        let watch = Watch::new(bound, self.quiet, self.options.how.progress);
        tell(format_args!(
            "snapcow: bringing server {} back to what it was; this may take up to {}",
            self.server.label(),
            watch.bound()
        ));
        let (compute, id) = (self.compute.clone(), self.server.id.clone());
        let result = undisturbed().wait(Stage::Cloud, async {
            if let Ok(None) = compute.show(&id).await {
                return Ok(());
            }
            // Requests have a patience of their own.
            match tokio::time::timeout(bound * 2, started(&compute, &id, watch)).await {
                Ok(result) => result,
                Err(_) => Err(Error::new(Stage::Cloud, Kind::Network, "start the server: no answer in time")),
            }
        });
        match result {
            Ok(()) => {
                self.owes_start = false;
                self.take_note_off();
                self.say("the server runs as before");
            }
            Err(error) => tell(format_args!(
                "snapcow: WARNING: the server was told to stop, and does not run as before: {error}; start it with: \
                 openstack server start {id}"
            )),
        }
    }

    fn take_note_off(&self) {
        let removed =
            undisturbed().wait(Stage::Cloud, self.compute.remove_metadata(&self.server.id, STOPPED));
        if let Err(error) = removed {
            tell(format_args!(
                "snapcow: WARNING: {error}; take it off with: openstack server unset --property {STOPPED} {}",
                self.server.id
            ));
        }
    }
}

/// Waits until Nova leaves the server alone, orders it to start, and waits until it runs.
async fn started(compute: &Compute, id: &str, mut watch: Watch) -> Result<()> {
    let server = idle(compute, id, &mut watch).await?;
    if server.status == "ACTIVE" {
        return Ok(());
    }
    compute.start(id).await?;
    turned(compute, id, "ACTIVE", watch.anew()).await.map(drop)
}

/// Waits until no task is set.
async fn idle(compute: &Compute, id: &str, watch: &mut Watch) -> Result<Server> {
    loop {
        let server = compute.show(id).await?.ok_or_else(|| compute.vanished(id))?;
        if server.task_state.is_none() {
            return Ok(server);
        }
        watch.note(format!("server {}", server.state()));
        if watch.is_late() {
            return Err(late(&server, watch, "Nova does not let go of it"));
        }
        watch.pause().await;
    }
}

/// Waits until the server has that status and no task.
async fn turned(compute: &Compute, id: &str, wanted: &str, mut watch: Watch) -> Result<Server> {
    loop {
        let server = compute.show(id).await?.ok_or_else(|| compute.vanished(id))?;
        watch.note(format!("server {}", server.state()));
        let is_idle = server.task_state.is_none();
        if is_idle && server.status == wanted {
            return Ok(server);
        }
        let given_up = is_idle && watch.elapsed().as_secs() >= GRACE_SECONDS;
        if is_idle && (server.status == "ERROR" || given_up) {
            let what = format!("server {} was to become {wanted}, and is {}", server.label(), server.status);
            return Err(Error::new(Stage::Cloud, Kind::Source, what).advise(format!(
                "see why with: openstack server show {id}, openstack server event list {id}"
            )));
        }
        if watch.is_late() {
            return Err(late(&server, &watch, &format!("it was to become {wanted}")));
        }
        watch.pause().await;
    }
}

fn late(server: &Server, watch: &Watch, why: &str) -> Error {
    let what =
        format!("server {} is still {} after {}: {why}", server.label(), server.state(), watch.bound());
    Error::new(Stage::Cloud, Kind::Source, what).advise(format!(
        "see why with: openstack server event list {}; --stop-timeout makes it longer",
        server.id
    ))
}
