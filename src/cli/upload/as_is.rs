//! A file whose bytes go to Glance as they are: one PUT, verified by Glance's hash, taken back if anything fails.

use std::sync::Arc;

use bytes::Bytes;
use snapcow::convert::{Cancel, Counters, Phase};
use snapcow::error::{Error, Result, Stage};
use snapcow::hash::Algorithm;
use snapcow::openstack::NewImage;
use snapcow::sink::{Delivered, Delivery, GlanceSink, InOrder};
use snapcow::source::{FileSource, Source};
use snapcow::units::Human;

use super::UploadArgs;
use super::format::Format;
use crate::cli::glance::{Clouds, gib};
use crate::cli::progress::Progress;
use crate::cli::{convert, tell};

/// Bytes that are read and handed on at once.
const PART_BYTES: u64 = 1 << 20;
/// Bytes that wait for the network at most.
const QUEUE_BYTES: u64 = 16 << 20;

/// What is uploaded, and how.
pub struct Upload<'a> {
    pub options: &'a UploadArgs,
    pub name: &'a str,
    pub file: Arc<FileSource>,
    pub format: Format,
    /// Bytes of the disk inside.
    pub virtual_size: u64,
    pub quiet: bool,
    pub cancel: &'a Cancel,
}

/// Uploads the file, and prints the new image's ID.
///
/// # Errors
/// The first failure; then no image is left, unless the sentence names it.
pub fn upload(upload: &Upload<'_>, clouds: &mut Clouds) -> Result<()> {
    let args = super::conversion(upload.options, "", upload.name);
    clouds.check_target_name(upload.name, &args, None)?;
    let len = upload.file.facts().len.unwrap_or(0);
    if upload.options.how.dry_run {
        return convert::say(&format!(
            "upload   `{}`, {}, as it is\ndisk     {} of {}\nmin_disk {} GiB",
            upload.file.facts().name,
            Human(len),
            word(upload.format),
            Human(upload.virtual_size),
            new_image(upload).min_disk,
        ));
    }
    let begin = std::time::Instant::now();
    let new = new_image(upload);
    let created = clouds.create(&new, None)?;
    if !created.dropped_properties.is_empty() && !upload.quiet {
        let dropped = created.dropped_properties.join(", ");
        tell(format_args!(
            "snapcow: note: Glance does not let you set these properties, left out: {dropped}"
        ));
    }
    let (cloud, cancel) = (clouds.target_cloud()?, upload.cancel.clone());
    let mut sink = GlanceSink::new(
        &cloud,
        &created.image,
        upload.options.image.store.clone(),
        QUEUE_BYTES,
        Algorithm::Sha512,
        Box::new(move |wake| Box::new(cancel.on_trigger(wake))),
    );
    let counters = Arc::new(Counters::default());
    Counters::add(&counters.image_bytes, len);
    counters.enter(Phase::Deliver);
    let progress =
        Progress::start(upload.options.how.progress, upload.quiet, Arc::clone(&counters), Some(len));
    let delivered = sink.deliver(len, &mut |to| send(upload, len, &counters, to));
    progress.end(delivered.is_ok());
    let delivered = delivered.map_err(|error| take_back(&mut sink, error, upload.cancel))?;
    convert::say(&new.id).inspect_err(|_| tell(format_args!("snapcow: the new image is {}", new.id)))?;
    if !upload.quiet {
        summary(upload, len, &delivered, begin.elapsed().as_secs_f64());
    }
    Ok(())
}

/// All bytes of the file, in order; it must not have changed meanwhile.
fn send(upload: &Upload<'_>, len: u64, counters: &Counters, to: &mut dyn InOrder) -> Result<()> {
    let bytes = upload.file.bytes();
    let mut at = 0;
    while at < len {
        upload.cancel.check(Stage::Source)?;
        let mut part = vec![0; PART_BYTES.min(len - at) as usize];
        bytes.read_at(&mut part, at)?;
        at += part.len() as u64;
        Counters::add(&counters.source_bytes, part.len() as u64);
        Counters::add(&counters.sink_bytes, part.len() as u64);
        // What changed is not to be noticed only when Glance has all of it.
        if at == len {
            upload.file.settle()?;
        }
        to.put(Bytes::from(part))?;
    }
    Ok(())
}

/// After a failure: deletes the image, and says what could not be deleted.
fn take_back(sink: &mut GlanceSink, error: Error, cancel: &Cancel) -> Error {
    let error = cancel.check(error.stage()).err().unwrap_or(error);
    match sink.abandon() {
        Some(left) => {
            let first = error.advice().map(|advice| format!("{advice}; ")).unwrap_or_default();
            error.advise(format!("{first}{left}"))
        }
        None => error,
    }
}

fn word(format: Format) -> &'static str {
    match format {
        Format::Raw => "raw",
        Format::Qcow2 => "qcow2",
    }
}

fn new_image(upload: &Upload<'_>) -> NewImage {
    let wanted = &upload.options.image;
    NewImage {
        id: NewImage::new_id(),
        name: upload.name.into(),
        disk_format: word(upload.format).into(),
        container_format: "bare".into(),
        visibility: Some(wanted.visibility.clone()),
        min_disk: gib(upload.virtual_size).max(wanted.min_disk.unwrap_or(0)),
        min_ram: wanted.min_ram.unwrap_or(0),
        tags: wanted.tags.clone(),
        properties: wanted.properties.iter().cloned().collect(),
    }
}

fn summary(upload: &Upload<'_>, len: u64, delivered: &Delivered, seconds: f64) {
    tell(format_args!(
        "snapcow: `{}` → image `{}`: {} of {}, a disk of {}, in {seconds:.1} s",
        upload.file.facts().name,
        upload.name,
        Human(len),
        word(upload.format),
        Human(upload.virtual_size),
    ));
    match (&delivered.verified, &delivered.unverified) {
        (Some(digest), _) => {
            let name = digest.algorithm.name();
            tell(format_args!("snapcow: target verified: its {name} is that of the bytes sent"));
        }
        (None, reason) => {
            let reason = reason.as_deref().unwrap_or("no hash was compared");
            tell(format_args!("snapcow: target not verified: {reason}"));
        }
    }
}
