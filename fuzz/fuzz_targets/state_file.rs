//! Hostile state files: refused with a sentence and without much memory, or read and written again as they were.
#![no_main]

use aws_lc_rs::digest::{SHA256, digest};
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use snapcow::hash::{Algorithm, Digest};
use snapcow::map::{DataCluster, ImageMap};
use snapcow::state::{Found, Key, Saved, Survey, read, write};
use snapcow::units::ClusterSize;

/// Length of the source in bytes: what claims more is of another one.
const LEN_MAX: u64 = 1 << 40;
/// The sum at the end.
const SUM_BYTES: usize = 32;

#[derive(Arbitrary, Debug)]
enum Case {
    /// Any bytes.
    Bytes(Vec<u8>),
    /// Any bytes with the right sum.
    Summed(Vec<u8>),
    /// A good file with changes.
    Changed { good: Good, changes: Vec<(u16, u8)> },
    /// A good file with changes, and the sum that fits them.
    Forged { good: Good, changes: Vec<Change> },
}

#[derive(Arbitrary, Debug)]
struct Good {
    key: [String; 4],
    image: Option<String>,
    survey: Option<Map>,
}

#[derive(Arbitrary, Debug)]
struct Map {
    cluster_bits: u8,
    has_digest: bool,
    /// Zeros, then one cluster of data.
    runs: Vec<(u8, u16, u32)>,
}

/// A change, and the place of it.
#[derive(Arbitrary, Debug)]
enum Change {
    Byte(u16, u8),
    /// A little-endian number.
    Short(u16, u32),
    Long(u16, u64),
    /// More than was there.
    Insert(u16, Vec<u8>),
    /// The rest is missing.
    Cut(u16),
}

fuzz_target!(|case: Case| match case {
    Case::Bytes(bytes) => again(&bytes),
    Case::Summed(bytes) => again(&summed(bytes)),
    Case::Changed { good, changes } => {
        let good = good.bytes();
        again(&good);
        let mut bytes = good.clone();
        for (at, byte) in changes {
            let at = usize::from(at) % bytes.len();
            bytes[at] = byte;
        }
        assert!(bytes == good || read(&mut &bytes[..], LEN_MAX).is_err(), "a change is not noticed");
    }
    Case::Forged { good, changes } => {
        let mut bytes = good.bytes();
        bytes.truncate(bytes.len() - SUM_BYTES);
        changes.iter().for_each(|change| change.apply(&mut bytes));
        again(&summed(bytes));
    }
});

fn summed(mut bytes: Vec<u8>) -> Vec<u8> {
    let sum = digest(&SHA256, &bytes);
    bytes.extend_from_slice(sum.as_ref());
    bytes
}

impl Good {
    /// The file, which is read as it was meant.
    fn bytes(self) -> Vec<u8> {
        let [build, format, source, target] = self.key;
        let key = Key { build, format, source, target };
        // An empty ID is none.
        let image = self.image.filter(|image| !image.is_empty());
        let survey = self.survey.map(Map::survey);
        let mut bytes = Vec::new();
        write(&key, image.as_deref(), survey.as_ref().map(Survey::found), &mut bytes).expect("memory");
        let saved = read(&mut &bytes[..], LEN_MAX).unwrap_or_else(|why| panic!("our own file {why}"));
        assert_eq!((&saved.key, &saved.image), (&key, &image));
        assert_eq!(saved.survey.is_some(), survey.is_some());
        bytes
    }
}

impl Map {
    fn survey(self) -> Survey {
        let size = ClusterSize::from_bits(9 + u32::from(self.cluster_bits % 13)).expect("within the bounds");
        let mut map = ImageMap::new(size, 0);
        for (zeros, stored_len, guest_crc) in self.runs {
            map.push_zeros(u64::from(zeros));
            let stored_len = 1 + u32::from(stored_len) % size.bytes() as u32;
            map.push_data(DataCluster { stored_len, guest_crc });
        }
        let digest = Digest { algorithm: Algorithm::Sha512, hex: "0f".repeat(64) };
        Survey {
            len: map.clusters() * size.bytes(),
            digest: self.has_digest.then_some(digest),
            guest_digest: self.has_digest.then(|| "0f".repeat(32)),
            image_len: 0,
            map,
        }
    }
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        let end = bytes.len() + 1;
        let place = |at: &u16| usize::from(*at) % end;
        match self {
            Self::Byte(at, byte) => put(bytes, place(at), &[*byte]),
            Self::Short(at, number) => put(bytes, place(at), &number.to_le_bytes()),
            Self::Long(at, number) => put(bytes, place(at), &number.to_le_bytes()),
            Self::Insert(at, more) => {
                let at = place(at);
                drop(bytes.splice(at..at, more.iter().copied()));
            }
            Self::Cut(left) => bytes.truncate(place(left)),
        }
    }
}

/// Puts what there is room for.
fn put(bytes: &mut [u8], at: usize, new: &[u8]) {
    bytes[at..].iter_mut().zip(new).for_each(|(byte, new)| *byte = *new);
}

/// What can be read is written as it was.
fn again(bytes: &[u8]) {
    match read(&mut &bytes[..], LEN_MAX) {
        Ok(Saved { key, image, survey }) => {
            let mut written = Vec::new();
            let found: Option<Found<'_>> = survey.as_ref().map(Survey::found);
            write(&key, image.as_deref(), found, &mut written).expect("memory");
            assert!(written == bytes, "written otherwise than it was read");
        }
        Err(why) => assert!(!why.chars().any(char::is_control), "{why:?}"),
    }
}
