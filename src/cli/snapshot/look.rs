//! Step 1: everything that can be known before anything is changed. Takes the options, gives a [`Job`].

use std::time::SystemTime;

use chrono::{DateTime, Utc};
use snapcow::convert::Cancel;
use snapcow::error::{Error, Kind, Result, Stage};
use snapcow::openstack::{Cloud, Compute, Image, ImageFilter, Server};

use super::super::args::OnOff;
use super::super::glance::Clouds;
use super::{Job, Left, SNAPSHOT_OF, STOPPED, SnapshotArgs, TARGET, UNFINISHED};

/// Glance's and Nova's longest name is of 255 characters, and `-raw` is added to it for a while.
const LONGEST_NAME: usize = 250;
/// Images of one server that earlier runs left; more are not looked at.
const MOST_LEFT: usize = 100;

impl<'a> Job<'a> {
    /// Looks the server up, and what earlier runs left of it; refuses whatever cannot end well.
    pub fn look(options: &'a SnapshotArgs, quiet: bool, cancel: &'a Cancel) -> Result<Self> {
        check_options(options)?;
        let mut clouds = Clouds::new(options.cloud.clone(), cancel.clone());
        let cloud = clouds.cloud(None, Stage::Cloud)?;
        let compute = clouds.wait(Stage::Cloud, cloud.compute())?;
        let server = find_server(&options.server, &cloud, &compute, &clouds)?;
        let all = left_images(&server, &cloud, &clouds)?;
        let name = match &options.name {
            Some(name) => name.clone(),
            None => unfinished_name(&all).unwrap_or_else(|| default_name(&server)),
        };
        let left = sort_out(all, &name, &cloud, &clouds)?;
        let owes_start = server.metadata.contains_key(STOPPED);
        let mut job = Self { options, quiet, cancel, clouds, cloud, compute, server, name, left, owes_start };
        job.check()?;
        Ok(job)
    }

    fn check(&mut self) -> Result<()> {
        check_name(&self.name)?;
        if self.left.is_finished {
            return Ok(());
        }
        let refuse = |what: String| Error::new(Stage::Cloud, Kind::Source, what);
        let label = self.server.label();
        let is_whole = self.left.raw.as_ref().is_some_and(|raw| raw.status == "active");
        if !is_whole && let Some((why, advice)) = self.server.why_no_snapshot() {
            return Err(refuse(format!("no snapshot of server {label} can be taken: {why}")).advise(advice));
        }
        let ours = self.owes_start || (self.left.raw.is_some() && self.server.is_in_snapshot());
        if let Some(task) = self.server.task_state.as_ref().filter(|_| !ours && !is_whole) {
            return Err(refuse(format!("server {label} is busy: its task is `{task}`"))
                .advise("run this again when the task is done: openstack server show tells"));
        }
        if self.options.stop && !is_whole && matches!(self.server.status.as_str(), "PAUSED" | "SUSPENDED") {
            return Err(refuse(format!("server {label} is {}: Nova cannot stop it", self.server.status))
                .advise("let it run again first, or leave --stop out"));
        }
        let own = self.left.compact.as_ref().map(|image| image.id.clone());
        let conversion = self.conversion("");
        self.clouds.check_target_name(&self.name, &conversion, own.as_deref())
    }

    /// What would be done, a line each.
    pub fn rehearsal(&self) -> String {
        let server = format!("server {}, {}", self.server.label(), self.server.state());
        if self.left.is_finished {
            return format!("{server}\nimage `{}` is made already", self.name);
        }
        let mut lines = vec![server];
        let runs = self.server.status == "ACTIVE";
        let stops = runs && self.options.stop && self.left.raw.is_none();
        match &self.left.raw {
            Some(raw) => lines.push(format!("go on with raw snapshot {}, {}", raw.label(), raw.status)),
            None if stops => lines.push("stop the server".into()),
            None if runs => lines.push("the server runs on: the snapshot is only crash-consistent".into()),
            None => {}
        }
        if self.left.raw.is_none() {
            lines.push(format!("take a raw snapshot, `{}`", self.raw_name()));
        }
        if stops || self.owes_start {
            lines.push("start the server".into());
        }
        lines.push(format!("convert it to `{}`", self.name));
        lines.push(
            if self.options.keep_raw {
                "keep the raw image"
            } else {
                "delete the raw image, if all is proven"
            }
            .into(),
        );
        lines.join("\n")
    }
}

/// Options that contradict each other, before anything is asked.
fn check_options(options: &SnapshotArgs) -> Result<()> {
    if let Some(name) = &options.name {
        check_name(name)?;
    }
    if options.how.trim && !options.keep_raw && !options.unproven {
        let what = "with --trim the new image does not hold all of the raw one, which could not be deleted as proven";
        return Err(Error::new(Stage::Plan, Kind::Usage, what)
            .advise("give --keep-raw, or --unproven if that is good enough"));
    }
    let off = if options.how.verify_source == OnOff::Off {
        "--verify-source off"
    } else if options.how.verify_encode == Some(OnOff::Off) {
        "--verify-encode off"
    } else {
        return Ok(());
    };
    if options.keep_raw {
        return Ok(());
    }
    let what = format!("with {off} nothing is proven, and the raw image could not be deleted in the end");
    Err(Error::new(Stage::Plan, Kind::Usage, what).advise("leave it out, or give --keep-raw"))
}

/// Nova refuses names with white space at an end, and Glance long ones.
fn check_name(name: &str) -> Result<()> {
    let why = if name.is_empty() {
        "is empty"
    } else if name.chars().count() > LONGEST_NAME {
        "is longer than 250 characters"
    } else if name.trim() != name || name.chars().any(char::is_control) {
        "has white space at an end, or a control character"
    } else {
        return Ok(());
    };
    Err(Error::new(Stage::Plan, Kind::Usage, format!("the name of the new image {why}"))
        .advise("choose another NAME"))
}

fn find_server(name: &str, cloud: &Cloud, compute: &Compute, clouds: &Clouds) -> Result<Server> {
    let refuse = |what: String| Error::new(Stage::Cloud, Kind::Source, what);
    let mut found = clouds.wait(Stage::Cloud, compute.find_servers(name))?;
    if found.len() > 1 {
        let shown: Vec<String> =
            found.iter().take(20).map(|server| format!("{} ({})", server.id, server.state())).collect();
        let more = if found.len() > 20 { ", …" } else { "" };
        let what = format!("`{name}` names {} servers: {}{more}", found.len(), shown.join(", "));
        return Err(refuse(what).advise("give the ID of one of them"));
    }
    found.pop().ok_or_else(|| {
        refuse(format!("no server in {} has the name or ID `{name}`", cloud.label()))
            .advise("see what there is with: openstack server list")
    })
}

/// The images of the project that bear our note about this server; the newest first.
fn left_images(server: &Server, cloud: &Cloud, clouds: &Clouds) -> Result<Vec<Image>> {
    let filter = ImageFilter {
        // Anybody may put anything on an image of theirs and let everybody see it.
        owner: cloud.project_id().map(str::to_owned),
        property: Some((SNAPSHOT_OF.into(), server.id.clone())),
        ..ImageFilter::default()
    };
    Ok(clouds.wait(Stage::Cloud, cloud.list_images(&filter, MOST_LEFT))?.images)
}

/// The name that an unfinished run without a NAME has chosen.
fn unfinished_name(all: &[Image]) -> Option<String> {
    let target = |image: &Image| image.properties.get(TARGET).cloned();
    let own = |image: &Image| image.name.clone().filter(|_| image.properties.contains_key(UNFINISHED));
    all.iter().find_map(target).or_else(|| all.iter().find_map(own))
}

fn default_name(server: &Server) -> String {
    let now: DateTime<Utc> = SystemTime::now().into();
    let plain: String =
        server.name.trim().chars().filter(|c| !c.is_control()).take(LONGEST_NAME - 30).collect();
    format!("{plain}-snapshot-{}", now.format("%Y-%m-%d-%H%M"))
}

/// What of it belongs to the run that makes `name`.
fn sort_out(all: Vec<Image>, name: &str, cloud: &Cloud, clouds: &Clouds) -> Result<Left> {
    let is = |image: &Image, status: &str| image.status == status;
    let mut raws: Vec<Image> = all
        .iter()
        .filter(|image| image.properties.get(TARGET).is_some_and(|own| own == name))
        .cloned()
        .collect();
    let whole = raws.iter().position(|raw| is(raw, "active"));
    let raw = (!raws.is_empty()).then(|| raws.swap_remove(whole.unwrap_or(0)));
    for other in &raws {
        tracing::warn!("an earlier run left image {} ({}) too", other.label(), other.status);
    }
    let compact = all
        .into_iter()
        .find(|image| image.properties.contains_key(UNFINISHED) && image.name.as_deref() == Some(name));
    let Some(made_of) = compact.as_ref().and_then(|image| image.properties.get(UNFINISHED)) else {
        return Ok(Left { raw, compact, is_finished: false });
    };
    // The raw image loses its notes, or goes, only when the new one is proven, or is to be kept beside it.
    let is_unsettled = raw.as_ref().is_some_and(|raw| raw.id == *made_of);
    let is_whole = compact.as_ref().is_some_and(|image| is(image, "active"));
    let is_finished = is_whole && !is_unsettled && {
        let found = clouds.wait(Stage::Cloud, cloud.find_images(made_of))?;
        found.iter().all(|image| !image.properties.contains_key(TARGET))
    };
    Ok(Left { raw, compact, is_finished })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_nova_or_glance_refuse_are_refused_first() {
        for good in ["a", "ü 1", &"x".repeat(250)] {
            assert!(check_name(good).is_ok(), "{good}");
        }
        for bad in ["", " a", "a ", "a\nb", &"x".repeat(251)] {
            assert_eq!(check_name(bad).unwrap_err().kind(), Kind::Usage, "{bad:?}");
        }
        let long = Server { name: format!(" \u{1b}{}", "ü".repeat(300)), ..Server::default() };
        assert!(check_name(&default_name(&long)).is_ok());
    }
}
