//! Sources that are not what they were, or not what their record says, and targets that arrive damaged.

use std::sync::Arc;

use snapcow::convert::{RouteTaken, SourceCheck};
use snapcow::embedded::{Cut, Fault, Faults, HashFault, Hashes, ImageData, Route, SeedHash};
use snapcow::error::{Kind, Stage};

use super::bench::{Bench, MIB, Noise, Tune, with};

/// Noise with a long run of zeros inside.
fn disk() -> Arc<Noise> {
    Arc::new(Noise { len: 24 * MIB, extents: vec![0..6 * MIB, 14 * MIB..24 * MIB] })
}

#[test]
fn a_source_that_changes_between_the_passes_stops_the_run_before_the_last_byte() {
    // A data cluster that differs, and one that was zero and is not any more.
    for offset in [3 * MIB + 5, 10 * MIB] {
        // The probe is refused before it counts as a download that can be flipped.
        let faults = Faults { download_flip: Some(Fault::from_second(offset)), ..Faults::default() };
        let bench = Bench::new(with(faults), disk());
        let error = bench.fails(&Tune::reread(), Stage::Source, Kind::SourceChanged);
        assert!(error.contains("changed between the passes"), "{error}");
        let uploads = bench.records(Route::Upload);
        assert!(uploads.iter().all(|upload| upload.status != Some(204)), "{uploads:?}");
    }
}

#[test]
fn a_change_behind_what_is_read_again_does_not_matter() {
    // The last cluster is still in the spool, so nobody reads it twice.
    let faults = Faults { download_flip: Some(Fault::from_second(24 * MIB - 1)), ..Faults::default() };
    let bench = Bench::new(with(faults), disk());
    let (receipt, _) = bench.converts(&Tune::reread());
    assert_eq!(receipt.route, Some(RouteTaken::Reread));
}

#[test]
fn a_source_whose_hash_is_another_is_not_converted() {
    let wrong = Hashes::of(&*Noise::full(MIB));
    for ranges in [false, true] {
        let options = snapcow::embedded::EmbeddedOptions { ranges, ..with(Faults::default()) };
        let bench = Bench::with_hash(options, disk(), SeedHash::Known(wrong.clone()));
        let error = bench.fails(&Tune::spool(), Stage::Source, Kind::SourceChanged);
        assert_eq!(Kind::SourceChanged.exit_code(), 8);
        assert!(error.contains(&wrong.sha512), "{error}");
        assert!(bench.records(Route::Upload).is_empty(), "nothing is sent of a source that is not right");
    }
}

#[test]
fn a_source_without_a_hash_is_converted_and_said_to_be_unverified() {
    let bench = Bench::with_hash(with(Faults::default()), disk(), SeedHash::Missing);
    let (receipt, _) = bench.converts(&Tune::spool());
    assert!(matches!(receipt.source_check, SourceCheck::NotVerified(_)));
}

#[test]
fn a_target_whose_hash_is_another_is_deleted() {
    for tune in [Tune::spool(), Tune::reread()] {
        let faults = Faults { upload_hash: Some(Fault::always(HashFault::Wrong)), ..Faults::default() };
        let bench = Bench::new(with(faults), disk());
        let error = bench.fails(&tune, Stage::Sink, Kind::TargetHash);
        assert_eq!(Kind::TargetHash.exit_code(), 9);
        assert!(error.contains("Glance found"), "{error}");
    }
}

#[test]
fn a_target_without_a_hash_is_said_to_be_unverified() {
    let faults = Faults { upload_hash: Some(Fault::always(HashFault::Missing)), ..Faults::default() };
    let bench = Bench::new(with(faults), disk());
    let (receipt, _) = bench.converts(&Tune::spool());
    let delivered = receipt.delivered.unwrap();
    assert!(delivered.verified.is_none() && delivered.unverified.is_some());
}

/// Says that it has another size than its record, whose `size` is 24 MiB.
fn of_another_size(len: u64, chunked: bool) -> Bench {
    let without_length = chunked.then(|| Fault::always(()));
    let bench = Bench::new(
        with(Faults { download_without_length: without_length, ..Faults::default() }),
        Noise::full(MIB),
    );
    let mut attributes = serde_json::Map::new();
    attributes.insert("size".into(), (24 * MIB).into());
    let data: Arc<dyn ImageData> = Noise::full(len);
    let name = "another".into();
    // Hashes of what the record speaks of: what it would take to fool a run that reads no further.
    let hash = SeedHash::Known(Hashes::of(&*Noise::full(24 * MIB)));
    let spec = snapcow::embedded::ImageSpec { name, attributes, hash, data };
    let source = bench.glance.seed(spec);
    Bench { source, ..bench }
}

#[test]
fn a_source_longer_or_shorter_than_its_record_is_refused() {
    for (len, chunked) in [(23 * MIB, false), (25 * MIB, false), (23 * MIB, true), (25 * MIB, true)] {
        let bench = of_another_size(len, chunked);
        let outcome = bench.convert(&Tune::spool());
        let error = outcome.result.expect_err("the record is wrong");
        assert_eq!(error.kind(), Kind::SourceChanged, "{len} chunked: {chunked}: {error}");
        assert!(error.to_string().contains("by its record"), "{error}");
        // The two that were seeded.
        assert_eq!(bench.glance.images().len(), 2);
    }
}

#[test]
fn a_sequential_download_that_breaks_is_named() {
    for reset in [false, true] {
        let cut = Cut { after_bytes: 5 * MIB, reset };
        let faults = Faults { download_cut: Some(Fault::always(cut)), ..Faults::default() };
        let bench = Bench::new(with(faults), disk());
        let error = bench.fails(&Tune::spool(), Stage::Source, Kind::Network);
        assert!(error.contains("download image"), "{error}");
    }
}
