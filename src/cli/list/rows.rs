//! What `snapcow list` shows of each image, for people and for programs.

use std::time::{Duration, SystemTime};

use chrono::DateTime;
use serde_json::{Value, json};
use snapcow::openstack::{Cloud, Image};
use snapcow::plan::estimate::Interval;
use snapcow::units::Human;

use super::super::table::{Column, Narrow, Table};
use super::Listing;
use super::reclaim::Compact;

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;
/// The mean of the calendar's.
const MONTH: u64 = 2_629_746;
const YEAR: u64 = 12 * MONTH;

const COLUMNS: [Column; 7] = [
    Column { title: "NAME", right: false, narrow: Narrow::IsCut },
    Column { title: "ID", right: false, narrow: Narrow::Begins(8) },
    Column { title: "SIZE", right: true, narrow: Narrow::Stays },
    Column { title: "VIRTUAL", right: true, narrow: Narrow::Goes(0) },
    Column { title: "FORMAT", right: false, narrow: Narrow::Goes(3) },
    Column { title: "AGE", right: true, narrow: Narrow::Goes(1) },
    Column { title: "STATE", right: false, narrow: Narrow::Goes(2) },
];

/// Stands behind the size where it was asked for.
const SAVES: Column = Column { title: "SAVES", right: true, narrow: Narrow::Stays };

/// Whether compacting may be worth a thought.
pub fn is_raw(image: &Image) -> bool {
    image.disk_format.as_deref() == Some("raw")
}

/// The table of all images; `with_savings`: what compacting would save stands behind the size.
pub fn table(listings: &[Listing], with_savings: bool, now: SystemTime) -> Table {
    let mut columns = COLUMNS.to_vec();
    if with_savings {
        columns.insert(3, SAVES);
    }
    let mut table = Table::new(&columns);
    let unknown = || "-".to_owned();
    for listing in listings {
        let image = &listing.image;
        let mut row = vec![
            image.name.clone().unwrap_or_else(unknown),
            image.id.clone(),
            image.size.map_or_else(unknown, |bytes| Human(bytes).to_string()),
            image.virtual_size.map_or_else(unknown, |bytes| Human(bytes).to_string()),
            image.disk_format.clone().unwrap_or_else(unknown),
            image.created_at.as_deref().and_then(|text| age(text, now)).unwrap_or_else(unknown),
            state(listing),
        ];
        if with_savings {
            row.insert(3, savings(listing));
        }
        table.row(row);
    }
    table
}

fn savings(listing: &Listing) -> String {
    match (&listing.compact, listing.saves()) {
        (_, Some(saves)) => interval(saves),
        (Some(_), None) => "unknown".into(),
        (None, None) => "-".into(),
    }
}

/// An interval of bytes, with the unit once where both ends have the same.
pub fn interval(bytes: Interval) -> String {
    let (low, high) = (Human(bytes.low).to_string(), Human(bytes.high).to_string());
    if low == high {
        return low;
    }
    match (low.split_once(' '), high.split_once(' ')) {
        (Some((number, unit)), Some((_, other))) if unit == other => format!("{number}–{high}"),
        _ => format!("{low}–{high}"),
    }
}

/// What is unusual about an image comes first: its status, then whose it is, then who sees it.
fn state(listing: &Listing) -> String {
    let image = &listing.image;
    let visibility = image.visibility.as_deref().unwrap_or("-");
    let mut words = match (image.status.as_str(), listing.is_own, visibility) {
        ("active", true, _) => visibility.to_owned(),
        ("active", false, "shared") => "shared with us".to_owned(),
        ("active", false, _) => visibility.to_owned(),
        (status, ..) => status.to_owned(),
    };
    if image.protected {
        words.push_str(", protected");
    }
    if image.os_hidden {
        words.push_str(", hidden");
    }
    words
}

/// How long ago, in the largest unit that fits. A service whose clock is ahead of ours is forgiven.
fn age(text: &str, now: SystemTime) -> Option<String> {
    let then = SystemTime::from(DateTime::parse_from_rfc3339(text).ok()?);
    let seconds = now.duration_since(then).unwrap_or(Duration::ZERO).as_secs();
    Some(match seconds {
        0..MINUTE => "<1 min".into(),
        MINUTE..HOUR => format!("{} min", seconds / MINUTE),
        HOUR..DAY => format!("{} h", seconds / HOUR),
        DAY..MONTH => format!("{} d", seconds / DAY),
        MONTH..YEAR => format!("{} mon", seconds / MONTH),
        _ => format!("{} y", seconds / YEAR),
    })
}

/// The object of `--json`.
pub fn to_json(listings: &[Listing], cloud: &Cloud, complete: bool) -> Value {
    let images: Vec<Value> = listings
        .iter()
        .map(|listing| {
            let image = &listing.image;
            json!({
                "id": image.id,
                "name": image.name,
                "status": image.status,
                "visibility": image.visibility,
                "owner": image.owner,
                "is_own": listing.is_own,
                "protected": image.protected,
                "hidden": image.os_hidden,
                "disk_format": image.disk_format,
                "container_format": image.container_format,
                "size_bytes": image.size,
                "virtual_size_bytes": image.virtual_size,
                "min_disk_gib": image.min_disk,
                "created_at": image.created_at,
                "updated_at": image.updated_at,
                "compact_bytes": match &listing.compact {
                    Some(Compact::Takes(takes)) => json!({"low": takes.low, "likely": takes.likely, "high": takes.high}),
                    _ => Value::Null,
                },
                "compact_unknown": match &listing.compact {
                    Some(Compact::Unknown(why)) => Some(why),
                    _ => None,
                },
            })
        })
        .collect();
    json!({
        "schema": "snapcow/list/1",
        "snapcow_version": env!("CARGO_PKG_VERSION"),
        "project_id": cloud.project_id(),
        "image_endpoint": cloud.image_endpoint(),
        "is_complete": complete,
        "images": images,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_rounded_down_to_one_unit() {
        let now = SystemTime::from(DateTime::parse_from_rfc3339("2026-11-23T12:00:00Z").unwrap());
        for (then, shown) in [
            ("2026-11-23T11:59:30Z", "<1 min"),
            ("2026-11-23T12:30:00Z", "<1 min"),
            ("2026-11-23T11:01:00Z", "59 min"),
            ("2026-11-22T13:00:00Z", "23 h"),
            ("2026-11-20T12:00:00Z", "3 d"),
            ("2026-09-01T12:00:00Z", "2 mon"),
            ("2020-11-01T12:00:00Z", "6 y"),
        ] {
            assert_eq!(age(then, now).as_deref(), Some(shown));
        }
        for none in ["", "yesterday", "2026-13-01T00:00:00Z"] {
            assert_eq!(age(none, now), None, "{none}");
        }
    }

    #[test]
    fn an_interval_names_its_unit_once() {
        let shown = |low, high| interval(Interval { low, likely: low, high });
        assert_eq!(shown(1 << 30, 3 << 29), "1–1.5 GiB");
        assert_eq!(shown(1000 << 20, 1 << 30), "1000 MiB–1 GiB");
        assert_eq!(shown(5, 5), "5 B");
    }

    #[test]
    fn a_table_of_real_looking_images_fits_80_columns() {
        let image = Image {
            id: "0bb22bac-9ff5-4a02-8f87-ff2fd1b1a9fd".into(),
            name: Some("snapshot of the database server 数据库 of 2026-11-23".into()),
            status: "active".into(),
            size: Some(1023 << 30),
            virtual_size: Some(1023 << 30),
            disk_format: Some("raw".into()),
            visibility: Some("private".into()),
            created_at: Some("2026-01-01T00:00:00Z".into()),
            ..Image::default()
        };
        let takes = Interval { low: 190 << 30, likely: 195 << 30, high: 200 << 30 };
        let listing = Listing { image, is_own: true, compact: Some(Compact::Takes(takes)) };
        let text = table(&[listing], true, SystemTime::now()).render(Some(80));
        for word in ["snapshot of", "0bb22bac", "1023 GiB", "raw", "private", "823–833 GiB"] {
            assert!(text.contains(word), "{word}: {text}");
        }
        assert!(text.lines().all(|line| unicode_width::UnicodeWidthStr::width(line) <= 80), "{text}");
    }
}
