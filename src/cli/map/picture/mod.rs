//! A disk as a picture: every square a stretch of it, in rows from the beginning to the end. How far a square is
//! filled is how much of it is data, its colour how little that was compressed. Data that a filesystem has freed, where
//! somebody looked, has a colour of its own, and so have places that it has freed and that hold none.
//!
//! The colours are steps of viridis, whose order is seen with any kind of colour blindness and in grey; the ground
//! is the picture's own, so that it can stand on a light page and on a dark one.

mod png;
mod svg;

use snapcow::extents::Kind;
use snapcow::free::table::Partition;
use snapcow::units::Human;

use super::disk::Disk;
use super::tally::{Cell, Tally, row_offset};
use super::text;
use crate::cli::partitions::SHOWN;

/// Squares of a row.
const COLUMNS: u32 = 64;
/// Rows at most; there are more than half of them unless the disk is tiny.
const ROWS: u32 = 32;
/// Width below which everything is small.
const NARROW: u32 = 700;

/// A colour: red, green, blue.
pub type Colour = [u8; 3];

const GROUND: Colour = [0xfb, 0xfb, 0xf9];
const FRAME: Colour = [0xd0, 0xd4, 0xd9];
const INK: Colour = [0x1c, 0x20, 0x24];
const FAINT: Colour = [0x5b, 0x65, 0x70];
const NOTHING: Colour = [0xee, 0xef, 0xf1];
const ZERO: Colour = [0xcb, 0xd0, 0xd6];
/// Freed by a filesystem: not stored, and stored all the same.
const TRIMMED: Colour = [0xc6, 0xe2, 0xf5];
const FREED: Colour = [0xf0, 0x8f, 0xa6];
const BORDER: Colour = [0xd1, 0x41, 0x0c];
/// From what became small to what stayed as it was.
const DATA: [Colour; 5] =
    [[0xec, 0xc8, 0x1d], [0x5c, 0xbd, 0x63], [0x21, 0x90, 0x8c], [0x3b, 0x52, 0x8b], [0x44, 0x01, 0x54]];

/// The step of [`DATA`] for a share of bytes that were left, from 0 to 1.
pub fn step(ratio: f64) -> usize {
    ((ratio * DATA.len() as f64).ceil() as usize).clamp(1, DATA.len()) - 1
}

/// On which side of its place a text stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Anchor {
    Start,
    End,
}

/// Height of a line of text: what the font of PNG pictures has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Size {
    Small,
    Large,
}

impl Size {
    fn height(self) -> u32 {
        match self {
            Self::Small => 16,
            Self::Large => 24,
        }
    }
}

/// What a picture is made of; places are pixels from the top left corner, those of a text its upper one.
#[derive(Clone, Debug)]
enum Shape {
    Rect { x: u32, y: u32, width: u32, height: u32, colour: Colour },
    Text { x: u32, y: u32, size: Size, bold: bool, anchor: Anchor, colour: Colour, text: String },
}

/// A picture in the making.
#[derive(Debug)]
pub struct Drawing {
    width: u32,
    height: u32,
    title: String,
    shapes: Vec<Shape>,
}

/// Draws a disk, `width` pixels wide, 400 to 1600.
pub fn draw(tally: &Tally, disk: &Disk, width: u32) -> Drawing {
    let mut drawing = Drawing { width, height: 0, title: text::headline(tally, disk), shapes: Vec::new() };
    let margin = if width < NARROW { 16 } else { 32 };
    let title_size = if width < NARROW { Size::Small } else { Size::Large };
    let mut y = margin;
    drawing.line(margin, &mut y, title_size, true, INK, &disk.name.clone());
    y += 2;
    for line in sums(tally, disk, width) {
        drawing.line(margin, &mut y, Size::Small, false, FAINT, &line);
    }
    y += 14;
    let grid = Grid::new(tally, margin, y, width);
    grid.draw(&mut drawing, tally);
    let table = disk.partitions.table.iter();
    let on_it = |partition: &&Partition| partition.start < tally.size();
    for partition in table.flat_map(|table| table.partitions.iter().filter(on_it).take(SHOWN)) {
        grid.mark(&mut drawing, partition.start, partition.number);
    }
    y = grid.bottom() + 14;
    drawing.legend(margin, &mut y, tally, grid.cell_bytes, disk.is_qcow2());
    let partitions = disk.partitions.lines();
    if !partitions.is_empty() {
        y += 8;
        drawing.rect(margin, y + 7, 14, 3, BORDER);
        drawing.text(margin + 22, y, Size::Small, Anchor::Start, INK, "a partition begins");
        y += 22;
        for line in partitions {
            drawing.line(margin + 22, &mut y, Size::Small, false, FAINT, &line);
        }
    }
    drawing.height = y + margin;
    drawing
}

/// The lines below the title; of a narrow picture, shorter ones.
fn sums(tally: &Tally, disk: &Disk, width: u32) -> Vec<String> {
    let (size, data) = (tally.size(), tally.data());
    let share = |part: u64, whole: u64| format!("{:.1} %", 100.0 * part as f64 / whole.max(1) as f64);
    let mut first = format!("a disk of {}", Human(size));
    if disk.is_qcow2() {
        let len = disk.file_len;
        first = format!("{first} in a qcow2 file of {} ({})", Human(len), share(len, size));
    }
    let second = format!("{} of data ({})", Human(data.bytes), share(data.bytes, size));
    if tally.sum(Kind::Compressed).extents == 0 {
        return vec![first, second];
    }
    let third = format!("stored in {} ({})", Human(data.stored), share(data.stored, data.bytes));
    if width < NARROW { vec![first, second, third] } else { vec![first, format!("{second}, {third}")] }
}

/// Where the squares are.
struct Grid {
    cell_bytes: u64,
    cells: Vec<Cell>,
    left: u32,
    top: u32,
    pitch: u32,
    label_right: u32,
}

impl Grid {
    fn new(tally: &Tally, margin: u32, top: u32, width: u32) -> Self {
        let (cell_bytes, cells) = tally.cells(u64::from(COLUMNS * ROWS));
        // Room for the longest offset, such as «1023.5 GiB».
        let labels = 10 * png::char_width(Size::Small) + 8;
        let pitch = ((width - 2 * margin - labels) / COLUMNS).max(1);
        // What is left over becomes margin of the labels.
        let left = width - margin - pitch * COLUMNS;
        Self { cell_bytes, cells, left, top, pitch, label_right: left - 8 }
    }

    fn rows(&self) -> u32 {
        (self.cells.len() as u32).div_ceil(COLUMNS)
    }

    fn bottom(&self) -> u32 {
        self.top + self.rows() * self.pitch
    }

    fn gap(&self) -> u32 {
        u32::from(self.pitch > 4)
    }

    fn draw(&self, drawing: &mut Drawing, tally: &Tally) {
        // As many labels as there is room for, at round numbers of rows.
        let every = 24u32.div_ceil(self.pitch).next_power_of_two();
        for row in (0..self.rows()).step_by(every as usize) {
            let offset = row_offset(u64::from(row), self.cell_bytes.saturating_mul(u64::from(COLUMNS)));
            let middle = self.top + row * self.pitch + self.pitch / 2;
            let y = middle.saturating_sub(Size::Small.height() / 2);
            drawing.text(self.label_right, y, Size::Small, Anchor::End, FAINT, &offset);
        }
        let side = self.pitch - self.gap();
        for (index, cell) in self.cells.iter().enumerate() {
            let (row, column) = (index as u32 / COLUMNS, index as u32 % COLUMNS);
            let (x, y) = (self.left + column * self.pitch, self.top + row * self.pitch);
            let there = self.cell_bytes.min(tally.size() - index as u64 * self.cell_bytes);
            // A little data must be seen, and a little that is missing, too.
            let height =
                |bytes: u64| match (f64::from(side) * bytes as f64 / there.max(1) as f64).round() as u32 {
                    0 if bytes > 0 => 1,
                    all if all == side && bytes < there && side > 1 => side - 1,
                    fill => fill.min(side),
                };
            let (fill, used) = (height(cell.data), height(cell.used()));
            if fill < side {
                drawing.rect(x, y, side, side - fill, ground(cell, there));
            }
            if used < fill {
                drawing.rect(x, y + side - fill, side, fill - used, FREED);
            }
            if used > 0 {
                drawing.rect(x, y + side - used, side, used, DATA[step(cell.ratio())]);
            }
        }
    }

    /// Marks what begins at an offset: a line above it and to its left, as a coast between rows.
    fn mark(&self, drawing: &mut Drawing, offset: u64, number: u32) {
        let index = (offset / self.cell_bytes) as u32;
        let (row, column) = (index / COLUMNS, index % COLUMNS);
        let width = if self.pitch > 6 { 3 } else { 2 };
        let (x, y) = (self.left + column * self.pitch, self.top + row * self.pitch);
        let (up, back) = (y.saturating_sub(2), x.saturating_sub(2));
        let (right, middle) = (self.left + COLUMNS * self.pitch + 4, up.saturating_sub(7));
        drawing.text(right, middle, Size::Small, Anchor::Start, BORDER, &number.to_string());
        drawing.rect(back, up, self.left + COLUMNS * self.pitch - back, width, BORDER);
        if column > 0 {
            drawing.rect(back, up, width, self.pitch + width, BORDER);
            drawing.rect(self.left - 2, up + self.pitch, x - self.left + width, width, BORDER);
        }
    }
}

/// The colour of what is no data in a cell of so many bytes: of what most of it is.
fn ground(cell: &Cell, bytes: u64) -> Colour {
    let empty = bytes - cell.data.min(bytes);
    if cell.freed.empty > 0 && cell.freed.empty * 2 >= empty {
        TRIMMED
    } else if cell.zero > 0 && cell.zero * 2 >= empty {
        ZERO
    } else {
        NOTHING
    }
}

impl Drawing {
    fn rect(&mut self, x: u32, y: u32, width: u32, height: u32, colour: Colour) {
        self.shapes.push(Shape::Rect { x, y, width, height, colour });
    }

    fn text(&mut self, x: u32, y: u32, size: Size, anchor: Anchor, colour: Colour, text: &str) {
        self.shapes.push(Shape::Text { x, y, size, bold: false, anchor, colour, text: text.into() });
    }

    /// A line of text that begins at `x`, cut where the picture ends; goes on below it.
    fn line(&mut self, x: u32, y: &mut u32, size: Size, bold: bool, colour: Colour, text: &str) {
        let room = ((self.width - x - 8) / png::char_width(size)) as usize;
        let text = if text.chars().count() > room {
            text.chars().take(room.saturating_sub(3)).chain("...".chars()).collect()
        } else {
            text.to_owned()
        };
        self.shapes.push(Shape::Text { x, y: *y, size, bold, anchor: Anchor::Start, colour, text });
        *y += size.height() + 6;
    }

    /// What the colours mean. Goes on in another line where one is not enough.
    fn legend(&mut self, margin: u32, y: &mut u32, tally: &Tally, cell_bytes: u64, in_clusters: bool) {
        let packed = tally.sum(Kind::Compressed).extents > 0;
        let mut entries: Vec<(Vec<Colour>, &str)> = Vec::new();
        if packed {
            entries.push((DATA.to_vec(), "data: compressed to 20 % ... not at all"));
        } else if tally.data().extents > 0 {
            entries.push((vec![DATA[4]], "data"));
        }
        if tally.sum(Kind::Zero).extents + tally.sum(Kind::Preallocated).extents > 0 {
            entries.push((vec![ZERO], "zeros"));
        }
        if tally.sum(Kind::Unallocated).extents > 0 {
            entries.push((vec![NOTHING], "nothing stored"));
        }
        let freed = tally.freed().unwrap_or_default();
        if freed.data > 0 {
            let stored = if in_clusters { "freed, in stored clusters" } else { "freed, stored" };
            entries.push((vec![FREED], stored));
        }
        if freed.empty > 0 {
            entries.push((vec![TRIMMED], "freed, left out"));
        }
        let each = format!("one square: {}", Human(cell_bytes));
        entries.push((Vec::new(), &each));
        let mut x = margin;
        for (colours, words) in entries {
            let boxes = colours.len() as u32 * 16;
            let wide = boxes + 8 + words.chars().count() as u32 * png::char_width(Size::Small);
            if x > margin && x + wide > self.width - margin {
                x = margin;
                *y += 22;
            }
            for (index, colour) in colours.iter().enumerate() {
                let at = x + index as u32 * 16;
                self.rect(at, *y + 1, 15, 15, FRAME);
                self.rect(at + 1, *y + 2, 13, 13, *colour);
            }
            let indent = if colours.is_empty() { 0 } else { 8 };
            self.text(x + boxes + indent, *y, Size::Small, Anchor::Start, INK, words);
            x += wide + 24;
        }
        *y += 22;
    }
}
