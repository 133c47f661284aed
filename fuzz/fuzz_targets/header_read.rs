//! Hostile first bytes: what is no raw disk is told by its magic number, and nothing else is; a header of qcow2 and
//! the records that it names are read without a panic, and nothing that is found lies outside of the bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use snapcow::qcow2::header::MAGIC;
use snapcow::qcow2::parse::{
    BitmapHead, BitmapsExtension, Extension, NoHeader, RawHeader, SnapshotHead, extensions, refcount,
};
use snapcow::source::{PROBE_BYTES, image_format};

fuzz_target!(|head: &[u8]| {
    probe(head);
    header(head);
    records(head);
});

fn probe(head: &[u8]) {
    let format = image_format(head);
    let probed = &head[..head.len().min(PROBE_BYTES)];
    assert_eq!(image_format(probed), format, "no more is looked at than is said");
    assert_eq!(head.starts_with(&MAGIC), format == Some("qcow2"));
    // A disk of zeros with anything behind the probe is raw.
    if probed.iter().all(|&byte| byte == 0) {
        assert_eq!(format, None);
    }
}

fn header(head: &[u8]) {
    let header = match RawHeader::parse(head) {
        Ok(header) => header,
        Err(why) => {
            assert_eq!(why == NoHeader::OtherFormat, !head.starts_with(&MAGIC), "{why:?}");
            return;
        }
    };
    assert!(matches!(header.version, 2 | 3), "{header:?}");
    let named = usize::try_from(header.backing_offset).unwrap_or(usize::MAX);
    // The second of the two may promise more than is there.
    for end in [head.len(), named] {
        extensions_within(head, header.header_len as usize, end);
    }
}

fn extensions_within(head: &[u8], from: usize, end: usize) {
    let (found, outcome) = extensions(head, from, end);
    let mut at = from;
    for &Extension { at: begin, len, .. } in &found {
        assert_eq!(begin, at + 8, "they lie one behind the other");
        assert!(begin + len <= head.len().min(end), "{found:?}");
        at = begin + len.next_multiple_of(8);
        if let Some(bitmaps) = BitmapsExtension::parse(&head[begin..begin + len]) {
            assert_eq!((len, bitmaps.bitmaps), (24, u32_at(head, begin)));
        }
    }
    if let Err(place) = outcome {
        assert_eq!(place, at, "the one that does not fit comes behind {found:?}");
    }
    // Less room can only end the list earlier.
    let (fewer, _) = extensions(head, from, end.min(head.len()).saturating_sub(9));
    assert_eq!(fewer, found[..fewer.len()]);
}

/// What a header may name, read out of the same bytes.
fn records(bytes: &[u8]) {
    if let Some(snapshot) = SnapshotHead::parse(bytes) {
        let least = SnapshotHead::BYTES as u64 + u64::from(snapshot.extra_len);
        assert!(snapshot.entry_len >= least && snapshot.entry_len.is_multiple_of(8), "{snapshot:?}");
    }
    if let Some(bitmap) = BitmapHead::parse(bytes) {
        assert!(bitmap.entry_len >= BitmapHead::BYTES as u64 && bitmap.entry_len.is_multiple_of(8));
    }
    for bits in (0..7).map(|order| 1 << order) {
        let count = bytes.len() * 8 / bits as usize;
        for (index, is_there) in [(0, count > 0), (count.saturating_sub(1), count > 0), (count, false)] {
            let value = refcount(bytes, index, bits);
            assert_eq!(value.is_some(), is_there, "number {index} of {count}, {bits} bits each");
            assert!(value.unwrap_or(0).checked_shr(bits).unwrap_or(0) == 0, "{value:?} has {bits} bits");
        }
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}
