//! What a person reads: a small picture of the disk, and what it comes to. 80 columns.

use std::fmt::Write;
use std::io::IsTerminal;

use snapcow::extents::Kind;
use snapcow::units::Human;

use super::disk::Disk;
use super::tally::{Cell, Tally, row_offset};
use crate::cli::screen;
use crate::cli::terminal::Plain;

/// Cells of a row.
const COLUMNS: usize = 64;
/// Rows at most.
const ROWS: usize = 16;

/// How it may look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    unicode: bool,
    colour: bool,
}

impl Look {
    /// What standard output can show: nothing but ASCII unless it is a terminal whose locale is UTF-8.
    pub fn of_stdout() -> Self {
        let is_terminal = std::io::stdout().is_terminal();
        let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let is_dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        Self {
            unicode: is_terminal && screen::has_unicode(),
            colour: is_terminal && !is_dumb && !set("NO_COLOR"),
        }
    }
}

/// Picture and sums.
pub fn summary(tally: &Tally, disk: &Disk, look: Look) -> String {
    let mut text = format!("{}\n\n", Plain(headline(tally, disk).replace('\n', " ")));
    picture(&mut text, tally, look);
    text.push('\n');
    for (kind, words) in [
        (Kind::Compressed, "compressed data"),
        (Kind::Data, "data"),
        (Kind::Zero, "zeros"),
        (Kind::Preallocated, "place for data"),
        (Kind::Unallocated, "nothing stored"),
    ] {
        let sum = tally.sum(kind);
        if sum.extents == 0 {
            continue;
        }
        let stored = if kind == Kind::Compressed {
            format!("  in {} of the file", Human(sum.stored))
        } else {
            String::new()
        };
        let bytes = Human(sum.bytes).to_string();
        let _ = writeln!(text, "{words:<16} {bytes:>10} {}{stored}", percent(sum.bytes, tally.size()));
    }
    if let Some(freed) = tally.freed() {
        for (bytes, words) in [(freed.data, "freed, stored"), (freed.empty, "freed, left out")] {
            let _ = writeln!(
                text,
                "{words:<16} {:>10} {}",
                Human(bytes).to_string(),
                percent(bytes, tally.size())
            );
        }
    }
    let _ = writeln!(text, "{:<16} {:>10}", "extents", tally.extents());
    for line in disk.partitions.lines() {
        let _ = writeln!(text, "{}", Plain(line.replace('\n', " ")));
    }
    if disk.is_unseen() {
        text.push_str("nobody knows its holes: --scan reads it and finds its zeros\n");
    }
    text.truncate(text.trim_end().len());
    text
}

/// What it is, in a line.
pub fn headline(tally: &Tally, disk: &Disk) -> String {
    let (size, file) = (tally.size(), disk.file_len);
    if !disk.is_qcow2() {
        return format!("{}: a raw disk of {}", disk.name, Human(size));
    }
    let share = percent(file, size);
    format!("{}: a disk of {}, qcow2 of {} ({})", disk.name, Human(size), Human(file), share.trim())
}

fn percent(part: u64, whole: u64) -> String {
    format!("{:5.1} %", 100.0 * part as f64 / whole.max(1) as f64)
}

fn picture(text: &mut String, tally: &Tally, look: Look) {
    let (cell_bytes, cells) = tally.cells((COLUMNS * ROWS) as u64);
    for (row, cells) in cells.chunks(COLUMNS).enumerate() {
        let offset = row_offset(row as u64, cell_bytes.saturating_mul(COLUMNS as u64));
        let _ = write!(text, "{offset:>10} ");
        let mut colour = None;
        for (column, cell) in cells.iter().enumerate() {
            let there = cell_bytes.min(tally.size() - (row * COLUMNS + column) as u64 * cell_bytes);
            let wanted = look.colour.then(|| shade(cell)).flatten();
            if wanted != colour {
                text.push_str(&wanted.map_or("\x1b[0m".into(), |code| format!("\x1b[38;5;{code}m")));
                colour = wanted;
            }
            text.push(mark(cell, there, look.unicode));
        }
        text.push_str(if colour.is_some() { "\x1b[0m\n" } else { "\n" });
    }
    let marks = if look.unicode { ["·", "░", "▒", "▓", "█"] } else { [".", ":", "+", "*", "#"] };
    let [zero, quarter, half, most, all] = marks;
    let shades = if look.colour { ", the darker the less it was compressed" } else { "" };
    let _ = writeln!(
        text,
        "{:>10} each {} {zero} none  {quarter} {half} {most} some  {all} all data{shades}",
        "",
        Human(cell_bytes)
    );
}

/// The mark for a share of data.
fn mark(cell: &Cell, bytes: u64, unicode: bool) -> char {
    let marks = if unicode { ['░', '▒', '▓', '█'] } else { [':', '+', '*', '#'] };
    match cell.data as f64 / bytes.max(1) as f64 {
        _ if cell.data == 0 && unicode => '·',
        _ if cell.data == 0 => '.',
        share if share >= 0.95 => marks[3],
        share => marks[(share * 3.0) as usize % 3],
    }
}

/// The colour of a ratio, of the 256 of terminals: those of the picture.
fn shade(cell: &Cell) -> Option<u8> {
    const SHADES: [u8; 5] = [178, 71, 37, 68, 91];
    (cell.data > 0).then(|| SHADES[super::picture::step(cell.ratio())])
}

#[cfg(test)]
mod tests {
    use super::*;
    use snapcow::extents::Extent;

    const MIB: u64 = 1 << 20;

    fn drawn(look: Look) -> String {
        let mut tally = Tally::new(512 * MIB, None);
        for (start, len, kind, stored) in [
            (0, MIB / 4, Kind::Compressed, MIB / 32),
            (MIB / 4, 64 * MIB - MIB / 4, Kind::Zero, 0),
            (64 * MIB, 64 * MIB, Kind::Data, 64 * MIB),
        ] {
            tally.add(&Extent { start, len, kind, offset: None, stored });
        }
        let mut text = String::new();
        picture(&mut text, &tally, look);
        text
    }

    #[test]
    fn the_small_picture_is_plain_where_it_must_be_and_never_wide() {
        let plain = drawn(Look { unicode: false, colour: false });
        assert!(plain.is_ascii() && !plain.contains('\x1b'));
        let lines: Vec<&str> = plain.lines().collect();
        assert_eq!(lines[0], format!("{:>10} +{}", "0 MiB", ".".repeat(63)));
        assert_eq!(lines[2], format!("{:>10} {}", "64 MiB", "#".repeat(64)));
        assert_eq!(lines.len(), 17);
        let rich = drawn(Look { unicode: true, colour: true });
        assert!(rich.contains('█') && rich.contains("\x1b[38;5;91m") && rich.contains("\x1b[38;5;178m"));
        let bare = drawn(Look { unicode: true, colour: false });
        for line in plain.lines().chain(bare.lines()) {
            assert!(line.chars().count() <= 80, "{line}");
        }
    }
}
