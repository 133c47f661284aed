//! The table of a disk: what its beginning tells, and whether its end agrees.

use std::ops::Range;

use super::gpt::{self, Flaw, Header};
use super::mbr::{self, Boot, Chain, Entry};
use super::{Partition, Role, Scheme, Table, settle};
use crate::free::{Disk, Outcome, Trouble};

/// Bytes from the beginning of a disk that hold both places of a GPT header (sectors of 512 and of 4096 bytes), and the
/// usual 128 entries behind it.
pub const HEAD_BYTES: u64 = 64 << 10;
const SECTORS: [u64; 2] = [512, 4096];

/// What the beginning of a disk tells.
#[derive(Clone, Debug)]
pub struct Head {
    /// The table, without logical partitions; `None` if there is none.
    pub table: Option<Table>,
    /// The chain of logical partitions.
    pub chain: Option<Chain>,
    /// What [`tail`] has to look for.
    pub tail: Tail,
}

/// What the end of a disk has to agree with.
#[derive(Clone, Debug)]
pub enum Tail {
    /// Nothing: an MBR has no backup, or the end was read already.
    Settled,
    /// There is no table, so there must be no backup of one.
    None,
    /// The backup of this GPT.
    Gpt(#[doc(hidden)] Box<Header>),
}

/// Reads the beginning of a disk of `len` bytes; also its end, if the primary GPT cannot be believed.
///
/// # Errors
/// Something that contradicts itself, so that nothing of the disk is trimmed; or the disk cannot be read.
pub fn head(disk: &dyn Disk, len: u64) -> Outcome<Head> {
    let bytes = one(disk, 0..len.min(HEAD_BYTES))?;
    let found = SECTORS.map(|sector| match bytes.get(sector as usize..) {
        Some(from) => gpt::header(from, sector, 1),
        None => Err(Flaw::Missing),
    });
    let is_there = found.iter().any(|header| *header != Err(Flaw::Missing));
    let entries = match mbr::boot(&bytes) {
        Boot::Odd => {
            return Err(Trouble::whole("its first sector is neither a partition table nor free of one"));
        }
        Boot::None if is_there => return Err(Trouble::whole("it has a GPT without the protective MBR")),
        Boot::None => return Ok(Head { table: None, chain: None, tail: Tail::None }),
        Boot::Entries(entries) => entries,
    };
    if !entries.iter().any(|entry| entry.kind == 0xee) {
        if is_there {
            return Err(Trouble::whole("it has a GPT, and an MBR that knows nothing of it"));
        }
        return Ok(of_mbr(&entries, len));
    }
    if !entries.iter().any(|entry| entry.kind == 0xee && entry.start == 1) {
        return Err(Trouble::whole("the protective entry of its MBR is not at its place"));
    }
    let (table, tail) = of_gpt(disk, len, &bytes, found)?;
    agree(&entries, &table)?;
    Ok(Head { table: Some(table), chain: None, tail })
}

fn of_mbr(entries: &[Entry], len: u64) -> Head {
    let mut partitions: Vec<Partition> =
        entries.iter().map(|entry| entry.partition(entry.number, 0)).collect();
    let chain = mbr::chain(entries, &mut partitions, len);
    let own = std::iter::once(0..mbr::SECTOR.min(len)).collect();
    let table = Table { scheme: Scheme::Mbr, sector_bytes: mbr::SECTOR, partitions, own, note: None };
    Head { table: Some(table), chain, tail: Tail::Settled }
}

/// A hybrid MBR has to tell partitions that the GPT tells, too.
fn agree(entries: &[Entry], table: &Table) -> Outcome<()> {
    for entry in entries.iter().filter(|entry| entry.kind != 0xee) {
        let (start, len) = (entry.start * table.sector_bytes, entry.sectors * table.sector_bytes);
        if !table.partitions.iter().any(|part| (part.start, part.len) == (start, len)) {
            let number = entry.number;
            return Err(Trouble::whole(format_args!("entry {number} of its MBR disagrees with its GPT")));
        }
    }
    Ok(())
}

fn of_gpt(
    disk: &dyn Disk,
    len: u64,
    bytes: &[u8],
    found: [Result<Header, Flaw>; 2],
) -> Outcome<(Table, Tail)> {
    let flaw = match found {
        [Ok(_), Ok(_)] => {
            return Err(Trouble::whole("it has one GPT for sectors of 512 bytes and one for 4096"));
        }
        [Ok(header), Err(_)] | [Err(_), Ok(header)] => {
            let Some(range) = header.entries().filter(|range| range.end <= len) else {
                return Err(Trouble::whole("the entries of its GPT lie beyond its end"));
            };
            let at = range.start as usize..range.end as usize;
            let entries = match bytes.get(at) {
                Some(entries) => entries.to_vec(),
                None => one(disk, range.clone())?,
            };
            if header.is_sum_of(&entries) {
                let table = table(&header, &entries, range, len, None);
                return Ok((table, Tail::Gpt(Box::new(header))));
            }
            "damaged (the checksum of its entries)"
        }
        [Err(Flaw::Missing), Err(flaw)] | [Err(flaw), Err(_)] => flaw.words(),
    };
    let Some((header, entries, range)) = backup(disk, len)? else {
        return Err(Trouble::whole(format_args!("its GPT is {flaw}, and has no valid backup at its end")));
    };
    let note = format!("its GPT is {flaw}; the backup at its end was read");
    Ok((table(&header, &entries, range, len, Some(note)), Tail::Settled))
}

fn table(header: &Header, entries: &[u8], at: Range<u64>, len: u64, note: Option<String>) -> Table {
    let head = 0..(2 * header.sector).min(len);
    Table {
        scheme: Scheme::Gpt,
        sector_bytes: header.sector,
        partitions: header.partitions(entries),
        own: vec![head, header.range(), at],
        note,
    }
}

/// A header, its entries, and where those lie.
type Backup = (Header, Vec<u8>, Range<u64>);

/// The valid backup in the last sector, for either size of sectors.
fn backup(disk: &dyn Disk, len: u64) -> Outcome<Option<Backup>> {
    let from = len.saturating_sub(HEAD_BYTES);
    let bytes = one(disk, from..len)?;
    let mut all = Vec::new();
    for sector in SECTORS {
        let Some(at) = (len / sector).checked_sub(1) else { continue };
        let last = at * sector;
        let Some(Ok(header)) = bytes.get((last - from) as usize..).map(|from| gpt::header(from, sector, at))
        else {
            continue;
        };
        let Some(range) = header.entries().filter(|range| range.end <= last) else { continue };
        let entries = match range.start.checked_sub(from) {
            Some(at) => bytes.get(at as usize..(range.end - from) as usize).unwrap_or_default().to_vec(),
            None => one(disk, range.clone())?,
        };
        if header.is_sum_of(&entries) {
            all.push((header, entries, range));
        }
    }
    if all.len() > 1 {
        return Err(Trouble::whole("it has one GPT for sectors of 512 bytes and one for 4096 at its end"));
    }
    Ok(all.pop())
}

/// Where a backup lies, in bytes of the disk, and what a person should know of it.
pub type Compared = (Vec<Range<u64>>, Option<String>);

/// Compares the end of a disk of `len` bytes with its beginning.
///
/// # Errors
/// They disagree, so that nothing of the disk is trimmed; or the disk cannot be read.
pub fn tail(disk: &dyn Disk, len: u64, tail: &Tail) -> Outcome<Compared> {
    let primary = match tail {
        Tail::Settled => return Ok((Vec::new(), None)),
        Tail::None => {
            return match backup(disk, len)? {
                None => Ok((Vec::new(), None)),
                Some(_) => {
                    Err(Trouble::whole("the backup of a GPT lies at its end, but no GPT at its beginning"))
                }
            };
        }
        Tail::Gpt(primary) => primary,
    };
    let sector = primary.sector;
    let table = u64::from(primary.count) * u64::from(primary.entry_bytes);
    let last = (len / sector).saturating_sub(1);
    // The backup lies where the primary header says, and should lie in the last sector; its entries usually before it.
    let mut places = vec![primary.other.min(last), last];
    places.dedup();
    let wanted: Vec<Range<u64>> = places
        .iter()
        .map(|at| (at * sector).saturating_sub(table.next_multiple_of(sector))..(at + 1) * sector)
        .collect();
    let joined = join(&wanted);
    let read = disk.read(&joined).map_err(Trouble::from)?;
    let mut own = Vec::new();
    let mut flaw = Flaw::Missing;
    for at in places {
        let piece = joined.iter().zip(&read).find(|(range, _)| range.contains(&(at * sector)));
        let Some((range, bytes)) = piece else { continue };
        let header = match gpt::header(slice(bytes, range, at * sector..(at + 1) * sector), sector, at) {
            Ok(header) => header,
            Err(Flaw::Missing) => continue,
            Err(damaged) => {
                flaw = damaged;
                continue;
            }
        };
        let entries_at = header.entries().filter(|entries| entries.end <= len);
        let Some(entries_at) = entries_at else {
            flaw = Flaw::Damaged("with entries beyond the end");
            continue;
        };
        let is_near = range.start <= entries_at.start && entries_at.end <= range.end;
        let entries = if is_near {
            slice(bytes, range, entries_at.clone()).to_vec()
        } else {
            one(disk, entries_at.clone())?
        };
        if !header.is_sum_of(&entries) {
            flaw = Flaw::Damaged("damaged (the checksum of its entries)");
        } else if primary.agrees(&header) {
            own.extend([header.range(), entries_at]);
        } else {
            return Err(Trouble::whole("its GPT and the backup of it disagree"));
        }
    }
    let note = match primary.other.cmp(&last) {
        _ if own.is_empty() => Some(format!("the backup of its GPT is {}", flaw.words())),
        std::cmp::Ordering::Less => Some("its GPT was made for a smaller disk".into()),
        std::cmp::Ordering::Greater => Some("its GPT was made for a larger disk".into()),
        std::cmp::Ordering::Equal => None,
    };
    Ok((own, note))
}

/// Ranges in rising order, with those that meet as one.
fn join(ranges: &[Range<u64>]) -> Vec<Range<u64>> {
    let mut joined: Vec<Range<u64>> = Vec::new();
    for range in ranges {
        match joined.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => joined.push(range.clone()),
        }
    }
    joined
}

fn slice<'a>(bytes: &'a [u8], of: &Range<u64>, wanted: Range<u64>) -> &'a [u8] {
    let at = |place: u64| place.saturating_sub(of.start) as usize;
    bytes.get(at(wanted.start)..at(wanted.end)).unwrap_or_default()
}

fn one(disk: &dyn Disk, range: Range<u64>) -> Outcome<Vec<u8>> {
    if range.is_empty() {
        return Ok(Vec::new());
    }
    Ok(disk.read(&[range]).map_err(Trouble::from)?.pop().unwrap_or_default())
}

/// The whole table of a disk of `len` bytes; `None` if there is none.
///
/// # Errors
/// Something that contradicts itself, so that nothing of the disk is trimmed; or the disk cannot be read.
pub fn read(disk: &dyn Disk, len: u64) -> Outcome<Option<Table>> {
    let mut found = head(disk, len)?;
    if let (Some(table), Some(chain)) = (&mut found.table, &mut found.chain) {
        while let Some(parts) = chain.step(disk)? {
            table.partitions.extend(parts);
        }
        close(table, chain);
    }
    let (own, note) = tail(disk, len, &found.tail)?;
    Ok(found.table.map(|mut table| {
        table.own.extend(own);
        table.note = table.note.or(note);
        settle(&mut table, len);
        table
    }))
}

/// Puts what a chain has found besides partitions into the table.
pub(in crate::free) fn close(table: &mut Table, chain: &mut Chain) {
    table.own.append(&mut chain.own);
    if let Some(doubt) = chain.doubt.take() {
        for part in table.partitions.iter_mut() {
            if part.role == Role::Container || part.number >= mbr::FIRST_LOGICAL {
                part.doubt(|| doubt.clone());
            }
        }
    }
}
