//! `--state FILE`: what two runs must have in common, and what becomes of the image that the first one made.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use snapcow::convert::Proof;
use snapcow::encode::{Compression, build};
use snapcow::error::{Error, Kind, Result, Stage};
use snapcow::place::Geometry;
use snapcow::state::{Keeper, Key};

use super::args::ConvertArgs;
use super::opened::Opened;
use super::tell;

/// Opens the state file, if one was asked for. `target` says where the image goes, in words that are the same
/// in both runs. Nothing is written yet.
pub fn open(
    options: &ConvertArgs,
    opened: &Opened,
    target: String,
    quiet: bool,
    (geometry, compression, proof): (Geometry, Compression, Proof),
) -> Result<Option<Keeper>> {
    let Some(path) = &options.how.state else { return Ok(None) };
    let key = Key {
        build: build(compression),
        format: format!(
            "{geometry:?}, {compression:?}, guest digest {}, trim {}",
            proof.guest_digest, options.how.trim
        ),
        source: source(options, opened)?,
        target,
    };
    let keeper = Keeper::open(path, key, opened.source.facts().len.unwrap_or(0))?;
    if keeper.has_survey() && !quiet {
        tell(format_args!("snapcow: note: going on from `{}`: pass 1 is done", path.display()));
    }
    Ok(Some(keeper))
}

/// Refuses what has no second pass to go on with.
pub fn check(options: &ConvertArgs, target_is_file: bool) -> Result<()> {
    let usage = |what: &str| Err(Error::new(Stage::Plan, Kind::Usage, what));
    match &options.how.state {
        None => Ok(()),
        Some(_) if target_is_file => {
            usage("--state means nothing for a file as target: it is written in one pass")
        }
        Some(_) if options.source == "-" => {
            usage("--state means nothing for standard input: it is read once")
        }
        Some(_) => Ok(()),
    }
}

/// The source, so that another one, or the same one changed, is not taken for it.
fn source(options: &ConvertArgs, opened: &Opened) -> Result<String> {
    let verified = format!("verified {:?}", options.how.verify_source);
    #[cfg(feature = "openstack")]
    if let Some(image) = &opened.image {
        // What the service keeps is told even where it is not compared: pass 2 alone would not see it all.
        let hash = [&image.os_hash_algo, &image.os_hash_value, &image.checksum].map(|part| part.as_deref());
        let hash = hash.map(|part| part.unwrap_or("-")).join(" ");
        return Ok(format!("image {}, {} bytes, {hash}, {verified}", image.id, image.size.unwrap_or(0)));
    }
    let path = Path::new(&options.source);
    let meta = std::fs::metadata(path).map_err(|error| {
        Error::new(Stage::Source, Kind::Source, format!("look at `{}`", path.display())).because(error)
    })?;
    if !meta.is_file() {
        let what = "--state needs a source that shows its changes: a file or an image, not a device";
        return Err(Error::new(Stage::Plan, Kind::Usage, what));
    }
    if opened.identity != Some((meta.dev(), meta.ino())) {
        let what = format!("`{}` was replaced by another file just now", path.display());
        return Err(Error::new(Stage::Source, Kind::SourceChanged, what).advise("run this again"));
    }
    // The time of the last change of the inode is not for users to set, unlike that of the last write.
    Ok(format!(
        "file {}:{}, {} bytes, written {}.{:09}, changed {}.{:09}, {verified}",
        meta.dev(),
        meta.ino(),
        meta.len(),
        meta.mtime(),
        meta.mtime_nsec(),
        meta.ctime(),
        meta.ctime_nsec()
    ))
}

/// After a failure: a state file that is of no use is removed.
pub fn settle(keeper: Option<Keeper>, quiet: bool, failure: Option<&Error>) {
    let (Some(mut keeper), Some(error)) = (keeper, failure) else { return };
    if error.kind() != Kind::SourceChanged && keeper.is_of_use() {
        if !quiet {
            tell("snapcow: note: the state file is kept: the same command goes on from there");
        }
        return;
    }
    done(&mut keeper);
}

/// The state file has done its work. If it cannot be removed, the image is whole all the same.
pub fn done(keeper: &mut Keeper) {
    if let Err(left) = keeper.finish() {
        tell(format_args!("snapcow: warning: {left}"));
    }
}
