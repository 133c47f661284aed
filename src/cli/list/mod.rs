//! `snapcow list`: the images of the project and what they take, the largest first.
//!
//! `--json` prints one object, `schema` is `snapcow/list/1`; sizes are bytes, times are Glance's own, `compact_bytes` is
//! the interval in which the length of a compact image lies, or null with `compact_unknown` saying why.

mod rows;

use clap::Parser;
use snapcow::convert::Cancel;
use snapcow::error::{Result, Stage};
use snapcow::openstack::{Cloud, Image, ImageFilter};
use snapcow::units::{Human, parse_size};

use super::args::CloudArgs;
use super::glance::Clouds;
use super::{convert, table, tell, terminal};

/// More images than this are not listed: nobody reads so many.
const MOST_IMAGES: usize = 10_000;

#[derive(Clone, Debug, Parser)]
pub struct ListArgs {
    /// Only raw images
    #[arg(long)]
    pub raw: bool,
    /// Only images whose data are larger than SIZE
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub larger_than: Option<u64>,
    /// Also public and community images of other projects
    #[arg(long)]
    pub all: bool,
    /// Print the result as a JSON object
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub cloud: CloudArgs,
}

/// An image, and what is to be told of it beside its record.
pub struct Listing {
    pub image: Image,
    /// Whether it belongs to this project; an image of another is shared with it, or for all.
    pub is_own: bool,
}

/// Runs the command.
pub fn run(options: &ListArgs, quiet: bool, cancel: &Cancel) -> Result<()> {
    let mut clouds = Clouds::new(options.cloud.clone(), cancel.clone());
    let cloud = clouds.cloud(None, Stage::Cloud)?;
    let (mut listings, complete) = look(options, &cloud, &clouds)?;
    listings.sort_by(|a, b| {
        (b.image.size, &a.image.name, &a.image.id).cmp(&(a.image.size, &b.image.name, &b.image.id))
    });
    if options.json {
        let json = rows::to_json(&listings, &cloud, complete);
        return convert::say(&terminal::escape_json(&format!("{json:#}")));
    }
    if !listings.is_empty() {
        convert::say(&rows::table(&listings, now()).render(table::width()))?;
    }
    if !quiet {
        tell(format_args!("snapcow: {}", summary(&listings, complete)));
    }
    Ok(())
}

/// What is in the project, hidden images included, and what others let it use.
fn look(options: &ListArgs, cloud: &Cloud, clouds: &Clouds) -> Result<(Vec<Listing>, bool)> {
    let filter = ImageFilter {
        disk_format: options.raw.then(|| "raw".into()),
        // Glance's filter is «at least».
        size_min_bytes: options.larger_than.map(|bytes| bytes.saturating_add(1)),
        ..ImageFilter::default()
    };
    let own = cloud.project_id();
    let owned = |hidden| ImageFilter { owner: own.map(str::to_owned), hidden, ..filter.clone() };
    let mut filters = vec![owned(true)];
    match (own, options.all) {
        // Whose the images are cannot be told, so all are shown that the token may see.
        (None, _) | (_, true) => filters.push(filter.clone()),
        _ => {
            filters.push(owned(false));
            filters.push(ImageFilter { visibility: Some("shared".into()), ..filter.clone() });
        }
    }
    if options.all {
        filters.push(ImageFilter { visibility: Some("community".into()), ..filter.clone() });
    }
    let mut listings: Vec<Listing> = Vec::new();
    let mut complete = true;
    for filter in &filters {
        let room = MOST_IMAGES.saturating_sub(listings.len());
        let listed = clouds.wait(Stage::Cloud, cloud.list_images(filter, room))?;
        complete &= listed.complete;
        for image in listed.images {
            let is_own = own.is_none() || image.owner.as_deref() == own;
            listings.push(Listing { image, is_own });
        }
    }
    // An image may fit more than one of them.
    listings.sort_by(|a, b| a.image.id.cmp(&b.image.id));
    listings.dedup_by(|a, b| a.image.id == b.image.id);
    Ok((listings, complete))
}

fn now() -> std::time::SystemTime {
    std::time::SystemTime::now()
}

fn summary(listings: &[Listing], complete: bool) -> String {
    let total = |images: &mut dyn Iterator<Item = &Listing>| {
        images.fold((0_u64, 0_u64), |(count, bytes), listing| {
            (count + 1, bytes.saturating_add(listing.image.size.unwrap_or(0)))
        })
    };
    let (count, bytes) = total(&mut listings.iter());
    if count == 0 {
        return "no image fits".into();
    }
    let plural = if count == 1 { "" } else { "s" };
    let mut text = format!("{count} image{plural}, {}", Human(bytes));
    let (raw, raw_bytes) = total(&mut listings.iter().filter(|listing| rows::is_raw(&listing.image)));
    if raw > 0 {
        text.push_str(&format!("; {raw} raw, {}", Human(raw_bytes)));
    }
    if !complete {
        text.push_str("; there are more, which are not shown: use --raw or --larger-than");
    }
    text
}
