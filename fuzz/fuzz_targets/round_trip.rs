//! Any disk with any options on any route: what independent readers read from the image is the disk, and so is the
//! digest.
#![no_main]

use std::sync::Arc;

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use snapcow::encode::Compression;
use snapcow_fuzz::cases::{Disk, Options};
use snapcow_fuzz::conversion::{Cuts, Frames, stream, to_file, to_stream};
use snapcow_fuzz::reader;

#[derive(Arbitrary, Debug)]
enum Road {
    FileFromStream,
    FileFromFrames,
    StreamFromStream,
    StreamFromFrames { any_part: bool },
}

#[derive(Arbitrary, Debug)]
struct Case {
    options: Options,
    road: Road,
    cuts: [u16; 3],
    disk: Disk,
}

fuzz_target!(|case: Case| {
    let mut options = case.options;
    let disk = Arc::new(case.disk.0);
    let cuts = Cuts::new(&case.cuts);
    let frames = |any_part| Arc::new(Frames::new(&disk, &cuts, any_part));
    let (image, receipt) = match case.road {
        Road::FileFromStream => to_file(stream(&disk, &cuts), options),
        Road::FileFromFrames => to_file(frames(false), options),
        Road::StreamFromStream => {
            // What can be read only once must fit.
            options.spool_blocks = None;
            to_stream(stream(&disk, &cuts), options)
        }
        Road::StreamFromFrames { any_part } => to_stream(frames(any_part), options),
    }
    .unwrap_or_else(|error| panic!("{error}"));
    let mut guest = disk.to_vec();
    guest.resize(disk.len().next_multiple_of(512), 0);
    assert!(reader::guest(&image) == guest, "the plain reader reads another disk");
    if !matches!(options.compression, Compression::Zstd(_)) {
        assert!(reader::guest_by_imago(&image) == guest, "imago reads another disk");
    }
    assert_eq!(receipt.guest_digest, Some(reader::blksum(&guest)));
    assert_eq!(receipt.source_len, disk.len() as u64);
});
