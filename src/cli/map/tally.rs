//! Extents, counted: in total, and for each part of the disk that a picture shows as one cell.

use std::ops::Range;

use snapcow::extents::{Extent, Kind};
use snapcow::free::Runs;

/// Cells are kept at most: 64 in each of 64 rows, which pictures join to fewer.
const CELLS: u64 = 4096;

/// What extents of one kind come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    /// Bytes of the disk.
    pub bytes: u64,
    /// Bytes of the file.
    pub stored: u64,
    /// Number of extents.
    pub extents: u64,
}

/// A part of the disk. Bytes of it that are neither data nor zeros by word are not stored at all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cell {
    /// Bytes of data.
    pub data: u64,
    /// Bytes that these take in the file.
    pub stored: u64,
    /// Bytes that are zeros by the word of image or file system.
    pub zero: u64,
    /// What filesystems on the disk have freed of it.
    pub freed: Freed,
}

/// Bytes that filesystems on a disk have freed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Freed {
    /// Those that hold data all the same.
    pub data: u64,
    /// Those that hold none: they were trimmed, or never written.
    pub empty: u64,
}

/// See the module's text.
pub struct Tally {
    size: u64,
    cell_bytes: u64,
    cells: Vec<Cell>,
    sums: [Sum; 5],
    /// Nobody has looked for it, if there is none.
    free: Option<Runs>,
    freed: Freed,
}

impl Tally {
    /// For a disk of `size` bytes, of which filesystems have freed these.
    pub fn new(size: u64, free: Option<Runs>) -> Self {
        // A power of two, so that rows begin at round numbers.
        let cell_bytes = cell_bytes(size, CELLS);
        let cells = vec![Cell::default(); size.div_ceil(cell_bytes).min(CELLS) as usize];
        Self { size, cell_bytes, cells, sums: [Sum::default(); 5], free, freed: Freed::default() }
    }

    pub fn add(&mut self, extent: &Extent) {
        let sum = &mut self.sums[extent.kind as usize];
        sum.bytes += extent.len;
        sum.stored = sum.stored.saturating_add(extent.stored);
        sum.extents += 1;
        let range = extent.start..(extent.start + extent.len).min(self.size);
        let is_data = matches!(extent.kind, Kind::Data | Kind::Compressed);
        if let Some(free) = self.free.take() {
            for run in free.within(range.clone()) {
                self.freed.add(is_data, run.end - run.start);
                self.each_cell(run, |cell, part| cell.freed.add(is_data, part));
            }
            self.free = Some(free);
        }
        self.each_cell(range, |cell, part| match extent.kind {
            Kind::Unallocated => {}
            Kind::Zero | Kind::Preallocated => cell.zero += part,
            Kind::Data | Kind::Compressed => {
                cell.data += part;
                let stored = u128::from(extent.stored) * u128::from(part) / u128::from(extent.len);
                cell.stored = cell.stored.saturating_add(u64::try_from(stored).unwrap_or(u64::MAX));
            }
        });
    }

    /// Hands out the cells that a range touches, each with how much of it.
    fn each_cell(&mut self, range: Range<u64>, mut take: impl FnMut(&mut Cell, u64)) {
        let mut at = range.start;
        while at < range.end {
            let index = at / self.cell_bytes;
            let until = ((index + 1) * self.cell_bytes).min(range.end);
            let Some(cell) = self.cells.get_mut(index as usize) else { break };
            take(cell, until - at);
            at = until;
        }
    }

    /// What filesystems have freed, if anybody has looked.
    pub fn freed(&self) -> Option<Freed> {
        self.free.as_ref().map(|_| self.freed)
    }

    pub fn size(&self) -> u64 {
        self.size
    }

    pub fn sum(&self, kind: Kind) -> Sum {
        self.sums[kind as usize]
    }

    /// Bytes of data on the disk, and what they take in the file.
    pub fn data(&self) -> Sum {
        let (plain, packed) = (self.sum(Kind::Data), self.sum(Kind::Compressed));
        Sum {
            bytes: plain.bytes + packed.bytes,
            stored: plain.stored.saturating_add(packed.stored),
            extents: plain.extents + packed.extents,
        }
    }

    pub fn extents(&self) -> u64 {
        self.sums.iter().map(|sum| sum.extents).sum()
    }

    /// The disk as at most so many cells, and how many bytes each stands for; the last may stand for fewer.
    pub fn cells(&self, most: u64) -> (u64, Vec<Cell>) {
        let cell_bytes = cell_bytes(self.size, most).max(self.cell_bytes);
        let joined = (cell_bytes / self.cell_bytes) as usize;
        let cells = self.cells.chunks(joined).map(|cells| {
            cells.iter().fold(Cell::default(), |sum, cell| Cell {
                data: sum.data + cell.data,
                stored: sum.stored.saturating_add(cell.stored),
                zero: sum.zero + cell.zero,
                freed: Freed {
                    data: sum.freed.data + cell.freed.data,
                    empty: sum.freed.empty + cell.freed.empty,
                },
            })
        });
        (cell_bytes, cells.collect())
    }
}

/// An offset at which a row begins, all in the one unit in which rows are whole numbers.
pub fn row_offset(row: u64, row_bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let exponent = (row_bytes.trailing_zeros() / 10).min(6);
    format!("{} {}", row.saturating_mul(row_bytes >> (10 * exponent)), UNITS[exponent as usize])
}

fn cell_bytes(size: u64, most: u64) -> u64 {
    size.div_ceil(most).next_power_of_two().max(512)
}

impl Freed {
    fn add(&mut self, is_data: bool, bytes: u64) {
        *if is_data { &mut self.data } else { &mut self.empty } += bytes;
    }
}

impl Cell {
    /// Data that no filesystem has freed.
    pub fn used(&self) -> u64 {
        self.data - self.freed.data
    }

    /// The share of data that the file takes, from 0 to 1.
    pub fn ratio(&self) -> f64 {
        if self.data == 0 { 0.0 } else { (self.stored as f64 / self.data as f64).min(1.0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn extent(start: u64, len: u64, kind: Kind, stored: u64) -> Extent {
        Extent { start, len, kind, offset: None, stored }
    }

    #[test]
    fn every_byte_is_counted_once() {
        let size = 10_000 * MIB + 512;
        let mut tally = Tally::new(size, None);
        tally.add(&extent(0, 3 * MIB, Kind::Compressed, MIB));
        tally.add(&extent(3 * MIB, 9_000 * MIB, Kind::Zero, 0));
        tally.add(&extent(9_003 * MIB, 990 * MIB, Kind::Unallocated, 0));
        tally.add(&extent(9_993 * MIB, 7 * MIB + 512, Kind::Data, 7 * MIB + 512));
        assert_eq!(tally.data(), Sum { bytes: 10 * MIB + 512, stored: 8 * MIB + 512, extents: 2 });
        assert_eq!(tally.extents(), 4);
        for most in [1, 64, 1000, 4096, 100_000] {
            let (bytes, cells) = tally.cells(most);
            assert!(cells.len() as u64 <= most && bytes.is_power_of_two());
            assert_eq!(cells.len() as u64, size.div_ceil(bytes));
            assert_eq!(cells.iter().map(|cell| cell.data).sum::<u64>(), 10 * MIB + 512);
            assert_eq!(cells.iter().map(|cell| cell.zero).sum::<u64>(), 9_000 * MIB);
            let stored: u64 = cells.iter().map(|cell| cell.stored).sum();
            assert!((8 * MIB + 508..=8 * MIB + 512).contains(&stored), "{stored}");
        }
    }

    #[test]
    fn what_was_freed_is_counted_by_whether_it_is_stored() {
        let mut free = Runs::new();
        free.push(MIB..4 * MIB).unwrap();
        free.push(5 * MIB + 1..5 * MIB + 2).unwrap();
        let mut tally = Tally::new(8 * MIB, Some(free));
        tally.add(&extent(0, 2 * MIB, Kind::Data, 2 * MIB));
        tally.add(&extent(2 * MIB, MIB, Kind::Zero, 0));
        tally.add(&extent(3 * MIB, MIB, Kind::Unallocated, 0));
        tally.add(&extent(4 * MIB, 4 * MIB, Kind::Compressed, MIB));
        assert_eq!(tally.freed(), Some(Freed { data: MIB + 1, empty: 2 * MIB }));
        for most in [1, 7, 4096] {
            let (_, cells) = tally.cells(most);
            let sum = |of: fn(&Cell) -> u64| cells.iter().map(of).sum::<u64>();
            assert_eq!((sum(|cell| cell.freed.data), sum(|cell| cell.freed.empty)), (MIB + 1, 2 * MIB));
            assert_eq!(sum(Cell::used), 5 * MIB - 1);
        }
        assert_eq!(Tally::new(MIB, None).freed(), None);
    }

    #[test]
    fn rows_begin_at_whole_numbers_of_one_unit() {
        assert_eq!(row_offset(0, 64 * MIB), "0 MiB");
        assert_eq!(row_offset(18, 64 * MIB), "1152 MiB");
        assert_eq!(row_offset(31, 1 << 30), "31 GiB");
        assert_eq!(row_offset(3, 32 << 10), "96 KiB");
        assert_eq!(row_offset(3, 1 << 63), "24 EiB");
    }

    #[test]
    fn the_largest_and_the_smallest_disk() {
        for size in [0, 1, 512, 1 << 62, (1 << 62) + 512] {
            let mut tally = Tally::new(size, None);
            if size > 0 {
                tally.add(&extent(0, size, Kind::Data, size));
            }
            let (_, cells) = tally.cells(100);
            assert_eq!(cells.iter().map(|cell| cell.data).sum::<u64>(), size);
        }
    }
}
