//! `snapcow demo`: the main job against a Glance in this very process. Nothing outside is needed and
//! nothing is left.

use std::sync::Arc;

use clap::Parser;
use snapcow::convert::Cancel;
use snapcow::embedded::{EmbeddedGlance, EmbeddedOptions, ImageSpec, SeedHash, VmImage, prove_equal};
use snapcow::error::{Error, Kind, Result, Stage};
use snapcow::openstack::{Cloud, TlsOptions};
use snapcow::units::Human;

use super::args::{Args, Command, DemoArgs};
use super::convert;
use super::glance::Clouds;
use super::prepare::Run;
use super::report::Outcome;

/// Runs the demo.
pub fn run(options: &DemoArgs, quiet: bool, cancel: &Cancel) -> Result<()> {
    let local = |what: &str| {
        let what = what.to_owned();
        move |error: std::io::Error| Error::new(Stage::Plan, Kind::Local, what).because(error)
    };
    let say = |words: String| {
        if !quiet {
            super::tell(format_args!("snapcow demo: {words}"));
        }
    };
    let embedded = EmbeddedOptions { ranges: options.ranges, ..EmbeddedOptions::default() };
    let glance = EmbeddedGlance::start(embedded).map_err(local("start the demo's Glance"))?;
    let (disk, hashes) = VmImage::demo();
    let disk: Arc<VmImage> = Arc::new(disk);
    glance.seed(ImageSpec {
        name: "demo-snapshot".into(),
        attributes: serde_json::Map::new(),
        hash: SeedHash::Known(hashes),
        data: disk.clone(),
    });
    say(format!(
        "a Glance of its own listens on {}; ranges {}",
        glance.endpoint(),
        if options.ranges { "work" } else { "do not work" }
    ));

    let words = ["snapcow", "convert", "glance:demo-snapshot", "glance:demo-compact"];
    say(format!("$ {}", words.join(" ")));
    let parsed = Args::try_parse_from(words)
        .map_err(|error| Error::new(Stage::Plan, Kind::Other, error.to_string()))?;
    let Command::Convert(conversion) = parsed.command else {
        return Err(Error::new(Stage::Plan, Kind::Other, "the demo's own words were misunderstood"));
    };
    let token = glance.token().into();
    let cloud = Cloud::with_token(glance.endpoint(), token, &TlsOptions::default(), Stage::Plan)?;
    let mut clouds = Clouds::only(cloud, cancel.clone());
    let mut outcome = Outcome::default();
    convert::carry_out(&mut Run {
        options: &conversion,
        quiet,
        cancel,
        clouds: &mut clouds,
        outcome: &mut outcome,
    })?;

    let made = outcome.image_id.as_deref().and_then(|id| glance.data(id));
    let made = made.ok_or_else(|| {
        Error::new(Stage::Sink, Kind::Target, "the demo's Glance does not have the new image")
    })?;
    let proof = prove_equal(&*disk, made)?;
    say(format!(
        "proved by an independent reader: all {} of the disk read the same from {} of qcow2",
        Human(proof.virtual_bytes),
        Human(proof.qcow2_bytes)
    ));
    Ok(())
}
