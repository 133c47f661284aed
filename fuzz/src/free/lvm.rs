//! LVM2 as plainly as can be: the first metadata area of a physical volume that is a whole disk, and changes of its text.

use arbitrary::Arbitrary;

use super::sparse::Image;
use super::sums::crc32;

/// `INITIAL_CRC` of lib/misc/crc.h.
const INITIAL: u32 = 0xf597_a6cf;
const LABEL: u64 = 512;
/// The first metadata area, as the tools place it, and the length of its header.
pub const AREA: u64 = 4096;
const HEADER: u64 = 512;

/// The text of the first metadata area.
pub fn text(image: &Image<'_>) -> Vec<u8> {
    let (at, len) = (image.le64(AREA + 40), image.le64(AREA + 48));
    image.get(AREA + at, len as usize)
}

/// Writes a text into the first area, from `at` behind its header on, round its end if need be.
pub fn put_text(image: &mut Image<'_>, text: &[u8], at: u64) {
    let ring = image.le64(AREA + 32) - HEADER;
    let text = &text[..text.len().min(ring as usize)];
    let at = at % ring;
    let first = text.len().min((ring - at) as usize);
    image.put(AREA + HEADER + at, &text[..first]);
    image.put(AREA + HEADER, &text[first..]);
    image.put(AREA + 40, &(HEADER + at).to_le_bytes());
    image.put(AREA + 48, &(text.len() as u64).to_le_bytes());
    image.put(AREA + 56, &crc32(INITIAL, text).to_le_bytes());
}

/// Makes the checksums of the label and of the area's header fit.
pub fn fit(image: &mut Image<'_>) {
    let sum = crc32(INITIAL, &image.get(LABEL + 20, 492));
    image.put(LABEL + 16, &sum.to_le_bytes());
    let sum = crc32(INITIAL, &image.get(AREA + 4, 508));
    image.put(AREA, &sum.to_le_bytes());
}

/// A change of a text.
#[derive(Arbitrary, Clone, Debug)]
pub enum TextEdit {
    /// One of its numbers.
    Number {
        which: u16,
        value: Value,
    },
    /// One of its words, replaced by one that is known, or by one of its own.
    Word {
        which: u16,
        by: u8,
    },
    OwnWord {
        which: u16,
        by: u16,
    },
    Byte {
        at: u16,
        byte: u8,
    },
    Remove {
        at: u16,
        len: u8,
    },
    Insert {
        at: u16,
        what: u8,
    },
    /// A line again, elsewhere.
    Line {
        from: u16,
        to: u16,
    },
    /// From one opening bracket to the one that closes it, again, elsewhere.
    Section {
        from: u16,
        to: u16,
    },
    /// Sections inside of each other.
    Nest {
        at: u16,
        depth: u16,
    },
}

#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Value {
    Small(u8),
    Any(i64),
    More(i8),
    Largest,
}

const WORDS: [&str; 34] = [
    "striped",
    "linear",
    "mirror",
    "raid1",
    "snapshot",
    "thin-pool",
    "thin",
    "cache",
    "vdo",
    "pv0",
    "pv1",
    "root",
    "swap",
    "VISIBLE",
    "READ",
    "WRITE",
    "ALLOCATABLE",
    "EXPORTED",
    "stripes",
    "stripe_count",
    "stripe_size",
    "segment1",
    "segment2",
    "start_extent",
    "extent_count",
    "segment_count",
    "extent_size",
    "pe_start",
    "pe_count",
    "dev_size",
    "logical_volumes",
    "physical_volumes",
    "origin",
    "flags",
];
const PIECES: [&str; 14] =
    ["{", "}", "[", "]", "=", ",", "\"", "\n", "#", "\\", "x { }\n", "x = 1\n", "\"pv0\", 0,", "\0"];

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"_-".contains(&byte)
}

/// The runs of bytes of a kind.
fn runs(text: &[u8], is_part: impl Fn(u8) -> bool) -> Vec<std::ops::Range<usize>> {
    let mut runs: Vec<std::ops::Range<usize>> = Vec::new();
    for (at, _) in text.iter().enumerate().filter(|(_, byte)| is_part(**byte)) {
        match runs.last_mut() {
            Some(last) if last.end == at => last.end += 1,
            _ => runs.push(at..at + 1),
        }
    }
    runs
}

fn line(text: &[u8], which: u16) -> std::ops::Range<usize> {
    let lines = runs(text, |byte| byte != b'\n');
    lines.get(usize::from(which) % lines.len().max(1)).cloned().unwrap_or(0..0)
}

impl TextEdit {
    pub fn apply(&self, text: &mut Vec<u8>) {
        let place = |at: u16| usize::from(at) % (text.len() + 1);
        match *self {
            Self::Number { which, value } => {
                let numbers: Vec<_> = runs(text, is_word)
                    .into_iter()
                    .filter(|run| text[run.clone()].iter().all(u8::is_ascii_digit))
                    .collect();
                let Some(run) = numbers.get(usize::from(which) % numbers.len().max(1)) else { return };
                let old: i64 = String::from_utf8_lossy(&text[run.clone()]).parse().unwrap_or(0);
                let new = match value {
                    Value::Small(value) => value.into(),
                    Value::Any(value) => value,
                    Value::More(more) => old.saturating_add(more.into()),
                    Value::Largest => i64::MAX,
                };
                text.splice(run.clone(), new.to_string().into_bytes());
            }
            Self::Word { which, by } => {
                word(text, which, WORDS[usize::from(by) % WORDS.len()].as_bytes().to_vec())
            }
            Self::OwnWord { which, by } => {
                let words = runs(text, is_word);
                let Some(run) = words.get(usize::from(by) % words.len().max(1)) else { return };
                let by = text[run.clone()].to_vec();
                word(text, which, by);
            }
            Self::Byte { at, byte } => {
                if let Some(slot) = text.get_mut(usize::from(at)) {
                    *slot = byte;
                }
            }
            Self::Remove { at, len } => {
                let at = place(at);
                text.drain(at..(at + usize::from(len)).min(text.len()));
            }
            Self::Insert { at, what } => {
                let at = place(at);
                text.splice(at..at, PIECES[usize::from(what) % PIECES.len()].bytes());
            }
            Self::Line { from, to } => {
                let mut again = text[line(text, from)].to_vec();
                again.push(b'\n');
                let at = line(text, to).start;
                text.splice(at..at, again);
            }
            Self::Section { from, to } => section(text, from, to),
            Self::Nest { at, depth } => {
                let (at, depth) = (place(at), usize::from(depth) % 3000);
                text.splice(at..at, ["x {".repeat(depth), "}".repeat(depth)].concat().into_bytes());
            }
        }
        text.truncate(64 << 10);
    }
}

fn word(text: &mut Vec<u8>, which: u16, by: Vec<u8>) {
    let words = runs(text, is_word);
    if let Some(run) = words.get(usize::from(which) % words.len().max(1)) {
        text.splice(run.clone(), by);
    }
}

fn section(text: &mut Vec<u8>, from: u16, to: u16) {
    let opens = runs(text, |byte| byte == b'{');
    let Some(open) = opens.get(usize::from(from) % opens.len().max(1)) else { return };
    let start = text[..open.start].iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    let mut depth = 0;
    let end = text[open.start..].iter().position(|byte| {
        depth += i32::from(*byte == b'{') - i32::from(*byte == b'}');
        depth == 0
    });
    let end = end.map_or(text.len(), |len| open.start + len + 1);
    let mut again = text[start..end].to_vec();
    again.push(b'\n');
    let at = line(text, to).start;
    text.splice(at..at, again);
}
