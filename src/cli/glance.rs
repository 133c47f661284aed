//! Glance as source and target of the command: looking up, probing, creating.

use std::sync::Arc;

use snapcow::convert::Cancel;
use snapcow::error::{Error, Kind, Result, Stage};
use snapcow::hash::Algorithm;
use snapcow::openstack::{Cloud, CloudOptions, Image, NewImage, copyable_properties, why_not_convertible};
use snapcow::plan::Plan;
use snapcow::sink::{Delivery, GlanceSink};
use snapcow::source::{GlanceSource, known_digest};

use super::args::{CloudArgs, ConvertArgs, OnOff};
use super::convert::Opened;

/// The clouds of a run, logged in to when first needed.
pub struct Clouds {
    options: CloudArgs,
    cancel: Cancel,
    known: Vec<(Option<String>, Cloud)>,
}

/// A target image whose record exists.
pub struct CreatedTarget {
    pub id: String,
    pub sink: Box<dyn Delivery>,
    pub dropped_properties: Vec<String>,
    pub notes: Vec<String>,
}

impl Clouds {
    pub fn new(options: CloudArgs, cancel: Cancel) -> Self {
        Self { options, cancel, known: Vec::new() }
    }

    /// A cloud that stands for all names.
    #[cfg(feature = "embedded")]
    pub fn only(cloud: Cloud, cancel: Cancel) -> Self {
        Self { options: CloudArgs::default(), cancel, known: vec![(None, cloud)] }
    }

    /// Runs a call, unless a signal comes first.
    pub fn wait<T>(&self, stage: Stage, call: impl Future<Output = Result<T>>) -> Result<T> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Error::new(stage, Kind::Local, "start the network runtime").because(error))?;
        let (wake, woken) = async_channel::bounded::<()>(1);
        let _guard = self.cancel.on_trigger(move || {
            wake.close();
        });
        let result = runtime.block_on(async {
            tokio::select! {
                result = call => Some(result),
                _ = woken.recv() => None,
            }
        });
        match result {
            Some(result) => result,
            None => Err(self
                .cancel
                .check(stage)
                .err()
                .unwrap_or_else(|| Error::new(stage, Kind::Other, "stopped"))),
        }
    }

    fn cloud(&mut self, own: Option<String>, stage: Stage) -> Result<Cloud> {
        let name = own.or_else(|| self.options.os_cloud.clone());
        if let Some((_, cloud)) = self.known.iter().find(|(known, _)| *known == name) {
            return Ok(cloud.for_stage(stage));
        }
        let options = CloudOptions {
            cloud: name.clone(),
            region_name: self.options.os_region_name.clone(),
            interface: self.options.os_interface.clone(),
            cacert: self.options.os_cacert.clone(),
            insecure: self.options.insecure,
        };
        let cloud = self.wait(stage, Cloud::connect(&options, stage))?;
        self.known.push((name, cloud.clone()));
        Ok(cloud)
    }

    fn target_cloud(&mut self) -> Result<Cloud> {
        self.cloud(self.options.target_cloud.clone(), Stage::Sink)
    }

    /// Refuses a name that the project has already.
    pub fn check_target_name(&mut self, name: &str, options: &ConvertArgs) -> Result<()> {
        let cloud = self.target_cloud()?;
        if options.image.allow_duplicate {
            return Ok(());
        }
        let same = self.wait(Stage::Sink, cloud.images_named_in_project(name))?;
        let Some(first) = same.first() else { return Ok(()) };
        let refusal = Error::new(
            Stage::Sink,
            Kind::Target,
            format!("the project has an image of that name already: {}", list(&same)),
        );
        Err(if first.status == "queued" && first.size.unwrap_or(0) == 0 {
            refusal.advise(format!(
                "it is empty, perhaps left by an interrupted run: openstack image delete {}, or give --allow-duplicate",
                first.id
            ))
        } else {
            refusal.advise("choose another name, or give --allow-duplicate")
        })
    }

    /// Creates the record of the target before a byte has moved.
    pub fn create_target(
        &mut self,
        name: &str,
        options: &ConvertArgs,
        opened: &Opened,
        plan: &Plan,
    ) -> Result<CreatedTarget> {
        self.check_target_name(name, options)?;
        let cloud = self.target_cloud()?;
        let new = new_image(name, options, opened.image.as_ref(), plan);
        let created = self.wait(Stage::Sink, cloud.create(&new));
        let created = created.map_err(|error| match error.kind() {
            Kind::Interrupted(_) => {
                // The answer may be lost, the record not.
                let deleted =
                    Clouds::new(CloudArgs::default(), Cancel::new()).wait(Stage::Sink, cloud.delete(&new.id));
                deleted.err().map_or(error, |left| Error::new(Stage::Sink, Kind::Other, left.to_string()))
            }
            _ => error,
        })?;
        let mut notes = Vec::new();
        if !created.dropped_properties.is_empty() {
            notes.push(format!(
                "Glance does not let you set these properties, left out: {}",
                created.dropped_properties.join(", ")
            ));
        }
        if opened.image.is_some() {
            notes.push(
                "members of the source image are not taken over; share the new one again if need be".into(),
            );
        }
        let cancel = self.cancel.clone();
        let sink = GlanceSink::new(
            &cloud,
            &created.image,
            options.image.store.clone(),
            plan.budget.upload_queue_bytes,
            opened.image.as_ref().and_then(known_digest).map_or(Algorithm::Sha512, |digest| digest.algorithm),
            Box::new(move |wake| Box::new(cancel.on_trigger(wake))),
        );
        Ok(CreatedTarget {
            id: new.id,
            sink: Box::new(sink),
            dropped_properties: created.dropped_properties,
            notes,
        })
    }

    /// Says how large a root disk must be, where that was not known when the record was made.
    pub fn complete_target(&mut self, id: &str, plan: &Plan, virtual_size: u64) {
        if plan.facts.source.len.is_some() {
            return;
        }
        let set = self
            .target_cloud()
            .and_then(|cloud| self.wait(Stage::Sink, cloud.raise_min_disk(id, gib(virtual_size))));
        if let Err(error) = set {
            tracing::warn!("{error}; set it with: openstack image set --min-disk {} {id}", gib(virtual_size));
        }
    }
}

/// The one image of that name or ID, in the cloud of that name or the run's own.
pub fn find_image(name: &str, cloud: Option<String>, clouds: &mut Clouds) -> Result<(Cloud, Image)> {
    let refuse = |what: String| Error::new(Stage::Source, Kind::Source, what);
    let cloud = clouds.cloud(cloud, Stage::Source)?;
    let mut found = clouds.wait(Stage::Source, cloud.find_images(name))?;
    if found.len() > 1 {
        return Err(refuse(format!("`{name}` names {} images: {}", found.len(), list(&found)))
            .advise("write glance: and the ID of one of them"));
    }
    let Some(image) = found.pop() else {
        return Err(refuse(format!("no image in {} has the name or ID `{name}`", cloud.label()))
            .advise("see what there is with: openstack image list"));
    };
    Ok((cloud, image))
}

/// Looks a source image up and probes whether ranges of it can be read.
pub fn open_source(name: &str, options: &ConvertArgs, clouds: &mut Clouds) -> Result<Opened> {
    let (cloud, image) = find_image(name, options.cloud.source_cloud.clone(), clouds)?;
    if let Some((reason, advice)) = why_not_convertible(&image) {
        let what = format!("image {} cannot be converted: {reason}", image.label());
        return Err(Error::new(Stage::Source, Kind::Source, what).advise(advice));
    }
    let ranges = clouds.wait(Stage::Source, cloud.probe_range(&image.id, image.size.unwrap_or(0)))?;
    let connections = options.connections.map_or(2, usize::from);
    let source = GlanceSource::new(cloud, image.clone(), ranges, connections, options.connections.is_some());
    let digest = match options.verify_source {
        OnOff::On => source.digest(),
        OnOff::Off => Err("switched off by --verify-source off".into()),
    };
    Ok(Opened::image(Arc::new(source), digest, image))
}

fn new_image(name: &str, options: &ConvertArgs, source: Option<&Image>, plan: &Plan) -> NewImage {
    let wanted = &options.image;
    let copied = source.filter(|_| wanted.copy_properties == OnOff::On);
    let mut properties = copied.map(copyable_properties).unwrap_or_default();
    properties.extend(wanted.properties.iter().cloned());
    let mut tags = copied.map(|image| image.tags.clone()).unwrap_or_default();
    tags.extend(wanted.tags.iter().filter(|tag| !tags.contains(tag)).cloned().collect::<Vec<_>>());
    let own = plan.facts.source.len.map_or(0, gib);
    NewImage {
        id: NewImage::new_id(),
        name: name.into(),
        disk_format: "qcow2".into(),
        container_format: "bare".into(),
        visibility: Some(wanted.visibility.clone()),
        min_disk: own.max(source.map_or(0, |image| image.min_disk)).max(wanted.min_disk.unwrap_or(0)),
        min_ram: wanted.min_ram.unwrap_or_else(|| source.map_or(0, |image| image.min_ram)),
        tags,
        properties,
    }
}

/// Whole GiB that hold so many bytes.
fn gib(bytes: u64) -> u64 {
    bytes.div_ceil(1 << 30)
}

fn list(images: &[Image]) -> String {
    let shown: Vec<_> =
        images.iter().take(20).map(|image| format!("{} ({})", image.id, image.status)).collect();
    let more = if images.len() > 20 { ", …" } else { "" };
    format!("{}{more}", shown.join(", "))
}
