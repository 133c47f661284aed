//! `snapcow list`: the images of the project and what they take, the largest first.
//!
//! `--json` prints one object, `schema` is `snapcow/list/1`; sizes are bytes, times are Glance's own, `compact_bytes` is
//! the interval in which the length of a compact image lies, or null with `compact_unknown` saying why.

mod reclaim;
mod rows;

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::SystemTime;

use clap::Parser;
use snapcow::convert::Cancel;
use snapcow::error::{Result, Stage};
use snapcow::openstack::{Cloud, Image, ImageFilter};
use snapcow::plan::estimate::Interval;
use snapcow::units::{Human, parse_size};

use super::args::CloudArgs;
use super::glance::Clouds;
use super::{convert, table, tell, terminal};
use reclaim::Compact;

/// More images than this are not listed: nobody reads so many.
const MOST_IMAGES: usize = 10_000;
/// Images of which nothing can be told are named up to this number.
const MOST_NAMED: usize = 3;

#[derive(Clone, Debug, Parser)]
pub struct ListArgs {
    /// Only images whose name has this text in it, or whose ID begins with it
    #[arg(value_name = "TEXT")]
    pub text: Option<String>,
    /// Only raw images
    #[arg(long)]
    pub raw: bool,
    /// Only images whose data are larger than SIZE
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub larger_than: Option<u64>,
    /// Estimate what compacting would save: reads some 48 MiB of each raw image, where its store serves ranges
    #[arg(long)]
    pub reclaimable: bool,
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
    /// What a compact image would take; `None` where nobody has asked, or it is none that could be compacted.
    pub compact: Option<Compact>,
}

impl Listing {
    /// What compacting would save, in bytes.
    pub fn saves(&self) -> Option<Interval> {
        self.compact.as_ref()?.saves(self.image.size?)
    }
}

/// Runs the command.
pub fn run(options: &ListArgs, quiet: bool, cancel: &Cancel) -> Result<()> {
    let mut clouds = Clouds::new(options.cloud.clone(), cancel.clone());
    let cloud = clouds.cloud(None, Stage::Cloud)?;
    let (mut listings, complete) = look(options, &cloud, &clouds)?;
    if let Some(text) = &options.text {
        listings.retain(|listing| fits(&listing.image, &text.to_lowercase()));
    }
    if options.reclaimable {
        estimate(&mut listings, quiet, &mut clouds, cancel)?;
    }
    let order = |listing: &Listing| {
        let saves = listing.saves().map(|saves| saves.likely);
        (Reverse((saves, listing.image.size)), listing.image.name.clone(), listing.image.id.clone())
    };
    listings.sort_by_cached_key(order);
    if options.json {
        let json = rows::to_json(&listings, &cloud, complete);
        return convert::say(&terminal::escape_json(&format!("{json:#}")));
    }
    if !listings.is_empty() {
        convert::say(&rows::table(&listings, options.reclaimable, SystemTime::now()).render(table::width()))?;
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
            listings.push(Listing { image, is_own, compact: None });
        }
    }
    // An image may fit more than one of them.
    listings.sort_by(|a, b| a.image.id.cmp(&b.image.id));
    listings.dedup_by(|a, b| a.image.id == b.image.id);
    Ok((listings, complete))
}

fn fits(image: &Image, text: &str) -> bool {
    let name = image.name.as_deref().unwrap_or_default().to_lowercase();
    name.contains(text) || image.id.starts_with(text)
}

/// Looks into each raw image, and says of which nothing can be told.
fn estimate(listings: &mut [Listing], quiet: bool, clouds: &mut Clouds, cancel: &Cancel) -> Result<()> {
    let raw = listings.iter().filter(|listing| rows::is_raw(&listing.image)).count();
    if !quiet && raw > 0 {
        let bytes = Human(reclaim::LOOK_BYTES);
        tell(format_args!(
            "snapcow: looking at up to {bytes} of each raw image, which takes some seconds: {raw} in all"
        ));
    }
    let mut unknown: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for listing in listings {
        listing.compact = reclaim::look(&listing.image, clouds, cancel)?;
        if let Some(Compact::Unknown(why)) = &listing.compact {
            unknown.entry(why.clone()).or_default().push(listing.image.label());
        }
    }
    for (why, images) in unknown.into_iter().filter(|_| !quiet) {
        let more = images.len().saturating_sub(MOST_NAMED);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let named = images.iter().take(MOST_NAMED).cloned().collect::<Vec<_>>().join(", ");
        tell(format_args!("snapcow: unknown for {named}{more}: {why}"));
    }
    Ok(())
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
    let savings: Vec<Interval> = listings.iter().filter_map(Listing::saves).collect();
    if !savings.is_empty() {
        let sum = |part: fn(&Interval) -> u64| savings.iter().map(part).fold(0, u64::saturating_add);
        let all = Interval { low: sum(|i| i.low), likely: sum(|i| i.likely), high: sum(|i| i.high) };
        text.push_str(&format!(
            "; compacting saves about {} (convert, then delete the raw one)",
            rows::interval(all)
        ));
    }
    if !complete {
        text.push_str("; there are more, which are not shown: use --raw or --larger-than");
    }
    text
}
