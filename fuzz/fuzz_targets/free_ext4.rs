//! ext2, ext3 and ext4 with changes in their metadata: what is said to be free is free by the bitmaps, holds nothing that
//! was read to find that out, and is found within the memory that is allowed.
#![no_main]

use std::ops::Range;
use std::sync::LazyLock;

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use snapcow::free::ext4;
use snapcow_fuzz::free::bases::{self, Made};
use snapcow_fuzz::free::edits::Edit;
use snapcow_fuzz::free::ext::{Ext, Repair, bitmap_agrees, hinted, metadata};
use snapcow_fuzz::free::memory::Counting;
use snapcow_fuzz::free::oracle::{Room, Seen, keeps, look, without};
use snapcow_fuzz::free::sparse::Image;

#[global_allocator]
static COUNTING: Counting = Counting;

#[derive(Arbitrary, Debug)]
struct Case {
    base: u8,
    room: Room,
    repair: Repair,
    is_twice: bool,
    edits: Vec<Edit>,
}

struct Ready {
    made: Made,
    spots: Vec<Range<u64>>,
}

/// Bytes that the first round reads, whatever is in them.
const FIRST: u64 = 64 << 10;

static READY: LazyLock<Vec<Ready>> =
    LazyLock::new(|| bases::named(&["ext"]).into_iter().map(ready).collect());

fn ready(made: Made) -> Ready {
    let image = Image::new(&made.base);
    let ext = Ext::of(&image).expect("a filesystem");
    let seen = look(&image, Room::Plenty, ext4::freed);
    let freed = seen.said.as_ref().unwrap_or_else(|why| panic!("{}: {why}", made.name));
    assert_eq!(freed.free.bytes(), made.free_bytes, "{}", made.name);
    assert_eq!(freed.note.is_some(), ext.needs_recovery(), "{}", made.name);
    let mut again = image.clone();
    Repair::SumsAndCounts.apply(&mut again);
    assert_eq!(
        look(&again, Room::Plenty, ext4::freed).said.as_ref(),
        Ok(freed),
        "{}: repaired for the worse",
        made.name
    );
    let mut spots = ext.spots(&image);
    spots.extend(seen.asked.calls.into_iter().flatten());
    Ready { made, spots }
}

fuzz_target!(|case: Case| {
    let Ready { made, spots } = &READY[usize::from(case.base) % READY.len()];
    let mut image = Image::new(&made.base);
    case.edits.iter().take(12).for_each(|edit| edit.apply(&mut image, spots));
    case.repair.apply(&mut image);
    let seen = look(&image, case.room, ext4::freed);
    if seen.free().is_some() {
        believed(&image, &seen);
    }
    if case.is_twice {
        assert_eq!(look(&image, case.room, ext4::freed).said, seen.said);
    }
});

fn believed(image: &Image<'_>, seen: &Seen) {
    let free = seen.free().expect("it was found");
    let ext = Ext::of(image).expect("a filesystem that was believed");
    keeps(free, [1024..2048], "the superblock");
    if seen.said.as_ref().is_ok_and(|freed| freed.note.is_some()) {
        // Descriptors may say something else after the replay; `free_jbd2` looks into that.
        return;
    }
    bitmap_agrees(&ext, image, free);
    keeps(free, metadata(&ext, image), "metadata");
    let asked = seen.asked.calls.iter().flatten().cloned();
    let asked = asked.map(|range| range.start.max(FIRST)..range.end).filter(|range| range.start < range.end);
    keeps(free, without(asked.collect(), &hinted(&ext, image)), "what was read");
}
