//! `snapcow accept` and `snapcow reject`: what this project says to an image that another one shares with it.

use clap::Parser;
use snapcow::convert::Cancel;
use snapcow::error::{Error, Kind, Result, Stage};
use snapcow::openstack::{Cloud, Image, ImageFilter, MemberStatus};

use super::args::CloudArgs;
use super::glance::Clouds;
use super::{convert, nearby, tell};

/// Images that are shared with a project and looked through for a name.
const MOST_SHARED: usize = 5000;

#[derive(Clone, Debug, Parser)]
pub struct AnswerArgs {
    /// Name or ID of an image that another project shares with this one
    pub image: String,
    #[command(flatten)]
    pub cloud: CloudArgs,
}

/// Runs `snapcow accept`.
pub fn run_accept(options: &AnswerArgs, quiet: bool, cancel: &Cancel) -> Result<()> {
    answer(options, MemberStatus::Accepted, quiet, cancel)
}

/// Runs `snapcow reject`.
pub fn run_reject(options: &AnswerArgs, quiet: bool, cancel: &Cancel) -> Result<()> {
    answer(options, MemberStatus::Rejected, quiet, cancel)
}

/// Standard output gets the ID: from now on the image has it as its surest name.
fn answer(options: &AnswerArgs, wanted: MemberStatus, quiet: bool, cancel: &Cancel) -> Result<()> {
    let mut clouds = Clouds::new(options.cloud.clone(), cancel.clone());
    let cloud = clouds.cloud(None, Stage::Cloud)?;
    let own = cloud.own_project()?;
    let name = options.image.strip_prefix("glance:").unwrap_or(&options.image);
    let image = offered(name, own, &cloud, &clouds)?;
    let say = |what: std::fmt::Arguments<'_>| {
        if !quiet {
            tell(format_args!("snapcow: image {} {what}", image.label()));
        }
    };
    if let Some(visibility @ ("public" | "community")) = image.visibility.as_deref() {
        if wanted == MemberStatus::Accepted {
            say(format_args!("is {visibility}: this project may use it without accepting"));
            return convert::say(&image.id);
        }
        let what =
            format!("image {} is {visibility}: it is not shared with this project alone", image.label());
        return Err(Error::new(Stage::Cloud, Kind::Source, what).advise("there is nothing to reject"));
    }
    let before = clouds.wait(Stage::Cloud, cloud.member(&image.id, own))?.map(|member| member.status);
    if before == Some(wanted) {
        say(format_args!("is already {wanted} by this project"));
        return convert::say(&image.id);
    }
    clouds.wait(Stage::Cloud, cloud.set_member_status(&image.id, own, wanted))?;
    let owner = image.owner.as_deref().unwrap_or("unknown");
    let so = match wanted {
        MemberStatus::Accepted => "accepted: it stands in the lists of this project",
        _ => "rejected: no list of this project has it any more",
    };
    say(format_args!("of project {owner} is {so}"));
    convert::say(&image.id)
}

/// The image that was offered, by its ID or by a name among all that are shared with the project.
fn offered(name: &str, own: &str, cloud: &Cloud, clouds: &Clouds) -> Result<Image> {
    let refuse = |what: String| Error::new(Stage::Cloud, Kind::Source, what);
    let ask = format!("ask its owner for: snapcow share IMAGE --with {own}");
    let is_foreign = |image: &Image| image.owner.as_deref() != Some(own);
    // Whoever is a member sees the image by its ID; by its name only lists of its own show it.
    let found = clouds.wait(Stage::Cloud, cloud.find_images(name))?;
    if let Some(image) = found.iter().find(|image| image.id == name && is_foreign(image)) {
        return Ok(image.clone());
    }
    let filter = ImageFilter {
        visibility: Some("shared".into()),
        member_status: Some("all".into()),
        ..ImageFilter::default()
    };
    let mut shared = clouds.wait(Stage::Cloud, cloud.list_images(&filter, MOST_SHARED))?.images;
    shared.retain(is_foreign);
    let mut fitting: Vec<Image> =
        shared.iter().filter(|image| image.name.as_deref() == Some(name)).cloned().collect();
    match fitting.len() {
        1 => return Ok(fitting.remove(0)),
        0 => {}
        count => {
            let offers: Vec<String> = fitting
                .iter()
                .take(10)
                .map(|image| {
                    format!("{} of project {}", image.id, image.owner.as_deref().unwrap_or("unknown"))
                })
                .collect();
            let what = format!(
                "`{name}` names {count} images that are shared with this project: {}",
                offers.join(", ")
            );
            return Err(refuse(what).advise("name one of them by its ID"));
        }
    }
    if let Some(image) = found.iter().find(|image| !is_foreign(image)) {
        let what = format!("image {} belongs to this project itself", image.label());
        return Err(refuse(what).advise("only an image of another project can be accepted or rejected"));
    }
    if let Some(image) = found.into_iter().next() {
        return Ok(image);
    }
    let what =
        format!("no image with the name or ID `{name}` is shared with project {own} in {}", cloud.label());
    Err(refuse(what).advise(nearby::among(name, &shared).unwrap_or(ask)))
}
