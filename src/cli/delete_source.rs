//! `--delete-source`: what has to hold before the first pass, and once more before the source image is deleted.
//!
//! Deleting cannot be undone, so nothing is taken for granted: the proof of the run must be whole, the new image must be
//! there with the hash that was proven, and the source must still be the image that was looked up. Whatever is missing
//! keeps both images, by [`Kind::SourceKept`], with both IDs.

use clap::ValueEnum;
use serde_json::{Value, json};
use snapcow::convert::{Cancel, Receipt};
use snapcow::error::{Error, Kind, Result, Stage};
use snapcow::hash::{Algorithm, Digest};
use snapcow::openstack::{Cloud, Image, ImageFilter, Member, Server};
use snapcow::source::known_digest;

use super::args::{ConvertArgs, OnOff};
use super::glance::Clouds;
use super::opened::Opened;
use super::report::Outcome;
use super::target::TargetWords;
use super::tell;

/// Properties by which an image names the one that it was made from: Nova's for a snapshot, and what other tools write.
const BASES: [&str; 2] = ["base_image_ref", "image_ref"];
/// Images that are named in a refusal.
const SHOWN: usize = 5;

/// When the source may be deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DeleteSource {
    /// With the whole proof.
    Proven,
    /// Also where the service keeps no hash of the source; the rest of the proof is needed all the same.
    Unproven,
}

/// A source image that is to be deleted in the end.
#[derive(Clone, Debug)]
pub struct Doomed {
    cloud: Cloud,
    image: Image,
    wish: DeleteSource,
    /// Who loses it, if that could be seen.
    pub members: Option<Vec<Member>>,
    /// What whoever wants it should know beforehand.
    pub notes: Vec<String>,
}

/// A new image that is proven to hold what the source holds.
#[derive(Clone, Debug)]
pub struct Proven {
    /// Its ID.
    pub id: String,
    /// Bytes of the image.
    pub len: u64,
    /// The hash of what was sent, which is the one that the service keeps.
    pub digest: Digest,
}

/// What became of a source that was to be deleted, for the report.
#[derive(Clone, Debug)]
pub struct Fate {
    /// The ID.
    pub id: String,
    /// Why it is still there; `None` if it is deleted.
    pub kept_because: Option<String>,
}

impl Fate {
    /// As the report has it.
    pub fn json(&self) -> Value {
        json!({"id": self.id, "is_deleted": self.kept_because.is_none(), "kept_because": self.kept_because})
    }
}

/// Options that contradict `--delete-source`, before anything is asked.
///
/// # Errors
/// [`Kind::Usage`].
pub fn check(options: &ConvertArgs, target: &TargetWords<'_>) -> Result<()> {
    if options.delete_source.is_none() {
        return Ok(());
    }
    let usage = |what: &str| {
        Err(Error::new(Stage::Plan, Kind::Usage, format!("--delete-source needs {what}"))
            .advise("leave one of the two out"))
    };
    if !options.source.starts_with("glance:") {
        return usage("an image in Glance as its source");
    }
    if !matches!(target, TargetWords::Glance(_)) {
        return usage("a new image in Glance as its target, whose hash can be compared");
    }
    if options.how.verify_source == OnOff::Off {
        return usage("the source to be verified, which --verify-source off forbids");
    }
    if options.how.verify_encode == Some(OnOff::Off) {
        return usage("every cluster to be decoded again, which --verify-encode off forbids");
    }
    if options.how.trim && options.delete_source != Some(DeleteSource::Unproven) {
        let what =
            "--delete-source needs an image that holds all of its source, and --trim leaves out what is free";
        return Err(Error::new(Stage::Plan, Kind::Usage, what)
            .advise("leave one of the two out, or give --delete-source=unproven if that is good enough"));
    }
    Ok(())
}

/// Before pass 1: the source of a conversion that is to be deleted, if that was asked for and can be.
///
/// # Errors
/// As [`Doomed::examine`].
pub fn before(options: &ConvertArgs, opened: &Opened, clouds: &mut Clouds) -> Result<Option<Doomed>> {
    let (Some(wish), Some(image)) = (options.delete_source, &opened.image) else { return Ok(None) };
    let cloud = clouds.cloud(options.cloud.source_cloud.clone(), Stage::Source)?;
    Doomed::examine(cloud, image, wish, clouds).map(Some)
}

/// After a conversion that succeeded: deletes its source, if that was asked for, and notes what became of it.
///
/// # Errors
/// [`Kind::SourceKept`], or the signal that ended the run; then both images are there.
pub fn after(outcome: &mut Outcome, clouds: &mut Clouds, cancel: &Cancel, quiet: bool) -> Result<()> {
    let (Some(doomed), Some(id)) = (outcome.doomed.take(), outcome.image_id.clone()) else { return Ok(()) };
    let Some(receipt) = &outcome.receipt else { return Ok(()) };
    let result = doomed.proven(receipt, &id).and_then(|proven| {
        let cloud = clouds.target_cloud()?;
        doomed.delete(&proven, &cloud, clouds, cancel)
    });
    let kept_because = result.as_ref().err().map(ToString::to_string);
    outcome.deleted_source = Some(Fate { id: doomed.image.id.clone(), kept_because });
    if result.is_ok() && !quiet {
        tell(format_args!("snapcow: the source image {} is deleted", doomed.image.label()));
    }
    result
}

impl Doomed {
    /// Looks whether an image may be deleted at all, as far as can be seen without doing it.
    ///
    /// # Errors
    /// [`Kind::Source`]: it is another project's, protected, the base of others, or keeps no hash (unless `wish` says
    /// that it need not). And of the requests.
    pub fn examine(cloud: Cloud, image: &Image, wish: DeleteSource, clouds: &Clouds) -> Result<Self> {
        let cloud = cloud.for_stage(Stage::Source);
        let mut notes = vec![format!(
            "image {} is deleted in the end, if the proof is whole; whether the cloud's policy permits that shows only then",
            image.label()
        )];
        let refuse = |why: String, advice: String| {
            let what = format!("image {} is not to be deleted: {why}", image.label());
            Err(Error::new(Stage::Source, Kind::Source, what).advise(advice))
        };
        match (cloud.project_id(), image.owner.as_deref()) {
            (Some(own), Some(owner)) if own != owner => {
                let advice = "leave that to the other project, or convert it and keep it".into();
                return refuse(format!("it belongs to another project, {owner}"), advice);
            }
            (Some(_), Some(_)) => {}
            _ => notes.push("whether the image is this project's cannot be seen with a token alone".into()),
        }
        if image.protected {
            let advice = format!("openstack image set --unprotected {}", image.id);
            return refuse("it is protected".into(), advice);
        }
        if strong_digest(image).is_none() {
            if wish == DeleteSource::Proven {
                let why = "Glance keeps no hash of it but MD5 at most, so that it cannot be verified";
                let advice = "give --delete-source=unproven (replace: --unproven) if what is read is to be trusted, or delete it by hand";
                return refuse(why.into(), advice.into());
            }
            notes.push(
                "Glance keeps no hash of the source: it is deleted without having been verified".into(),
            );
        }
        match needed_by(&cloud, image, clouds)? {
            (Some(needed_by), _) => {
                let advice = "delete those first, or convert it and keep it";
                return refuse(needed_by, advice.into());
            }
            (None, Some(unseen)) => notes.push(unseen),
            (None, None) => {}
        }
        let members = members(&cloud, image, clouds)?;
        notes.extend(who_loses_it(image, members.as_deref()));
        Ok(Self { cloud, image: image.clone(), wish, members, notes })
    }

    /// The new image of a run whose receipt is a whole proof.
    ///
    /// # Errors
    /// [`Kind::SourceKept`], with what is missing.
    pub fn proven(&self, receipt: &Receipt, id: &str) -> Result<Proven> {
        if let Some(gap) = receipt.gap_in_proof(self.wish == DeleteSource::Proven) {
            return Err(self.kept(id, "made, but the proof is not whole", &gap));
        }
        let digest = receipt.delivered.as_ref().and_then(|delivered| delivered.verified.clone());
        let digest = digest.ok_or_else(|| self.kept(id, "made", "it was not verified"))?;
        Ok(Proven { id: id.into(), len: receipt.image_len, digest })
    }

    /// Deletes the source, after a last look at both images.
    ///
    /// # Errors
    /// [`Kind::SourceKept`], or the signal that ended the run; the source is still there, unless the sentence says that
    /// nobody knows.
    pub fn delete(&self, new: &Proven, target: &Cloud, clouds: &Clouds, cancel: &Cancel) -> Result<()> {
        let looked = look_at_target(target, new, clouds).and_then(|()| self.look_at_source(clouds));
        looked.map_err(|error| self.refused(&new.id, error, cancel))?;
        self.delete_now(&new.id, clouds, cancel)
    }

    /// The image that is to be deleted.
    pub fn image(&self) -> &Image {
        &self.image
    }

    /// The source must still be the image that was looked up, and nothing may have come to need it.
    fn look_at_source(&self, clouds: &Clouds) -> Result<()> {
        let now = clouds.wait(Stage::Source, self.cloud.show(&self.image.id))?;
        let changed = |why: &str| {
            let what = format!("image {} has changed since it was read: {why}", self.image.label());
            Err(Error::new(Stage::Source, Kind::SourceChanged, what))
        };
        if now.protected {
            return changed("it is protected");
        }
        let data = |image: &Image| (image.size, known_digest(image), image.status.clone());
        if data(&now) != data(&self.image) {
            return changed("its data are others");
        }
        if now.updated_at != self.image.updated_at {
            return changed("its record was changed by somebody");
        }
        match needed_by(&self.cloud, &now, clouds)?.0 {
            Some(needed_by) => changed(&needed_by),
            None => Ok(()),
        }
    }

    fn delete_now(&self, target_id: &str, clouds: &Clouds, cancel: &Cancel) -> Result<()> {
        cancel.check(Stage::Source).map_err(|error| self.refused(target_id, error, cancel))?;
        let Err(error) = clouds.wait(Stage::Source, self.cloud.delete(&self.image.id)) else { return Ok(()) };
        if !matches!(error.kind(), Kind::Interrupted(_)) {
            return Err(self.refused(target_id, error, cancel));
        }
        // The request may have been served all the same.
        let uninterrupted = Clouds::new(super::args::CloudArgs::default(), Cancel::new());
        let found = uninterrupted.wait(Stage::Source, self.cloud.find_images(&self.image.id));
        Err(match found {
            Ok(found) if found.is_empty() => {
                let what = format!(
                    "interrupted when the source image {} had just been deleted; the new image is {target_id}",
                    self.image.label()
                );
                Error::new(Stage::Source, error.kind(), what)
            }
            Ok(_) => self.refused(target_id, error, cancel),
            Err(_) => error.advise(format!(
                "the new image {target_id} is proven; see whether the source image {} is still there",
                self.image.id
            )),
        })
    }

    /// What kept the source, as the end of the run; a signal stays the signal.
    fn refused(&self, target_id: &str, error: Error, cancel: &Cancel) -> Error {
        match cancel.check(Stage::Source) {
            Ok(()) => self.kept(target_id, "made and proven", &error.to_string()),
            Err(signal) => signal.advise(format!(
                "the new image {target_id} is made and proven, and its source is kept; delete that with: openstack image delete {}",
                self.image.id
            )),
        }
    }

    fn kept(&self, target_id: &str, made: &str, why: &str) -> Error {
        let what = format!(
            "the new image {target_id} is {made}; its source, image {}, is kept: {why}",
            self.image.label()
        );
        let advice = format!("when nothing needs it any more: openstack image delete {}", self.image.id);
        Error::new(Stage::Source, Kind::SourceKept, what).advise(advice)
    }
}

/// The new image must still be there, as it was proven.
fn look_at_target(cloud: &Cloud, new: &Proven, clouds: &Clouds) -> Result<()> {
    let image = clouds.wait(Stage::Sink, cloud.for_stage(Stage::Sink).show(&new.id))?;
    let same = known_digest(&image).as_ref() == Some(&new.digest);
    if same && image.status == "active" && image.size == Some(new.len) {
        return Ok(());
    }
    let what = format!("image {} is not any more what was proven", image.label());
    Err(Error::new(Stage::Sink, Kind::Target, what).advise("see who changed it"))
}

/// A hash by which a disk can be told from one that was made to be taken for it.
pub fn strong_digest(image: &Image) -> Option<Digest> {
    known_digest(image).filter(|digest| digest.algorithm != Algorithm::Md5)
}

/// What needs the image, in words, as far as the project may see it; and what could not be seen.
fn needed_by(cloud: &Cloud, image: &Image, clouds: &Clouds) -> Result<(Option<String>, Option<String>)> {
    let mut names = Vec::new();
    for key in BASES {
        for hidden in [false, true] {
            let property = Some((key.to_owned(), image.id.clone()));
            let filter = ImageFilter { property, hidden, ..ImageFilter::default() };
            let listed = clouds.wait(Stage::Source, cloud.list_images(&filter, SHOWN))?;
            let others = listed.images.iter().filter(|other| other.id != image.id);
            names.extend(others.map(Image::label));
            if !listed.complete {
                names.push("…".into());
            }
        }
    }
    if !names.is_empty() {
        return Ok((Some(format!("other images name it as their base: {}", names.join(", "))), None));
    }
    // A cloud without Nova, or one whose Nova is away, is as good for images as any other.
    let once = cloud.with_retry(cloud.retry().once());
    let servers = async { once.compute().await?.servers_from(&image.id, SHOWN).await };
    match clouds.wait(Stage::Source, servers) {
        Ok(servers) if servers.is_empty() => Ok((None, None)),
        Ok(servers) => {
            let names: Vec<String> = servers.iter().map(Server::label).collect();
            Ok((Some(format!("servers were made from it: {}", names.join(", "))), None))
        }
        Err(error) if matches!(error.kind(), Kind::Interrupted(_)) => Err(error),
        Err(error) => {
            Ok((None, Some(format!("whether servers were made from the image cannot be seen: {error}"))))
        }
    }
}

/// The projects that the image is shared with; `None` where nobody says.
fn members(cloud: &Cloud, image: &Image, clouds: &Clouds) -> Result<Option<Vec<Member>>> {
    if image.visibility.as_deref() != Some("shared") {
        return Ok(Some(Vec::new()));
    }
    match clouds.wait(Stage::Source, cloud.members(&image.id)) {
        Ok(members) => Ok(Some(members)),
        Err(error) if matches!(error.kind(), Kind::Interrupted(_) | Kind::Network) => Err(error),
        Err(_) => Ok(None),
    }
}

/// Who will miss the image.
fn who_loses_it(image: &Image, members: Option<&[Member]>) -> Option<String> {
    match (image.visibility.as_deref(), members) {
        (Some(wide @ ("public" | "community")), _) => {
            Some(format!("the image is {wide}: other projects that use it lose it"))
        }
        (_, Some([])) => None,
        (_, Some(members)) => {
            let names: Vec<String> =
                members.iter().map(|member| format!("{} ({})", member.project, member.status)).collect();
            Some(format!("the image is shared with these projects, which lose it: {}", names.join(", ")))
        }
        (_, None) => {
            Some("whether the image is shared with others cannot be seen; they would lose it".into())
        }
    }
}
