//! Peers that are slow, and servers that cut those who are.

use std::sync::Arc;
use std::time::Duration;

use snapcow::convert::RouteTaken;
use snapcow::embedded::{EmbeddedOptions, Fault, Faults, Floor, Route, Stall};
use snapcow::encode::Compression;
use snapcow::error::{Kind, Stage};

use super::bench::{Bench, MIB, Noise, Tune, with};

/// uWSGI's default, for uploads.
const SILENCE: Duration = Duration::from_secs(4);

/// A server that cuts slow peers as uWSGI does, with buffers so small that they hide nothing.
fn strict(faults: Faults) -> EmbeddedOptions {
    // Half of what uWSGI wants, so that a busy machine does not decide a test.
    let floor = Floor { bytes: 2 * MIB, window: Duration::from_secs(2) };
    let faults = Faults { download_floor: Some(floor), upload_silence: Some(SILENCE), ..faults };
    EmbeddedOptions { socket_buffer_bytes: Some(64 << 10), ..with(faults) }
}

/// The upload was one, came through, and was never silent for so long that it might have been cut.
fn check_upload(bench: &Bench) {
    let uploads = bench.records(Route::Upload);
    assert_eq!(uploads.len(), 1, "{uploads:?}");
    assert_eq!(uploads[0].status, Some(204));
    assert!(uploads[0].longest_silence < SILENCE, "{uploads:?}");
}

#[test]
fn a_slow_uplink_makes_the_second_read_hang_up_and_come_back() {
    // Slower than the floor: a reader that went along at this pace would be reset, and its run lost.
    let faults = Faults { upload_rate: Some(3 * MIB / 4), ..Faults::default() };
    let bench = Bench::new(strict(faults), Noise::full(14 * MIB));
    let (receipt, _) = bench.converts(&Tune::reread().narrow());
    assert_eq!(receipt.route, Some(RouteTaken::Reread));
    check_upload(&bench);
    let reads = bench.whole_downloads();
    assert!(reads.len() >= 3, "pass 1, and at least two for pass 2: {reads:?}");
    assert!(reads[0].finished, "pass 1 needs no second try");
}

#[test]
fn coming_back_to_a_place_far_behind_does_not_silence_the_upload() {
    // Hanging up costs the way back to where it was: 6 s here, with nothing new to send.
    let disk = Noise { len: 148 * MIB, extents: vec![0..MIB, 120 * MIB..148 * MIB] };
    let faults =
        Faults { upload_rate: Some(3 * MIB / 2), download_rate: Some(20 * MIB), ..Faults::default() };
    let bench = Bench::new(strict(faults), Arc::new(disk));
    bench.converts(&Tune::reread().narrow());
    check_upload(&bench);
    assert!(bench.whole_downloads().len() >= 3);
}

#[test]
fn a_long_run_of_zeros_is_crossed_with_the_upload_open() {
    let disk = Noise { len: 210 * MIB, extents: vec![0..16 * MIB, 190 * MIB..210 * MIB] };
    // 174 MiB of zeros take more than 7 s.
    let faults = Faults { download_rate: Some(24 * MIB), ..Faults::default() };
    let bench = Bench::new(strict(faults), Arc::new(disk));
    let (receipt, _) = bench.converts(&Tune::reread());
    assert_eq!(receipt.route, Some(RouteTaken::Reread));
    check_upload(&bench);
    assert_eq!(bench.whole_downloads().len(), 2, "one second read, in one go");
}

#[test]
fn zeros_before_the_first_data_do_not_matter() {
    let disk = Noise::at(200 * MIB, 170 * MIB..200 * MIB);
    let faults = Faults { download_rate: Some(24 * MIB), ..Faults::default() };
    let bench = Bench::new(strict(faults), Arc::new(disk));
    bench.converts(&Tune::reread());
    check_upload(&bench);
}

#[test]
fn a_download_that_pauses_does_not_silence_the_upload() {
    let stall = Stall { after_bytes: 12 * MIB, duration: Duration::from_secs(7) };
    let faults = Faults {
        download_stall: Some(Fault::from_second(stall)),
        upload_silence: Some(SILENCE),
        ..Faults::default()
    };
    let bench = Bench::new(with(faults), Noise::full(24 * MIB));
    bench.converts(&Tune::reread());
    check_upload(&bench);
}

#[test]
fn a_machine_too_slow_for_its_level_is_told_so() {
    // More than any processor compresses in that time.
    let floor = Floor { bytes: 1024 * MIB, window: Duration::from_secs(2) };
    let faults = Faults { download_floor: Some(floor), ..Faults::default() };
    let options = EmbeddedOptions { socket_buffer_bytes: Some(64 << 10), ..with(faults) };
    // And more than all tries together bring, on a machine that does nothing else.
    let bench = Bench::new(options, Noise::full(640 * MIB));
    let tune = Tune { compression: Compression::Zstd(19), ..Tune::spool().narrow() };
    let error = bench.fails(&tune, Stage::Source, Kind::Network);
    assert!(error.contains("--level"), "{error}");
}

#[test]
fn a_spool_directory_that_fails_is_given_up() {
    let bench = Bench::new(with(Faults::default()), Noise::full(24 * MIB));
    let tune = Tune { spool_dir: "/nonexistent/spool".into(), spool_disk_bytes: 64 * MIB, ..Tune::reread() };
    let (receipt, _) = bench.converts(&tune);
    assert_eq!(receipt.route, Some(RouteTaken::Reread));
    assert!(receipt.spool.unwrap().disk_given_up);
}

#[test]
fn a_single_worker_serves_the_spool_route() {
    for ranges in [false, true] {
        let faults = Faults { single_worker: true, ..Faults::default() };
        let bench = Bench::new(EmbeddedOptions { ranges, ..with(faults) }, Noise::full(24 * MIB));
        bench.converts(&Tune::spool());
    }
}

#[test]
fn a_single_worker_serves_a_second_read_that_fits_into_the_queue() {
    let faults = Faults { single_worker: true, ..Faults::default() };
    let bench = Bench::new(with(faults), Noise::full(6 * MIB));
    let (receipt, _) = bench.converts(&Tune { queue_bytes: 16 * MIB, ..Tune::reread() });
    assert_eq!(receipt.route, Some(RouteTaken::Reread));
}

#[test]
fn a_single_worker_stops_a_second_read_and_the_way_out_is_named() {
    // Each takes half a minute of waiting, so all at once.
    std::thread::scope(|scope| {
        for (ranges, silence) in [(false, None), (false, Some(SILENCE)), (true, None), (true, Some(SILENCE))]
        {
            scope.spawn(move || {
                let faults = Faults { single_worker: true, upload_silence: silence, ..Faults::default() };
                let bench = Bench::new(EmbeddedOptions { ranges, ..with(faults) }, Noise::full(64 * MIB));
                let error = bench.fails(&Tune::reread().narrow(), Stage::Source, Kind::Network);
                assert!(error.contains("--spool-disk"), "{error}");
            });
        }
    });
}
