//! Uploads that break, whose answer is lost, that are refused, or that Glance takes long to finish.

use std::time::Duration;

use snapcow::convert::RouteTaken;
use snapcow::embedded::{Fault, Faults, LostAnswer, Refusal, Route};
use snapcow::error::{Kind, Stage};

use super::bench::{Bench, MIB, Noise, Tune, with};

#[test]
fn a_lost_answer_to_a_finished_upload_is_success() {
    for lost in [LostAnswer::Reset, LostAnswer::Status(502), LostAnswer::Status(504)] {
        let faults = Faults { upload_lost: Some(Fault::always(lost)), ..Faults::default() };
        let bench = Bench::new(with(faults), Noise::full(6 * MIB));
        let (receipt, _) = bench.converts(&Tune::spool());
        let delivered = receipt.delivered.unwrap();
        assert_eq!(bench.records(Route::Upload).len(), 1, "{lost:?}: nothing is sent twice");
        assert_eq!(delivered.retries, 0);
        assert!(delivered.verified.is_some());
    }
}

#[test]
fn a_gateway_that_gives_up_while_glance_still_saves_is_waited_for() {
    let faults = Faults {
        upload_lost: Some(Fault::always(LostAnswer::Status(504))),
        upload_finish_delay: Some(Duration::from_secs(3)),
        ..Faults::default()
    };
    let bench = Bench::new(with(faults), Noise::full(2 * MIB));
    bench.converts(&Tune::spool());
    assert_eq!(bench.records(Route::Upload).len(), 1);
}

#[test]
fn glance_may_take_its_time_to_finish() {
    let faults = Faults { upload_finish_delay: Some(Duration::from_secs(7)), ..Faults::default() };
    let bench = Bench::new(with(faults), Noise::full(2 * MIB));
    let (receipt, _) = bench.converts(&Tune::spool());
    assert_eq!(receipt.delivered.unwrap().retries, 0);
}

#[test]
fn an_upload_cut_half_way_is_sent_again() {
    for (tune, route, reads) in
        [(Tune::spool(), RouteTaken::Spool, 1), (Tune::reread(), RouteTaken::Reread, 3)]
    {
        let faults = Faults { upload_cut: Some(Fault::first(1, 7 * MIB)), ..Faults::default() };
        let bench = Bench::new(with(faults), Noise::full(24 * MIB));
        let (receipt, _) = bench.converts(&tune);
        assert_eq!((receipt.route, receipt.delivered.unwrap().retries), (Some(route), 1));
        let lengths: Vec<_> = bench.records(Route::Upload).iter().map(|put| put.received_bytes).collect();
        assert_eq!(lengths.len(), 2, "{lengths:?}");
        assert!(lengths[0] < lengths[1], "{lengths:?}");
        assert!(bench.whole_downloads().len() >= reads, "one read for each pass");
    }
}

#[test]
fn an_upload_that_always_breaks_is_given_up() {
    let faults = Faults { upload_cut: Some(Fault::always(3 * MIB)), ..Faults::default() };
    let bench = Bench::new(with(faults), Noise::full(8 * MIB));
    let error = bench.fails(&Tune::spool(), Stage::Sink, Kind::Network);
    assert!(error.contains("upload"), "{error}");
    assert_eq!(bench.records(Route::Upload).len(), 6, "the first try and five more");
}

#[test]
fn a_refusal_is_shown_and_not_tried_again() {
    for status in [409, 413, 415] {
        for tune in [Tune::spool(), Tune::reread()] {
            let refusal = Refusal { status, text: "Denied: the reason is 4711.".into(), after_bytes: None };
            let faults = Faults { upload_refused: Some(Fault::always(refusal)), ..Faults::default() };
            let bench = Bench::new(with(faults), Noise::full(8 * MIB));
            let error = bench.fails(&tune, Stage::Sink, Kind::Target);
            assert!(error.contains("the reason is 4711"), "{error}");
            assert_eq!(bench.records(Route::Upload).len(), 1);
        }
    }
}

#[test]
fn a_refusal_in_the_middle_of_the_body_is_shown_too() {
    for status in [413, 415] {
        for tune in [Tune::spool(), Tune::reread()] {
            let text = "Denied: the reason is 4712.".to_owned();
            let refusal = Refusal { status, text, after_bytes: Some(3 * MIB) };
            let faults = Faults { upload_refused: Some(Fault::always(refusal)), ..Faults::default() };
            let bench = Bench::new(with(faults), Noise::full(24 * MIB));
            let error = bench.fails(&tune, Stage::Sink, Kind::Target);
            assert!(error.contains("the reason is 4712"), "{error}");
            let uploads = bench.records(Route::Upload);
            assert!(uploads.len() == 1 && uploads[0].received_bytes < 24 * MIB, "{uploads:?}");
        }
    }
}
