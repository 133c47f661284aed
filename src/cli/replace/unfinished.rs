//! What a replacement notes on its new image, so that the same command finds it again and goes on wherever it was ended.
//!
//! | the new image | is called | has |
//! |---|---|---|
//! | half-made, or whole and not yet proven | `NAME (snapcow: compact, not yet proven)` | [`REPLACES`], [`NAME`] |
//! | proven; the old one is there or gone | `NAME (snapcow: compact copy)` | [`PROOF`] too; protected |
//! | done | `NAME` | none of them |
//!
//! Each step from one line to the next is one PATCH, so it is made or not made. Protection keeps every other run of
//! snapcow, and everybody else, from deleting the new image while the old one goes.

use snapcow::error::{Error, Kind, Result, Stage};
use snapcow::hash::Digest;
use snapcow::openstack::{Cloud, Image, ImageChanges, ImageFilter};
use snapcow::source::known_digest;

use crate::cli::delete_source::{Proven, strong_digest};
use crate::cli::glance::Clouds;

/// The ID of the image that is replaced.
pub const REPLACES: &str = "snapcow_replaces";
/// Its name.
pub const NAME: &str = "snapcow_replaces_name";
/// The hashes of both, once the new one is proven.
const PROOF: &str = "snapcow_replaces_proof";

/// Characters of a name in Glance.
const NAME_CHARS: usize = 255;
/// Images of one replacement that are looked at; more than one is there only if runs went side by side.
const MOST: usize = 20;

/// What is to be done, as far as the images tell.
pub struct Found {
    /// The raw image; `None` if it is deleted already.
    pub old: Option<Image>,
    /// The new one, if it is proven.
    pub proven: Option<Image>,
    /// What earlier runs left unproven.
    pub left: Vec<Image>,
}

/// The name of a new image that is not proven yet.
pub fn unproven_name(name: &str) -> String {
    with_suffix(name, " (snapcow: compact, not yet proven)")
}

fn with_suffix(name: &str, suffix: &str) -> String {
    name.chars().take(NAME_CHARS - suffix.chars().count()).chain(suffix.chars()).collect()
}

/// Looks for the image of that name or ID, and for what earlier replacements of it left.
///
/// # Errors
/// [`Kind::Source`] if there is neither, or the name is that of several.
pub fn find(words: &str, cloud: &Cloud, clouds: &mut Clouds) -> Result<Found> {
    let mut found = clouds.wait(Stage::Source, cloud.find_images(words))?;
    let (mut old, mut new) = (None, Vec::new());
    match found.pop() {
        Some(image) if found.is_empty() && image.properties.contains_key(REPLACES) => new.push(image),
        Some(image) if found.is_empty() => old = Some(image),
        Some(_) => return Err(nothing(words, clouds)),
        None => {
            new = noted(NAME, words, cloud, clouds)?;
            new.extend(noted(REPLACES, words, cloud, clouds)?);
        }
    }
    if old.is_none() {
        let Some(id) = new.first().and_then(|image| image.properties.get(REPLACES)).cloned() else {
            return Err(nothing(words, clouds));
        };
        old = clouds.wait(Stage::Source, cloud.find_images(&id))?.into_iter().find(|image| image.id == id);
        new.retain(|image| image.properties.get(REPLACES) == Some(&id));
    }
    if let Some(old) = &old {
        new = noted(REPLACES, &old.id, cloud, clouds)?;
    }
    let is_proven = |image: &Image| image.properties.contains_key(PROOF) && image.status == "active";
    let (proven, left): (Vec<Image>, Vec<Image>) = new.into_iter().partition(is_proven);
    Ok(Found { old, proven: proven.into_iter().next(), left })
}

/// The refusal of a name that names no image, or several.
fn nothing(words: &str, clouds: &mut Clouds) -> Error {
    match crate::cli::glance::find_image(words, None, clouds) {
        Err(error) => error,
        Ok(_) => Error::new(Stage::Source, Kind::Source, format!("`{words}` has changed just now"))
            .advise("run this again"),
    }
}

/// The project's images with this note.
fn noted(key: &str, value: &str, cloud: &Cloud, clouds: &Clouds) -> Result<Vec<Image>> {
    let mut images = Vec::new();
    for hidden in [false, true] {
        let filter = ImageFilter {
            owner: cloud.project_id().map(str::to_owned),
            property: Some((key.into(), value.into())),
            hidden,
            ..ImageFilter::default()
        };
        images.extend(clouds.wait(Stage::Source, cloud.list_images(&filter, MOST))?.images);
    }
    Ok(images)
}

/// Deletes what an earlier run left half-made. What is not surely such an image is refused.
///
/// # Errors
/// [`Kind::Target`] for an image that is something else; and of the request.
pub fn clear(left: &[Image], old: &Image, cloud: &Cloud, clouds: &Clouds) -> Result<()> {
    let half_made = unproven_name(shown_name(old));
    for image in left {
        let is_ours = image.name.as_deref() == Some(&half_made)
            && image.disk_format.as_deref() == Some("qcow2")
            && image.id != old.id;
        if !is_ours {
            let what = format!(
                "image {} names {} as the one that it replaces, but is no half-made copy of it",
                image.label(),
                old.id
            );
            return Err(Error::new(Stage::Sink, Kind::Target, what).advise(format!(
                "look at it; then: openstack image unset --property {REPLACES} {}",
                image.id
            )));
        }
        tracing::info!("deleting image {}, which an earlier run left unproven", image.label());
        clouds.wait(Stage::Sink, cloud.for_stage(Stage::Sink).delete(&image.id))?;
    }
    Ok(())
}

/// What the new image will be called.
pub fn shown_name(old: &Image) -> &str {
    old.name.as_deref().unwrap_or(&old.id)
}

/// Notes that an image is proven, and protects it.
pub fn proven(old: &Image, new: &Proven) -> ImageChanges {
    ImageChanges {
        name: Some(with_suffix(shown_name(old), " (snapcow: compact copy)")),
        protected: Some(true),
        hidden: old.os_hidden.then_some(true),
        set_properties: [(PROOF.to_owned(), proof(old, &new.digest))].into(),
        ..ImageChanges::default()
    }
}

/// The last step: the old name, and no notes.
pub fn done(name: &str) -> ImageChanges {
    ImageChanges {
        name: Some(name.into()),
        protected: Some(false),
        remove_properties: [REPLACES, NAME, PROOF].map(str::to_owned).into(),
        ..ImageChanges::default()
    }
}

fn proof(old: &Image, new: &Digest) -> String {
    let words = |digest: &Digest| format!("{}:{}", digest.algorithm.name(), digest.hex);
    format!("{} {}", strong_digest(old).as_ref().map_or("unverified".into(), words), words(new))
}

/// What an earlier run has proven, if both images are still what they were then.
///
/// # Errors
/// [`Kind::SourceChanged`].
pub fn proven_before(old: &Image, new: &Image) -> Result<Proven> {
    let digest = known_digest(new);
    let noted = new.properties.get(PROOF);
    match (digest, new.size) {
        (Some(digest), Some(len)) if noted == Some(&proof(old, &digest)) => {
            Ok(Proven { id: new.id.clone(), len, digest })
        }
        _ => {
            let what = format!(
                "image {} was proven to hold what {} holds, but one of them is another now",
                new.label(),
                old.label()
            );
            Err(Error::new(Stage::Source, Kind::SourceChanged, what).advise(format!(
                "look at both; to begin anew: openstack image set --unprotected {0}, openstack image delete {0}",
                new.id
            )))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use snapcow::hash::Algorithm;

    fn image(id: &str, name: &str, hash: &str) -> Image {
        Image {
            id: id.into(),
            name: Some(name.into()),
            status: "active".into(),
            size: Some(5),
            os_hash_algo: Some("sha512".into()),
            os_hash_value: Some(hash.into()),
            ..Image::default()
        }
    }

    #[test]
    fn names_fit_into_glance() {
        assert_eq!(unproven_name("web"), "web (snapcow: compact, not yet proven)");
        let long = "ü".repeat(255);
        let name = unproven_name(&long);
        assert_eq!(name.chars().count(), 255);
        assert!(name.ends_with("ü (snapcow: compact, not yet proven)"));
    }

    #[test]
    fn a_proof_holds_only_for_the_images_that_it_is_of() {
        let (old, mut new) = (image("o", "web", "aa"), image("n", "x", "bb"));
        let digest = Digest { algorithm: Algorithm::Sha512, hex: "bb".into() };
        let made = Proven { id: "n".into(), len: 5, digest };
        new.properties = proven(&old, &made).set_properties;
        assert_eq!(proven_before(&old, &new).unwrap().digest, made.digest);
        assert!(proven_before(&image("o", "web", "ab"), &new).is_err(), "another source");
        let other = Image { properties: new.properties.clone(), ..image("n", "x", "bc") };
        assert!(proven_before(&old, &other).is_err(), "another target");
        let bare = image("n", "x", "bb");
        assert!(proven_before(&old, &bare).is_err(), "no note at all");
    }
}
