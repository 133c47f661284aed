//! LVM2: labels, metadata areas and texts with changes. What is told of a volume group fits together, within the memory
//! that a text may take, and nothing outside of logical volumes without a doubt is free.
#![no_main]

use std::ops::Range;
use std::sync::LazyLock;

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use snapcow::free::disk::{Findings, look};
use snapcow::free::lvm::{Copy, Group, Label, TREE_FACTOR, label, text};
use snapcow::free::{Limits, Trouble, Volume};
use snapcow_fuzz::free::bases::{self, Made};
use snapcow_fuzz::free::edits::Edit;
use snapcow_fuzz::free::lvm::{self, TextEdit};
use snapcow_fuzz::free::memory::{self, Counting};
use snapcow_fuzz::free::oracle::{keeps, runs_are_sane};
use snapcow_fuzz::free::sparse::Image;

#[global_allocator]
static COUNTING: Counting = Counting;

#[derive(Arbitrary, Debug)]
struct Case {
    text: Vec<TextEdit>,
    at: u32,
    edits: Vec<Edit>,
    is_fitted: bool,
    /// One of 16 is looked at as a whole disk, which takes most of the time.
    whole: u8,
}

const LIMITS: Limits = Limits { memory_bytes: 4 << 20 };

static MADE: LazyLock<Made> = LazyLock::new(|| bases::named(&["pv"]).pop().expect("a physical volume"));
static TEXT: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let image = Image::new(&MADE.base);
    assert_eq!(found(&image).free.bytes(), MADE.free_bytes);
    lvm::text(&image)
});
/// The label, the header of the first area, the second area.
const SPOTS: [Range<u64>; 9] = [
    512..1024,
    544..584,
    584..680,
    lvm::AREA..lvm::AREA + 80,
    lvm::AREA + 24..lvm::AREA + 40,
    lvm::AREA + 40..lvm::AREA + 64,
    lvm::AREA + 64..lvm::AREA + 80,
    0..2048,
    lvm::AREA..lvm::AREA + 8192,
];

fuzz_target!(|case: Case| {
    let mut told = TEXT.clone();
    case.text.iter().take(12).for_each(|edit| edit.apply(&mut told));
    let mut image = Image::new(&MADE.base);
    if case.text.is_empty() {
        image.put(0, &[0]);
    } else {
        lvm::put_text(&mut image, &told, u64::from(case.at) & !511);
    }
    case.edits.iter().take(8).for_each(|edit| edit.apply(&mut image, &SPOTS));
    if case.is_fitted {
        lvm::fit(&mut image);
    }
    group(&told);
    let head = image.get(0, 2048);
    if let Ok(Some(label)) = label(&head, image.len) {
        areas(&image, &label);
    }
    if case.whole % 16 == 9 {
        let seen = found(&image);
        runs_are_sane(&seen.free, image.len);
        if let Ok(Some(label)) = label(&head, image.len) {
            keeps(&seen.free, label.own, "a sector of LVM's own");
        }
        assert_eq!(found(&image), seen);
    }
});

fn found(image: &Image<'_>) -> Findings {
    look(image, image.len, Limits { memory_bytes: 64 << 20 }).expect("it can be read")
}

fn areas(image: &Image<'_>, label: &Label) {
    let volume = Volume::linear(image, 0..image.len);
    assert!(
        label.len <= image.len && label.own.iter().all(|own| own.start < own.end && own.end <= image.len)
    );
    assert!(label.areas.iter().all(|area| label.own.contains(area)));
    for area in &label.areas {
        image.asked();
        match text(&volume, area, LIMITS) {
            Ok(Copy::Text(text)) => {
                assert!(text.len() as u64 * TREE_FACTOR <= LIMITS.memory_bytes);
                group(&text);
            }
            Ok(Copy::Damaged(why)) | Err(Trouble::Whole(why)) => assert!(!why.is_empty()),
            Ok(Copy::None) => {}
            Err(Trouble::Failed(error)) => panic!("this disk can be read: {error}"),
        }
        let inside = |range: &Range<u64>| area.start <= range.start && range.end <= area.end;
        assert!(image.asked().calls.iter().flatten().all(inside), "outside of the area {area:?}");
    }
}

/// Stretches of logical volumes that are believed.
fn group(text: &[u8]) {
    let (parsed, most) = memory::most(|| Group::parse(text));
    assert!(most <= TREE_FACTOR * text.len() as u64 + 4096, "{most} bytes for {}", text.len());
    let Ok(group) = parsed else { return };
    let mut claims: Vec<(usize, Range<u64>)> = Vec::new();
    if group.doubt.is_some() {
        return;
    }
    for logical in group.logicals.iter().filter(|logical| logical.doubt.is_none()) {
        let extents: u64 = logical.stretches.iter().map(|stretch| stretch.extents).sum();
        assert_eq!(extents, logical.extents);
        for stretch in &logical.stretches {
            let count = stretch.stripes.len() as u64;
            assert!(count > 0 && stretch.extents % count == 0 && stretch.extents > 0);
            let each = stretch.extents / count;
            assert!(count == 1 || stretch.stripe_bytes > 0 && group.extent_bytes % stretch.stripe_bytes == 0);
            for &(physical, first) in &stretch.stripes {
                assert!(first + each <= group.physicals[physical].extents);
                claims.push((physical, first..first + each));
            }
        }
    }
    claims.sort_by_key(|(physical, range)| (*physical, range.start));
    let clash = claims.windows(2).find(|pair| pair[0].0 == pair[1].0 && pair[1].1.start < pair[0].1.end);
    assert_eq!(clash, None, "two volumes on the same extents");
}
