//! A volume group, as its text tells it (lib/format_text/export.c writes it, import_vsn1.c reads it).

use std::collections::BTreeSet;

use super::stretch::{self, Keys};
use super::tree::{self, Section, Value};

/// A volume group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Its UUID.
    pub id: String,
    /// Its name.
    pub name: String,
    /// How often it was changed: the newest text has the highest number.
    pub seqno: u64,
    /// Bytes of an extent.
    pub extent_bytes: u64,
    /// Its physical volumes.
    pub physicals: Vec<Physical>,
    /// Its logical volumes, hidden ones too.
    pub logicals: Vec<Logical>,
    /// Why none of its logical volumes is trimmed, if so.
    pub doubt: Option<String>,
}

/// A physical volume of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Physical {
    /// What the text calls it: `pv0`.
    pub key: String,
    /// Its UUID, without dashes.
    pub uuid: String,
    /// Where its first extent begins, in bytes.
    pub start: u64,
    /// How many extents it has.
    pub extents: u64,
    /// Its length in bytes, if it is told.
    pub len: Option<u64>,
    /// Why no logical volume on it is trimmed, if so.
    pub doubt: Option<String>,
}

/// A logical volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logical {
    /// Its name, without that of the group.
    pub name: String,
    /// What it consists of, in order; empty if there is a doubt.
    pub stretches: Vec<Stretch>,
    /// How many extents it says it has; of kinds that are not understood, they are not those of the disk.
    pub extents: u64,
    /// Whether people see it: others are parts of something.
    pub is_visible: bool,
    /// Why it is not trimmed, if so.
    pub doubt: Option<String>,
}

/// Extents of a logical volume that lie in one piece, or on stripes that take turns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// Extents on all stripes together.
    pub extents: u64,
    /// Bytes on one stripe before the next one's turn; 0 if there is one stripe.
    pub stripe_bytes: u64,
    /// For each stripe: which physical volume (a place in the group's list), and its first extent there.
    pub stripes: Vec<(usize, u64)>,
}

/// Volumes, extents and segments that a group may have; far above what lvm2 bears.
const COUNT_MAX: usize = 16 << 10;
const SECTOR: u64 = 512;

const GROUP_NAMES: &[&str] = &[
    "id",
    "seqno",
    "format",
    "status",
    "flags",
    "tags",
    "system_id",
    "lock_type",
    "extent_size",
    "max_lv",
    "max_pv",
    "allocation_policy",
    "profile",
    "metadata_copies",
    "physical_volumes",
    "logical_volumes",
    "historical_logical_volumes",
];
const PHYSICAL_NAMES: &[&str] = &[
    "id",
    "device",
    "device_id",
    "device_id_type",
    "status",
    "flags",
    "tags",
    "dev_size",
    "pe_start",
    "pe_count",
    "ba_start",
    "ba_size",
];
const LOGICAL_NAMES: &[&str] = &[
    "id",
    "status",
    "flags",
    "tags",
    "creation_time",
    "creation_host",
    "allocation_policy",
    "profile",
    "read_ahead",
    "major",
    "minor",
    "segment_count",
];

impl Group {
    /// The group that a text tells.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let tree = tree::parse(bytes)?;
        if tree.text("contents") != Some("Text Format Volume Group") || tree.number("version") != Some(1) {
            return Err("they are of a format that is not known".into());
        }
        let mut sections = tree.sections();
        let (Some((name, group)), None) = (sections.next(), sections.next()) else {
            return Err("they do not tell one volume group".into());
        };
        let extent_bytes = group
            .number("extent_size")
            .and_then(|sectors| sectors.checked_mul(SECTOR))
            .filter(|bytes| (SECTOR..=1 << 40).contains(bytes))
            .ok_or("the size of extents is missing")?;
        let id = group.text("id").ok_or("the group has no UUID")?;
        let seqno = group.number("seqno").ok_or("the group has no number")?;
        let empty = Section::default();
        let physicals = group.section("physical_volumes").unwrap_or(&empty);
        let logicals = group.section("logical_volumes").unwrap_or(&empty);
        if physicals.0.len() > COUNT_MAX || logicals.0.len() > COUNT_MAX {
            return Err("there are too many volumes".into());
        }
        let physicals = physicals.sections().map(|(key, one)| physical(key, one, extent_bytes));
        let physicals =
            physicals.collect::<Option<Vec<_>>>().ok_or("a physical volume is told in part only")?;
        let mut found = Self {
            id: id.into(),
            name: name.into(),
            seqno,
            extent_bytes,
            physicals,
            logicals: Vec::new(),
            doubt: group_doubt(group).map(|why| format!("its volume group {name} {why}")),
        };
        let used = used(logicals);
        let keys = stretch::keys(&found.physicals);
        let told = logicals.sections().map(|(name, one)| found.logical(name, one, &used, &keys)).collect();
        let overlap = stretch::overlap(&found, &keys, logicals);
        found.logicals = told;
        found.doubt = found.doubt.or(overlap);
        Ok(found)
    }

    fn logical(&self, name: &str, section: &Section, used: &BTreeSet<&str>, keys: &Keys<'_>) -> Logical {
        let is_visible = section.texts("status").is_some_and(|flags| flags.contains(&"VISIBLE"));
        let doubt = logical_doubt(name, section, used);
        let (stretches, doubt) = match doubt {
            Some(why) => (Vec::new(), Some(why)),
            None => match stretch::stretches(self, keys, section) {
                Ok(stretches) => (stretches, None),
                Err(why) => (Vec::new(), Some(why)),
            },
        };
        let extents = section.sections().filter_map(|(_, segment)| segment.number("extent_count"));
        let extents = extents.fold(0, u64::saturating_add);
        Logical { name: name.into(), stretches, extents, is_visible, doubt }
    }
}

fn physical(key: &str, section: &Section, extent_bytes: u64) -> Option<Physical> {
    let extents = section.number("pe_count")?;
    let start = section.number("pe_start")?.checked_mul(SECTOR)?;
    extents.checked_mul(extent_bytes)?.checked_add(start)?;
    let doubt = strange(section, |name| PHYSICAL_NAMES.contains(&name))
        .or_else(|| flags(section, "status", &["ALLOCATABLE"]))
        .or_else(|| flags(section, "flags", &[]))
        .map(|why| format!("its physical volume {key} {why}"));
    let len = match section.get("dev_size") {
        None => None,
        Some(_) => Some(section.number("dev_size")?.checked_mul(SECTOR)?),
    };
    let uuid = section.text("id")?.replace('-', "");
    Some(Physical { key: key.into(), uuid, start, extents, len, doubt })
}

fn group_doubt(group: &Section) -> Option<String> {
    if group.text("format") != Some("lvm2") {
        return Some("is of a format that is not known".into());
    }
    if group.get("lock_type").is_some() && group.text("lock_type") != Some("none") {
        return Some("is shared with other machines".into());
    }
    strange(group, |name| GROUP_NAMES.contains(&name))
        .or_else(|| flags(group, "status", &["RESIZEABLE", "READ", "WRITE"]))
        .or_else(|| flags(group, "flags", &["NOAUTOACTIVATE", "WRITE_LOCKED"]))
}

fn logical_doubt(name: &str, section: &Section, used: &BTreeSet<&str>) -> Option<String> {
    const STATUS: &[&str] = &["READ", "WRITE", "VISIBLE", "FIXED_MINOR"];
    const FLAGS: &[&str] = &["WRITE_LOCKED", "ACTIVATION_SKIP", "NOAUTOACTIVATE"];
    if used.contains(name) {
        return Some("another logical volume is built on it".into());
    }
    strange(section, |name| LOGICAL_NAMES.contains(&name) || is_segment(name))
        .or_else(|| flags(section, "status", STATUS))
        .or_else(|| flags(section, "flags", FLAGS))
        .map(|why| format!("it {why}"))
}

pub(super) fn is_segment(name: &str) -> bool {
    name.strip_prefix("segment").is_some_and(|number| number.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Something whose name is not known.
pub(super) fn strange(section: &Section, is_known: impl Fn(&str) -> bool) -> Option<String> {
    let (name, _) = section.0.iter().find(|(name, _)| !is_known(name))?;
    Some(format!("has `{name}`, which is not understood"))
}

/// A flag that is not among these; lists of flags may be missing only if they are `flags`, which is younger.
fn flags(section: &Section, list: &str, known: &[&str]) -> Option<String> {
    if section.get(list).is_none() && list == "flags" {
        return None;
    }
    let Some(flags) = section.texts(list) else { return Some(format!("has no list `{list}`")) };
    let flag = flags.iter().find(|flag| !known.contains(flag))?;
    Some(format!("has the flag {}", flag.escape_default()))
}

/// All strings in segments: whatever volume is named there has another one built on it.
fn used(logicals: &Section) -> BTreeSet<&str> {
    let mut used = BTreeSet::new();
    let mut left: Vec<&Value> = logicals
        .sections()
        .flat_map(|(_, logical)| logical.sections())
        .flat_map(|(_, segment)| segment.0.iter().filter(|(name, _)| name != "tags" && name != "type"))
        .map(|(_, value)| value)
        .collect();
    while let Some(value) = left.pop() {
        match value {
            Value::Text(text) => {
                used.insert(text.as_str());
            }
            Value::List(list) => left.extend(list),
            Value::Section(section) => left.extend(section.0.iter().map(|(_, value)| value)),
            Value::Number(_) => {}
        }
    }
    used
}
