//! Whole disks with changes: what is free lies in parts that say so, and is the same if the disk streams by.
#![no_main]

use std::ops::Range;
use std::sync::LazyLock;

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use snapcow::free::disk::{Findings, Verdict, look, look_while_passing};
use snapcow::free::stream::Passing;
use snapcow::free::{Disk as _, Limits};
use snapcow_fuzz::free::bases::{self, Made};
use snapcow_fuzz::free::edits::Edit;
use snapcow_fuzz::free::oracle::{Room, runs_are_sane};
use snapcow_fuzz::free::sparse::Image;
use snapcow_fuzz::free::{lvm, table};

#[derive(Arbitrary, Debug)]
struct Case {
    base: u8,
    room: Room,
    edits: Vec<Edit>,
    is_fitted: bool,
    /// One of 64 streams by, too, which takes threads and their time; in pieces of so many times 128 bytes.
    streams: u8,
    piece: u16,
}

struct Ready {
    made: Made,
    spots: Vec<Range<u64>>,
}

static READY: LazyLock<Vec<Ready>> = LazyLock::new(|| {
    // Those that have tables or several things in them more often than others.
    let names = ["gpt", "mbr", "stripes", "pv", "swap", "gpt", "mbr", "stripes", "ext", "xfs5_new", "xfs4"];
    names.into_iter().flat_map(|name| bases::named(&[name])).map(ready).collect()
});
const ALL: Limits = Limits { memory_bytes: 256 << 20 };
const PASSES_MAX: usize = 8;

fn ready(made: Made) -> Ready {
    let image = Image::new(&made.base);
    let seen = look(&image, image.len, ALL).expect("it can be read");
    assert_eq!(seen.free.bytes(), made.free_bytes, "{}: {seen:?}", made.name);
    let mut spots = table::spots(&image);
    // Small reads are those of metadata that matter.
    let calls = image.asked().calls.into_iter().flatten();
    spots.extend(calls.flat_map(|range| {
        let tail = range.end.saturating_sub(4096).max(range.start)..range.end;
        [range.start..range.end.min(range.start + 4096), tail, range]
    }));
    Ready { made, spots }
}

fuzz_target!(|case: Case| {
    let Ready { made, spots } = &READY[usize::from(case.base) % READY.len()];
    let mut image = Image::new(&made.base);
    case.edits.iter().take(12).for_each(|edit| edit.apply(&mut image, spots));
    if case.is_fitted {
        table::fit_gpt(&mut image);
        if made.name == "pv" {
            lvm::fit(&mut image);
        }
    }
    let seen = look(&image, image.len, case.room.limits()).expect("it can be read");
    check(&image, &seen);
    if case.streams % 64 == 37 {
        let all = look(&image, image.len, ALL).expect("it can be read");
        streamed(&image, u64::from(case.piece) << 7, &all);
    }
});

fn check(image: &Image<'_>, seen: &Findings) {
    runs_are_sane(&seen.free, image.len);
    let mut bytes = 0;
    for part in &seen.parts {
        match &part.verdict {
            Verdict::Freed { fs_bytes, bytes: free, .. } => {
                assert!(free <= fs_bytes && *fs_bytes <= part.len && seen.refused.is_none(), "{part:?}");
                bytes += free;
            }
            Verdict::Whole(why) => {
                assert!(
                    !why.is_empty() && !why.ends_with('.') && !why.contains("fault of this program"),
                    "{why}"
                );
            }
        }
    }
    assert_eq!(seen.free.bytes(), bytes, "what is free is in no part");
    assert!(seen.refused.is_none() || bytes == 0, "{:?}", seen.refused);
}

/// The same findings, unless something was asked for too late in each pass.
fn streamed(image: &Image<'_>, piece: u64, expected: &Findings) {
    let mut passing = Passing::new(ALL);
    for _ in 0..PASSES_MAX {
        let seen = pass(&passing, image, piece.max(64 << 10));
        if passing.missed().is_empty() {
            assert_eq!(seen, *expected, "it streams by otherwise");
            return;
        }
        passing = passing.again();
    }
}

fn pass(passing: &Passing, image: &Image<'_>, piece: u64) -> Findings {
    let seen = look_while_passing(passing, image.len, ALL, || {
        for at in (0..image.len).step_by(piece as usize) {
            let end = image.len.min(at + piece);
            let bytes = image.read(std::slice::from_ref(&(at..end))).expect("it can be read").concat();
            if bytes.iter().all(|byte| *byte == 0) {
                passing.offer_zeros(at, end - at);
            } else {
                passing.offer(at, &bytes);
            }
        }
        Ok(())
    });
    seen.expect("it can be read")
}
