//! Extents as lines, one at a time: there may be millions.

use std::io::{Result, Write};

use snapcow::extents::{Extent, Kind};

/// Prints extents as they come.
pub enum Printer {
    Nothing,
    /// What `qemu-img map --output=json` prints (QEMU, `dump_map_entry`), to the letter.
    Json {
        first: bool,
    },
    Table {
        first: bool,
    },
}

impl Printer {
    pub fn extent(&mut self, out: &mut dyn Write, extent: &Extent) -> Result<()> {
        match self {
            Self::Nothing => Ok(()),
            Self::Json { first } => {
                let before = if std::mem::take(first) { "[" } else { ",\n" };
                let Extent { start, len, kind, offset, .. } = *extent;
                let (present, compressed) = (kind != Kind::Unallocated, kind == Kind::Compressed);
                let data = matches!(kind, Kind::Data | Kind::Compressed | Kind::Preallocated);
                let zero = !matches!(kind, Kind::Data | Kind::Compressed);
                write!(
                    out,
                    "{before}{{ \"start\": {start}, \"length\": {len}, \"depth\": 0, \"present\": {present}, \
                     \"zero\": {zero}, \"data\": {data}, \"compressed\": {compressed}"
                )?;
                match offset {
                    Some(offset) => write!(out, ", \"offset\": {offset}}}"),
                    None => out.write_all(b"}"),
                }
            }
            Self::Table { first } => {
                if std::mem::take(first) {
                    writeln!(out, "{:>18} {:>18} {:>18}  kind", "start", "length", "offset in file")?;
                }
                let offset = extent.offset.map_or_else(|| "-".into(), |offset| offset.to_string());
                writeln!(out, "{:>18} {:>18} {offset:>18}  {}", extent.start, extent.len, word(extent.kind))
            }
        }
    }

    pub fn end(&mut self, out: &mut dyn Write) -> Result<()> {
        match self {
            // What `qemu-img map` prints of a disk without a byte.
            Self::Json { first: true } => out.write_all(
                b"[{ \"start\": 0, \"length\": 0, \"depth\": 0, \"present\": false, \"zero\": false, \
                  \"data\": false, \"compressed\": false}]\n",
            ),
            Self::Json { first: false } => out.write_all(b"]\n"),
            _ => Ok(()),
        }
    }
}

/// The word for a kind of extent.
fn word(kind: Kind) -> &'static str {
    match kind {
        Kind::Unallocated => "nothing stored",
        Kind::Zero => "zeros",
        Kind::Data => "data",
        Kind::Compressed => "compressed data",
        Kind::Preallocated => "place for data",
    }
}
