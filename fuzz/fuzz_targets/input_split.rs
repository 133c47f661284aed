//! The same bytes, cut as a network may cut them, give the same image, whatever the threads and the spool.
#![no_main]

use std::sync::Arc;

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use snapcow_fuzz::cases::{Disk, Options};
use snapcow_fuzz::conversion::{Cuts, Frames, stream, to_file, to_stream};

#[derive(Arbitrary, Debug)]
struct Case {
    options: Options,
    threads: u8,
    any_part: bool,
    to_file: bool,
    cuts: Vec<u16>,
    disk: Disk,
}

fuzz_target!(|case: Case| {
    let disk = Arc::new(case.disk.0);
    let whole = Options { threads: 1, spool_blocks: None, ..case.options };
    let split = Options { threads: 1 + usize::from(case.threads % 3), ..case.options };
    let cuts = Cuts::new(&case.cuts);
    let frames = Arc::new(Frames::new(&disk, &cuts, case.any_part));
    let convert = |source, options| {
        let made = if case.to_file { to_file(source, options) } else { to_stream(source, options) };
        made.unwrap_or_else(|error| panic!("{error}"))
    };
    let (expected, first) = convert(stream(&disk, &Cuts::new(&[])), whole);
    let (image, second) = convert(frames, split);
    assert!(image == expected, "another image");
    assert_eq!(first.guest_digest, second.guest_digest);
});
