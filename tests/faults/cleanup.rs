//! Records: made although the answer was lost, made without what is forbidden, and taken back, or named
//! where they cannot be.

use snapcow::embedded::{Answer, Fault, Faults, LostAnswer, Refusal, Route};
use snapcow::error::Kind;

use super::bench::{Bench, MIB, Noise, Tune, with};

#[test]
fn an_image_that_cannot_be_deleted_is_named() {
    for status in [403, 500] {
        let text = "this format is not wanted here".to_owned();
        let mut faults = Faults {
            upload_refused: Some(Fault::always(Refusal { status: 415, text, after_bytes: None })),
            ..Faults::default()
        };
        faults.answers.push((Some(Route::Delete), Fault::always(Answer::status(status))));
        let bench = Bench::new(with(faults), Noise::full(2 * MIB));
        let outcome = bench.convert(&Tune::spool());
        let error = outcome.result.expect_err("the upload is refused");
        let text = error.to_string();
        assert_eq!(error.kind(), Kind::Target, "the first failure counts: {text}");
        assert!(text.contains("this format is not wanted here"), "{text}");
        let id = outcome.id.unwrap();
        assert!(text.contains(&format!("openstack image delete {id}")), "{text}");
        assert_eq!(bench.glance.images().len(), 2, "it is still there");
    }
}

#[test]
fn an_image_that_the_service_denies_is_named() {
    for status in [404, 410] {
        let refusal = Refusal { status: 415, text: "not wanted".into(), after_bytes: None };
        let mut faults = Faults { upload_refused: Some(Fault::always(refusal)), ..Faults::default() };
        faults.answers.push((Some(Route::Delete), Fault::first(1, Answer::status(status))));
        // The first look is at the source.
        let denied = Fault { skip: 1, times: 1, what: Answer::status(status) };
        faults.answers.push((Some(Route::Show), denied));
        let bench = Bench::new(with(faults), Noise::full(2 * MIB));
        let outcome = bench.convert(&Tune::spool());
        let text = outcome.result.expect_err("the upload is refused").to_string();
        let id = outcome.id.unwrap();
        assert!(text.contains(&format!("openstack image show {id}")), "{text}");
        assert_eq!(bench.glance.images().len(), 2, "it is still there");
    }
}

#[test]
fn a_deletion_that_fails_once_is_tried_again() {
    let refusal = Refusal { status: 413, text: "over the quota".into(), after_bytes: None };
    let mut faults = Faults { upload_refused: Some(Fault::always(refusal)), ..Faults::default() };
    for status in [500, 409] {
        faults.answers.push((Some(Route::Delete), Fault::first(1, Answer::status(status))));
    }
    let bench = Bench::new(with(faults), Noise::full(2 * MIB));
    bench.fails(&Tune::spool(), snapcow::error::Stage::Sink, Kind::Target);
}

#[test]
fn a_record_whose_answer_was_lost_is_found_by_its_id() {
    for lost in [LostAnswer::Reset, LostAnswer::Status(502), LostAnswer::Status(504)] {
        let faults = Faults { create_lost: Some(Fault::first(1, lost)), ..Faults::default() };
        let bench = Bench::new(with(faults), Noise::full(2 * MIB));
        bench.converts(&Tune::spool());
        assert_eq!(bench.records(Route::Create).len(), 1, "{lost:?}: made once");
    }
}

#[test]
fn properties_that_nobody_may_set_are_dropped_and_named() {
    let forbidden = ["hw_secret", "os_tainted"].map(str::to_owned);
    let faults = Faults { forbidden_properties: forbidden.to_vec(), ..Faults::default() };
    let bench = Bench::new(with(faults), Noise::full(2 * MIB));
    let mut tune = Tune::spool();
    for key in ["hw_disk_bus", "hw_secret", "os_distro", "os_tainted", "zz"] {
        tune.properties.insert(key.into(), "x".into());
    }
    let outcome = bench.convert(&tune);
    outcome.result.unwrap();
    let id = outcome.id.unwrap();
    bench.prove(&id);
    assert_eq!(outcome.dropped_properties, forbidden);
    let image = bench.glance.image(&id).unwrap();
    for key in ["hw_disk_bus", "os_distro", "zz"] {
        assert_eq!(image[key], "x", "{key}");
    }
    assert!(image.get("hw_secret").is_none() && image.get("os_tainted").is_none());
}
