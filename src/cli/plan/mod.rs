//! `snapcow plan`, and `--dry-run` of every command that converts: what would be done, how large the image will be,
//! how long it takes, and what it needs. Nothing is made, but with `--probe-upload` for a moment.
//!
//! `--json` prints one object, `schema` is `snapcow/plan/1`; its fields stand in `json.rs`.

mod forecast;
mod json;
#[cfg(feature = "openstack")]
mod probe;
mod text;
mod times;

use clap::Parser;
use snapcow::convert::Cancel;
use snapcow::error::{Error, Kind, Result, Stage};
use snapcow::units::{Human, parse_size};

use super::args::ConvertArgs;
use super::convert::say;
#[cfg(feature = "openstack")]
use super::glance::Clouds;
use super::prepare::Run;
use super::report::Outcome;
use super::terminal::escape_json;
pub use forecast::Forecast;

#[derive(Clone, Debug, Parser)]
pub struct PlanArgs {
    #[command(flatten)]
    pub convert: ConvertArgs,
    #[command(flatten)]
    pub look: LookArgs,
}

/// How closely to look beforehand.
#[derive(Clone, Debug, Default, Parser)]
#[command(next_help_heading = "Plan")]
pub struct LookArgs {
    /// Read about so much of the source [default: a 64th, from 96MiB to 512MiB; 256MiB where only its beginning can
    /// be read]; 0 reads nothing
    #[arg(long, value_parser = parse_size, value_name = "SIZE")]
    pub sample: Option<u64>,
    /// Measure the upload: create images of 1, 32 and, where these arrive fast, 128 MiB in the target's Glance, one after
    /// the other, and delete them again
    #[cfg(feature = "openstack")]
    #[arg(long)]
    pub probe_upload: bool,
    /// Print the plan as a JSON object
    #[arg(long)]
    pub json: bool,
}

/// Runs the command.
pub fn run(options: &PlanArgs, quiet: bool, cancel: &Cancel) -> Result<()> {
    #[cfg(feature = "openstack")]
    let mut clouds = Clouds::new(options.convert.cloud.clone(), cancel.clone());
    let mut run = Run {
        options: &options.convert,
        quiet,
        cancel,
        #[cfg(feature = "openstack")]
        clouds: &mut clouds,
        outcome: &mut Outcome::begun(),
    };
    let result = rehearse(&mut run, &options.look);
    result.map_err(|error| cancel.check(error.stage()).err().unwrap_or(error))
}

/// `--dry-run` of `convert`.
///
/// # Errors
/// As [`rehearse`].
pub fn dry_run(run: &mut Run<'_, '_>) -> Result<()> {
    rehearse(run, &LookArgs::default())
}

/// Prints what a conversion by these words would be; every `--dry-run` comes here.
///
/// # Errors
/// What the conversion itself would be refused for, as far as that can be known: after the plan where there is one.
pub fn rehearse(run: &mut Run<'_, '_>, look: &LookArgs) -> Result<()> {
    let forecast = forecast::make(run, look)?;
    if look.json {
        say(&escape_json(&format!("{:#}", json::json(&forecast))))?;
    } else {
        say(text::text(&forecast).trim_end())?;
    }
    refuse(&forecast)
}

/// What is certain to fail is a failure of the plan as well.
fn refuse(forecast: &Forecast) -> Result<()> {
    let Some(image) = forecast.image_bytes else { return Ok(()) };
    if let Some(free) = forecast.quota_free_bytes.filter(|free| *free < image.low) {
        let what = format!(
            "the quota of the target's project leaves {}, the new image takes {} or more",
            Human(free),
            Human(image.low)
        );
        return Err(Error::new(Stage::Plan, Kind::Target, what)
            .advise("make room in the image quota, or ask for a larger one"));
    }
    Ok(())
}
