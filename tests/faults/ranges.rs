//! Answers to a `Range`, right and wrong: wrong ones are never taken for bytes of the image.

use std::sync::Arc;

use snapcow::convert::SourceCheck;
use snapcow::embedded::{Answer, Cut, EmbeddedOptions, Fault, Faults, RangeAnswer, Route, VmImage};
use snapcow::error::{Kind, Stage};

use super::bench::{Bench, MIB, Noise, Tune, with};

fn ranged(faults: Faults) -> EmbeddedOptions {
    EmbeddedOptions { ranges: true, ..with(faults) }
}

fn vm() -> Arc<VmImage> {
    Arc::new(VmImage::new(5, 64 * MIB + 12_345, 0.4))
}

#[test]
fn a_store_without_random_reads_is_read_in_order() {
    let bench = Bench::new(with(Faults::default()), vm());
    let (receipt, _) = bench.converts(&Tune::spool());
    assert!(matches!(receipt.source_check, SourceCheck::Verified(_)));
    let downloads = bench.records(Route::Download);
    assert_eq!(downloads.len(), 2, "the probe, refused, and one sequential read");
    assert_eq!((downloads[0].status, downloads[1].range.as_deref()), (Some(400), None));
}

#[test]
fn where_ranges_work_the_image_is_read_by_ranges() {
    for tune in [Tune::spool(), Tune::reread()] {
        let bench = Bench::new(ranged(Faults::default()), vm());
        bench.converts(&tune);
        assert!(bench.whole_downloads().is_empty());
    }
}

#[test]
fn wrong_answers_are_recognised_by_the_probe() {
    use RangeAnswer::{Shifted, Whole200, WholeBodyAs206, WrongContentRange};
    for answer in [WholeBodyAs206, Whole200, Shifted, WrongContentRange] {
        for chunked in [false, true] {
            let without_length = chunked.then(|| Fault::always(()));
            let faults = Faults {
                range_answer: Some(Fault::always(answer)),
                download_without_length: without_length,
                ..Faults::default()
            };
            let bench = Bench::new(ranged(faults), vm());
            bench.converts(&Tune::spool());
            let ranges =
                bench.records(Route::Download).iter().filter(|record| record.range.is_some()).count();
            assert_eq!(ranges, 1, "{answer:?}: nothing but the probe asks for a range");
            assert_eq!(bench.whole_downloads().len(), 1, "{answer:?}");
        }
    }
}

#[test]
fn a_range_service_that_turns_bad_half_way_ends_the_run() {
    use RangeAnswer::{Shifted, Whole200, WholeBodyAs206, WrongContentRange};
    for answer in [WholeBodyAs206, Whole200, Shifted, WrongContentRange] {
        // The probe and two stripes are answered as they should.
        let range_answer = Some(Fault { skip: 3, times: u32::MAX, what: answer });
        let bench = Bench::new(ranged(Faults { range_answer, ..Faults::default() }), vm());
        let error = bench.fails(&Tune::spool(), Stage::Source, Kind::Network);
        assert!(error.contains("not served as asked"), "{answer:?}: {error}");
    }
}

#[test]
fn a_whole_body_without_a_length_is_noticed_half_way_too() {
    let faults = Faults {
        range_answer: Some(Fault { skip: 2, times: u32::MAX, what: RangeAnswer::WholeBodyAs206 }),
        download_without_length: Some(Fault { skip: 2, times: u32::MAX, what: () }),
        ..Faults::default()
    };
    let bench = Bench::new(ranged(faults), vm());
    let error = bench.fails(&Tune::spool(), Stage::Source, Kind::Network);
    assert!(error.contains("more came than was announced"), "{error}");
}

#[test]
fn no_content_is_no_empty_image() {
    for ranges in [false, true] {
        let faults = Faults { download_no_content: Some(Fault::always(())), ..Faults::default() };
        let bench = Bench::new(EmbeddedOptions { ranges, ..with(faults) }, vm());
        let error = bench.fails(&Tune::spool(), Stage::Source, Kind::Source);
        assert!(error.contains("no data"), "{error}");
    }
}

#[test]
fn a_broken_range_is_taken_up_where_it_broke() {
    for reset in [false, true] {
        let cut = Cut { after_bytes: 3 * MIB + 77, reset };
        // The probe is too short to be cut; the first two stripes break.
        let download_cut = Some(Fault { skip: 1, times: 2, what: cut });
        let bench = Bench::new(ranged(Faults { download_cut, ..Faults::default() }), Noise::full(40 * MIB));
        bench.converts(&Tune::spool());
        let downloads = bench.records(Route::Download);
        let begins: Vec<u64> =
            downloads.iter().filter_map(|record| begin(record.range.as_deref()?)).collect();
        for broken in downloads.iter().filter(|record| !record.finished) {
            let from = begin(broken.range.as_deref().unwrap()).unwrap();
            let again = begins.iter().any(|&next| next > from && next <= from + cut.after_bytes);
            assert!(again, "nobody took up the range from {from}: {begins:?}");
        }
        assert_eq!(downloads.iter().filter(|record| !record.finished).count(), 2);
    }
}

fn begin(range: &str) -> Option<u64> {
    range.strip_prefix("bytes=")?.split('-').next()?.parse().ok()
}

#[test]
fn first_answers_of_a_busy_service_are_tried_again() {
    for ranges in [false, true] {
        for status in [429, 500, 502, 503, 504] {
            let mut faults = Faults::default();
            for route in [Route::List, Route::Show, Route::Download, Route::Create] {
                faults.answers.push((Some(route), Fault::first(1, Answer::status(status))));
            }
            faults.answers.push((Some(Route::Upload), Fault::first(1, Answer::status(status))));
            let bench = Bench::new(EmbeddedOptions { ranges, ..with(faults) }, Noise::full(4 * MIB));
            let (receipt, _) = bench.converts(&Tune::spool());
            assert_eq!(receipt.delivered.unwrap().retries, 1);
        }
    }
}

#[test]
fn a_service_that_stays_busy_is_a_network_failure() {
    let mut faults = Faults::default();
    // Not the probe's turn, nor that of a run that looks up its source.
    faults
        .answers
        .push((Some(Route::Download), Fault { skip: 1, times: u32::MAX, what: Answer::status(503) }));
    let bench = Bench::new(with(faults), Noise::full(4 * MIB));
    let error = bench.fails(&Tune::spool(), Stage::Source, Kind::Network);
    assert!(error.contains("download image") && error.contains("503"), "{error}");
}
