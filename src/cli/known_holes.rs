//! `--map FILE`: a source whose holes are known from elsewhere, and what makes that safe.

use std::fs::File;
use std::sync::Arc;

use snapcow::error::{Error, Kind, Result, Stage};
use snapcow::facts::Access;
use snapcow::holes;
use snapcow::source::MappedSource;
use snapcow::units::Human;

use super::args::ConvertArgs;
use super::opened::Opened;

/// Gives the source its map, if there is one, and a note of what that means.
///
/// # Errors
/// A map that cannot be read or does not fit, and one that nothing would prove.
pub fn apply(options: &ConvertArgs, mut opened: Opened) -> Result<(Opened, Option<String>)> {
    let Some(path) = &options.how.map else { return Ok((opened, None)) };
    let refuse = |what: String| Error::new(Stage::Plan, Kind::Usage, what);
    let unread = |why: std::io::Error| {
        let what = format!("open the map `{}`", path.display());
        Error::new(Stage::Plan, Kind::Local, what).because(why)
    };
    let mut holes = holes::parse(File::open(path).map_err(unread)?)
        .map_err(|why| refuse(format!("the map `{}` {why}", path.display())).advise(HOW))?;
    let facts = opened.source.facts();
    if let Some(len) = facts.len {
        holes.fit(len).map_err(|why| {
            let what = format!("the map `{}` does not fit {}: {why}", path.display(), facts.name);
            refuse(what).advise(HOW)
        })?;
    }
    let known = match facts.len {
        Some(_) => format!("the map calls {} of the disk zero", Human(holes.zero_bytes())),
        None => "the map calls parts of the disk zero".into(),
    };
    let note = match (facts.access, &opened.digest) {
        (Access::Random, Ok(digest)) => {
            let hash = digest.algorithm.name();
            format!("{known}: that is not read, and only if it is true the {hash} of the whole can fit")
        }
        (Access::Random, Err(_)) if options.how.trust_map => {
            format!("{known}: that is not read, and nothing proves it (--trust-map)")
        }
        (Access::Random, Err(why)) => {
            let what = format!("nothing would prove the map `{}`: {why}", path.display());
            return Err(refuse(what).advise(
                "leave --map out, and all is read, or give --trust-map if what it calls zero may be lost",
            ));
        }
        _ => format!("{known}: the bytes come anyway, and are held against it"),
    };
    opened.source = Arc::new(MappedSource::new(opened.source, holes));
    Ok((opened, Some(note)))
}

const HOW: &str = "make it of exactly this disk, with `qemu-img map --output=json` or `rbd diff --format json` of the \
                   whole image, without --from-snap";

/// Adds that the map may be to blame, where the disk is not what it was said to be.
pub fn blame(options: &ConvertArgs, error: Error) -> Error {
    match &options.how.map {
        Some(path) if error.kind() == Kind::SourceChanged => {
            let maybe = format!("the map `{}` may be of another disk: leave --map out", path.display());
            let else_ = error.advice().map(|advice| format!("; if that does not help: {advice}"));
            error.advise(maybe + &else_.unwrap_or_default())
        }
        _ => error,
    }
}
