//! Hostile images: the strict reader ends without a panic, within its memory, and what it finds no fault with can be
//! read to its end.
#![no_main]

use std::sync::Arc;

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use snapcow::read::{CheckOptions, GuestImage, Input, Severity, check};
use snapcow_fuzz::cases::{Disk, Options};
use snapcow_fuzz::conversion::{Cuts, stream, to_stream};
use snapcow_fuzz::reader;

/// Most of a disk that is read: an image of a few bytes may claim any size.
const GUEST_BYTES_MAX: u64 = 8 << 20;

#[derive(Arbitrary, Debug)]
enum Case {
    /// Any bytes.
    Bytes(Vec<u8>),
    /// An image of ours with changes.
    Changed { options: Options, disk: Disk, changes: Vec<Change> },
}

#[derive(Arbitrary, Debug)]
enum Change {
    /// A byte of the header.
    Header { at: u8, byte: u8 },
    /// A big-endian number anywhere that numbers stand: at a multiple of 8.
    Number { at: u16, value: u64 },
    /// A number that stands at one such place, put at another one, so that two things claim one place.
    Again { from: u16, at: u16 },
    /// A bit of any byte.
    Bit { at: u32 },
    /// The end is cut off.
    Cut { left: u32 },
    /// Bytes behind the end.
    More { bytes: u16 },
}

fuzz_target!(|case: Case| match case {
    Case::Bytes(bytes) => drop(look(bytes)),
    Case::Changed { mut options, disk, changes } => {
        options.spool_blocks = None;
        let disk = Arc::new(disk.0);
        let (good, _) =
            to_stream(stream(&disk, &Cuts::new(&[])), options).unwrap_or_else(|error| panic!("{error}"));
        let mut image = good.clone();
        changes.iter().take(8).for_each(|change| apply(change, &mut image));
        let is_unchanged = image == good;
        let guest = look(image);
        if is_unchanged {
            let expected = reader::guest(&good);
            assert!(guest.is_some_and(|guest| guest == expected), "a good image is refused, or read wrongly");
        }
    }
});

fn apply(change: &Change, image: &mut Vec<u8>) {
    let len = image.len();
    let slot = |at: u16| (len >= 8).then(|| usize::from(at) % (len / 8) * 8);
    match *change {
        Change::Header { at, byte } => {
            if let Some(place) = image.get_mut(usize::from(at)) {
                *place = byte;
            }
        }
        Change::Number { at, value } => {
            if let Some(at) = slot(at) {
                image[at..at + 8].copy_from_slice(&value.to_be_bytes());
            }
        }
        Change::Again { from, at } => {
            if let (Some(from), Some(at)) = (slot(from), slot(at)) {
                image.copy_within(from..from + 8, at);
            }
        }
        Change::Bit { at } => {
            if let Some(at) = (at as usize).checked_rem(len * 8) {
                image[at / 8] ^= 1 << (at % 8);
            }
        }
        Change::Cut { left } => image.truncate(left as usize),
        Change::More { bytes } => image.resize(len + usize::from(bytes), 0x5a),
    }
}

/// Checks an image and reads its guest, if the check had nothing against it; what was read.
fn look(image: Vec<u8>) -> Option<Vec<u8>> {
    let input = Input { len: image.len() as u64, bytes: Arc::new(image), name: "image".into() };
    let options = CheckOptions { memory_bytes: 16 << 20, decode: true, ..CheckOptions::default() };
    let report = check(input.clone(), options);
    let is_good = match &report {
        Ok(report) => {
            for finding in report.findings.kept() {
                assert!(!finding.text.chars().any(char::is_control), "{:?}", finding.text);
            }
            report.worst() < Some(Severity::Error)
        }
        Err(error) => {
            assert!(!error.to_string().chars().any(char::is_control), "{error}");
            false
        }
    };
    let guest = match GuestImage::open(input) {
        Ok(guest) => guest,
        // What is encrypted, or has its data elsewhere, can be sound and unreadable.
        Err(_) => return None,
    };
    let mut disk = vec![0xa5; guest.virtual_size().min(GUEST_BYTES_MAX) as usize];
    let read = guest.reader().read(&mut disk, 0);
    assert!(read.is_ok() || !is_good, "the check had nothing against it: {read:?}");
    (is_good && read.is_ok()).then_some(disk)
}
