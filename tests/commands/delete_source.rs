//! `convert --delete-source`: against the in-process Glance, which has hashes or none and refuses on demand; and
//! against the lab's.

use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::bench::{Bench, MIB, Noise, wait, with};
use crate::lab::command::{Ran, run, snapcow, snapcow_in, start};
use crate::lab::lab;
use crate::lab::rest::{Named, Rest};
use crate::snapshot::stand_in::Nova;
use rustix::process::Signal;
use serde_json::{Map, Value, json};
use snapcow::embedded::{
    Answer, EmbeddedGlance, Fault, Faults, HashFault, Hashes, ImageData, ImageSpec, Route, SeedHash,
    prove_equal,
};
use snapcow::openstack::ImageChanges;

const WORDS: [&str; 3] = ["convert", "glance:snapshot", "glance:compact"];

fn disk() -> Arc<dyn ImageData> {
    Arc::new(Noise { len: 9 * MIB + 777, extents: vec![0..2 * MIB, 5 * MIB..9 * MIB] })
}

fn command(bench: &Bench, words: &[&str]) -> Command {
    let mut command = snapcow(WORDS.iter().chain(words));
    command.env("OS_TOKEN", bench.glance.token()).env("OS_ENDPOINT", bench.glance.endpoint());
    command
}

fn bench(faults: Faults, hash: SeedHash) -> Bench {
    Bench::with_hash(with(faults), disk(), hash)
}

fn usual() -> Bench {
    bench(Faults::default(), SeedHash::Compute)
}

fn names(bench: &Bench) -> Vec<String> {
    let mut names: Vec<String> =
        bench.glance.images().iter().map(|image| image["name"].as_str().unwrap().into()).collect();
    names.sort();
    names
}

/// Both images are there; the new one's ID was told, and holds the disk.
#[track_caller]
fn keeps_both(bench: &Bench, ran: Ran, words: &[&str]) {
    let id = ran.image_id();
    let said = ran.refuses(13, words).stderr;
    assert!(said.contains(&id) && said.contains(&bench.source), "both are named: {said}");
    bench.prove(&id);
}

/// Refused before the first pass: nothing was made, and nothing read.
#[track_caller]
fn refused(bench: &Bench, words: &[&str], code: i32, said: &[&str]) {
    run(&mut command(bench, words)).refuses(code, said);
    assert!(bench.records(Route::Create).is_empty(), "nothing was made");
    assert!(bench.records(Route::Delete).is_empty() && bench.whole_downloads().is_empty());
}

#[test]
fn a_proven_copy_replaces_its_source_and_the_report_says_so() {
    let (bench, folder) = (usual(), tempfile::tempdir().unwrap());
    let report = folder.path().join("r.json");
    let ran = run(&mut command(&bench, &["--delete-source", "--report", report.to_str().unwrap()])).ok();
    assert_eq!(names(&bench), ["compact"]);
    prove_equal(&*bench.disk, bench.glance.data(&ran.image_id()).unwrap()).unwrap();
    let report: Value = serde_json::from_slice(&std::fs::read(report).unwrap()).unwrap();
    assert_eq!(
        report["deleted_source"],
        json!({"id": bench.source, "is_deleted": true, "kept_because": null})
    );
    assert!(ran.stderr.contains("is deleted"), "{}", ran.stderr);
    // A token alone tells no project, and no Nova.
    assert!(ran.stderr.contains("cannot be seen"), "{}", ran.stderr);
}

#[test]
fn a_dry_run_says_what_would_be_deleted() {
    let bench = usual();
    let ran = run(&mut command(&bench, &["--delete-source", "--dry-run"])).ok();
    // Whatever the columns are at which it is wrapped.
    let plan = String::from_utf8(ran.stdout).unwrap();
    let plan = plan.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(plan.contains("deleted") && plan.contains(&bench.source), "{plan}");
    assert_eq!(names(&bench), ["snapshot"]);
}

#[test]
fn options_that_leave_no_proof_are_refused() {
    let bench = usual();
    for words in [["--verify-source", "off"], ["--verify-encode", "off"]] {
        refused(&bench, &["--delete-source", words[0], words[1]], 2, &["--delete-source", words[0]]);
    }
    for words in [
        ["glance:snapshot", "/nonexistent/a"],
        ["glance:snapshot", "-"],
        ["-", "glance:x"],
        ["/a", "glance:x"],
    ] {
        let words = [&["convert"], &words[..], &["--delete-source"]].concat();
        run(&mut snapcow(words)).refuses(2, &["--delete-source needs"]);
    }
}

#[test]
fn a_source_without_a_hash_is_refused_unless_it_may_be_unproven() {
    let bench = bench(Faults::default(), SeedHash::Missing);
    refused(&bench, &["--delete-source"], 3, &["keeps no hash", "--delete-source=unproven"]);
    let ran = run(&mut command(&bench, &["--delete-source=unproven"])).ok();
    assert!(ran.stderr.contains("without having been verified"), "{}", ran.stderr);
    assert_eq!(names(&bench), ["compact"]);
}

#[test]
fn md5_alone_is_no_proof() {
    let glance = EmbeddedGlance::start(with(Faults::default())).unwrap();
    let attributes = Map::from_iter([("checksum".to_owned(), json!(Hashes::of(&*disk()).md5))]);
    let spec = ImageSpec { name: "snapshot".into(), attributes, hash: SeedHash::Missing, data: disk() };
    let source = glance.seed(spec);
    let bench = Bench { glance, disk: disk(), source };
    refused(&bench, &["--delete-source"], 3, &["MD5"]);
    run(&mut command(&bench, &["--delete-source=unproven"])).ok();
    assert_eq!(names(&bench), ["compact"]);
}

#[test]
fn what_the_cloud_does_not_delete_stays_and_so_does_the_copy() {
    for (status, word) in [(409, "409"), (403, "403"), (500, "500")] {
        let (bench, folder) = (usual(), tempfile::tempdir().unwrap());
        let report = folder.path().join("r.json");
        bench.glance.faults().update(|faults| {
            faults.answers.push((Some(Route::Delete), Fault::always(Answer::status(status))));
        });
        let words = ["--delete-source", "--retries", "0", "--report", report.to_str().unwrap()];
        keeps_both(&bench, run(&mut command(&bench, &words)), &[word, "made and proven"]);
        let report: Value = serde_json::from_slice(&std::fs::read(report).unwrap()).unwrap();
        assert_eq!((&report["outcome"], &report["exit_code"]), (&json!("source_kept"), &json!(13)));
        assert_eq!(report["deleted_source"]["is_deleted"], json!(false));
    }
}

#[test]
fn a_copy_without_a_hash_keeps_the_source_and_a_wrong_one_is_taken_back() {
    let faults = |what| Faults { upload_hash: Some(Fault::always(what)), ..Faults::default() };
    let without = bench(faults(HashFault::Missing), SeedHash::Compute);
    keeps_both(&without, run(&mut command(&without, &["--delete-source"])), &["the proof is not whole"]);
    let wrong = bench(faults(HashFault::Wrong), SeedHash::Compute);
    run(&mut command(&wrong, &["--delete-source"])).refuses(9, &["sha512"]);
    assert_eq!(names(&wrong), ["snapshot"]);
}

#[test]
fn a_receipt_that_cannot_be_written_keeps_the_source() {
    let bench = usual();
    let ran = run(&mut command(&bench, &["--delete-source", "--report", "/nonexistent/r.json"]));
    ran.refuses(7, &["/nonexistent/r.json"]);
    assert_eq!(names(&bench), ["compact", "snapshot"]);
    assert!(bench.records(Route::Delete).is_empty());
}

#[test]
fn a_source_that_is_the_base_of_another_image_is_refused() {
    for key in ["base_image_ref", "image_ref"] {
        let bench = usual();
        bench.glance.seed(ImageSpec {
            name: "child".into(),
            attributes: Map::from_iter([(key.to_owned(), json!(bench.source))]),
            hash: SeedHash::Missing,
            data: Noise::full(MIB),
        });
        refused(&bench, &["--delete-source"], 3, &["base", "`child`"]);
    }
}

/// Holds a run in the middle of its upload, changes the source, and lets it go on.
fn changed_meanwhile(change: &ImageChanges, words: &[&str]) {
    let bench = bench(Faults { upload_rate: Some(2 * MIB), ..Faults::default() }, SeedHash::Compute);
    let running = start(&mut command(&bench, &["--delete-source"]));
    wait_until("an upload", || bench.records(Route::Upload).iter().any(|put| put.received_bytes > MIB));
    // The time of a record's last change is in whole seconds.
    std::thread::sleep(Duration::from_millis(1100));
    wait(bench.cloud().update_image(&bench.source, change)).unwrap();
    keeps_both(&bench, running.finish(), words);
}

#[test]
fn a_source_that_was_changed_meanwhile_is_kept() {
    changed_meanwhile(
        &ImageChanges { protected: Some(true), ..ImageChanges::default() },
        &["it is protected"],
    );
    changed_meanwhile(&ImageChanges::name("snapshot"), &["changed"]);
}

#[track_caller]
fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !is_so() {
        assert!(begin.elapsed() < Duration::from_secs(60), "never: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_signal_between_proof_and_deletion_leaves_both_and_names_them() {
    // The first look at the new image is the end of its upload; the second one is the last before the deletion.
    let busy = Fault { skip: 1, times: u32::MAX, what: Answer::status(503) };
    let faults = Faults { answers: vec![(Some(Route::Show), busy)], ..Faults::default() };
    let bench = bench(faults, SeedHash::Compute);
    let running = start(&mut command(&bench, &["--delete-source"]));
    wait_until("the last look", || bench.records(Route::Show).iter().any(|show| show.status == Some(503)));
    running.signal(Signal::INT);
    let ran = running.finish();
    let id = ran.image_id();
    ran.refuses(130, &["interrupted", &id, &bench.source]);
    assert!(bench.records(Route::Delete).is_empty());
    bench.prove(&id);
}

#[test]
fn a_run_that_goes_on_from_a_state_file_has_the_whole_proof_too() {
    let bench = bench(Faults { upload_rate: Some(3 * MIB), ..Faults::default() }, SeedHash::Compute);
    let folder = tempfile::tempdir().unwrap();
    let (state, report) = (folder.path().join("state"), folder.path().join("r.json"));
    let words = ["--delete-source", "--state", state.to_str().unwrap(), "--report", report.to_str().unwrap()];
    let running = start(&mut command(&bench, &words));
    wait_until("an upload", || bench.records(Route::Upload).iter().any(|put| put.received_bytes > MIB));
    running.signal(Signal::KILL);
    running.finish();
    bench.glance.faults().set(Faults::default());
    let ran = run(&mut command(&bench, &words)).ok();
    assert_eq!(names(&bench), ["compact"]);
    prove_equal(&*bench.disk, bench.glance.data(&ran.image_id()).unwrap()).unwrap();
    let report: Value = serde_json::from_slice(&std::fs::read(report).unwrap()).unwrap();
    assert_eq!(report["receipt"]["resumed"], json!(true));
    assert_eq!(report["receipt"]["verified_clusters"], report["receipt"]["compressed_clusters"]);
}

/// A raw image of some MiB in the lab.
fn small() -> Vec<u8> {
    let mut bytes = b"not all the same ".repeat(100_000);
    bytes.resize(3 << 20, 0);
    bytes
}

#[test]
fn in_the_lab_the_source_goes_and_its_copy_stays() {
    let Some(lab) = lab() else { return };
    let rest = Rest::new(&lab);
    let (source, target) = (Named::new(&rest, "doomed"), Named::new(&rest, "copy"));
    let id = rest.make(&source.name, &small(), json!({"visibility": "shared"}));
    let member = json!({"member": lab.text("/projects/lab-b")}).to_string();
    assert_eq!(
        rest.call(reqwest::Method::POST, &format!("images/{id}/members"), "application/json", member).0,
        200
    );
    let words = ["convert", &source.glance(), &target.glance(), "--delete-source"];
    let ran = run(&mut snapcow_in(&lab, "lab-noranges", words)).ok();
    source.assert_none();
    assert_eq!(rest.show(&ran.image_id())["status"], "active");
    assert!(ran.stderr.contains(&lab.text("/projects/lab-b")), "who loses it is named: {}", ran.stderr);
}

#[test]
fn in_the_lab_what_is_protected_foreign_or_a_base_is_refused() {
    let Some(lab) = lab() else { return };
    let rest = Rest::new(&lab);
    let (source, target) = (Named::new(&rest, "kept"), Named::new(&rest, "never"));
    let id = rest.make(&source.name, &small(), json!({"visibility": "community"}));
    let refuses = |cloud: &str, said: &[&str]| {
        let words = ["convert", &format!("glance:{id}"), &target.glance(), "--delete-source"];
        run(&mut snapcow_in(&lab, cloud, words)).refuses(3, said);
        assert_eq!(rest.show(&id)["status"], "active");
        target.assert_none();
    };
    refuses("lab-b", &["another project"]);
    let child = Named::new(&rest, "child");
    let child_id = rest.make(&child.name, b"x", json!({"base_image_ref": id, "os_hidden": true}));
    refuses("lab-noranges", &["base", &child_id]);
    rest.delete(&child_id);
    rest.patch(&id, json!([{"op": "replace", "path": "/protected", "value": true}]));
    refuses("lab-noranges", &["protected", "--unprotected"]);
}

/// By the stand-in for Nova: whoever rebuilds such a server needs the image.
#[test]
fn in_the_lab_the_image_of_a_server_is_refused() {
    let Some(lab) = lab() else { return };
    let nova = Nova::new(&lab);
    let (source, target) = (Named::new(&nova.rest, "booted"), Named::new(&nova.rest, "copied"));
    let id = nova.rest.make(&source.name, &small(), json!({}));
    let words = ["convert", &source.glance(), &target.glance(), "--delete-source"];
    {
        let server = nova.server("made-from-it", json!({"image": id}));
        run(&mut snapcow_in(&lab, "lab-noranges", words))
            .refuses(3, &["servers were made from it", &server.name]);
        assert_eq!(nova.rest.show(&id)["status"], "active");
        target.assert_none();
    }
    run(&mut snapcow_in(&lab, "lab-noranges", words)).ok();
    source.assert_none();
}
