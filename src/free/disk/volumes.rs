//! The volume groups of a disk: which of their logical volumes lie on it, and where.

use std::collections::BTreeMap;
use std::ops::Range;

use super::jobs::Place;
use crate::free::lvm::{Copy, Group, Label, Logical, Physical, TREE_FACTOR};
use crate::free::table::Role;
use crate::free::{Limits, Outcome, Segment, Trouble};

/// What was found of LVM, by places.
#[derive(Debug, Default)]
pub(super) struct Lvm {
    labels: Vec<(usize, Label)>,
    groups: Vec<(usize, Group)>,
    /// Metadata areas that cannot be believed, while others may be.
    damaged: Vec<(usize, String)>,
    /// Physical volumes of which nothing can be believed.
    troubles: Vec<(usize, String)>,
    /// Bytes of all texts.
    text_bytes: u64,
}

/// A logical volume that people see.
#[derive(Debug)]
pub(super) struct Found {
    /// `vg0/root`.
    pub name: String,
    /// Partition that it is listed under; 0 for the whole disk.
    pub number: u32,
    /// Places of its physical volumes.
    pub on: Vec<usize>,
    pub len: u64,
    /// What it consists of, or why it is not trimmed.
    pub segments: Result<Vec<Segment>, String>,
    pub note: Option<String>,
}

/// A physical volume of a group: its place and label, or why logical volumes on it are not trimmed.
type Known<'a> = Result<(usize, &'a Label), String>;

impl Lvm {
    pub fn add_label(&mut self, place: usize, label: Label) {
        self.labels.push((place, label));
    }

    pub fn add_trouble(&mut self, place: usize, trouble: Trouble) {
        self.troubles.push((place, words(&trouble)));
    }

    pub fn add_text(&mut self, place: usize, text: Outcome<Copy>, limits: Limits) {
        let text = match text {
            Ok(Copy::None) => return,
            Ok(Copy::Damaged(why)) => return self.damaged.push((place, why)),
            Ok(Copy::Text(text)) => text,
            Err(trouble) => return self.add_trouble(place, trouble),
        };
        self.text_bytes = self.text_bytes.saturating_add(text.len() as u64);
        if self.text_bytes.saturating_mul(TREE_FACTOR) > limits.memory_bytes {
            return self.add_trouble(place, Trouble::whole("LVM metadata need more memory than is allowed"));
        }
        match Group::parse(&text) {
            Ok(group) => self.groups.push((place, group)),
            Err(why) => {
                self.add_trouble(
                    place,
                    Trouble::whole(format_args!("its LVM metadata are not understood: {why}")),
                );
            }
        }
    }

    /// Physical volumes' own sectors, on the disk: by place, in bytes from its beginning.
    pub fn own(&self) -> impl Iterator<Item = (usize, &Range<u64>)> {
        self.labels.iter().flat_map(|(place, label)| label.own.iter().map(move |range| (*place, range)))
    }

    /// What the physical volume in a place is, in words for its part; `None` if there is none.
    pub fn physical(&self, place: usize) -> Option<String> {
        if let Some((_, why)) = self.troubles.iter().find(|(other, _)| *other == place) {
            return Some(why.clone());
        }
        let (_, label) = self.labels.iter().find(|(other, _)| *other == place)?;
        let newest = self.newest();
        let group = newest.iter().find(|group| group.physicals.iter().any(|one| one.uuid == label.uuid));
        Some(match group {
            Some(group) => format!("it belongs to the volume group {}, see its logical volumes", group.name),
            None => "it is a physical volume of LVM, and no volume group is known that has it".into(),
        })
    }

    /// Places to look into, as far as is known now, that are not among those that were begun with.
    pub fn fresh(&self, begun: &[Place]) -> Vec<Place> {
        let place = |found: Found| {
            let segments = found.segments.ok()?;
            let logical = Some(found.name);
            let is_begun = begun.iter().any(|one| one.logical == logical && one.segments == segments);
            let place = Place { logical, segments, ..Place::linear(found.number, 0..0, Role::Data) };
            (!is_begun).then_some(place)
        };
        self.logicals(begun).into_iter().filter_map(place).collect()
    }

    /// The newest text of each group.
    fn newest(&self) -> Vec<&Group> {
        let mut newest: BTreeMap<&str, &Group> = BTreeMap::new();
        for (_, group) in &self.groups {
            let one = newest.entry(&group.id).or_insert(group);
            if group.seqno > one.seqno {
                *one = group;
            }
        }
        newest.into_values().collect()
    }

    /// The visible logical volumes of all groups, as far as is known.
    pub fn logicals(&self, places: &[Place]) -> Vec<Found> {
        let newest = self.newest();
        let mut all = Vec::new();
        for group in &newest {
            let doubt = self.doubt(group, &newest);
            let known: Vec<Known<'_>> =
                group.physicals.iter().map(|one| self.known(group, one, places)).collect();
            let home = self.groups.iter().filter(|(_, other)| other.id == group.id).map(|(place, _)| *place);
            let home: Vec<usize> = home.min().into_iter().collect();
            let note = self.note(group);
            for logical in group.logicals.iter().filter(|logical| logical.is_visible) {
                let mut on: Vec<usize> = stripes(logical)
                    .filter_map(|(index, _)| known.get(index)?.as_ref().ok().map(|(place, _)| *place))
                    .collect();
                on.sort_unstable();
                on.dedup();
                let on = if on.is_empty() { home.clone() } else { on };
                let segments = match doubt.as_ref().or(logical.doubt.as_ref()) {
                    Some(why) => Err(why.clone()),
                    None => segments(group, logical, &known, places),
                };
                let number = on.first().and_then(|place| places.get(*place)).map_or(0, |place| place.number);
                let name = format!("{}/{}", group.name, logical.name);
                let len = logical.extents.saturating_mul(group.extent_bytes);
                all.push(Found { name, number, on, len, segments, note: note.clone() });
            }
        }
        all
    }

    /// Why nothing of a group can be believed.
    fn doubt(&self, group: &Group, newest: &[&Group]) -> Option<String> {
        if let Some(why) = &group.doubt {
            return Some(why.clone());
        }
        let name = &group.name;
        if newest.iter().any(|other| other.id != group.id && other.name == *name) {
            return Some(format!("there are two volume groups {name}"));
        }
        let same = |other: &Group| other.id == group.id && other.seqno == group.seqno;
        if self.groups.iter().any(|(_, other)| same(other) && other != group) {
            return Some(format!("the copies of the metadata of its volume group {name} disagree"));
        }
        let has = |group: &Group, uuid: &str| group.physicals.iter().any(|one| one.uuid == uuid);
        for (place, label) in self.labels.iter().filter(|(_, label)| has(group, &label.uuid)) {
            if newest.iter().any(|other| other.id != group.id && has(other, &label.uuid)) {
                return Some("two volume groups have its physical volume".into());
            }
            if self.labels.iter().any(|(other, twin)| other != place && twin.uuid == label.uuid) {
                return Some(format!("a physical volume of its volume group {name} is there twice"));
            }
            if let Some((_, why)) = self.troubles.iter().find(|(other, _)| other == place) {
                return Some(format!("of a physical volume of its volume group {name}: {why}"));
            }
        }
        None
    }

    fn note(&self, group: &Group) -> Option<String> {
        let is_of = |place: usize| {
            let label = self.labels.iter().find(|(other, _)| *other == place);
            label.is_some_and(|(_, label)| group.physicals.iter().any(|one| one.uuid == label.uuid))
        };
        let mut damaged: Vec<&(usize, String)> =
            self.damaged.iter().filter(|(place, _)| is_of(*place)).collect();
        damaged.sort_unstable();
        damaged.first().map(|(_, why)| format!("{why}; another copy was read"))
    }

    fn known(&self, group: &Group, one: &Physical, places: &[Place]) -> Known<'_> {
        if let Some(why) = &one.doubt {
            return Err(why.clone());
        }
        let found = self.labels.iter().find(|(_, label)| label.uuid == one.uuid);
        let Some((place, label)) = found else {
            return Err(format!("its physical volume {} is not on this disk", one.key));
        };
        let end = one.extents.saturating_mul(group.extent_bytes).saturating_add(one.start);
        let len = places.get(*place).map_or(0, Place::len);
        if end > label.len || end > one.len.unwrap_or(end) || label.len > len {
            return Err(format!("its physical volume {} is larger than what it lies on", one.key));
        }
        if label.own.iter().any(|own| own.start < end && one.start < own.end) {
            return Err(format!("the extents of its physical volume {} overlap its metadata", one.key));
        }
        Ok((*place, label))
    }
}

fn stripes(logical: &Logical) -> impl Iterator<Item = (usize, u64)> + '_ {
    logical.stretches.iter().flat_map(|stretch| stretch.stripes.iter().copied())
}

fn segments(
    group: &Group,
    logical: &Logical,
    known: &[Known<'_>],
    places: &[Place],
) -> Result<Vec<Segment>, String> {
    let mut segments = Vec::new();
    for stretch in &logical.stretches {
        let mut stripes = Vec::new();
        for (index, first) in &stretch.stripes {
            let (Some(known), Some(physical)) = (known.get(*index), group.physicals.get(*index)) else {
                return Err("its metadata contradict themselves".into());
            };
            let (place, _) = known.as_ref().map_err(String::clone)?;
            let place = places.get(*place).map_or(0, Place::start);
            // That it lies on the physical volume, and that one on its place, was seen to.
            stripes.push(place + physical.start + first * group.extent_bytes);
        }
        let len = stretch.extents * group.extent_bytes;
        let stripe_bytes = if stretch.stripe_bytes == 0 { len } else { stretch.stripe_bytes };
        segments.push(Segment { len, stripes, stripe_bytes });
    }
    Ok(segments)
}

/// The reason in a trouble.
pub(super) fn words(trouble: &Trouble) -> String {
    match trouble {
        Trouble::Whole(why) => why.clone(),
        Trouble::Failed(error) => format!("it could not be read ({error})"),
    }
}
