//! The label of a physical volume (`struct label_header`, `struct pv_header`, `struct pv_header_extension`).

use std::ops::Range;

use super::crc;
use crate::free::bytes::{le32, le64};
use crate::free::{Outcome, Trouble};

/// Bytes of the sectors in which a label may lie: `LABEL_SCAN_SIZE` of lib/label/label.h.
pub const SCAN_BYTES: usize = 4 * SECTOR;
const SECTOR: usize = 512;
/// Metadata areas that a physical volume has at most; the tools make two.
const AREAS_MAX: usize = 4;

/// What the label of a physical volume says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    /// Its UUID, without dashes.
    pub uuid: String,
    /// Its length in bytes, as the tools saw it.
    pub len: u64,
    /// Its metadata areas, in bytes from its beginning, in the order of the label.
    pub areas: Vec<Range<u64>>,
    /// Everything of its own that is no extent: sectors of labels, metadata areas, a boot loader's area.
    pub own: Vec<Range<u64>>,
}

/// The label in the first `SCAN_BYTES` of a volume of `len` bytes; `None` if nothing says that there is one.
///
/// # Errors
/// There is one that cannot be believed.
pub fn label(head: &[u8], len: u64) -> Outcome<Option<Label>> {
    let sectors = head.chunks_exact(SECTOR).take(SCAN_BYTES / SECTOR).zip(0u64..);
    let found: Vec<_> = sectors.filter(|(sector, _)| sector.starts_with(b"LABELONE")).collect();
    let (sector, number) = match found[..] {
        [] => return Ok(None),
        [one] => one,
        _ => return Err(Trouble::whole("it has several LVM labels")),
    };
    let is_whole = le64(sector, 8) == Some(number)
        && le32(sector, 16).is_some_and(|sum| sector.get(20..).map(crc) == Some(sum));
    if !is_whole {
        return Err(Trouble::whole(format_args!("its LVM label in sector {number} is damaged")));
    }
    if sector.get(24..32) != Some(b"LVM2 001") {
        return Err(Trouble::whole("its LVM label is of a kind that is not understood"));
    }
    header(sector, len).map(Some).ok_or_else(|| Trouble::whole("its LVM label contradicts itself"))
}

fn header(sector: &[u8], len: u64) -> Option<Label> {
    let mut header = sector.get(le32(sector, 20)? as usize..)?;
    let uuid = header.get(..32)?;
    if !uuid.iter().all(u8::is_ascii_graphic) {
        return None;
    }
    let uuid = uuid.iter().map(|byte| char::from(*byte)).collect();
    let device_len = le64(header, 32)?;
    header = header.get(40..)?;
    let extents = list(&mut header)?;
    let found = list(&mut header)?;
    if device_len > len || extents.len() != 1 || found.len() > AREAS_MAX {
        return None;
    }
    let mut own: Vec<_> = std::iter::once(0..SCAN_BYTES as u64).collect();
    // Labels from before lvm2 2.02.99 have no extension.
    match le32(header, 0) {
        Some(1 | 2) => {
            header = header.get(8..)?;
            own.extend(ranges(&list(&mut header)?, len)?);
        }
        Some(0) | None => {}
        Some(_) => return None,
    }
    let areas = ranges(&found, len)?;
    own.extend(areas.iter().cloned());
    Some(Label { uuid, len: device_len, areas, own })
}

/// A list of `struct disk_locn` (offset and size), up to the one whose offset is 0; moves behind it.
fn list(bytes: &mut &[u8]) -> Option<Vec<(u64, u64)>> {
    let mut found = Vec::new();
    loop {
        let one = (le64(bytes, 0)?, le64(bytes, 8)?);
        *bytes = bytes.get(16..)?;
        if one.0 == 0 {
            return Some(found);
        }
        found.push(one);
    }
}

fn ranges(places: &[(u64, u64)], len: u64) -> Option<Vec<Range<u64>>> {
    let range = |&(start, size): &(u64, u64)| {
        let end = start.checked_add(size).filter(|end| *end <= len && size > 0)?;
        Some(start..end)
    };
    places.iter().map(range).collect()
}
