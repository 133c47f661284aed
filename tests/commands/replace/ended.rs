//! A replacement that is ended by SIGKILL, a signal or a failure in each of its steps. Afterwards either the old image is
//! as it was, or the new one is proven; and the same command comes to its end.

use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Map, Value, json};
use snapcow::embedded::{Answer, EmbeddedGlance, Fault, Faults, ImageSpec, Route, SeedHash, prove_equal};

use crate::bench::{Bench, MIB, Noise, with};
use crate::lab::command::{Ran, Running, run, snapcow, start};

/// Where a run is met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    FirstPass,
    Upload,
    /// All is sent and compared; nobody has noted it yet.
    NotingTheProof,
    Deleting,
    /// The old image is gone.
    Renaming,
}

const STEPS: [Step; 5] =
    [Step::FirstPass, Step::Upload, Step::NotingTheProof, Step::Deleting, Step::Renaming];

impl Step {
    /// A service that holds a run there.
    fn faults(self) -> Faults {
        let busy = |route, skip| {
            let fault = Fault { skip, times: u32::MAX, what: Answer::status(503) };
            Faults { answers: vec![(Some(route), fault)], ..Faults::default() }
        };
        match self {
            Self::FirstPass => Faults { download_rate: Some(4 * MIB), ..Faults::default() },
            Self::Upload => Faults { upload_rate: Some(3 * MIB), ..Faults::default() },
            Self::NotingTheProof => busy(Route::Update, 0),
            Self::Deleting => busy(Route::Delete, 0),
            Self::Renaming => busy(Route::Update, 1),
        }
    }

    fn is_reached(self, bench: &Bench) -> bool {
        let refused = |route| bench.records(route).iter().any(|record| record.status == Some(503));
        match self {
            Self::FirstPass => !bench.whole_downloads().is_empty(),
            Self::Upload => bench.records(Route::Upload).iter().any(|put| put.received_bytes > MIB),
            Self::NotingTheProof | Self::Renaming => refused(Route::Update),
            Self::Deleting => refused(Route::Delete),
        }
    }
}

/// A Glance with one image that has something to take over.
fn bench(faults: Faults) -> Bench {
    let disk = Arc::new(Noise { len: 9 * MIB + 777, extents: vec![0..2 * MIB, 5 * MIB..9 * MIB] });
    let glance = EmbeddedGlance::start(with(faults)).unwrap();
    let attributes: Map<String, Value> = [
        ("os_distro", json!("debian")),
        ("min_ram", json!(96)),
        ("tags", json!(["a"])),
        ("os_hidden", json!(true)),
        ("visibility", json!("community")),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into_iter()
    .collect();
    let source = glance.seed(ImageSpec {
        name: "snapshot".into(),
        attributes,
        hash: SeedHash::Compute,
        data: disk.clone(),
    });
    Bench { glance, disk, source }
}

fn command(bench: &Bench, words: &[&str]) -> Command {
    let mut command = snapcow([&["replace"], words].concat());
    command.env("OS_TOKEN", bench.glance.token()).env("OS_ENDPOINT", bench.glance.endpoint());
    command
}

fn usual(bench: &Bench) -> Command {
    command(bench, &["snapshot", "--yes", "--retries", "2"])
}

/// There is one image: compact, under the old name, with all that the old one had, and no note left on it.
#[track_caller]
fn is_replaced(bench: &Bench, ran: &Ran) {
    let images = bench.glance.images();
    let [image] = &images[..] else { panic!("{images:#?}") };
    let id = ran.image_id();
    assert_eq!((image["id"].as_str(), image["name"].as_str()), (Some(id.as_str()), Some("snapshot")));
    assert_ne!(id, bench.source);
    for (key, value) in [
        ("disk_format", json!("qcow2")),
        ("status", json!("active")),
        ("protected", json!(false)),
        ("os_hidden", json!(true)),
        ("visibility", json!("community")),
        ("os_distro", json!("debian")),
        ("min_ram", json!(96)),
        ("min_disk", json!(1)),
        ("tags", json!(["a"])),
    ] {
        assert_eq!(image[key], value, "{key}");
    }
    let notes: Vec<_> = image.as_object().unwrap().keys().filter(|key| key.starts_with("snapcow")).collect();
    assert!(notes.is_empty(), "{notes:?}");
    prove_equal(&*bench.disk, bench.glance.data(&id).unwrap()).unwrap();
}

/// The old image is as it was, or a new one is whole; under the old name there is nothing else.
#[track_caller]
fn nothing_is_lost(bench: &Bench, old: &Value, step: Step) {
    let images = bench.glance.images();
    let is_there = bench.glance.image(&bench.source).as_ref() == Some(old);
    assert_eq!(is_there, step != Step::Renaming, "{step:?}");
    let others: Vec<&Value> = images.iter().filter(|image| image["id"] != old["id"]).collect();
    assert!(others.iter().all(|image| image["name"] != "snapshot"), "{step:?}: {others:#?}");
    if !is_there {
        let [new] = &others[..] else { panic!("{step:?}: {others:#?}") };
        assert_eq!((&new["protected"], &new["status"]), (&json!(true), &json!("active")));
        prove_equal(&*bench.disk, bench.glance.data(new["id"].as_str().unwrap()).unwrap()).unwrap();
    }
}

/// A run that is held there.
fn held(bench: &Bench, step: Step) -> Running {
    let running = start(&mut usual(bench));
    let begin = Instant::now();
    while !step.is_reached(bench) {
        assert!(begin.elapsed() < Duration::from_secs(60), "never: {step:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
    running
}

#[test]
fn an_image_is_replaced_by_its_compact_copy() {
    let bench = bench(Faults::default());
    let ran = run(&mut usual(&bench)).ok();
    is_replaced(&bench, &ran);
    for word in ["the ID changes", &bench.source, "community"] {
        assert!(ran.stderr.contains(word), "{}", ran.stderr);
    }
    run(&mut usual(&bench)).refuses(3, &["qcow2"]);
}

#[test]
fn killed_in_any_step_the_same_command_comes_to_its_end() {
    for step in STEPS {
        let bench = bench(step.faults());
        let old = bench.glance.image(&bench.source).unwrap();
        let running = held(&bench, step);
        running.signal(Signal::KILL);
        running.finish();
        nothing_is_lost(&bench, &old, step);
        bench.glance.faults().set(Faults::default());
        bench.glance.clear_records();
        let ran = run(&mut usual(&bench)).ok();
        is_replaced(&bench, &ran);
        let converts = bench.whole_downloads().len();
        let is_proven = matches!(step, Step::Deleting | Step::Renaming);
        assert_eq!(converts, usize::from(!is_proven), "{step:?}: what is proven is not made again");
    }
}

#[test]
fn after_the_deletion_the_old_id_and_the_new_one_name_the_rest() {
    for by_old_id in [true, false] {
        let bench = bench(Step::Renaming.faults());
        let running = held(&bench, Step::Renaming);
        running.signal(Signal::KILL);
        running.finish();
        bench.glance.faults().set(Faults::default());
        let new = bench.glance.images()[0]["id"].as_str().unwrap().to_owned();
        let words = if by_old_id { bench.source.clone() } else { new };
        let dry = run(&mut command(&bench, &[&words, "--dry-run"])).ok();
        assert!(String::from_utf8(dry.stdout).unwrap().contains("rename"));
        let ran = run(&mut command(&bench, &[&words])).ok();
        is_replaced(&bench, &ran);
    }
}

#[test]
fn a_signal_in_any_step_leaves_what_the_same_command_needs() {
    for step in [Step::FirstPass, Step::Upload, Step::Deleting] {
        let bench = bench(step.faults());
        let old = bench.glance.image(&bench.source).unwrap();
        let running = held(&bench, step);
        running.signal(Signal::INT);
        let ran = running.finish().refuses(130, &["interrupted"]);
        nothing_is_lost(&bench, &old, step);
        let left = bench.glance.images().len();
        assert_eq!(left, if step == Step::Deleting { 2 } else { 1 }, "{step:?}");
        if step == Step::Deleting {
            assert!(
                ran.stderr.contains(&ran.image_id()) && ran.stderr.contains(&bench.source),
                "{}",
                ran.stderr
            );
        }
        bench.glance.faults().set(Faults::default());
        is_replaced(&bench, &run(&mut usual(&bench)).ok());
    }
}

#[test]
fn a_service_that_fails_in_any_late_step_leaves_what_the_same_command_needs() {
    for (step, code) in [(Step::NotingTheProof, 5), (Step::Deleting, 13), (Step::Renaming, 5)] {
        let bench = bench(step.faults());
        let old = bench.glance.image(&bench.source).unwrap();
        let ran = run(&mut usual(&bench)).refuses(code, &["the same command"]);
        assert!(ran.stderr.contains(&ran.image_id()), "{}", ran.stderr);
        nothing_is_lost(&bench, &old, step);
        bench.glance.faults().set(Faults::default());
        is_replaced(&bench, &run(&mut usual(&bench)).ok());
    }
}

#[test]
fn an_image_in_use_is_kept_and_its_copy_can_be_deleted() {
    let bench = bench(Faults::default());
    let in_use = Fault::always(Answer { text: "has dependent snapshots".into(), ..Answer::status(409) });
    bench.glance.faults().update(|faults| faults.answers.push((Some(Route::Delete), in_use)));
    let ran = run(&mut usual(&bench)).refuses(13, &["409", "dependent snapshots", &bench.source]);
    let new = bench.glance.image(&ran.image_id()).unwrap();
    assert_eq!(
        (&new["protected"], &new["name"]),
        (&json!(false), &json!("snapshot (snapcow: compact copy)"))
    );
    assert_eq!(bench.glance.image(&bench.source).unwrap()["name"], "snapshot");
}

#[test]
fn a_proven_copy_of_another_content_is_not_taken() {
    let bench = bench(Step::Deleting.faults());
    let running = held(&bench, Step::Deleting);
    running.signal(Signal::KILL);
    running.finish();
    bench.glance.faults().set(Faults::default());
    let new = bench.glance.images().into_iter().find(|image| image["id"] != bench.source.as_str()).unwrap();
    let forged = snapcow::openstack::ImageChanges {
        set_properties: [("snapcow_replaces_proof".to_owned(), "sha512:00 sha512:00".to_owned())].into(),
        ..Default::default()
    };
    crate::bench::wait(bench.cloud().update_image(new["id"].as_str().unwrap(), &forged)).unwrap();
    run(&mut usual(&bench)).refuses(8, &["another now", new["id"].as_str().unwrap()]);
    assert_eq!(bench.glance.images().len(), 2);
}

#[test]
fn two_replacements_at_once_lose_nothing() {
    let bench = bench(Step::Upload.faults());
    let first = held(&bench, Step::Upload);
    let second = run(&mut usual(&bench)).ok();
    let first = first.finish();
    assert_ne!(first.code, 0, "its half-made image was taken from it: {}", first.stderr);
    is_replaced(&bench, &second);
}

#[test]
fn nobody_is_asked_where_there_is_no_terminal() {
    let bench = bench(Faults::default());
    run(&mut command(&bench, &["snapshot"])).refuses(2, &["--yes"]);
    run(&mut command(&bench, &["snapshot", "--yes", "--verify-source", "off"]))
        .refuses(2, &["--verify-source"]);
    run(&mut command(&bench, &["nothing-of-the-kind", "--yes"])).refuses(3, &["nothing-of-the-kind"]);
    let dry = run(&mut command(&bench, &["snapshot", "--dry-run"])).ok();
    assert!(String::from_utf8(dry.stdout).unwrap().contains("not yet proven"));
    assert!(bench.records(Route::Create).is_empty() && bench.records(Route::Delete).is_empty());
}
