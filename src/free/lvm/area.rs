//! Metadata areas (`struct mda_header`, `struct raw_locn`): a header, and behind it a ring of texts.

use std::ops::Range;

use super::crc;
use crate::free::bytes::{le32, le64};
use crate::free::{Limits, Outcome, Trouble, Volume};

/// `MDA_HEADER_SIZE`, `FMTT_MAGIC` and `FMTT_VERSION` of lib/format_text/layout.h.
const HEADER_BYTES: u64 = 512;
const MAGIC: &[u8] = b" LVM2 x[5A%r0N*>";
const VERSION: u32 = 1;
/// `RAW_LOCN_IGNORED`: the text in this area is not kept up to date.
const IGNORED: u32 = 1;
/// Bytes of a text that are read at most; the tools give an area of 1 MiB.
const TEXT_BYTES_MAX: u64 = 4 << 20;
/// What the tree of a text needs of memory, per byte of the text: an item of 4 bytes (`a=1` and its end) makes a node.
pub const TREE_FACTOR: u64 = 40;

/// What one metadata area has to say.
#[derive(Clone, Debug)]
pub enum Copy {
    /// The text of a volume group, for [`Group::parse`](super::Group::parse); its checksum holds.
    Text(Vec<u8>),
    /// Nothing: it is not in use.
    None,
    /// It cannot be believed, and why.
    Damaged(String),
}

/// What the metadata area in this range of a volume says.
///
/// # Errors
/// A change of the group was under way; or the disk cannot be read.
pub fn text(volume: &Volume<'_>, area: &Range<u64>, limits: Limits) -> Outcome<Copy> {
    let damaged = |why: &str| Ok(Copy::Damaged(format!("its LVM metadata area at {} is {why}", area.start)));
    if area.end - area.start <= HEADER_BYTES {
        return damaged("too small");
    }
    let header = volume.read_one(area.start..area.start + HEADER_BYTES)?;
    let Some(text_at) = place(&header, area) else { return damaged("damaged (its header)") };
    let Place { offset, size, sum, is_ignored } = match text_at {
        Slots::Empty => return Ok(Copy::None),
        Slots::Busy => return Err(Trouble::whole("a change of its volume group was under way")),
        Slots::One(place) => place,
    };
    if is_ignored {
        return Ok(Copy::None);
    }
    let room = area.end - area.start;
    let is_inside = offset >= HEADER_BYTES && offset < room && size > 0 && size <= room - HEADER_BYTES;
    if !is_inside {
        return damaged("damaged (the place of its text)");
    }
    if size > TEXT_BYTES_MAX || size.saturating_mul(TREE_FACTOR) > limits.memory_bytes {
        return Err(Trouble::whole("its LVM metadata need more memory than is allowed"));
    }
    // What goes beyond the end of the ring goes on behind the header.
    let first = size.min(room - offset);
    let begin = area.start + offset..area.start + offset + first;
    let rest = area.start + HEADER_BYTES..area.start + HEADER_BYTES + size - first;
    let text = volume.read(&[begin, rest])?.concat();
    if crc(&text) != sum {
        return damaged("damaged (the checksum of its text)");
    }
    Ok(Copy::Text(text))
}

struct Place {
    offset: u64,
    size: u64,
    sum: u32,
    is_ignored: bool,
}

enum Slots {
    Empty,
    /// The second slot holds a text that was written, but not yet made the valid one.
    Busy,
    One(Place),
}

fn place(header: &[u8], area: &Range<u64>) -> Option<Slots> {
    let is_header = header.get(4..).map(crc) == Some(le32(header, 0)?)
        && header.get(4..20)? == MAGIC
        && le32(header, 20)? == VERSION
        && le64(header, 24)? == area.start
        && le64(header, 32)? == area.end - area.start;
    if !is_header {
        return None;
    }
    let place = Place {
        offset: le64(header, 40)?,
        size: le64(header, 48)?,
        sum: le32(header, 56)?,
        is_ignored: le32(header, 60)? & IGNORED != 0,
    };
    let next = (le64(header, 64)?, le64(header, 72)?);
    Some(match (place.offset, place.size) {
        // The flag counts even where there is no text.
        _ if place.is_ignored => Slots::One(place),
        (0, _) => Slots::Empty,
        (offset, _) if next != (0, 0) && next.0 != offset => Slots::Busy,
        _ => Slots::One(place),
    })
}
