//! Step 5: the raw image becomes the compact one, which is verified; then the raw one goes, if all is proven.

use std::collections::BTreeMap;
use std::time::Duration;

use snapcow::error::{Error, Kind, Result, Stage};
use snapcow::hash::Algorithm;
use snapcow::openstack::{Image, ImageChanges, NewImage};
use snapcow::source::known_digest;

use super::super::delete_source::DeleteSource;
use super::super::{convert, tell};
use super::{CLAIM, Job, ORDER, SNAPSHOT_OF, TARGET, UNFINISHED};

/// So long may a request be on its way from another run to Glance.
const ON_ITS_WAY: Duration = Duration::from_secs(3);

impl Job<'_> {
    /// Converts, verifies, and deletes the raw image unless it is to be kept.
    pub fn compact(&mut self, raw: &Image) -> Result<()> {
        if raw.disk_format.as_deref().is_some_and(|format| format != "raw") {
            return self.take_as_it_is(raw);
        }
        let last = if self.options.keep_raw { "" } else { ", delete the raw one" };
        self.step(5, &format!("convert {} to `{}`, verify it{last}", raw.label(), self.name));
        self.clear_the_way(raw)?;
        let mut conversion = self.conversion(&raw.id);
        let has_hash = known_digest(raw).is_some_and(|digest| digest.algorithm != Algorithm::Md5);
        conversion.delete_source = match (self.options.keep_raw, self.options.unproven, has_hash) {
            (true, ..) | (_, false, false) => None,
            (_, true, _) => Some(DeleteSource::Unproven),
            (_, false, true) => Some(DeleteSource::Proven),
        };
        let (outcome, result) = convert::recorded(&conversion, self.quiet, self.cancel, &mut self.clouds);
        let Some(new) = outcome.image_id.clone().filter(|_| outcome.receipt.is_some()) else {
            // Whatever the conversion had made, it has taken back.
            self.tell_of_raw(&raw.id);
            return result;
        };
        match result {
            Ok(()) if conversion.delete_source.is_some() => self.finish(&new, None).map(drop),
            Ok(()) => {
                self.finish(&new, Some(&raw.id))?;
                if self.options.keep_raw {
                    self.say(&format!("the raw image {} is kept, as asked for", raw.label()));
                    return Ok(());
                }
                Err(self.unproven(&new, raw))
            }
            Err(error) if error.kind() == Kind::SourceKept => {
                self.finish(&new, Some(&raw.id)).and(Err(error))
            }
            Err(error) => {
                self.tell_of_raw(&raw.id);
                Err(error)
            }
        }
    }

    /// Where Nova keeps its disks as qcow2 files it may upload one: what was to be made of the raw image is there.
    fn take_as_it_is(&mut self, image: &Image) -> Result<()> {
        let format = image.disk_format.as_deref().unwrap_or_default();
        self.step(
            5,
            &format!("convert {}: not needed, this cloud's snapshots are {format} already", image.label()),
        );
        let wanted = &self.options.image;
        let changes = ImageChanges {
            visibility: Some(wanted.visibility.clone()),
            set_properties: wanted.properties.iter().cloned().collect(),
            tags: (!wanted.tags.is_empty()).then(|| wanted.tags.clone()),
            min_disk: wanted.min_disk,
            min_ram: wanted.min_ram,
            remove_properties: [TARGET, SNAPSHOT_OF, ORDER, CLAIM].map(str::to_owned).to_vec(),
            ..ImageChanges::name(self.name.as_str())
        };
        let changed = self
            .clouds
            .wait(Stage::Sink, self.cloud.for_stage(Stage::Sink).update_image(&image.id, &changes));
        changed.inspect_err(|_| self.tell_of_raw(&image.id))?;
        convert::say(&image.id)
    }

    /// A new image that an earlier run left under the name is converted anew, unless a state file knows more of it.
    ///
    /// Should the earlier run be alive after all, it must not delete the raw image while its new one is deleted here: it
    /// does not delete what was changed behind its back, so the raw image is changed first, and looked at again after
    /// a moment in which a deletion that was on its way has arrived.
    fn clear_the_way(&mut self, raw: &Image) -> Result<()> {
        let Some(compact) = self.left.compact.take() else { return Ok(()) };
        if self.options.how.state.as_ref().is_some_and(|path| path.exists()) {
            return Ok(());
        }
        self.say(&format!("image {}, which an earlier run left unproven, is made anew", compact.label()));
        let cloud = self.cloud.for_stage(Stage::Sink);
        let claim = BTreeMap::from([(CLAIM.to_owned(), NewImage::new_id())]);
        let changes = ImageChanges { set_properties: claim, ..ImageChanges::default() };
        let claimed = self.clouds.wait(Stage::Sink, async {
            cloud.update_image(&raw.id, &changes).await?;
            tokio::time::sleep(ON_ITS_WAY).await;
            cloud.show(&raw.id).await
        });
        let is_there = claimed.as_ref().is_ok_and(|raw| raw.status == "active");
        if !is_there {
            self.cancel.check(Stage::Sink)?;
            let why = claimed.err().map_or("it is not active any more".into(), |error| error.to_string());
            let what = format!("the raw image {} is being changed: {why}", raw.label());
            return Err(Error::new(Stage::Sink, Kind::Source, what).advise(format!(
                "another run may be at work, so image {} stays; run this again when it has ended",
                compact.id
            )));
        }
        self.clouds.wait(Stage::Sink, cloud.delete(&compact.id)).map(drop)
    }

    /// Takes the notes off what is finished: first off a raw image that stays, so that nobody goes on from it.
    fn finish(&mut self, new: &str, raw: Option<&str>) -> Result<()> {
        for (id, keys) in raw
            .map(|raw| (raw, &[TARGET, SNAPSHOT_OF, ORDER, CLAIM][..]))
            .into_iter()
            .chain([(new, &[UNFINISHED, SNAPSHOT_OF][..])])
        {
            let changes = ImageChanges {
                remove_properties: keys.iter().map(|key| (*key).to_owned()).collect(),
                ..ImageChanges::default()
            };
            let cloud = self.cloud.for_stage(Stage::Sink);
            if let Err(error) = self.clouds.wait(Stage::Sink, cloud.update_image(id, &changes)) {
                self.cancel.check(Stage::Sink)?;
                tell(format_args!(
                    "snapcow: WARNING: {error}; take the notes off with: openstack image unset --property {} {id}",
                    keys.join(" --property ")
                ));
            }
        }
        Ok(())
    }

    /// The last step of a run that was killed behind its last but one.
    pub fn finish_notes(&mut self) -> Result<()> {
        let Some(compact) = self.left.compact.take() else { return Ok(()) };
        self.finish(&compact.id, None)?;
        convert::say(&compact.id)
    }

    fn unproven(&self, new: &str, raw: &Image) -> Error {
        let what = format!(
            "the new image {new} is made; the raw one, {}, is kept: Glance keeps no hash by which it could be verified",
            raw.label()
        );
        Error::new(Stage::Source, Kind::SourceKept, what)
            .advise(format!("--unproven would have deleted it; now: openstack image delete {}", raw.id))
    }
}
