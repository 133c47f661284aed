//! `snapcow replace`: a compact image in place of a raw one: convert, prove, delete the old one, give the new one its name.
//!
//! At every moment either the old image is there as it was, or the new one is proven and protected; under the old name
//! there is never anything half-made. [`unfinished`] tells how the same command goes on after an end at any point.

mod consent;
mod unfinished;

use clap::Parser;
use snapcow::convert::Cancel;
use snapcow::error::{Error, Kind, Result, Stage};
use snapcow::openstack::{Cloud, Image, Member, why_not_convertible};

use super::args::{CloudArgs, ConversionArgs, ConvertArgs, ImageArgs, OnOff};
use super::convert;
use super::delete_source::{self, DeleteSource, Doomed, Fate, Proven};
use super::glance::Clouds;
use super::report::Outcome;
use super::target::TargetWords;
use super::tell;

#[derive(Clone, Debug, Parser)]
pub struct ReplaceArgs {
    /// NAME or ID of a raw image
    pub image: String,
    /// Do not ask; needed where there is no terminal
    #[arg(short, long)]
    pub yes: bool,
    /// Share the new image with the projects that the old one is shared with; they have to accept it again
    #[arg(long)]
    pub share_again: bool,
    /// Replace the image also if Glance keeps no hash by which it could be verified
    #[arg(long, help_heading = "Safety")]
    pub unproven: bool,
    #[command(flatten)]
    pub how: ConversionArgs,
    #[command(flatten)]
    pub cloud: CloudArgs,
}

/// A replacement under way.
struct Replacement<'a> {
    options: &'a ReplaceArgs,
    cloud: Cloud,
    clouds: Clouds,
    cancel: &'a Cancel,
    quiet: bool,
}

/// Runs the command.
pub fn run(options: &ReplaceArgs, quiet: bool, cancel: &Cancel) -> Result<()> {
    check(options)?;
    let mut clouds = Clouds::new(options.cloud.clone(), cancel.clone());
    let cloud = clouds.cloud(None, Stage::Source)?;
    let words = options.image.strip_prefix("glance:").unwrap_or(&options.image);
    let found = unfinished::find(words, &cloud, &mut clouds)?;
    let mut replacement = Replacement { options, cloud, clouds, cancel, quiet };
    match (found.old, found.proven) {
        (Some(old), Some(new)) => replacement.delete_and_rename(&old, &new),
        (Some(old), None) => replacement.start_over(&old, &found.left),
        (None, Some(new)) => {
            replacement
                .note(format_args!("going on: the old image is deleted, {} takes its name", new.label()));
            replacement.print_and_finish(&new)
        }
        (None, None) => {
            let left: Vec<String> = found.left.iter().map(Image::label).collect();
            let what =
                format!("the image is gone, and its compact copy was never proven: {}", left.join(", "));
            Err(Error::new(Stage::Source, Kind::Source, what)
                .advise("look at it with `snapcow check`, then rename or delete it"))
        }
    }
}

/// Options that leave no proof.
fn check(options: &ReplaceArgs) -> Result<()> {
    let args = conversion(options, "glance:x".into(), "x", "private");
    let args = ConvertArgs { delete_source: Some(wish(options)), ..args };
    delete_source::check(&args, &TargetWords::Glance("x"))
}

fn wish(options: &ReplaceArgs) -> DeleteSource {
    if options.unproven { DeleteSource::Unproven } else { DeleteSource::Proven }
}

fn conversion(options: &ReplaceArgs, source: String, name: &str, visibility: &str) -> ConvertArgs {
    ConvertArgs {
        source,
        target: format!("glance:{name}"),
        source_format: None,
        force: false,
        delete_source: None,
        how: options.how.clone(),
        image: ImageArgs {
            properties: Vec::new(),
            tags: Vec::new(),
            visibility: visibility.into(),
            min_disk: None,
            min_ram: None,
            store: None,
            copy_properties: OnOff::On,
            allow_duplicate: false,
        },
        cloud: options.cloud.clone().into(),
    }
}

impl Replacement<'_> {
    fn note(&self, words: std::fmt::Arguments<'_>) {
        if !self.quiet {
            tell(format_args!("snapcow: note: {words}"));
        }
    }

    /// Everything, for an image of which no proven copy is there.
    fn start_over(&mut self, old: &Image, left: &[Image]) -> Result<()> {
        if let Some((reason, advice)) = why_not_convertible(old) {
            let what = format!("image {} cannot be replaced: {reason}", old.label());
            return Err(Error::new(Stage::Source, Kind::Source, what).advise(advice));
        }
        let doomed = self.examine(old)?;
        let name = unfinished::unproven_name(unfinished::shown_name(old));
        let visibility = old.visibility.as_deref().unwrap_or("private");
        let mut args = conversion(self.options, format!("glance:{}", old.id), &name, visibility);
        args.image.properties = vec![
            (unfinished::REPLACES.into(), old.id.clone()),
            (unfinished::NAME.into(), unfinished::shown_name(old).into()),
        ];
        if self.options.how.dry_run {
            // What an earlier run left has that name, and would be cleared away.
            args.image.allow_duplicate = !left.is_empty();
        } else {
            consent::ask(&doomed, self.options, self.cancel)?;
            // With a state file the conversion knows better what it can use of it.
            if !self.options.how.state.as_ref().is_some_and(|file| file.exists()) {
                unfinished::clear(left, old, &self.cloud, &self.clouds)?;
            }
        }
        let (mut outcome, result) = convert::recorded(&args, self.quiet, self.cancel, &mut self.clouds);
        // Whatever went wrong after the conversion itself: the new image is there, and nobody has noted its proof.
        result.map_err(|error| match outcome.receipt {
            Some(_) => left_unproven(error, old, &outcome),
            None => error,
        })?;
        if self.options.how.dry_run {
            return Ok(());
        }
        let result = self.take_the_place(&doomed, &mut outcome);
        convert::reported(&args, &outcome, result)
    }

    /// From the receipt on.
    fn take_the_place(&mut self, doomed: &Doomed, outcome: &mut Outcome) -> Result<()> {
        let (Some(receipt), Some(id)) = (&outcome.receipt, &outcome.image_id) else {
            return Err(Error::new(Stage::Sink, Kind::Other, "a conversion without a receipt"));
        };
        let old = doomed.image();
        let new = doomed.proven(receipt, id).map_err(|error| left_unproven(error, old, outcome))?;
        // The proof is dear, and noting it takes a moment: a signal waits for that.
        let uninterrupted = Clouds::new(CloudArgs::default(), Cancel::new());
        let changes = unfinished::proven(old, &new);
        let sink = self.cloud.for_stage(Stage::Sink);
        uninterrupted
            .wait(Stage::Sink, sink.update_image(&new.id, &changes))
            .map_err(|error| left_unproven(error, old, outcome))?;
        let result = self.delete(doomed, &new);
        let kept_because = result.as_ref().err().map(ToString::to_string);
        outcome.deleted_source = Some(Fate { id: old.id.clone(), kept_because });
        result?;
        self.finish(&new.id, unfinished::shown_name(old))
    }

    /// A copy that an earlier run has proven, and the old image is still there.
    fn delete_and_rename(&mut self, old: &Image, new: &Image) -> Result<()> {
        let doomed = self.examine(old)?;
        let proven = unfinished::proven_before(old, new)?;
        if self.options.how.dry_run {
            let line = format!(
                "delete image {}, give image {} its name: an earlier run has proven it",
                old.label(),
                new.id
            );
            return convert::say(&line);
        }
        consent::ask(&doomed, self.options, self.cancel)?;
        self.note(format_args!("going on: image {} was proven by an earlier run", new.label()));
        convert::say(&new.id)?;
        let changes = unfinished::proven(old, &proven);
        self.clouds.wait(Stage::Sink, self.cloud.for_stage(Stage::Sink).update_image(&new.id, &changes))?;
        self.delete(&doomed, &proven)?;
        self.finish(&new.id, unfinished::shown_name(old))
    }

    fn print_and_finish(&mut self, new: &Image) -> Result<()> {
        let name = new.properties.get(unfinished::NAME).cloned().unwrap_or_default();
        if self.options.how.dry_run {
            return convert::say(&format!("rename image {} to `{name}`", new.label()));
        }
        convert::say(&new.id)?;
        self.finish(&new.id, &name)
    }

    /// Whether the old image may be deleted; the rest of what has to be known before anything is done.
    fn examine(&mut self, old: &Image) -> Result<Doomed> {
        let doomed = Doomed::examine(self.cloud.clone(), old, wish(self.options), &self.clouds)?;
        if self.options.share_again && doomed.members.is_none() {
            let what = format!(
                "the members of image {} cannot be seen, so the new one cannot be shared with them",
                old.label()
            );
            return Err(Error::new(Stage::Source, Kind::Login, what).advise("leave --share-again out"));
        }
        consent::tell_consequences(&doomed, self.options, self.quiet);
        Ok(doomed)
    }

    /// Shares the new image if that was asked for, and deletes the old one.
    fn delete(&mut self, doomed: &Doomed, new: &Proven) -> Result<()> {
        let members = doomed.members.iter().flatten().filter(|_| self.options.share_again);
        let result = self
            .share(new, members)
            .and_then(|()| doomed.delete(new, &self.cloud, &self.clouds, self.cancel));
        if let Err(error) = &result
            && error.kind() == Kind::SourceKept
        {
            // Nobody is to be in the way of who decides otherwise; the next run protects it again.
            let unprotect = snapcow::openstack::ImageChanges { protected: Some(false), ..Default::default() };
            let uninterrupted = Clouds::new(CloudArgs::default(), Cancel::new());
            if let Err(left) = uninterrupted.wait(Stage::Sink, self.cloud.update_image(&new.id, &unprotect)) {
                tracing::warn!("image {} stays protected: {left}", new.id);
            }
        }
        result.map_err(|error| {
            let first = error.advice().map(|advice| format!("{advice}; ")).unwrap_or_default();
            error.advise(format!("{first}the same command goes on from here"))
        })
    }

    fn share<'m>(&self, new: &Proven, members: impl Iterator<Item = &'m Member>) -> Result<()> {
        let cloud = self.cloud.for_stage(Stage::Sink);
        for member in members {
            self.clouds.wait(Stage::Sink, cloud.add_member(&new.id, &member.project)).map_err(|error| {
                error.advise(format!("the new image {} is proven, the old one is as it was", new.id))
            })?;
            self.note(format_args!(
                "shared with {}, which has to accept it: snapcow accept {}",
                member.project, new.id
            ));
        }
        Ok(())
    }

    /// The old image is gone: nothing ends this but a second signal.
    fn finish(&self, id: &str, name: &str) -> Result<()> {
        let uninterrupted = Clouds::new(CloudArgs::default(), Cancel::new());
        let cloud = self.cloud.for_stage(Stage::Sink);
        uninterrupted.wait(Stage::Sink, cloud.update_image(id, &unfinished::done(name))).map_err(|error| {
            error.advise(format!("the old image is deleted, the new one is {id} and proven; the same command gives it its name"))
        })?;
        if !self.quiet {
            tell(format_args!("snapcow: image `{name}` is {id} now"));
        }
        Ok(())
    }
}

/// A failure after which the new image is whole, but counts for nothing.
fn left_unproven(error: Error, old: &Image, outcome: &Outcome) -> Error {
    error.advise(format!(
        "image {} is as it was; the new one, {}, is not counted as proven, and the same command begins anew",
        old.label(),
        outcome.image_id.as_deref().unwrap_or("of unknown ID")
    ))
}
