//! What is known, for people: one thing a line, at most 80 columns where names are short.

use std::fmt::Write;

use snapcow::read::Description;
use snapcow::units::Human;

use super::facts::{Contents, Facts};
use crate::cli::partitions::words;

/// Properties that are named; a record may have hundreds.
#[cfg(feature = "openstack")]
const PROPERTIES_SHOWN: usize = 20;

struct Lines(String);

impl Lines {
    fn add(&mut self, what: &str, value: impl std::fmt::Display) {
        // Names and values are others' words: none of them begins a line of its own.
        let _ = writeln!(self.0, "{:<13}{}", one_line(what), one_line(&value.to_string()));
    }

    /// Only what there is.
    fn maybe(&mut self, what: &str, value: Option<impl std::fmt::Display>) {
        if let Some(value) = value {
            self.add(what, value);
        }
    }
}

pub fn text(facts: &Facts) -> String {
    let mut lines = Lines(format!("{}\n", one_line(&facts.name)));
    #[cfg(feature = "openstack")]
    record(&mut lines, facts);
    lines.add("format", format_args!("{}, a file of {}", facts.format, Human(facts.file_len)));
    if let Some(size) = facts.virtual_size() {
        let share = match &facts.qcow2 {
            Some(_) => format!("; the file has {} of that", percent(facts.file_len, size)),
            None => String::new(),
        };
        lines.add("disk", format_args!("{}, {size} bytes{share}", Human(size)));
    }
    if let Some(description) = &facts.qcow2 {
        qcow2(&mut lines, description);
    }
    match &facts.contents {
        Ok(contents) => inside(&mut lines, contents, facts),
        Err(why) => lines.add("contents", format_args!("not known: {why}")),
    }
    if let Some(table) = &facts.table {
        for partition in &table.partitions {
            lines.add(&format!("{} {}", table.scheme.name(), partition.number), words(partition));
        }
    }
    for warning in &facts.warnings {
        lines.add("WARNING", warning);
    }
    lines.0.truncate(lines.0.trim_end().len());
    lines.0
}

#[cfg(feature = "openstack")]
fn record(lines: &mut Lines, facts: &Facts) {
    let Some(image) = &facts.record else { return };
    let members = match facts.members {
        Some(1) => ", 1 member".into(),
        Some(members) => format!(", {members} members"),
        None => String::new(),
    };
    let protected = if image.protected { ", protected" } else { "" };
    let visibility = image.visibility.as_deref().unwrap_or("unknown");
    lines.add("status", format_args!("{}, {visibility}{members}{protected}", image.status));
    lines.maybe("owner", image.owner.as_ref());
    lines.maybe("created", image.created_at.as_ref());
    match (&image.os_hash_algo, &image.os_hash_value, &image.checksum) {
        (Some(algorithm), Some(hex), _) => lines.add(algorithm, hex),
        (_, _, Some(hex)) => lines.add("md5", hex),
        _ => lines.add("hash", "Glance keeps none: its bytes cannot be verified"),
    }
    let needs = format!("a root disk of {} GiB, {} MiB of memory", image.min_disk, image.min_ram);
    lines.add("needs", needs);
    if facts.ranges == Some(false) && facts.file_len > 0 {
        lines.add("ranges", "its store serves none: it is read from its beginning");
    }
    for (key, value) in image.properties.iter().take(PROPERTIES_SHOWN) {
        lines.add("property", format_args!("{key}={value}"));
    }
    if image.properties.len() > PROPERTIES_SHOWN {
        lines.add("", format_args!("and {} more properties", image.properties.len() - PROPERTIES_SHOWN));
    }
}

fn qcow2(lines: &mut Lines, description: &Description) {
    let header = &description.header;
    let clusters =
        description.cluster_bytes().map_or_else(|| "impossible".into(), |it| Human(it).to_string());
    let compression = description.compression.unwrap_or("unknown compression");
    lines.add("qcow2", format_args!("version {}, clusters of {clusters}, {compression}", header.version));
    if !description.features.is_empty() {
        lines.add("features", description.features.join(", "));
    }
    lines.maybe("encryption", description.encryption);
    let format = description.backing_format.as_ref().map_or(String::new(), |format| format!(" ({format})"));
    lines.maybe("backing file", description.backing_file.as_ref().map(|name| format!("{name}{format}")));
    lines.maybe("data file", description.data_file.as_ref());
    lines.maybe("snapshots", (header.snapshots > 0).then_some(header.snapshots));
    lines.maybe("bitmaps", (description.bitmaps > 0).then_some(description.bitmaps));
}

fn inside(lines: &mut Lines, contents: &Contents, facts: &Facts) {
    let size = facts.virtual_size().unwrap_or(0);
    let data = contents.data_bytes();
    let stored = if contents.compressed.extents > 0 {
        let left = percent(contents.stored(), data);
        format!(", stored in {} ({left})", Human(contents.stored()))
    } else {
        String::new()
    };
    lines.add("data", format_args!("{} ({}){stored}", Human(data), percent(data, size)));
    if let Some(cluster) = facts.qcow2.as_ref().and_then(Description::cluster_bytes) {
        let count = |bytes: u64| bytes.div_ceil(cluster);
        lines.add(
            "clusters",
            format_args!(
                "{} compressed, {} plain, {} zeros by word, {} not there",
                count(contents.compressed.bytes),
                count(contents.plain.bytes),
                count(contents.zero.bytes),
                count(contents.unallocated.bytes)
            ),
        );
    } else {
        lines.add(
            "holes",
            format_args!("{} ({})", Human(contents.zero.bytes), percent(contents.zero.bytes, size)),
        );
    }
    lines.add("extents", contents.extents());
}

fn one_line(text: &str) -> String {
    text.replace('\n', " ")
}

fn percent(part: u64, whole: u64) -> String {
    format!("{:.1} %", 100.0 * part as f64 / whole.max(1) as f64)
}
