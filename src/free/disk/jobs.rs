//! The jobs that make up a look at a disk, and what they have found so far.

use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::VOLUMES_MAX;
use super::volumes::Lvm;
use crate::free::signatures::{self, Signature};
use crate::free::table::{self, Compared, Partition, Role, Table, Tail};
use crate::free::{Disk, Freed, Limits, Outcome, Segment, Trouble, Volume, ext4, lvm, swap, xfs};

/// Bytes from the beginning of a volume that tell which reader may be for it: a swap header may end at 64 KiB.
const SNIFF_BYTES: u64 = 64 << 10;

/// Something that asks the disk.
#[derive(Clone, Debug)]
pub(super) enum Job {
    /// The partition table, and the links of the chain of logical partitions.
    Table,
    /// The end of the disk.
    Tail(Tail),
    /// The beginning of a place.
    Sniff(usize),
    /// All signatures of a place.
    Signs(usize),
    /// The filesystem in a place.
    Read(usize, Reader),
    /// A metadata area of the physical volume in a place.
    Metadata(usize, Range<u64>),
}

impl Job {
    pub fn place(&self) -> Option<usize> {
        match self {
            Self::Table | Self::Tail(_) => None,
            Self::Sniff(place) | Self::Signs(place) | Self::Read(place, _) | Self::Metadata(place, _) => {
                Some(*place)
            }
        }
    }
}

/// Which reader is for a filesystem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reader {
    Ext,
    Xfs,
    Swap,
}

/// A partition, a logical volume, or the whole disk, and what was found in it.
#[derive(Debug)]
pub(super) struct Place {
    /// The number of its partition, or of the one where its first stretch lies; 0 if there are none.
    pub number: u32,
    /// Its name, if it is a logical volume.
    pub logical: Option<String>,
    /// Of what it consists.
    pub segments: Vec<Segment>,
    /// Whether its use rules out that it is trimmed.
    pub role: Role,
    /// Which reader was sent.
    pub reader: Option<Reader>,
    pub signs: Option<Outcome<Vec<Signature>>>,
    pub freed: Option<Outcome<Freed>>,
}

impl Place {
    pub fn len(&self) -> u64 {
        self.segments.iter().map(|segment| segment.len).sum()
    }

    pub fn start(&self) -> u64 {
        self.segments.first().and_then(|segment| segment.stripes.first()).copied().unwrap_or(0)
    }

    pub fn volume<'a>(&self, disk: &'a dyn Disk) -> Volume<'a> {
        Volume::of(disk, self.segments.clone())
    }

    pub fn linear(number: u32, on_disk: Range<u64>, role: Role) -> Self {
        let len = on_disk.end - on_disk.start;
        let segments = vec![Segment { len, stripes: vec![on_disk.start], stripe_bytes: len }];
        Self { number, logical: None, segments, role, reader: None, signs: None, freed: None }
    }
}

/// What was found so far.
#[derive(Debug, Default)]
pub(super) struct Board {
    /// The table; `None` within if there is none.
    pub table: Option<Outcome<Option<Table>>>,
    pub tail: Option<Outcome<Compared>>,
    pub places: Vec<Place>,
    /// Partitions that were not looked into, since there are too many.
    pub is_crowded: bool,
    pub lvm: Lvm,
    /// Jobs under way that may find physical volumes or metadata.
    pub open: usize,
    /// A fault of ours: nothing is trimmed.
    pub fault: bool,
}

/// A disk that is looked at.
pub(super) struct Work<'a> {
    pub disk: &'a dyn Disk,
    pub len: u64,
    pub limits: Limits,
    board: Mutex<Board>,
}

impl<'a> Work<'a> {
    pub fn new(disk: &'a dyn Disk, len: u64, limits: Limits) -> Self {
        let board = Mutex::new(Board { open: 1, ..Board::default() });
        Self { disk, len, limits, board }
    }

    pub fn board(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A job has panicked, or could not begin.
    pub fn undone(&self, place: Option<usize>) {
        let mut board = self.board();
        let board = &mut *board;
        match place.and_then(|place| board.places.get_mut(place)) {
            // Its signatures, if they are known, tell whether there is a hibernation image.
            Some(place) if place.reader.is_some() => {
                place.freed =
                    Some(Err(Trouble::whole("its reader failed, which is a fault of this program")));
            }
            _ => board.fault = true,
        }
    }

    pub fn run(&self, job: Job, next: &mut dyn FnMut(Job)) {
        match job {
            Job::Table => {
                let found = self.table(next);
                self.board().table = Some(found);
                self.close(next);
            }
            Job::Tail(tail) => {
                let found = table::tail(self.disk, self.len, &tail);
                self.board().tail = Some(found);
            }
            Job::Sniff(place) => self.sniff(place, next),
            Job::Signs(place) => {
                let volume = self.volume(place);
                let signs = signatures::look(&volume);
                self.set(place, |place| place.signs = Some(signs));
            }
            Job::Read(place, _) if self.is_known_unreadable(place) => {}
            Job::Read(place, reader) => {
                let volume = self.volume(place);
                let freed = match reader {
                    Reader::Ext => ext4::freed(&volume, self.limits),
                    Reader::Xfs => xfs::freed(&volume, self.limits),
                    Reader::Swap => swap::freed(&volume, self.limits),
                };
                self.set(place, |place| place.freed = Some(freed));
            }
            Job::Metadata(place, area) => {
                let volume = self.volume(place);
                let text = lvm::text(&volume, &area, self.limits);
                // One text at a time: the tree of a text is far larger than what is kept of it.
                self.board().lvm.add_text(place, text, self.limits);
                self.close(next);
            }
        }
    }

    /// Whether its signatures are known, and forbid to trim it whatever a reader says.
    fn is_known_unreadable(&self, place: usize) -> bool {
        let board = self.board();
        let signs = board.places.get(place).and_then(|place| place.signs.as_ref());
        signs.is_some_and(|signs| !matches!(signs, Ok(signs) if signs.len() == 1))
    }

    fn set(&self, place: usize, change: impl FnOnce(&mut Place)) {
        if let Some(place) = self.board().places.get_mut(place) {
            change(place);
        }
    }

    fn volume(&self, place: usize) -> Volume<'a> {
        let board = self.board();
        match board.places.get(place) {
            Some(place) => place.volume(self.disk),
            None => Volume::linear(self.disk, 0..0),
        }
    }

    /// A job that might have found physical volumes is done: logical volumes of which enough is known are begun with.
    fn close(&self, next: &mut dyn FnMut(Job)) {
        let mut board = self.board();
        board.open -= 1;
        let fresh = board.lvm.fresh(&board.places);
        let begun: Vec<usize> = fresh.into_iter().filter_map(|place| board.add(place)).collect();
        drop(board);
        begun.into_iter().for_each(|index| next(Job::Sniff(index)));
    }

    fn table(&self, next: &mut dyn FnMut(Job)) -> Outcome<Option<Table>> {
        let mut head = table::head(self.disk, self.len)?;
        next(Job::Tail(head.tail.clone()));
        let Some(mut table) = head.table.take() else {
            self.begin(Place::linear(0, 0..self.len, Role::Data), next);
            return Ok(None);
        };
        self.partitions(&table.partitions, next);
        if let Some(mut chain) = head.chain.take() {
            while let Some(parts) = chain.step(self.disk)? {
                self.partitions(&parts, next);
                table.partitions.extend(parts);
            }
            table::close(&mut table, &mut chain);
        }
        Ok(Some(table))
    }

    fn partitions(&self, parts: &[Partition], next: &mut dyn FnMut(Job)) {
        for part in parts.iter().filter(|part| part.role != Role::Container) {
            // What goes beyond the end is searched for signatures all the same, and left whole in the end.
            let range = part.start..part.range().end.min(self.len);
            if !range.is_empty() {
                self.begin(Place::linear(part.number, range, part.role), next);
            }
        }
    }

    fn begin(&self, place: Place, next: &mut dyn FnMut(Job)) {
        let mut board = self.board();
        if let Some(index) = board.add(place) {
            board.open += 1;
            drop(board);
            next(Job::Sniff(index));
        }
    }

    fn sniff(&self, index: usize, next: &mut dyn FnMut(Job)) {
        let volume = self.volume(index);
        let head = volume.read_one(0..volume.len().min(SNIFF_BYTES));
        next(Job::Signs(index));
        let reader = head.as_deref().ok().and_then(sniff);
        let mut jobs = Vec::new();
        let mut board = self.board();
        let Some(place) = board.places.get_mut(index) else { return };
        let (is_logical, is_data) = (place.logical.is_some(), place.role == Role::Data);
        place.reader = reader.filter(|_| is_data);
        jobs.extend(place.reader.map(|reader| Job::Read(index, reader)));
        if let (Ok(head), true, false) = (&head, is_data, is_logical) {
            match lvm::label(head, volume.len()) {
                Ok(None) => {}
                Ok(Some(label)) => {
                    board.open += label.areas.len();
                    jobs.extend(label.areas.iter().map(|area| Job::Metadata(index, area.clone())));
                    board.lvm.add_label(index, label);
                }
                Err(trouble) => board.lvm.add_trouble(index, trouble),
            }
        }
        // No job begins while the board is held: one that cannot begin is written on it.
        drop(board);
        jobs.into_iter().for_each(&mut *next);
        if !is_logical {
            self.close(next);
        }
    }
}

impl Board {
    /// The place of a new place; `None` if there are too many.
    fn add(&mut self, place: Place) -> Option<usize> {
        if self.places.len() >= VOLUMES_MAX {
            self.is_crowded = true;
            return None;
        }
        self.places.push(place);
        Some(self.places.len() - 1)
    }
}

/// Which reader may be for a volume that begins so; `None` if none or several.
fn sniff(head: &[u8]) -> Option<Reader> {
    let is_swap = |page: &usize| {
        let mark = head.get(page - 10..*page);
        mark == Some(b"SWAPSPACE2") || mark == Some(b"SWAP-SPACE")
    };
    let mut found = Vec::new();
    // `s_magic` of fs/ext4/ext4.h; `XFS_SB_MAGIC` of fs/xfs/libxfs/xfs_format.h; include/linux/swap.h, any size of pages.
    if head.get(1080..1082) == Some(&[0x53, 0xef]) {
        found.push(Reader::Ext);
    }
    if head.starts_with(b"XFSB") {
        found.push(Reader::Xfs);
    }
    if [4 << 10, 8 << 10, 16 << 10, 32 << 10, 64 << 10].iter().any(is_swap) {
        found.push(Reader::Swap);
    }
    match found[..] {
        [one] => Some(one),
        _ => None,
    }
}
