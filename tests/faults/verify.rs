//! `verify` over a download that breaks: what is skipped on the way back to where it broke is compared.

use std::sync::Arc;

use snapcow::embedded::{Cut, Fault, Faults, SeedHash};
use snapcow::error::{Kind, Result, Stage};
use snapcow::read::Input;
use snapcow::source::GlanceStream;
use snapcow::verify::{Comparison, RawDisk, StreamDisk, compare};

use super::bench::{Bench, MIB, Noise, quick, wait, with};

/// Compares an image, whose first download breaks after 9 MiB, with the disk that it was made of. From the second
/// download on the byte at `flip` is another.
fn compared(flip: Option<u64>) -> Result<Comparison> {
    let cut = Cut { after_bytes: 9 * MIB, reset: true };
    let faults = Faults {
        download_cut: Some(Fault::first(1, cut)),
        download_flip: flip.map(Fault::from_second),
        ..Faults::default()
    };
    let bench = Bench::with_hash(with(faults), Noise::full(24 * MIB), SeedHash::Missing);
    let mut bytes = vec![0; bench.disk.len() as usize];
    bench.disk.read_at(0, &mut bytes);
    let disk = RawDisk::new(Input { bytes: Arc::new(bytes), len: bench.disk.len(), name: "the disk".into() });
    let cloud = bench.cloud().with_retry(quick());
    let image = wait(cloud.find_images(&bench.source)).unwrap().pop().unwrap();
    let stream = GlanceStream::new(&cloud, &image).unwrap();
    let image = StreamDisk::new("the image", Some(bench.disk.len()), Box::new(stream));
    let comparison = compare(&image, &disk, 2);
    assert_eq!(bench.whole_downloads().len(), 2);
    comparison
}

#[test]
fn a_download_that_breaks_starts_over_and_skips() {
    assert!(compared(None).unwrap().is_equal());
}

#[test]
fn an_image_that_changed_while_a_download_was_broken_is_refused() {
    // Its bytes have been compared already, and found equal.
    let error = compared(Some(3 * MIB)).unwrap_err();
    assert_eq!((error.stage(), error.kind()), (Stage::Source, Kind::SourceChanged), "{error}");
    assert!(error.to_string().contains("changed between two downloads"), "{error}");
}

#[test]
fn a_change_behind_what_is_skipped_is_a_difference() {
    assert_eq!(compared(Some(20 * MIB + 5)).unwrap().first_difference, Some(20 * MIB + 5));
}
