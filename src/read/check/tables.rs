//! L1 and L2 tables: which host clusters the guest's clusters lie in.

use super::super::finding::{Class, Place};
use super::Check;
use super::counts::{Use, too_much};
use super::records::L1Place;
use crate::error::Result;
use crate::qcow2::parse::{INCOMPATIBLE_DATA_FILE, entries};
use crate::qcow2::{L1Entry, L2Entry, Mapping};
use crate::units::SECTOR_BYTES;

/// L1 entries that are read at once.
const L1_ENTRIES_AT_ONCE: u32 = 65_536;
/// Compressed clusters in the last, cut sector that are decoded to see whether the cut hurts.
const CUT_CLUSTERS_MAX: u32 = 64;

/// In place of the offset of a table that is not walked: no table can lie there.
const NOWHERE: u64 = u64::MAX;

/// A reference to an L2 table.
#[derive(Clone, Copy, Debug)]
pub(super) struct TableRef {
    offset: u64,
    /// Its index in its L1 table.
    index: u32,
    /// Whether the active L1 table names it.
    is_active: bool,
    /// Whether with the COPIED flag.
    is_copied: bool,
}

/// What is known of the table whose entries are looked at.
#[derive(Clone, Copy)]
struct Walked {
    /// How many L1 entries name it.
    times: u64,
    is_active: bool,
    /// Guest offset of its first cluster.
    guest: u64,
    /// Its own place.
    host: u64,
}

impl Check {
    /// The active L1 table and those of the snapshots: all references to L2 tables.
    pub(super) fn l1_tables(&mut self) -> Result<Vec<TableRef>> {
        let mut tables = Vec::new();
        let header = &self.image.header;
        let active = L1Place { offset: header.l1_offset, entries: header.l1_entries };
        self.l1_table(active, true, &mut tables)?;
        for place in self.snapshots()? {
            self.l1_table(place, false, &mut tables)?;
        }
        Ok(tables)
    }

    fn l1_table(&mut self, place: L1Place, is_active: bool, tables: &mut Vec<TableRef>) -> Result<()> {
        let what = if is_active { "the L1 table" } else { "the L1 table of a snapshot" };
        if !self.region(place.offset, u64::from(place.entries) * 8, what)? {
            return Ok(());
        }
        let mut first = 0;
        while first < place.entries {
            let take = (place.entries - first).min(L1_ENTRIES_AT_ONCE);
            let table = self.read_table(place.offset + u64::from(first) * 8, take as usize)?;
            for (index, entry) in (first..).zip(entries(&table)).filter(|(_, entry)| *entry != 0) {
                self.l1_entry(L1Entry(entry), index, is_active, place.offset, tables)?;
            }
            first += take;
        }
        Ok(())
    }

    fn l1_entry(
        &mut self,
        entry: L1Entry,
        index: u32,
        is_active: bool,
        l1_offset: u64,
        tables: &mut Vec<TableRef>,
    ) -> Result<()> {
        let cs = self.image.cluster_size;
        let guest = is_active.then(|| u64::from(index) << (cs.bits() * 2 - 3));
        let place = Place::both(l1_offset + u64::from(index) * 8, guest);
        if entry.reserved() != 0 {
            let text = format_args!("L1 entry {index}, {:#x}, has reserved bits", entry.0);
            self.findings.add(Class::ReservedBits, place, text);
        }
        let is_copied = L2Entry(entry.0).is_copied();
        let Some(table) = entry.l2_table() else {
            if is_copied {
                let text = format_args!("L1 entry {index} has the COPIED flag, but names no table");
                self.findings.add(Class::CopiedFlag, place, text);
            }
            return Ok(());
        };
        if cs.offset_in(table.0) != 0 {
            let text =
                format_args!("L1 entry {index} names an L2 table at {}, which is not aligned", table.0);
            self.findings.add(Class::Unaligned, place, text);
            return Ok(());
        }
        if !self.image.input.holds(table.0, cs.bytes()) {
            let text = format_args!("the L2 table at {} does not lie within the file", table.0);
            self.findings.add(Class::Outside, place, text);
            return Ok(());
        }
        if (tables.len() as u64 + 1) * size_of::<TableRef>() as u64 > self.table_bytes {
            return Err(too_much(format!("it names more than {} L2 tables", tables.len())));
        }
        tables.push(TableRef { offset: table.0, index, is_active, is_copied });
        Ok(())
    }

    /// Walks every L2 table once, with as many references as there are to it.
    pub(super) fn l2_tables(&mut self, mut tables: Vec<TableRef>) -> Result<()> {
        // In the order of the file, the active table's reference first.
        tables.sort_unstable_by_key(|table| (table.offset, !table.is_active, table.index));
        for same in tables.chunk_by_mut(|a, b| a.offset == b.offset) {
            if !self.l2_place(same)? {
                same.iter_mut().for_each(|table| table.offset = NOWHERE);
            }
        }
        // Only now is every table's place known, so that data cannot hide on one.
        let cs = self.image.cluster_size;
        let mut table = vec![0; cs.size()];
        let mut cut_left = CUT_CLUSTERS_MAX;
        for same in tables.chunk_by(|a, b| a.offset == b.offset) {
            let TableRef { offset: host, index, is_active, .. } = same[0];
            if host == NOWHERE {
                continue;
            }
            let guest = u64::from(index) << (cs.bits() * 2 - 3);
            let walk = Walked { times: same.len() as u64, is_active, guest, host };
            self.image.input.read(&mut table, host)?;
            for (index, entry) in entries(&table).enumerate().filter(|(_, entry)| *entry != 0) {
                self.l2_entry(L2Entry(entry), index as u64, walk, &mut cut_left)?;
            }
        }
        Ok(())
    }

    /// Counts the references to one L2 table; tells whether nothing else lies there.
    fn l2_place(&mut self, same: &[TableRef]) -> Result<bool> {
        let (cs, first, times) = (self.image.cluster_size, same[0], same.len() as u64);
        let guest = u64::from(first.index) << (cs.bits() * 2 - 3);
        let place = Place::both(first.offset, first.is_active.then_some(guest));
        let active = same.iter().filter(|table| table.is_active).count();
        let fits = self.counts.add(first.offset >> cs.bits(), Use::Metadata, times)?;
        self.used_to(first.offset + cs.bytes());
        if !fits || active > 1 {
            let text = format_args!("the L2 table at {} lies where something else is", first.offset);
            self.findings.add(Class::Overlap, place, text);
        }
        if first.is_active && first.is_copied != (times == 1) {
            let text = format_args!(
                "the COPIED flag of the L2 table at {} contradicts its {times} references",
                first.offset
            );
            self.findings.add(Class::CopiedFlag, place, text);
        }
        Ok(fits)
    }

    fn l2_entry(&mut self, entry: L2Entry, index: u64, walk: Walked, cut_left: &mut u32) -> Result<()> {
        let (cs, version) = (self.image.cluster_size, self.image.header.version);
        let guest = walk.guest + (index << cs.bits());
        let place = Place::both(walk.host + index * 8, walk.is_active.then_some(guest));
        if entry.reserved(version) != 0 {
            let text = format_args!("L2 entry {:#x} has reserved bits", entry.0);
            self.findings.add(Class::ReservedBits, place, text);
        }
        let mapping = entry.mapping(cs, version);
        let behind_disk = walk.is_active && guest >= self.image.header.virtual_size;
        if behind_disk && mapping != Mapping::Unallocated {
            // A snapshot taken of a running machine keeps its memory there for a while.
            let class = if self.image.header.snapshots > 0 { Class::Note } else { Class::BehindDisk };
            self.findings.add(class, place, format_args!("a cluster behind the end of the disk is mapped"));
        }
        let elsewhere = self.image.header.incompatible & INCOMPATIBLE_DATA_FILE != 0;
        let counted = u64::from(walk.is_active);
        match mapping {
            Mapping::Unallocated | Mapping::Zero(None) => {
                if entry.is_copied() && !elsewhere {
                    let text = format_args!("an L2 entry has the COPIED flag, but names no cluster");
                    self.findings.add(Class::CopiedFlag, place, text);
                }
                self.facts.zero_clusters += u64::from(mapping != Mapping::Unallocated) * counted;
            }
            Mapping::Zero(Some(host)) => {
                self.facts.zero_clusters += counted;
                if !elsewhere {
                    self.plain(entry, host.0, 0, walk, place)?;
                }
            }
            Mapping::Plain(host) => {
                self.facts.plain_clusters += counted;
                let visible = self.image.header.virtual_size.saturating_sub(guest).min(cs.bytes());
                // What only a snapshot names may lie behind the end of today's disk.
                let visible = if walk.is_active { visible } else { 1 };
                if !elsewhere {
                    self.plain(entry, host.0, visible, walk, place)?;
                }
            }
            Mapping::Compressed { host, len } => {
                self.facts.compressed_clusters += counted;
                self.compressed(entry, (host.0, len), walk, place, cut_left)?;
            }
        }
        Ok(())
    }

    /// Counts a whole cluster, whose first `visible` bytes the guest reads.
    fn plain(&mut self, entry: L2Entry, host: u64, visible: u64, walk: Walked, place: Place) -> Result<()> {
        let cs = self.image.cluster_size;
        if cs.offset_in(host) != 0 {
            let text = format_args!("a cluster at host offset {host} is not aligned");
            self.findings.add(Class::Unaligned, place, text);
            return Ok(());
        }
        if host >> cs.bits() >= self.counts.clusters() || !self.image.input.holds(host, visible) {
            let text = format_args!("a cluster at host offset {host} does not lie within the file");
            self.findings.add(Class::Outside, place, text);
            return Ok(());
        }
        let used = match (walk.is_active, entry.is_copied()) {
            (false, _) => Use::PlainOfSnapshots,
            (true, true) => Use::PlainCopied,
            (true, false) => Use::PlainShared,
        };
        if !self.counts.add(host >> cs.bits(), used, walk.times)? {
            let text = format_args!("a cluster at host offset {host} lies where something else is");
            self.findings.add(Class::Overlap, place, text);
        }
        self.used_to(host + cs.bytes());
        Ok(())
    }

    /// Counts what a compressed cluster touches: `span` is its host offset and length in whole sectors.
    fn compressed(
        &mut self,
        entry: L2Entry,
        span: (u64, u64),
        walk: Walked,
        place: Place,
        cut_left: &mut u32,
    ) -> Result<()> {
        let (cs, (host, len)) = (self.image.cluster_size, span);
        let file_len = self.image.input.len;
        if entry.is_copied() {
            let text = format_args!("a compressed cluster has the COPIED flag");
            self.findings.add(Class::CopiedFlag, place, text);
        }
        let end = host + len;
        if host >= file_len || end > file_len.next_multiple_of(SECTOR_BYTES) {
            let text =
                format_args!("a compressed cluster at host offset {host} does not lie within the file");
            self.findings.add(Class::Outside, place, text);
            return Ok(());
        }
        let mut fits = true;
        for cluster in host >> cs.bits()..=(end - 1) >> cs.bits() {
            fits &= self.counts.add(cluster, Use::Compressed, walk.times)?;
        }
        if !fits {
            let text =
                format_args!("a compressed cluster at host offset {host} lies where something else is");
            self.findings.add(Class::Overlap, place, text);
        }
        self.used_to(end);
        // The last sector need not be whole: what counts is whether the stream is.
        let is_cut = end > file_len && *cut_left > 0;
        *cut_left -= u32::from(is_cut);
        if self.options.decode || is_cut {
            self.decode(host, len, place)?;
        }
        Ok(())
    }

    fn decode(&mut self, host: u64, len: u64, place: Place) -> Result<()> {
        self.stored.resize(len as usize, 0);
        let there = self.image.input.read(&mut self.stored, host)?;
        self.facts.decoded_clusters += 1;
        if let Err(why) = self.decoder.decode(&self.stored[..there], &mut self.cluster) {
            let text = format_args!("a compressed cluster at host offset {host}: {why}");
            self.findings.add(Class::Undecodable, place, text);
        }
        Ok(())
    }
}
