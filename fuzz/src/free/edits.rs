//! Changes of disks, at places that matter.

use std::ops::Range;

use arbitrary::Arbitrary;

use super::sparse::Image;

/// A place: one of the spots of a disk, and how far in it.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub struct Place {
    spot: u16,
    at: u16,
}

impl Place {
    /// Where it is, and how much of its spot follows.
    fn find(self, spots: &[Range<u64>]) -> (u64, u64) {
        let spot = &spots[usize::from(self.spot) % spots.len()];
        let len = spot.end - spot.start;
        // Long spots are reached to their ends.
        let scale = len.div_ceil(1 << 16).max(1);
        let at = u64::from(self.at) * scale % len;
        (spot.start + at, len - at)
    }
}

/// A number, and how it is written.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub struct Number {
    bytes: u8,
    is_big_endian: bool,
    value: Value,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Value {
    Known(u8),
    Any(u64),
    /// What stands there, and so much more.
    More(i16),
    /// Times a power of two.
    Shifted(i8),
}

const KNOWN: [u64; 28] = [
    0,
    1,
    2,
    3,
    7,
    8,
    0x1f,
    0x20,
    0x40,
    0x7f,
    0x80,
    0xff,
    0x100,
    0x200,
    0x400,
    0x1000,
    0x7fff,
    0x8000,
    0xffff,
    0x1_0000,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_fffe,
    0xffff_ffff,
    0x1_0000_0000,
    i64::MAX as u64,
    1 << 63,
    u64::MAX,
];

impl Number {
    fn width(self) -> usize {
        1 << (self.bytes % 4)
    }

    fn write(self, image: &mut Image<'_>, at: u64) {
        let width = self.width();
        let mut old = image.get(at, width);
        if self.is_big_endian {
            old.reverse();
        }
        let old = old.iter().rev().fold(0u64, |sum, byte| sum << 8 | u64::from(*byte));
        let value = match self.value {
            Value::Known(which) => KNOWN[usize::from(which) % KNOWN.len()],
            Value::Any(value) => value,
            Value::More(more) => old.wrapping_add_signed(more.into()),
            Value::Shifted(by) if by < 0 => old >> (by.unsigned_abs() % 64),
            Value::Shifted(by) => old << (by % 64),
        };
        let mut bytes = value.to_le_bytes()[..width].to_vec();
        if self.is_big_endian {
            bytes.reverse();
        }
        image.put(at, &bytes);
    }
}

/// A change.
#[derive(Arbitrary, Clone, Debug)]
pub enum Edit {
    Bit {
        place: Place,
        bit: u8,
    },
    Byte {
        place: Place,
        byte: u8,
    },
    /// A number, where one may stand: at a multiple of its length.
    Number {
        place: Place,
        number: Number,
    },
    /// What stands elsewhere.
    Copy {
        from: Place,
        to: Place,
        len: u16,
    },
    /// A whole spot, over another one.
    CopySpot {
        from: u16,
        to: u16,
    },
    Fill {
        place: Place,
        byte: u8,
        len: u16,
    },
    /// The end of the disk is cut off.
    Cut {
        by: u16,
    },
}

impl Edit {
    pub fn apply(&self, image: &mut Image<'_>, spots: &[Range<u64>]) {
        match *self {
            Self::Bit { place, bit } => {
                let at = place.find(spots).0;
                let byte = image.u8(at) ^ 1 << (bit % 8);
                image.put(at, &[byte]);
            }
            Self::Byte { place, byte } => image.put(place.find(spots).0, &[byte]),
            Self::Number { place, number } => {
                let at = place.find(spots).0;
                number.write(image, at - at % number.width() as u64);
            }
            Self::Copy { from, to, len } => {
                let ((from, _), (to, room)) = (from.find(spots), to.find(spots));
                let bytes = image.get(from, usize::from(len).min(room as usize));
                image.put(to, &bytes);
            }
            Self::CopySpot { from, to } => {
                let spot = |index: u16| &spots[usize::from(index) % spots.len()];
                let (from, to) = (spot(from), spot(to));
                let len = (from.end - from.start).min(to.end - to.start).min(1 << 16);
                let bytes = image.get(from.start, len as usize);
                image.put(to.start, &bytes);
            }
            Self::Fill { place, byte, len } => {
                let (at, room) = place.find(spots);
                image.put(at, &vec![byte; usize::from(len).min(room as usize)]);
            }
            Self::Cut { by } => image.len = image.len.saturating_sub(u64::from(by) << 9),
        }
    }
}
