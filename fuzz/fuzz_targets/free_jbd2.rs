//! ext3 and ext4 that were cut off: what is free by the journal in memory is free once Linux has replayed it on the disk,
//! and a journal that is whole is not refused.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use snapcow::free::ext4;
use snapcow_fuzz::free::bases;
use snapcow_fuzz::free::edits::Edit;
use snapcow_fuzz::free::ext::{Ext, bitmap_agrees, metadata};
use snapcow_fuzz::free::jbd2::{Kind, Model, Ring, Style, Transaction, replay, replayed};
use snapcow_fuzz::free::memory::Counting;
use snapcow_fuzz::free::oracle::{Room, keeps, look};
use snapcow_fuzz::free::sparse::Image;

#[global_allocator]
static COUNTING: Counting = Counting;

#[derive(Arbitrary, Debug)]
struct Case {
    base: u8,
    room: Room,
    style: Style,
    ring: u16,
    start: u32,
    sequence: u32,
    /// What was in the ring before.
    stale: Option<u8>,
    transactions: Vec<Transaction>,
    /// The last one, and which of its blocks have reached the disk; its commit block has not.
    torn: Option<(Transaction, u32)>,
    edits: Vec<Edit>,
    /// Whether checksums fit what was changed.
    is_fitted: bool,
}

static KINDS: LazyLock<Vec<Kind>> =
    LazyLock::new(|| bases::named(&["ext"]).into_iter().filter_map(Kind::of).collect());

fuzz_target!(|case: Case| {
    let kind = &KINDS[usize::from(case.base) % KINDS.len()];
    let mut image = kind.cut_off();
    let blocks = u32::from(case.ring) % 640;
    let mut ring = Ring::new(&mut image, &kind.ext, case.style, blocks, case.start, case.sequence);
    if let Some(seed) = case.stale {
        ring.stale(&mut image, seed, case.sequence);
    }
    let mut model = Model::new(kind);
    let mut sequence = case.sequence;
    for (index, transaction) in case.transactions.iter().take(12).enumerate() {
        let (blocks, revokes) = model.step(transaction);
        let most = usize::from(transaction.tags);
        // One block is always left, so that the end of the log can be told from its beginning.
        if ring.cost(blocks.len(), revokes.len(), most) >= ring.left as usize {
            break;
        }
        ring.write(&mut image, sequence, &blocks, &revokes, most);
        ring.commit(&mut image, sequence);
        model.committed(index, &blocks, &revokes);
        sequence = sequence.wrapping_add(1);
    }
    ring.fit(&mut image);
    let expected = model.expected();
    if let Some((transaction, reached)) = &case.torn {
        let (blocks, revokes) = model.step(transaction);
        let most = usize::from(transaction.tags);
        if ring.cost(blocks.len(), revokes.len(), most) < ring.left as usize {
            let (before, from) = (image.clone(), ring.written());
            ring.write(&mut image, sequence, &blocks, &revokes, most);
            ring.fit(&mut image);
            ring.tear(&mut image, &before, |index| reached >> (index % 32) & 1 == 1, from);
        }
    }
    let spots = ring.spots();
    case.edits.iter().take(8).for_each(|edit| edit.apply(&mut image, &spots));
    if case.edits.is_empty() {
        let naive = Ext::of(&image).map(|ext| replay(&image, &ext));
        assert!(naive == Some(Ok(expected)), "the journal is not what was meant");
    } else if case.is_fitted {
        ring.fit(&mut image);
    }
    check(&image, case.room, case.edits.is_empty());
});

fn check(image: &Image<'_>, room: Room, is_sound: bool) {
    let seen = look(image, room, ext4::freed);
    let Some(ext) = Ext::of(image) else { return assert!(seen.free().is_none()) };
    match (&seen.said, replay(image, &ext)) {
        (Ok(_), Err(why)) => panic!("Linux would not mount it: {why}"),
        (Ok(freed), Ok(blocks)) => {
            let after = replayed(image, &ext, &blocks);
            let clean = look(&after, Room::Plenty, ext4::freed);
            let clean = clean.said.unwrap_or_else(|why| panic!("after a replay on the disk: {why}"));
            assert_eq!(freed.free, clean.free);
            bitmap_agrees(&ext, &after, &freed.free);
            keeps(&freed.free, metadata(&ext, &after), "metadata");
        }
        (Err(why), Ok(blocks)) if is_sound && matches!(room, Room::Plenty | Room::Enough) => {
            let after = replayed(image, &ext, &blocks);
            let clean = look(&after, Room::Plenty, ext4::freed);
            assert!(clean.said.is_err(), "left whole, but sound after a replay on the disk: {why}");
        }
        (Err(_), _) => {}
    }
}
