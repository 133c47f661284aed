//! The partition table of a disk that is shown, and why it is not believed where it is not.

use std::ops::Range;

use snapcow::error::Result;
use snapcow::free::table::{Partition, Table, head, read, settle};
use snapcow::free::{Disk, Trouble};
use snapcow::units::Human;

/// Partitions that are named; a table may have more than anybody reads.
pub const SHOWN: usize = 8;

/// What a disk says of its partitions.
#[derive(Debug, Default)]
pub struct Partitions {
    /// By their place on the disk.
    pub table: Option<Table>,
    /// The table contradicts itself.
    pub doubt: Option<String>,
}

/// A disk that is read by a function.
struct Places<F>(F);

impl<F: Fn(&mut [u8], u64) -> Result<()> + Sync> Disk for Places<F> {
    fn read(&self, wanted: &[Range<u64>]) -> Result<Vec<Vec<u8>>> {
        let one = |range: &Range<u64>| {
            let mut bytes = vec![0; (range.end - range.start) as usize];
            (self.0)(&mut bytes, range.start).map(|()| bytes)
        };
        wanted.iter().map(one).collect()
    }
}

/// Reads the table of a disk of `len` bytes; of one that can be read at its beginning only, what stands there.
pub fn find(len: u64, read_at: impl Fn(&mut [u8], u64) -> Result<()> + Sync) -> Partitions {
    let disk = Places(read_at);
    let found = match read(&disk, len) {
        Err(Trouble::Failed(_)) => head(&disk, len).map(|head| {
            head.table.map(|mut table| {
                settle(&mut table, len);
                table
            })
        }),
        found => found,
    };
    match found {
        Ok(mut table) => {
            table.iter_mut().for_each(|table| table.partitions.sort_by_key(|partition| partition.start));
            Partitions { table, doubt: None }
        }
        Err(Trouble::Whole(why)) => Partitions { table: None, doubt: Some(why) },
        // What cannot be read is told where it matters.
        Err(Trouble::Failed(_)) => Partitions::default(),
    }
}

impl Partitions {
    /// Those that are named, a line each, and what is wrong with them.
    pub fn lines(&self) -> Vec<String> {
        let Some(table) = &self.table else { return self.doubt.iter().cloned().collect() };
        let line = |one: &Partition| format!("{} {:<2} {}", table.scheme.name(), one.number, words(one));
        let mut lines: Vec<String> = table.partitions.iter().take(SHOWN).map(line).collect();
        if table.partitions.len() > SHOWN {
            lines.push(format!("and {} more", table.partitions.len() - SHOWN));
        }
        lines.extend(table.note.clone());
        lines
    }
}

/// Length, place, kind, name, and what is wrong with it.
pub fn words(partition: &Partition) -> String {
    let name = if partition.name.is_empty() { String::new() } else { format!(" `{}`", partition.name) };
    let doubt = partition.doubt.as_ref().map(|doubt| format!("; {doubt}")).unwrap_or_default();
    format!("{} from {}, {}{name}{doubt}", Human(partition.len), Human(partition.start), partition.kind)
}
