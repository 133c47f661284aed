//! What the cloud can do.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use snapcow::convert::Cancel;
use snapcow::error::{Kind, Result, Stage};
use snapcow::openstack::{Cloud, ImageFilter, config_files};
use snapcow::units::Human;

use super::super::args::CloudArgs;
use super::super::glance::Clouds;
use super::{Checks, Level, told};

/// Clocks that differ by more make tokens look expired, or certificates not yet valid.
const CLOCK_SECONDS: i64 = 60;
/// A run logs in again by itself; a token that lives shorter than this makes it do so all the time.
const TOKEN_LIFE: Duration = Duration::from_secs(300);
/// From here on every request is felt.
const SLOW: Duration = Duration::from_millis(500);
/// Images that are looked at for one whose ranges can be probed.
const CANDIDATES: usize = 50;

/// Looks at the cloud that the options and the environment choose, if there is any.
pub fn look(checks: &mut Checks, options: &CloudArgs, cancel: &Cancel) -> Result<()> {
    let files = config_files();
    for path in files.clouds.iter().chain(&files.secure) {
        permissions(checks, path);
    }
    let chosen =
        options.os_cloud.is_some() || std::env::var_os("OS_CLOUD").is_some_and(|name| !name.is_empty());
    if !chosen && !files.by_variables && files.clouds.is_none() {
        checks.advise(
            "cloud",
            Level::Note,
            "none is configured; only this machine was looked at",
            "put a clouds.yaml into ~/.config/openstack, or source an openrc file",
        );
        return Ok(());
    }
    let mut clouds = Clouds::new(options.clone(), cancel.clone());
    let begin = Instant::now();
    let cloud = match clouds.cloud(None, Stage::Plan) {
        Ok(cloud) => cloud,
        Err(error) if matches!(error.kind(), Kind::Interrupted(_)) => return Err(error),
        Err(error) => {
            checks.fail("login", &error);
            return Ok(());
        }
    };
    login(checks, &cloud, begin.elapsed());
    tls(checks, &cloud, options);
    let found = clouds.wait(Stage::Plan, glance(checks, &cloud));
    match found {
        Err(error) if matches!(error.kind(), Kind::Interrupted(_)) => Err(error),
        Err(error) => {
            checks.fail("glance", &error);
            Ok(())
        }
        Ok(()) => Ok(()),
    }
}

/// A file with passwords is its owner's alone.
fn permissions(checks: &mut Checks, path: &Path) {
    let Ok(meta) = std::fs::metadata(path) else { return };
    let (shown, mode) = (path.display(), meta.permissions().mode() & 0o777);
    if mode & 0o077 == 0 {
        return checks.add("config", Level::Ok, format!("{shown}, readable by its owner alone"));
    }
    let who = if mode & 0o004 != 0 { "everybody on this machine" } else { "others" };
    let line = format!("{who} may use {shown} (mode {mode:o}), which may hold passwords");
    checks.advise("config", Level::Warning, line, &format!("chmod 600 {shown}"));
}

fn login(checks: &mut Checks, cloud: &Cloud, took: Duration) {
    let project = cloud.project_id().map_or("not told".to_owned(), |id| id.to_owned());
    let line = format!("to {} in {} ms; project {project}", cloud.label(), took.as_millis());
    checks.add("login", Level::Ok, line);
    match cloud.token_left() {
        None => checks.add("token", Level::Note, "only a token was given: when it expires, the run ends"),
        Some(left) if left < TOKEN_LIFE => checks.add(
            "token",
            Level::Note,
            format!("lives for {} s only: long runs log in again and again", left.as_secs()),
        ),
        Some(left) => {
            checks.add(
                "token",
                Level::Ok,
                format!("good for {} min; renewed by itself", left.as_secs() / 60),
            );
        }
    }
}

fn tls(checks: &mut Checks, cloud: &Cloud, options: &CloudArgs) {
    let is_plain = cloud.image_endpoint().starts_with("http://");
    if cloud.is_insecure() {
        checks.advise(
            "tls",
            Level::Warning,
            "any certificate is taken (--insecure, or `verify: false` in clouds.yaml)",
            "give the CA's file by --os-cacert, or `cacert` in clouds.yaml",
        );
    } else if is_plain {
        let host = cloud.image_endpoint().trim_start_matches("http://");
        let local = ["127.", "localhost", "[::1]"].iter().any(|own| host.starts_with(own));
        let level = if local { Level::Note } else { Level::Warning };
        checks.add("tls", level, format!("{} is not encrypted", cloud.image_endpoint()));
    } else {
        let by = options.os_cacert.as_ref().map(|path| format!(" and by {}", path.display()));
        let line = format!("Glance's certificate is vouched for by the system{}", by.unwrap_or_default());
        checks.add("tls", Level::Ok, line);
    }
}

/// What Glance says of itself; the first request that fails ends it.
async fn glance(checks: &mut Checks, cloud: &Cloud) -> Result<()> {
    let greeting = cloud.greet().await?;
    let version = greeting.version.map_or("version not told".into(), |id| format!("API {id}"));
    let line =
        format!("{} answers in {} ms, {version}", cloud.image_endpoint(), greeting.latency.as_millis());
    if greeting.latency > SLOW {
        checks.add("glance", Level::Note, format!("{line}: every request and every range is slow"));
    } else {
        checks.add("glance", Level::Ok, line);
    }
    match greeting.clock_ahead_seconds {
        Some(ahead) if ahead.abs() > CLOCK_SECONDS => checks.advise(
            "clock",
            Level::Warning,
            format!("Glance's clock and this machine's differ by {} s", ahead.abs()),
            "set this machine's clock (timedatectl); certificates and other clients depend on it",
        ),
        Some(ahead) => {
            checks.add("clock", Level::Ok, format!("within {} s of Glance's", ahead.abs().max(1)));
        }
        None => checks.add("clock", Level::Note, "Glance tells no date"),
    }
    match cloud.stores().await? {
        Some(stores) if !stores.is_empty() => {
            let named: Vec<String> = stores
                .iter()
                .map(
                    |store| {
                        if store.is_default { format!("{} (default)", store.id) } else { store.id.clone() }
                    },
                )
                .collect();
            checks.add("stores", Level::Ok, named.join(", "));
        }
        _ => checks.add("stores", Level::Note, "not told; images go where the operator wants them"),
    }
    quota(checks, cloud).await?;
    ranges(checks, cloud).await?;
    compute(checks, cloud).await;
    Ok(())
}

/// Whether snapshots of servers can be taken; images can be converted without.
async fn compute(checks: &mut Checks, cloud: &Cloud) {
    match cloud.compute().await {
        Ok(nova) => {
            let version = nova.version().map_or("2.1".into(), |version| version.to_string());
            checks.add("nova", Level::Ok, format!("API {version}: `snapcow snapshot` can be tried"));
        }
        Err(error) => {
            let level = if error.kind() == Kind::Login { Level::Note } else { Level::Warning };
            checks.add("nova", level, format!("no `snapcow snapshot` here: {}", told(&error)));
        }
    }
}

async fn quota(checks: &mut Checks, cloud: &Cloud) -> Result<()> {
    let Some(total) = cloud.usage().await?.and_then(|usage| usage.total_bytes) else {
        checks.add("quota", Level::Note, "none told by this Glance");
        return Ok(());
    };
    match (total.free(), total.limit) {
        (Some(0), Some(limit)) => checks.advise(
            "quota",
            Level::Problem(Stage::Sink, Kind::Target),
            format!("{} of {} used: nothing can be uploaded", Human(total.used), Human(limit)),
            "delete images that nobody needs, or ask for a larger quota",
        ),
        (Some(free), Some(limit)) if free < limit / 10 => checks.advise(
            "quota",
            Level::Warning,
            format!("{} of {} left; source and new image exist at once", Human(free), Human(limit)),
            "delete images that nobody needs, or ask for a larger quota",
        ),
        (Some(free), _) => checks.add("quota", Level::Ok, format!("{} left", Human(free))),
        (None, _) => checks.add("quota", Level::Ok, "no limit"),
    }
    Ok(())
}

/// Whether an image's ranges can be read; each store may be different, so one of the project's own is asked for.
async fn ranges(checks: &mut Checks, cloud: &Cloud) -> Result<()> {
    let filter = ImageFilter {
        status: Some("active".into()),
        owner: cloud.project_id().map(str::to_owned),
        size_min_bytes: Some(2),
        ..ImageFilter::default()
    };
    let listed = cloud.list_images(&filter, CANDIDATES).await?;
    // Of several stores the one with raw images is the one that snapshots are read from.
    let raw = listed.images.iter().find(|image| image.disk_format.as_deref() == Some("raw"));
    let Some(image) = raw.or(listed.images.first()) else {
        checks.add("ranges", Level::Note, "not known: the project has no active image to try them on");
        return Ok(());
    };
    if cloud.probe_range(&image.id, image.size.unwrap_or(0)).await? {
        let line =
            format!("served (tried on image {}): reads are parallel, a second read is short", image.id);
        checks.add("ranges", Level::Ok, line);
    } else {
        checks.advise(
            "ranges",
            Level::Note,
            format!(
                "not served (tried on image {}), as with Ceph, Swift and S3: one download from the beginning; where the \
                 spool is too small, a second one, which is slow; a plan sees the first part of an image only",
                image.id
            ),
            "keep --memory and --spool-disk as large as the new image",
        );
    }
    Ok(())
}
