//! What compacting an image would save: some of it is read and goes through the engine that would convert it.
//!
//! Only a store that serves ranges lets us look at a disk here and there. Elsewhere nothing is said: the beginning of a
//! disk tells nothing of the rest of it.

use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use snapcow::convert::{Cancel, Counters, Job, Proof, SampleWish, sample};
use snapcow::error::{Error, Kind, Result, Stage};
use snapcow::facts::Access;
use snapcow::openstack::{Image, why_not_convertible};
use snapcow::plan::estimate::Interval;

use super::super::args::ConvertArgs;
use super::super::glance::{self, Clouds};
use super::super::prepare;
use super::super::target::TargetWords;
use super::rows::is_raw;

/// Bytes of an image that are read at most.
pub const LOOK_BYTES: u64 = 48 << 20;
/// After so long no more is read of it.
const LOOK_TIME: Duration = Duration::from_secs(8);

/// What a compact image would take.
pub enum Compact {
    /// So much, tables included, with the default options.
    Takes(Interval),
    /// Nobody can tell, and why.
    Unknown(String),
}

impl Compact {
    /// What would be saved of an image of that size, in bytes.
    pub fn saves(&self, size: u64) -> Option<Interval> {
        match self {
            Self::Takes(takes) => Some(Interval {
                low: size.saturating_sub(takes.high),
                likely: size.saturating_sub(takes.likely),
                high: size.saturating_sub(takes.low),
            }),
            Self::Unknown(_) => None,
        }
    }
}

/// Looks at a raw image; what is no raw image is compact already, as far as we can help it: `None`.
///
/// # Errors
/// Only of a signal. What else goes wrong makes the answer unknown: the other images are worth their lines.
pub fn look(image: &Image, clouds: &mut Clouds, cancel: &Cancel) -> Result<Option<Compact>> {
    if !is_raw(image) {
        return Ok(None);
    }
    if let Some((reason, _)) = why_not_convertible(image) {
        return Ok(Some(Compact::Unknown(reason)));
    }
    match estimate(&image.id, clouds, cancel) {
        Ok(compact) => Ok(Some(compact)),
        Err(error) if matches!(error.kind(), Kind::Interrupted(_)) => Err(error),
        Err(error) => {
            cancel.check(Stage::Cloud)?;
            Ok(Some(Compact::Unknown(error.to_string())))
        }
    }
}

fn estimate(id: &str, clouds: &mut Clouds, cancel: &Cancel) -> Result<Compact> {
    let (source, target) = (format!("glance:{id}"), "glance:compact");
    let options = ConvertArgs::try_parse_from(["snapcow convert", &source, target])
        .map_err(|error| Error::new(Stage::Plan, Kind::Other, "take the default options").because(error))?;
    let opened = glance::open_source(id, &options, clouds)?;
    if opened.source.facts().access != Access::Random {
        return Ok(Compact::Unknown("its store serves no ranges, so only all of it could be read".into()));
    }
    let (geometry, compression) = prepare::format(&options)?;
    let spool_dir = prepare::spool_dir(&options);
    let plan = prepare::make_plan(&options, &opened, &TargetWords::parse(target)?, &spool_dir)?;
    let job = Job {
        source: opened.source,
        source_digest: Err("a sample has none".into()),
        proof: Proof::NONE,
        free: None,
        geometry,
        compression,
        spool_dir,
        counters: Arc::new(Counters::default()),
        cancel: cancel.clone(),
    };
    let wish = SampleWish { bytes: Some(LOOK_BYTES), time: LOOK_TIME, ..SampleWish::default() };
    Ok(match sample(&plan, &job, &wish)? {
        Some(sample) => Compact::Takes(sample.image_bytes),
        None => Compact::Unknown("nobody knows how long it is".into()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_grows_saves_nothing() {
        let takes = Compact::Takes(Interval { low: 3, likely: 5, high: 12 });
        assert_eq!(takes.saves(10), Some(Interval { low: 0, likely: 5, high: 7 }));
        assert_eq!(Compact::Unknown("x".into()).saves(10), None);
    }
}
