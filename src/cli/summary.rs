//! What a person reads afterwards.

use std::fmt::Write;

use snapcow::convert::{Receipt, RouteTaken, SourceCheck};
use snapcow::units::Human;

use super::report::Outcome;

/// The receipt in a few lines.
pub fn receipt(receipt: &Receipt, outcome: &Outcome) -> String {
    let mut text = String::new();
    let mut line = |words: String| {
        let _ = writeln!(text, "snapcow: {words}");
    };
    let share = 100.0 * receipt.image_len as f64 / receipt.virtual_size.max(1) as f64;
    line(format!(
        "{} → {}: {} of disk became {} ({share:.1} %) in {:.1} s",
        receipt.source,
        receipt.target,
        Human(receipt.virtual_size),
        Human(receipt.image_len),
        receipt.wall.as_secs_f64()
    ));
    line(match &receipt.source_check {
        SourceCheck::Verified(digest) => {
            let when = if receipt.resumed { " by the earlier run" } else { "" };
            format!(
                "source verified{when}: its {} is the one that the service keeps",
                digest.algorithm.name()
            )
        }
        SourceCheck::NotVerified(reason) => format!("source not verified: {reason}"),
    });
    if let Some(delivered) = &receipt.delivered {
        match (&delivered.verified, &delivered.unverified) {
            (Some(digest), _) => {
                line(format!("target verified: its {} is that of the bytes sent", digest.algorithm.name()))
            }
            (None, Some(reason)) => line(format!("target not verified: {reason}")),
            (None, None) => {}
        }
    }
    if receipt.verified_clusters.is_some() {
        line("clusters verified: all that were compressed decode to what was read".into());
    }
    if let Some(digest) = &receipt.guest_digest {
        line(format!("guest content: {digest} (sha256, as blksum computes it)"));
    }
    if receipt.route == Some(RouteTaken::Reread)
        && let (Some(memory), Some(disk)) = (receipt.memory_to_save_reread, receipt.disk_to_save_reread)
    {
        line(format!(
            "the spool was too small and the source was read again in part; --spool-disk {}MiB or --memory {}MiB would have saved that",
            disk.div_ceil(1 << 20),
            memory.div_ceil(1 << 20)
        ));
    }
    if let Some(findings) = &outcome.free {
        super::trim::lines(findings).into_iter().for_each(&mut line);
    }
    if !outcome.dropped_properties.is_empty() {
        line(format!("properties that Glance did not accept: {}", outcome.dropped_properties.join(", ")));
    }
    text
}
