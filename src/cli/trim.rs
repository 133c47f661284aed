//! `--trim`: what the filesystems of the source have freed is looked for, left out, and told.

use std::sync::Arc;

use serde_json::{Value, json};
use snapcow::convert::{Cancel, Counters, look_for_free, without_free};
use snapcow::error::Result;
use snapcow::facts::Access;
use snapcow::free::disk::{Findings, Part, Verdict};
use snapcow::units::Human;

use super::args::ConvertArgs;
use super::opened::Opened;
use super::progress::{Progress, Work};
use super::terminal::Plain;

/// Looks for what is free, if that was asked for, and takes it out of a source that can be read anywhere.
///
/// # Errors
/// As [`look_for_free`].
pub fn apply(
    options: &ConvertArgs,
    mut opened: Opened,
    quiet: bool,
    cancel: &Cancel,
) -> Result<(Opened, Option<Arc<Findings>>)> {
    if !options.how.trim {
        return Ok((opened, None));
    }
    let facts = opened.source.facts();
    let in_order = facts.access == Access::Sequential;
    if in_order && !quiet {
        super::tell(format_args!(
            "snapcow: looking at the filesystems of {}: it can only be read from its beginning, so all of it is read \
             once more for that",
            Plain(&facts.name)
        ));
    }
    let counters = Arc::new(Counters::default());
    let work = Work { len: facts.len, sends: false };
    let progress = in_order.then(|| Progress::of(options.how.progress, quiet, Arc::clone(&counters), work));
    // Nothing else takes memory yet; half of it is left for what comes in.
    let findings = look_for_free(&*opened.source, options.how.memory / 2, &counters, cancel);
    if let Some(progress) = progress {
        progress.end(findings.is_ok());
    }
    let findings = Arc::new(findings?);
    if findings.free.bytes() > 0 && !in_order {
        opened.digest = Err("what is free was not fetched (--trim)".into());
    }
    opened.source = without_free(opened.source, &findings)?;
    Ok((opened, Some(findings)))
}

/// What a person reads of it.
pub fn lines(findings: &Findings) -> Vec<String> {
    let first = match &findings.refused {
        Some(why) => format!("nothing was trimmed: {why}"),
        None => format!("trimmed: {} that filesystems have freed", Human(findings.free.bytes())),
    };
    std::iter::once(first).chain(indented(findings)).collect()
}

/// The same beforehand.
pub fn planned(findings: &Findings) -> Vec<String> {
    let first = match &findings.refused {
        Some(why) => format!("nothing can be trimmed: {why}"),
        None => format!("{} that filesystems have freed can be left out", Human(findings.free.bytes())),
    };
    std::iter::once(first).chain(indented(findings)).collect()
}

/// Each part, and why nothing counts as free, if so.
pub fn parts(findings: &Findings) -> Vec<String> {
    let refused = findings.refused.iter().map(|why| format!("nothing counts as freed: {why}"));
    refused.chain(findings.parts.iter().map(line)).chain(findings.note.clone()).collect()
}

fn indented(findings: &Findings) -> impl Iterator<Item = String> + '_ {
    findings.parts.iter().map(line).chain(findings.note.clone()).map(|line| format!("  {line}"))
}

/// One part, in words.
fn line(part: &Part) -> String {
    let what = part.what.as_deref().map(|what| format!(", {what}")).unwrap_or_default();
    let place = format!("{}{what}, {}", part.name, Human(part.len));
    match &part.verdict {
        Verdict::Freed { bytes, note, .. } => {
            let note = note.as_deref().map(|note| format!("; {note}")).unwrap_or_default();
            format!("{place}: {} free{note}", Human(*bytes))
        }
        Verdict::Whole(why) => format!("{place}: left whole: {why}"),
    }
}

/// The same for programs.
pub fn json(findings: &Findings) -> Value {
    let part = |part: &Part| {
        let (fs_bytes, freed_bytes, freed_runs, note, whole_because) = match &part.verdict {
            Verdict::Freed { fs_bytes, bytes, runs, note } => {
                (Some(fs_bytes), *bytes, *runs, note.as_ref(), None)
            }
            Verdict::Whole(why) => (None, 0, 0, None, Some(why)),
        };
        json!({
            "name": part.name,
            "start_bytes": part.start,
            "length_bytes": part.len,
            "what": part.what,
            "filesystem_bytes": fs_bytes,
            "freed_bytes": freed_bytes,
            "freed_runs": freed_runs,
            "note": note,
            "left_whole_because": whole_because,
        })
    };
    json!({
        "scheme": findings.scheme.map(|scheme| scheme.name()),
        "freed_bytes": findings.free.bytes(),
        "refused_because": findings.refused,
        "note": findings.note,
        "parts": findings.parts.iter().map(part).collect::<Vec<_>>(),
    })
}
