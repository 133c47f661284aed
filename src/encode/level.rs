//! Levels by name and by number, and what each is for each family of codecs.
//!
//! # Decisions
//! Every 60th cluster of 64 KiB of /usr, in MB/s of thread time and size in per cent, on a busy AMD
//! EPYC (Zen 3), so that only the relations count:
//!
//! | level | 32 KiB window | 4 KiB window | zstd |
//! |---|---|---|---|
//! | fast, with ISA-L | ISA-L 1: 358, 40.9 | ISA-L 1: 413, 43.2 | |
//! | fast | libdeflate 1: 193, 39.6 | zlib-rs 2: 98, 42.9 | zstd 1: 365, 39.6 |
//! | default | the same | zlib-rs 3: 80, 41.8 | zstd 2 |
//! | small | libdeflate 5: 92, 37.5 | zlib-rs 6: 72, 41.1 | zstd 6: 83, 36.6 |
//!
//! - zstd 2 by default: on a whole ext4 disk of OS files it took no longer than 1 (3.2 s against 3.3 s with two threads) and
//!   was 2.4 % smaller, 1.017 times what QEMU's level 3 makes of it where 1 is 1.042 times.
//! - No faster zstd for `fast`: level -1 gains a tenth of the time and loses a twelfth of the size.
//! - zlib-rs 1 stores half of what it reads (50.1); above 6 it costs twice the time for 0.8 points.
//! - ISA-L chooses its kernels by the machine's instruction set, and says nowhere that all of them
//!   give the same bytes; nor is that needed within a run.
//! - ISA-L 2 and not 1 for `fast`: on a whole ext4 disk of OS files level 1 is 3 % larger than QEMU's zlib. Level 2 took
//!   3.2 s where libdeflate 1 took 5.3 s, with two threads, and made 636 MB where that made 619 MB. The rows above are
//!   of ISA-L 1.
//! - libdeflate 6 and zstd 7 to 9 cost up to half as much again for 0.2 points.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use super::Compression;

/// What to compress for: a name, the same for every family, or a codec's own number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Level {
    /// The least time that still gives an image worth its name.
    Fast,
    /// What most want: fast, and not larger than QEMU's own.
    #[default]
    Default,
    /// A smaller image for a few times the time.
    Small,
    /// The codec's own number; the same codec in every build.
    Number(i32),
}

impl FromStr for Level {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "fast" => Ok(Self::Fast),
            "default" => Ok(Self::Default),
            "small" => Ok(Self::Small),
            _ => text
                .parse()
                .map(Self::Number)
                .map_err(|_| format!("`{text}` is neither fast, default or small nor a number")),
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fast => f.write_str("fast"),
            Self::Default => f.write_str("default"),
            Self::Small => f.write_str("small"),
            Self::Number(number) => number.fmt(f),
        }
    }
}

/// Codecs that share a set of levels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Raw deflate with a window of up to 32 KiB.
    Deflate,
    /// Raw deflate with QEMU's own window of 4 KiB.
    DeflateSmallWindow,
    /// zstd.
    Zstd,
}

impl Family {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Deflate, Self::DeflateSmallWindow, Self::Zstd];

    /// The numbers that [`Level::Number`] may have.
    pub fn numbers(self) -> RangeInclusive<i32> {
        match self {
            Self::Deflate => 1..=12,
            Self::DeflateSmallWindow => 1..=9,
            Self::Zstd => 1..=19,
        }
    }

    /// The compression that a level stands for; `None` for a number outside of [`Self::numbers`].
    pub fn at(self, level: Level) -> Option<Compression> {
        #[cfg(feature = "isal-sys")]
        match (self, level) {
            (Self::Deflate, Level::Fast) => return Some(Compression::DeflateIsal),
            (Self::DeflateSmallWindow, Level::Fast) => return Some(Compression::DeflateIsalSmallWindow),
            _ => {}
        }
        let number = match (self, level) {
            (_, Level::Number(number)) => number,
            (Self::Deflate, Level::Fast | Level::Default) | (Self::Zstd, Level::Fast) => 1,
            (Self::Deflate, Level::Small) => 5,
            (Self::DeflateSmallWindow, Level::Fast) => 2,
            (Self::DeflateSmallWindow, Level::Default) => 3,
            (Self::DeflateSmallWindow, Level::Small) => 6,
            (Self::Zstd, Level::Default) => 2,
            (Self::Zstd, Level::Small) => 6,
        };
        self.numbers().contains(&number).then_some(match self {
            Self::Deflate => Compression::Deflate(number),
            Self::DeflateSmallWindow => Compression::DeflateSmallWindow(number),
            Self::Zstd => Compression::Zstd(number),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_read_and_nothing_else() {
        for (text, level) in [
            ("fast", Level::Fast),
            ("default", Level::Default),
            ("small", Level::Small),
            ("7", Level::Number(7)),
            ("-1", Level::Number(-1)),
        ] {
            assert_eq!(text.parse(), Ok(level));
            assert_eq!(level.to_string(), text);
        }
        for text in ["", "Fast", "best", "1.5", "99999999999"] {
            assert!(text.parse::<Level>().unwrap_err().contains("fast, default or small"), "{text}");
        }
    }

    #[test]
    fn every_family_has_every_name_and_exactly_its_numbers() {
        for family in Family::ALL {
            for level in [Level::Fast, Level::Default, Level::Small] {
                assert!(family.at(level).is_some(), "{family:?} {level:?}");
            }
            for number in -30..30 {
                let compression = family.at(Level::Number(number));
                assert_eq!(compression.is_some(), family.numbers().contains(&number), "{family:?} {number}");
                // A number means the same codec in every build.
                assert_eq!(compression.and_then(Compression::level), compression.map(|_| number));
            }
        }
    }
}
