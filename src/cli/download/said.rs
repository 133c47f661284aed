//! What is said of a download: beforehand and in the end.

use std::os::unix::fs::MetadataExt;
use std::time::Instant;

use serde_json::json;
use snapcow::convert::Counters;
use snapcow::error::{Error, Kind, Result, Stage};
use snapcow::fetch::Fetched;
use snapcow::sink::Part;
use snapcow::units::Human;

use super::super::{convert, glance, tell};
use super::name::space;
use super::{Done, Download, Target};

impl Download<'_> {
    /// What would be done.
    pub(super) fn rehearse(&self, target: &Target) -> Result<()> {
        let format = self.image.disk_format.as_deref().unwrap_or("of no format");
        let mut lines = vec![format!("image     {}, {format}, {}", self.image.label(), Human(self.len))];
        let mut line = |name: &str, text: String| lines.push(format!("{name:<9} {text}"));
        line(
            "reading",
            match self.ranges {
                true => format!("ranges, by up to {} connections", self.options.connections),
                false => "one download from the beginning: the store serves no ranges".into(),
            },
        );
        line(
            "verified",
            match self.fetch().digest {
                Ok(digest) => format!("against the {} that Glance keeps", digest.algorithm.name()),
                Err(why) => format!("no: {why}"),
            },
        );
        let after = if self.expands { ", expanded to a raw disk" } else { "" };
        match target {
            Target::Stdout => line("to", format!("standard output{after}")),
            Target::File(path) => {
                line("to", format!("{}{after}", path.display()));
                let there = std::fs::metadata(Part::path_for(path)).map_or(0, |meta| meta.len());
                if there > 0 {
                    let use_of_it = match (self.ranges, self.options.no_resume) {
                        (_, true) => "dropped",
                        (true, false) => "used, if it is of this image",
                        (false, false) => "of no use without ranges",
                    };
                    line("here", format!("{} of an earlier run: {use_of_it}", Human(there)));
                }
                let free = space(path).map(|free| format!(", {} are free", Human(free))).unwrap_or_default();
                let raw = match (self.expands, self.image.virtual_size) {
                    (false, _) => String::new(),
                    (true, None) => ", and beside it the raw disk".into(),
                    (true, Some(size)) => format!(", and beside it up to {} for the raw disk", Human(size)),
                };
                line("room", format!("up to {}{raw}; zeros take none{free}", Human(self.len)));
            }
        }
        convert::say(&lines.join("\n"))
    }

    /// The result: its path or JSON on standard output, what was proved on standard error.
    pub(super) fn tell_result(&self, target: &Target, done: &Done, begin: Instant) -> Result<()> {
        let Fetched { bytes, resumed_bytes, digest, verified } = &done.fetched;
        let proof = match verified {
            Ok(()) => format!("its {} is the one that Glance keeps", digest.algorithm.name()),
            Err(why) => format!("NOT verified: {why}"),
        };
        let seconds = begin.elapsed().as_secs_f64();
        let Target::File(path) = target else {
            if !self.quiet {
                tell(format_args!("snapcow: {} sent in {seconds:.1} s; {proof}", Human(*bytes)));
            }
            return Ok(());
        };
        let meta = std::fs::metadata(path).map_err(|error| {
            Error::new(Stage::Sink, Kind::Local, "look at the finished file").because(error)
        })?;
        if !self.quiet {
            let raw =
                done.virtual_size.map(|size| format!(", expanded to {}", Human(size))).unwrap_or_default();
            tell(format_args!(
                "snapcow: {} in {seconds:.1} s{raw}, {} on disk; {proof}",
                Human(*bytes),
                Human(meta.blocks() * 512)
            ));
        }
        if !self.options.json {
            return convert::say(&path.display().to_string());
        }
        let value = json!({
            "schema": "snapcow/download/1",
            "snapcow_version": env!("CARGO_PKG_VERSION"),
            "image": glance::describe(&self.image),
            "path": path.display().to_string(),
            "disk_format": if self.expands { Some("raw") } else { self.image.disk_format.as_deref() },
            "file_bytes": meta.len(),
            "allocated_bytes": meta.blocks() * 512,
            "image_bytes": bytes,
            "virtual_size_bytes": done.virtual_size,
            "resumed_bytes": resumed_bytes,
            "received_bytes": Counters::get(&self.counters.source_bytes),
            "ranges": self.ranges,
            "digest": { "algorithm": digest.algorithm.name(), "hex": digest.hex },
            "verified": verified.is_ok(),
            "unverified": verified.as_ref().err(),
            "elapsed_seconds": seconds,
        });
        convert::say(&format!("{value:#}"))
    }
}
