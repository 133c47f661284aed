//! What of the findings may be believed, once all is known.

use std::ops::Range;

use super::jobs::{Place, Reader, Work};
use super::volumes::{Found, words};
use super::{Findings, Part, VOLUMES_MAX, Verdict};
use crate::error::Result;
use crate::free::signatures::Signature;
use crate::free::table::{Partition, Role, Table, settle};
use crate::free::{Disk, Freed, Runs, Trouble};

/// A part, and its free runs on the disk.
struct Draft {
    part: Part,
    free: Option<Runs>,
    /// Where it lies on the disk.
    extents: Vec<Range<u64>>,
}

/// Why nothing of the disk is trimmed: the first reason counts.
#[derive(Default)]
struct Refusal(Option<String>);

impl Refusal {
    fn add(&mut self, reason: impl Into<String>) {
        self.0.get_or_insert_with(|| reason.into());
    }
}

pub(super) fn findings(work: Work<'_>) -> Result<Findings> {
    let (disk, len) = (work.disk, work.len);
    let mut board = std::mem::take(&mut *work.board());
    let mut refusal = Refusal::default();
    if board.fault {
        refusal.add("a fault of this program");
    }
    let mut table = match board.table.take() {
        Some(Ok(table)) => table,
        Some(Err(Trouble::Failed(error))) => return Err(error),
        Some(Err(Trouble::Whole(why))) => {
            refusal.add(why);
            None
        }
        None => None,
    };
    let mut note = table.as_mut().and_then(|table| table.note.take());
    match board.tail.take() {
        Some(Ok((own, said))) => {
            note = note.or(said);
            table.iter_mut().for_each(|table| table.own.extend(own.iter().cloned()));
        }
        Some(Err(trouble)) => refusal.add(format!("of its end: {}", words(&trouble))),
        None => refusal.add("its partition table could not be read to the end"),
    }
    table.iter_mut().for_each(|table| settle(table, len));
    if board.is_crowded {
        refusal.add(format!("it has more than {VOLUMES_MAX} volumes"));
    }
    let judge = Judge { disk, places: &board.places, table: table.as_ref() };
    let mut drafts = judge.partitions(&mut refusal, |place| board.lvm.physical(place));
    for found in board.lvm.logicals(&board.places) {
        drafts.push((found.number, judge.logical(&found, &mut refusal)));
    }
    // Stable: a partition before its logical volumes, these in the order of their group.
    drafts.sort_by_key(|(number, _)| *number);
    let mut drafts: Vec<Draft> = drafts.into_iter().map(|(_, draft)| draft).collect();
    let mut own = table.as_ref().map_or_else(Vec::new, |table| table.own.clone());
    own.extend(board.lvm.own().filter_map(|(place, range)| {
        let start = board.places.get(place)?.start();
        Some(start + range.start..start + range.end)
    }));
    let free = merge(&drafts, &own).unwrap_or_else(|why| {
        refusal.add(why);
        Runs::new()
    });
    let free = if refusal.0.is_some() { Runs::new() } else { free };
    if refusal.0.is_some() {
        for part in drafts.iter_mut().map(|draft| &mut draft.part) {
            if matches!(part.verdict, Verdict::Freed { .. }) {
                part.verdict = Verdict::Whole("nothing of this disk is trimmed".into());
            }
        }
    }
    let parts = drafts.into_iter().map(|draft| draft.part).collect();
    Ok(Findings { scheme: table.map(|table| table.scheme), parts, free, refused: refusal.0, note })
}

/// All free runs in rising order, if each lies within its part, none on another one's, none on what is the disk's own.
fn merge(drafts: &[Draft], own: &[Range<u64>]) -> Result<Runs, String> {
    let mut all: Vec<Range<u64>> = Vec::new();
    for draft in drafts {
        let Some(free) = &draft.free else { continue };
        let mut inside = Runs::new();
        let mut extents = draft.extents.clone();
        extents.sort_by_key(|range| range.start);
        let is_whole = extents.into_iter().try_for_each(|range| inside.push(range)).is_ok();
        let covered: u64 = free
            .as_slice()
            .iter()
            .flat_map(|run| inside.within(run.clone()))
            .map(|run| run.end - run.start)
            .sum();
        if !is_whole || covered != free.bytes() {
            return Err(format!("what seems to be free in {} lies outside of it", draft.part.name));
        }
        if let Some(hit) = own.iter().find(|range| free.within((*range).clone()).next().is_some()) {
            let name = &draft.part.name;
            return Err(format!("what seems to be free in {name} holds a table at {}", hit.start));
        }
        all.extend_from_slice(free.as_slice());
    }
    all.sort_by_key(|run| run.start);
    let mut runs = Runs::new();
    for run in all {
        runs.push(run).map_err(|why| format!("of all its volumes together, {why}"))?;
    }
    Ok(runs)
}

struct Judge<'a> {
    disk: &'a dyn Disk,
    places: &'a [Place],
    table: Option<&'a Table>,
}

impl Judge<'_> {
    fn partitions(
        &self,
        refusal: &mut Refusal,
        physical: impl Fn(usize) -> Option<String>,
    ) -> Vec<(u32, Draft)> {
        let all: Vec<(u32, Option<&Partition>)> = match self.table {
            Some(table) => table
                .partitions
                .iter()
                .filter(|part| part.role != Role::Container)
                .map(|part| (part.number, Some(part)))
                .collect(),
            None => self.places.first().map(|place| (place.number, None)).into_iter().collect(),
        };
        let mut drafts = Vec::new();
        for (number, part) in all {
            let name = part.map_or_else(|| "whole disk".into(), |part| format!("partition {}", part.number));
            let index =
                self.places.iter().position(|place| place.logical.is_none() && place.number == number);
            let place = index.and_then(|index| self.places.get(index));
            let fallback = part.map(|part| part.kind.clone());
            let doubt = part.and_then(|part| part.doubt.clone());
            let physical = index.and_then(&physical);
            let mut draft = self.draft(name, place, doubt, physical, fallback, refusal);
            if let Some(part) = part {
                (draft.part.start, draft.part.len) = (part.start, part.len);
            }
            drafts.push((number, draft));
        }
        drafts
    }

    fn logical(&self, found: &Found, refusal: &mut Refusal) -> Draft {
        let numbers: Vec<String> = found
            .on
            .iter()
            .filter_map(|place| self.places.get(*place))
            .map(|place| place.number.to_string())
            .collect();
        let name = match (&numbers[..], self.table) {
            (_, None) => format!("whole disk, {}", found.name),
            ([one], _) => format!("partition {one}, {}", found.name),
            ([more @ .., last], _) => {
                format!("partitions {} and {last}, {}", more.join(", "), found.name)
            }
            ([], _) => found.name.clone(),
        };
        let place = self.places.iter().find(|place| {
            place.logical.as_ref() == Some(&found.name) && Ok(&place.segments) == found.segments.as_ref()
        });
        let doubt = found.on.iter().find_map(|index| self.unfit(*index)).or(found.segments.clone().err());
        let mut draft = self.draft(name, place, doubt, None, None, refusal);
        draft.part.len = found.len;
        if draft.part.start == 0 {
            let first = found.on.first().and_then(|place| self.places.get(*place));
            draft.part.start = first.map_or(0, Place::start);
        }
        if let Verdict::Freed { note, .. } = &mut draft.part.verdict {
            *note = match (note.take(), &found.note) {
                (Some(one), Some(two)) => Some(format!("{one}; {two}")),
                (one, two) => one.or(two.clone()),
            };
        }
        draft
    }

    /// Why what lies in the physical volume in a place is not trimmed.
    fn unfit(&self, index: usize) -> Option<String> {
        let place = self.places.get(index)?;
        let part = self.table.and_then(|table| {
            table.partitions.iter().find(|part| part.role != Role::Container && part.number == place.number)
        });
        let why = match (part.and_then(|part| part.doubt.clone()), signs(place)) {
            (Some(doubt), _) => doubt,
            (None, Err(why)) => why,
            (None, Ok(sign)) if !is_lvm(sign) => format!("there is {} in it", sign.name()),
            (None, Ok(_)) => return None,
        };
        Some(format!("of its physical volume in partition {}: {why}", place.number))
    }

    fn draft(
        &self,
        name: String,
        place: Option<&Place>,
        doubt: Option<String>,
        physical: Option<String>,
        fallback: Option<String>,
        refusal: &mut Refusal,
    ) -> Draft {
        let seen = place.and_then(|place| place.signs.as_ref()?.as_ref().ok()).map_or(&[][..], Vec::as_slice);
        let names: Vec<&str> = seen.iter().map(|sign| sign.name()).collect();
        if let Some(sign) = seen.iter().find(|sign| is_asleep(sign)) {
            refusal.add(format!("a guest sleeps on it: {} in {name}", sign.name()));
        }
        if let Some(place) = place
            && !matches!(place.signs, Some(Ok(_)))
        {
            let why = signs(place).err().unwrap_or_default();
            refusal.add(format!("a hibernation image in {name} cannot be ruled out: {why}"));
        }
        let what = if names.is_empty() { fallback } else { Some(names.join(", ")) };
        let (start, len) = place.map_or((0, 0), |place| (place.start(), place.len()));
        let part = Part { name, start, len, what, verdict: Verdict::Whole(String::new()) };
        let extents = place.map_or_else(Vec::new, |place| {
            let stripes = |segment: &crate::free::Segment| {
                let each = segment.len / (segment.stripes.len() as u64).max(1);
                segment.stripes.iter().map(move |start| *start..start + each).collect::<Vec<_>>()
            };
            place.segments.iter().flat_map(stripes).collect()
        });
        let mut draft = Draft { part, free: None, extents };
        match self.verdict(place, doubt, physical) {
            Err(why) => draft.part.verdict = Verdict::Whole(why),
            Ok((freed, free)) => {
                draft.part.what = Some(freed.kind.clone());
                let (bytes, runs) = (freed.free.bytes(), freed.free.as_slice().len());
                draft.part.verdict =
                    Verdict::Freed { fs_bytes: freed.len, bytes, runs, note: freed.note.clone() };
                draft.free = Some(free);
            }
        }
        draft
    }

    fn verdict<'p>(
        &self,
        place: Option<&'p Place>,
        doubt: Option<String>,
        physical: Option<String>,
    ) -> Result<(&'p Freed, Runs), String> {
        if let Some(doubt) = doubt {
            return Err(doubt);
        }
        let place = place.ok_or("it was not looked into")?;
        match place.role {
            Role::Data => {}
            Role::Boot => return Err("it belongs to firmware or a boot loader".into()),
            Role::Raid => return Err("it is a member of an array".into()),
            Role::Container => return Err("it holds partitions".into()),
        }
        let sign = signs(place)?;
        if is_lvm(sign) {
            return Err(physical.unwrap_or_else(|| "it is a physical volume inside of another volume".into()));
        }
        let Some(reader) = reader(sign) else { return Err(format!("{} is not read", sign.name())) };
        if place.reader != Some(reader) {
            return Err(format!("it has the signature of {}, but does not begin so", sign.name()));
        }
        let freed = match &place.freed {
            None => return Err("it was not looked into".into()),
            Some(Err(trouble)) => return Err(words(trouble)),
            Some(Ok(freed)) => freed,
        };
        let end = freed.free.as_slice().last().map_or(0, |run| run.end);
        if freed.len > place.len() || end > freed.len {
            return Err("it is larger than what it lies on".into());
        }
        let free = place.volume(self.disk).free_on_disk(&freed.free).map_err(|trouble| words(&trouble))?;
        Ok((freed, free))
    }
}

/// The one signature in a place.
fn signs(place: &Place) -> Result<&Signature, String> {
    match &place.signs {
        None => Err("it was not searched for signatures".into()),
        Some(Err(trouble)) => Err(words(trouble)),
        Some(Ok(signs)) => match &signs[..] {
            [] => Err("nothing that is known lies in it".into()),
            [one] => Ok(one),
            more => {
                let names: Vec<&str> = more.iter().map(|sign| sign.name()).collect();
                Err(format!("more than one thing lies in it: {}", names.join(", ")))
            }
        },
    }
}

fn reader(sign: &Signature) -> Option<Reader> {
    match sign {
        Signature::Ext => Some(Reader::Ext),
        Signature::Xfs => Some(Reader::Xfs),
        Signature::Swap => Some(Reader::Swap),
        _ => None,
    }
}

fn is_lvm(sign: &Signature) -> bool {
    matches!(sign, Signature::Lvm2)
}

fn is_asleep(sign: &Signature) -> bool {
    matches!(sign, Signature::Hibernation)
}
