//! What the filesystems of a disk have freed, for whoever reads it as a [`Disk`].

use std::ops::Range;

use super::{Disk, PIECE_BYTES};
use crate::error::{Error, Kind, Result, Stage};
use crate::free::disk::{Findings, look, look_while_passing};
use crate::free::stream::Passing;
use crate::free::{self, Limits};

/// Looks at the filesystems of a disk; `memory_bytes` is for the metadata of one of them. A stream is used up; what came
/// too late for a question in it is left whole.
///
/// # Errors
/// Whatever keeps the disk from being read; a stream whose length nobody knows.
pub fn look_for_free(disk: &dyn Disk, memory_bytes: u64) -> Result<Findings> {
    let limits = Limits { memory_bytes };
    let Some(len) = disk.size() else {
        let what = format!("look at the filesystems of {}, whose length nobody knows", disk.name());
        return Err(Error::new(Stage::Source, Kind::Usage, what).advise("save it to a file first"));
    };
    if disk.is_stream() { in_order(disk, len, limits) } else { look(&Anywhere(disk), len, limits) }
}

/// A disk that can be read at any place.
struct Anywhere<'a>(&'a dyn Disk);

impl free::Disk for Anywhere<'_> {
    fn read(&self, wanted: &[Range<u64>]) -> Result<Vec<Vec<u8>>> {
        let mut reader = self.0.reader()?;
        let one = |range: &Range<u64>| {
            let mut bytes = vec![0; (range.end - range.start) as usize];
            reader.read(&mut bytes, range.start)?;
            Ok(bytes)
        };
        wanted.iter().map(one).collect()
    }
}

fn in_order(disk: &dyn Disk, len: u64, limits: Limits) -> Result<Findings> {
    let passing = Passing::new(limits);
    look_while_passing(&passing, len, limits, || pass(disk, len, &passing))
}

fn pass(disk: &dyn Disk, len: u64, passing: &Passing) -> Result<()> {
    let mut reader = disk.reader()?;
    let mut bytes = vec![0; PIECE_BYTES as usize];
    let mut at = 0;
    while at < len {
        let take = (len - at).min(PIECE_BYTES);
        let bytes = &mut bytes[..take as usize];
        reader.read(bytes, at)?;
        passing.offer(at, bytes);
        at += take;
    }
    Ok(())
}
