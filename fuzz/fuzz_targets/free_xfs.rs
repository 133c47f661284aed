//! XFS with changes in its metadata: what is said to be free is free by the trees, holds nothing that was read to find
//! that out, and is found within the memory that is allowed.
#![no_main]

use std::ops::Range;
use std::sync::LazyLock;

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use snapcow::free::xfs;
use snapcow_fuzz::free::bases::{self, Made};
use snapcow_fuzz::free::edits::Edit;
use snapcow_fuzz::free::ext::Repair;
use snapcow_fuzz::free::memory::Counting;
use snapcow_fuzz::free::oracle::{Room, keeps, look};
use snapcow_fuzz::free::sparse::Image;
use snapcow_fuzz::free::xfs::Xfs;

#[global_allocator]
static COUNTING: Counting = Counting;

#[derive(Arbitrary, Debug)]
struct Case {
    base: u8,
    room: Room,
    repair: Repair,
    is_twice: bool,
    /// Whether the log has its real length, which most of the time of a case goes into.
    has_whole_log: u8,
    edits: Vec<Edit>,
}

struct Ready {
    made: &'static Made,
    /// With a log no longer than what was written to it.
    short: Image<'static>,
    spots: Vec<Range<u64>>,
}

static READY: LazyLock<Vec<Ready>> =
    LazyLock::new(|| bases::named(&["xfs"]).into_iter().map(ready).collect());

fn ready(made: Made) -> Ready {
    let made: &'static Made = Box::leak(Box::new(made));
    let image = Image::new(&made.base);
    let mut xfs = Xfs::of(&image).expect("a filesystem");
    let mut short = image.clone();
    xfs.shorten(&mut short);
    let mut again = image.clone();
    Repair::SumsAndCounts.apply_xfs(&mut again);
    for image in [&image, &short, &again] {
        let freed = look(image, Room::Plenty, xfs::freed).said;
        let freed = freed.unwrap_or_else(|why| panic!("{}: {why}", made.name));
        assert_eq!(freed.free.bytes(), made.free_bytes, "{}", made.name);
    }
    Ready { spots: xfs.spots(&short), made, short }
}

fuzz_target!(|case: Case| {
    let Ready { made, short, spots } = &READY[usize::from(case.base) % READY.len()];
    let mut image = if case.has_whole_log > 252 { Image::new(&made.base) } else { short.clone() };
    case.edits.iter().take(12).for_each(|edit| edit.apply(&mut image, spots));
    case.repair.apply_xfs(&mut image);
    let seen = look(&image, case.room, xfs::freed);
    if let Some(free) = seen.free() {
        let xfs = Xfs::of(&image).expect("a filesystem that was believed");
        xfs.trees_agree(&image, free);
        keeps(free, xfs.metadata(&image), "metadata");
        // The first round reads more than the superblock, whatever is in it.
        keeps(free, seen.asked.calls.iter().skip(1).flatten().cloned(), "what was read");
    }
    if case.is_twice {
        assert_eq!(look(&image, case.room, xfs::freed).said, seen.said);
    }
});
