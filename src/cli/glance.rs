//! Glance as source and target of the command: looking up, probing, creating.

use std::sync::Arc;

use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use snapcow::convert::Cancel;
use snapcow::error::{Error, Kind, Result, Stage};
use snapcow::hash::Algorithm;
use snapcow::openstack::{
    Cloud, CloudOptions, Created, Image, NewImage, Usage, copyable_properties, why_not_convertible,
};
use snapcow::plan::Plan;
use snapcow::retry::Retry;
use snapcow::sink::{Delivery, GlanceSink};
use snapcow::source::{GlanceSource, known_digest};
use snapcow::state::Keeper;

use super::args::{CloudPairArgs, ConvertArgs, OnOff};
use super::opened::Opened;
use super::target_name::list;

/// The clouds of a run, logged in to when first needed.
pub struct Clouds {
    options: CloudPairArgs,
    cancel: Cancel,
    known: Vec<(Option<String>, Cloud)>,
    warned: bool,
}

/// A target image whose record exists.
pub struct CreatedTarget {
    pub id: String,
    pub sink: Box<dyn Delivery>,
    pub dropped_properties: Vec<String>,
    pub notes: Vec<String>,
}

impl Clouds {
    pub fn new(options: impl Into<CloudPairArgs>, cancel: Cancel) -> Self {
        Self { options: options.into(), cancel, known: Vec::new(), warned: false }
    }

    /// A cloud that stands for all names.
    #[cfg(feature = "embedded")]
    pub fn only(cloud: Cloud, cancel: Cancel) -> Self {
        Self { options: CloudPairArgs::default(), cancel, known: vec![(None, cloud)], warned: false }
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

    /// The cloud of that name, or the run's own; logged in to once.
    pub fn cloud(&mut self, own: Option<String>, stage: Stage) -> Result<Cloud> {
        let name = own.or_else(|| self.options.cloud.os_cloud.clone());
        if let Some((_, cloud)) = self.known.iter().find(|(known, _)| *known == name) {
            return Ok(cloud.for_stage(stage));
        }
        let options = CloudOptions {
            cloud: name.clone(),
            region_name: self.options.cloud.os_region_name.clone(),
            interface: self.options.cloud.os_interface.clone(),
            cacert: self.options.cloud.os_cacert.clone(),
            insecure: self.options.cloud.insecure,
            retry: Retry {
                retries: self.options.cloud.retries,
                time: self.options.cloud.retry_time,
                ..Retry::default()
            },
        };
        keep_out_of_core_dumps();
        if options.insecure {
            self.warn_of_any_certificate();
        }
        let cloud = self.wait(stage, Cloud::connect(&options, stage))?;
        if cloud.is_insecure() {
            self.warn_of_any_certificate();
        }
        self.known.push((name, cloud.clone()));
        Ok(cloud)
    }

    /// Whether any certificate was taken for a cloud's.
    pub fn is_insecure(&self) -> bool {
        self.warned
    }

    /// Said whatever else is to be said, and once.
    fn warn_of_any_certificate(&mut self) {
        if !std::mem::replace(&mut self.warned, true) {
            super::tell(
                "snapcow: WARNING: any certificate is taken (--insecure, or `verify: false` in clouds.yaml): whoever \
                 is on the way can read the login and change the image",
            );
        }
    }

    /// The image quotas of the target's project.
    pub fn target_usage(&mut self) -> Result<Option<Usage>> {
        let cloud = self.target_cloud()?;
        self.wait(Stage::Sink, cloud.usage())
    }

    /// The cloud of the target.
    pub fn target_cloud(&mut self) -> Result<Cloud> {
        self.cloud(self.options.target_cloud.clone(), Stage::Sink)
    }

    /// The target's Glance and project.
    pub fn target_place(&mut self) -> Result<String> {
        let cloud = self.target_cloud()?;
        Ok(format!("of project {} at {}", cloud.project_id().unwrap_or("unknown"), cloud.image_endpoint()))
    }

    /// What an earlier run left under the ID in its state file: an image that was sent to its end is given back,
    /// to be compared; anything less is deleted. What is not surely that run's is not touched.
    fn leftover(&mut self, name: &str, opened: &Opened, keeper: &mut Keeper) -> Result<Option<Image>> {
        let Some(id) = keeper.image().map(str::to_owned) else { return Ok(None) };
        let cloud = self.target_cloud()?;
        let found = self.wait(Stage::Sink, cloud.find_images(&id))?;
        let Some(image) = found.into_iter().find(|image| image.id == id) else {
            keeper.image_is_gone();
            return Ok(None);
        };
        let is_source = opened.image.as_ref().is_some_and(|source| source.id == id);
        let is_ours = image.name.as_deref() == Some(name) && image.disk_format.as_deref() == Some("qcow2");
        let refuse = |how: &str| {
            let what = format!("the state file names image {}, which is {how}", image.label());
            Err(Error::new(Stage::Sink, Kind::Target, what)
                .advise("look at that image; without the state file the run begins anew"))
        };
        match image.status.as_str() {
            _ if is_source || !is_ours => refuse("not the one that this command makes"),
            "active" if keeper.has_survey() => Ok(Some(image)),
            "active" | "deactivated" => refuse("active already"),
            _ => {
                tracing::info!("deleting image {id}, which an earlier run left {}", image.status);
                self.wait(Stage::Sink, cloud.delete(&id))?;
                keeper.image_is_gone();
                Ok(None)
            }
        }
    }

    /// Creates the record of the target before a byte has moved.
    pub fn create_target(
        &mut self,
        name: &str,
        options: &ConvertArgs,
        opened: &Opened,
        plan: &Plan,
        mut keeper: Option<&mut Keeper>,
    ) -> Result<CreatedTarget> {
        let leftover = match keeper.as_deref_mut() {
            Some(keeper) => self.leftover(name, opened, keeper)?,
            None => None,
        };
        if let Some(image) = leftover {
            let sink = self.sink(&image, options, opened, plan)?.arrived(image.clone());
            return Ok(CreatedTarget {
                id: image.id,
                sink: Box::new(sink),
                dropped_properties: Vec::new(),
                notes: vec!["an earlier run has sent the image already; it is only compared".into()],
            });
        }
        self.check_target_name(name, options, None)?;
        let new = new_image(name, options, opened.image.as_ref(), plan);
        if let Some(keeper) = keeper.as_deref_mut() {
            keeper.begin(Some(&new.id))?;
        }
        let created = self.create(&new, keeper.as_deref_mut())?;
        self.give_way(name, &created.image, options)
            .inspect_err(|_| keeper.into_iter().for_each(Keeper::image_is_gone))?;
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
        let sink = Box::new(self.sink(&created.image, options, opened, plan)?);
        Ok(CreatedTarget { id: new.id, sink, dropped_properties: created.dropped_properties, notes })
    }

    /// Makes the record; where it fails, nothing is left unless the error says so.
    pub fn create(&mut self, new: &NewImage, keeper: Option<&mut Keeper>) -> Result<Created> {
        let cloud = self.target_cloud()?;
        let error = match self.wait(Stage::Sink, cloud.create(new)) {
            Ok(created) => return Ok(created),
            Err(error) => error,
        };
        if let Kind::Interrupted(_) = error.kind() {
            // The answer may be lost, the record not.
            let uninterrupted = Clouds::new(CloudPairArgs::default(), Cancel::new());
            let deleted = uninterrupted.wait(Stage::Sink, cloud.delete(&new.id));
            deleted.map_err(|left| Error::new(Stage::Sink, Kind::Other, left.to_string()))?;
        } else if error.is_retryable() {
            // Nobody knows; the next run looks.
            return Err(error);
        }
        keeper.into_iter().for_each(Keeper::image_is_gone);
        Err(error)
    }

    fn sink(
        &mut self,
        image: &Image,
        options: &ConvertArgs,
        opened: &Opened,
        plan: &Plan,
    ) -> Result<GlanceSink> {
        let cloud = self.target_cloud()?;
        let cancel = self.cancel.clone();
        Ok(GlanceSink::new(
            &cloud,
            image,
            options.image.store.clone(),
            plan.budget.upload_queue_bytes,
            opened.image.as_ref().and_then(known_digest).map_or(Algorithm::Sha512, |digest| digest.algorithm),
            Box::new(move |wake| Box::new(cancel.on_trigger(wake))),
        ))
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

/// From the login on there are secrets in memory: a crash must not write them to a disk, nor may another process of
/// the user read them.
fn keep_out_of_core_dumps() {
    if let Err(error) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        tracing::warn!("a crash would leave secrets in its core dump: {error}");
    }
}

/// The one image of that name or ID, in the cloud of that name or the run's own.
pub fn find_image(name: &str, cloud: Option<String>, clouds: &mut Clouds) -> Result<(Cloud, Image)> {
    let cloud = clouds.cloud(cloud, Stage::Source)?;
    let found = clouds.wait(Stage::Source, cloud.find_images(name))?;
    let image = one_of(found, name, &cloud, clouds, Stage::Source)?;
    Ok((cloud, image))
}

/// The one image that was found; else what there may be instead.
pub fn one_of(
    mut found: Vec<Image>,
    name: &str,
    cloud: &Cloud,
    clouds: &Clouds,
    stage: Stage,
) -> Result<Image> {
    let refuse = |what: String| Error::new(stage, Kind::Source, what);
    if found.len() > 1 {
        return Err(refuse(format!("`{name}` names {} images: {}", found.len(), list(&found)))
            .advise("name one of them by its ID"));
    }
    found.pop().ok_or_else(|| {
        refuse(format!("no image in {} has the name or ID `{name}`", cloud.label()))
            .advise(super::nearby::advice(name, cloud, clouds))
    })
}

/// Looks a source image up and probes whether ranges of it can be read.
pub fn open_source(name: &str, options: &ConvertArgs, clouds: &mut Clouds) -> Result<Opened> {
    let (cloud, image) = find_image(name, options.cloud.source_cloud.clone(), clouds)?;
    if let Some((reason, advice)) = why_not_convertible(&image) {
        let what = format!("image {} cannot be converted: {reason}", image.label());
        return Err(Error::new(Stage::Source, Kind::Source, what).advise(advice));
    }
    let ranges = clouds.wait(Stage::Source, cloud.probe_range(&image.id, image.size.unwrap_or(0)))?;
    let connections = options.how.connections.map_or(2, usize::from);
    let source =
        GlanceSource::new(cloud, image.clone(), ranges, connections, options.how.connections.is_some());
    let digest = match options.how.verify_source {
        OnOff::On => source.digest(),
        OnOff::Off => Err("switched off by --verify-source off".into()),
    };
    Ok(Opened::image(Arc::new(source), digest, image))
}

/// What tells an image from others, for the report.
pub fn describe(image: &Image) -> serde_json::Value {
    serde_json::json!({
        "kind": "glance",
        "id": image.id,
        "name": image.name,
        "size_bytes": image.size,
        "checksum": image.checksum,
        "os_hash_algo": image.os_hash_algo,
        "os_hash_value": image.os_hash_value,
        "created_at": image.created_at,
        "updated_at": image.updated_at,
    })
}

fn new_image(name: &str, options: &ConvertArgs, source: Option<&Image>, plan: &Plan) -> NewImage {
    let wanted = &options.image;
    let copied = source.filter(|_| wanted.copy_properties == OnOff::On);
    let mut properties = copied.map(copyable_properties).unwrap_or_default();
    properties.extend(wanted.properties.iter().cloned());
    let mut tags = copied.map(|image| image.tags.clone()).unwrap_or_default();
    tags.extend(wanted.tags.iter().filter(|tag| !tags.contains(tag)).cloned().collect::<Vec<_>>());
    NewImage {
        id: NewImage::new_id(),
        name: name.into(),
        disk_format: "qcow2".into(),
        container_format: "bare".into(),
        visibility: Some(wanted.visibility.clone()),
        min_disk: min_disk(options, source, plan),
        min_ram: wanted.min_ram.unwrap_or_else(|| source.map_or(0, |image| image.min_ram)),
        tags,
        properties,
    }
}

/// The least root disk of the new image, in GiB, as far as it is known before all is read.
pub fn min_disk(options: &ConvertArgs, source: Option<&Image>, plan: &Plan) -> u64 {
    let own = plan.facts.source.len.map_or(0, gib);
    own.max(source.map_or(0, |image| image.min_disk)).max(options.image.min_disk.unwrap_or(0))
}

/// Whole GiB that hold so many bytes.
pub fn gib(bytes: u64) -> u64 {
    bytes.div_ceil(1 << 30)
}
