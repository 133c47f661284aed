//! Runs from Glance to Glance, through sockets.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use snapcow::convert::{Cancel, Receipt, Target, convert_from};
use snapcow::embedded::{EmbeddedGlance, EmbeddedOptions, ImageSpec, SeedHash};
use snapcow::error::{Result, Stage};
use snapcow::facts::{SinkFacts, SinkOrder};
use snapcow::hash::Algorithm;
use snapcow::openstack::{Cloud, NewImage, TlsOptions};
use snapcow::retry::Retry;
use snapcow::sink::GlanceSink;
use snapcow::source::GlanceSource;

use crate::local::{keeper, prepare};
use crate::proof::prove;
use crate::schedule::{Schedule, World, disk};
use crate::shaky::{Shaky, ShakyDelivery};
use crate::{Verdict, check_error};

/// As by default, a few hundred times as fast.
fn quick() -> Retry {
    let (first, longest) = (Duration::from_millis(1), Duration::from_millis(5));
    let (silence, upload_silence) = (Duration::from_millis(300), Duration::from_millis(300));
    Retry { first, longest, silence, upload_silence, time: Duration::from_secs(4), ..Retry::default() }
}

fn wait<T>(call: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(call)
}

/// Runs a schedule.
pub fn run(schedule: &Schedule) -> Verdict {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("spool")).unwrap();
    let ranges = schedule.world == World::Glance { ranges: true };
    let options = EmbeddedOptions {
        ranges,
        socket_buffer_bytes: schedule.small_sockets.then_some(64 << 10),
        ..EmbeddedOptions::default()
    };
    let glance = EmbeddedGlance::start(options).map_err(|error| format!("no Glance: {error}"))?;
    let own = disk(schedule.disk);
    let source = glance.seed(ImageSpec {
        name: "snapshot".into(),
        attributes: serde_json::Map::new(),
        hash: if schedule.verified { SeedHash::Known(own.hashes.clone()) } else { SeedHash::Missing },
        data: schedule.bytes(),
    });
    let before = glance.image(&source);
    glance.faults().set(schedule.faults.clone());
    let (result, id) = std::thread::scope(|scope| {
        let glance = &glance;
        if let Some(after) = schedule.token_expires {
            scope.spawn(move || {
                std::thread::sleep(after);
                glance.renew_token();
            });
        }
        attempt(schedule, glance, &source, folder.path(), true)
    });
    let end = judge(schedule, &glance, folder.path(), &result, &id)?;
    if glance.image(&source) != before {
        return Err("the source was touched".into());
    }
    let nothing_is_left = glance.images().len() == 1;
    if result.is_ok() || !schedule.with_state || !nothing_is_left {
        return Ok(end);
    }
    glance.faults().set(snapcow::embedded::Faults::default());
    let (again, id) = attempt(schedule, &glance, &source, folder.path(), false);
    let second = judge(schedule, &glance, folder.path(), &again, &id)?;
    match again {
        Ok(_) => Ok(format!("{end}, then {second}")),
        Err(error) => Err(format!("without faults, from the state file: {error}")),
    }
}

/// One run, as the command does it; the new image's ID as far as there is one.
fn attempt(
    schedule: &Schedule,
    glance: &EmbeddedGlance,
    source: &str,
    folder: &Path,
    in_trouble: bool,
) -> (Result<Receipt>, String) {
    let new = NewImage::private("compact", "qcow2");
    (carry_out(schedule, glance, source, folder, in_trouble, &new), new.id)
}

fn carry_out(
    schedule: &Schedule,
    glance: &EmbeddedGlance,
    source: &str,
    folder: &Path,
    in_trouble: bool,
    new: &NewImage,
) -> Result<Receipt> {
    let token = glance.token().into();
    let cloud = Cloud::with_token(glance.endpoint(), token, &TlsOptions::default(), Stage::Source)?;
    let cloud = cloud.with_retry(quick());
    let image = wait(cloud.show(source))?;
    let ranges = wait(cloud.probe_range(&image.id, image.size.unwrap_or(0)))?;
    let inner = GlanceSource::new(cloud.clone(), image, ranges, 2, false);
    let cancel = Cancel::new();
    let events = |of: &[_]| if in_trouble { of.to_vec() } else { Vec::new() };
    let shaky =
        Shaky { inner, events: events(&schedule.source), cancel: cancel.clone(), passes: AtomicU64::new(0) };
    let facts = SinkFacts { name: "image `compact`".into(), order: SinkOrder::InOrder };
    let (plan, job) = prepare(schedule, Arc::new(shaky), facts, &folder.join("spool"), cancel.clone())?;
    let mut keeper = schedule.with_state.then(|| keeper(schedule, folder)).transpose()?;
    keeper.as_mut().map_or(Ok(()), |keeper| keeper.begin(Some(&new.id)))?;
    let created = wait(cloud.for_stage(Stage::Sink).create(new))?;
    let waker = cancel.clone();
    let sink = GlanceSink::new(
        &cloud,
        &created.image,
        None,
        schedule.queue_bytes,
        Algorithm::Sha512,
        Box::new(move |wake| Box::new(waker.on_trigger(wake))),
    );
    let delivery = ShakyDelivery { inner: Box::new(sink), events: events(&schedule.sink), cancel };
    convert_from(&plan, &job, Target::Delivery(Box::new(delivery)), keeper.as_mut())
}

fn judge(
    schedule: &Schedule,
    glance: &EmbeddedGlance,
    folder: &Path,
    result: &Result<Receipt>,
    id: &str,
) -> Verdict {
    let spooled = std::fs::read_dir(folder.join("spool")).unwrap().count();
    if spooled > 0 {
        return Err(format!("{spooled} temporary files are left"));
    }
    let images = glance.images();
    match result {
        Ok(_) => {
            if images.len() != 2 || glance.image(id).is_none_or(|image| image["status"] != "active") {
                return Err(format!("success, but the images are {images:?}"));
            }
            let made = glance.data(id).ok_or("success, but no data")?;
            prove(schedule, made).map(|()| "done".into()).map_err(|why| format!("not equal: {why}"))
        }
        Err(error) => {
            let word = check_error(error)?;
            // What the service did not let us delete is named.
            if images.len() > 1 && !error.to_string().contains(id) {
                return Err(format!("an image is left, and not named, after: {error}\n{images:?}"));
            }
            Ok(if images.len() > 1 { format!("{word}, and what is left is named") } else { word })
        }
    }
}
