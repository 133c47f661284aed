//! Which extents a logical volume lies on (`_read_segment` of lib/format_text/import_vsn1.c, lib/striped/striped.c).

use std::collections::BTreeMap;

use super::group::{Group, Physical, Stretch, is_segment, strange};
use super::tree::{Section, Value};

const SECTOR: u64 = 512;
const NAMES: &[&str] =
    &["start_extent", "extent_count", "type", "tags", "stripe_count", "stripe_size", "stripes"];

/// Physical volumes by what the text calls them: their places in the group's list.
pub(super) type Keys<'a> = BTreeMap<&'a str, usize>;

pub(super) fn keys(physicals: &[Physical]) -> Keys<'_> {
    physicals.iter().enumerate().map(|(index, one)| (one.key.as_str(), index)).collect()
}

/// The stretches of a linear or striped logical volume; else the reason why it is not one.
pub(super) fn stretches(group: &Group, keys: &Keys<'_>, logical: &Section) -> Result<Vec<Stretch>, String> {
    let mut found = Vec::new();
    for (_, segment) in logical.sections().filter(|(name, _)| is_segment(name)) {
        found.push((
            segment.number("start_extent").ok_or("a segment has no beginning")?,
            one(group, keys, segment)?,
        ));
    }
    if logical.number("segment_count") != Some(found.len() as u64) || found.is_empty() {
        return Err("it has not as many segments as it says".into());
    }
    found.sort_by_key(|(start, _)| *start);
    let mut next = 0u64;
    for (start, stretch) in &found {
        if *start != next {
            return Err(format!("its segments leave a gap or overlap at extent {next}"));
        }
        next = next.checked_add(stretch.extents).ok_or("it is too long")?;
    }
    next.checked_mul(group.extent_bytes).filter(|len| *len <= i64::MAX as u64).ok_or("it is too long")?;
    Ok(found.into_iter().map(|(_, stretch)| stretch).collect())
}

fn one(group: &Group, keys: &Keys<'_>, segment: &Section) -> Result<Stretch, String> {
    let kind = segment.text("type").unwrap_or("without type");
    if kind != "striped" && kind != "linear" {
        return Err(format!("it is of the kind {}", kind.escape_default()));
    }
    if let Some(why) = strange(segment, |name| NAMES.contains(&name)) {
        return Err(format!("a segment {why}"));
    }
    let extents = segment.number("extent_count").filter(|count| *count > 0).ok_or("a segment is empty")?;
    let areas = segment.list("stripes").unwrap_or_default();
    let count = segment.number("stripe_count").unwrap_or(0);
    if count == 0 || areas.len() as u64 != count.saturating_mul(2) || !extents.is_multiple_of(count) {
        return Err("the stripes of a segment are not as many as it says".into());
    }
    let stripe_bytes = match count {
        1 => 0,
        _ => stripe_bytes(group, segment).ok_or("the size of stripes is not understood")?,
    };
    let stripe = |pair: &[Value]| place(group, keys, pair, extents / count);
    let stripes = areas.chunks_exact(2).map(stripe).collect::<Result<_, _>>()?;
    Ok(Stretch { extents, stripe_bytes, stripes })
}

fn stripe_bytes(group: &Group, segment: &Section) -> Option<u64> {
    let bytes = segment.number("stripe_size")?.checked_mul(SECTOR)?;
    (bytes.is_power_of_two() && group.extent_bytes.is_multiple_of(bytes)).then_some(bytes)
}

fn place(group: &Group, keys: &Keys<'_>, pair: &[Value], extents: u64) -> Result<(usize, u64), String> {
    let [Value::Text(name), Value::Number(first)] = pair else {
        return Err("a stripe has no place".into());
    };
    let Some(&index) = keys.get(name.as_str()) else {
        return Err(format!("it is built on the logical volume {}", name.escape_default()));
    };
    let physical = &group.physicals[index];
    let first = u64::try_from(*first).map_err(|_| "a stripe begins before its volume")?;
    match first.checked_add(extents) {
        Some(end) if end <= physical.extents => Ok((index, first)),
        _ => Err(format!("a stripe goes beyond the end of {name}")),
    }
}

/// Two logical volumes, whatever their kinds, on the same extents: then nothing of the group can be believed.
///
/// Of kinds that are not understood, each place that is told counts with the length of the whole segment: more than
/// it can take.
pub(super) fn overlap(group: &Group, keys: &Keys<'_>, logicals: &Section) -> Option<String> {
    let mut claims: Vec<(usize, u64, u64, &str)> = Vec::new();
    for (name, logical) in logicals.sections() {
        for (_, segment) in logical.sections() {
            let count = segment.number("extent_count").unwrap_or(0);
            let is_plain = matches!(segment.text("type"), Some("striped" | "linear"));
            let stripes = segment.number("stripe_count").filter(|_| is_plain).unwrap_or(1).max(1);
            for list in segment.0.iter().filter_map(|(name, _)| segment.list(name)) {
                for pair in list.windows(2) {
                    let [Value::Text(physical), Value::Number(first)] = pair else { continue };
                    let index = keys.get(physical.as_str());
                    let (Some(index), Ok(first)) = (index, u64::try_from(*first)) else { continue };
                    claims.push((*index, first, first.saturating_add(count.div_ceil(stripes)), name));
                }
            }
        }
    }
    claims.sort_unstable();
    let clash = claims.windows(2).find(|pair| pair[0].0 == pair[1].0 && pair[1].1 < pair[0].2)?;
    let (a, b) = (clash[0].3, clash[1].3);
    Some(format!("in its volume group {}, {a} and {b} lie on the same extents", group.name))
}
