//! `--trim` out of a real Glance: little is fetched where ranges can be, and the image is the same where they cannot.

use std::ops::Range;

use serde_json::{Value, json};
use snapcow::convert::{Cancel, Counters, look_for_free};
use snapcow::source::FileSource;

use crate::lab::command::{run, snapcow_in};
use crate::lab::lab;
use crate::lab::rest::{Named, Rest};
use crate::tools::ready;
use crate::whole::{Kind, Scene};

const CLUSTER: u64 = 64 << 10;
/// What lies between two stretches in use and is no longer counts as used.
const GAP: u64 = 1 << 20;

/// Bytes of clusters that hold anything in use, with the gaps between them.
fn in_use(free: &[Range<u64>], len: u64) -> u64 {
    let is_free = |at: u64| {
        let end = (at + CLUSTER).min(len);
        free.iter().any(|run| run.start <= at && end <= run.end)
    };
    let mut used: Vec<Range<u64>> = Vec::new();
    for at in (0..len).step_by(CLUSTER as usize).filter(|at| !is_free(*at)) {
        let end = (at + CLUSTER).min(len);
        match used.last_mut() {
            Some(last) if at - last.end <= GAP => last.end = end,
            _ => used.push(at..end),
        }
    }
    used.iter().map(|run| run.end - run.start).sum()
}

#[test]
fn what_is_free_is_not_fetched_and_the_image_is_the_same_without_ranges() {
    let Some(lab) = lab() else { return };
    if !ready(&["mount", "mkfs.ext4", "sfdisk"]) {
        return;
    }
    let scene = Scene::new(Kind::Ext4);
    let disk = scene.path("disk");
    let source = FileSource::open(&disk, false).unwrap();
    let findings = look_for_free(&source, 64 << 20, &Counters::default(), &Cancel::new()).unwrap();
    let len = disk.metadata().unwrap().len();
    let used = in_use(findings.free.as_slice(), len);
    assert!(used * 2 < len, "{used} of {len}: nothing to be saved");

    let rest = Rest::new(&lab);
    let raw = Named::new(&rest, "aged");
    rest.make(&raw.name, &std::fs::read(&disk).unwrap(), json!({}));
    let mut hashes = Vec::new();
    for (cloud, fetches_little) in [("lab-ranges", true), ("lab-noranges", false)] {
        let new = Named::new(&rest, "trimmed");
        let report = scene.path("report.json");
        let (from, to) = (raw.glance(), new.glance());
        let words = ["convert", "--trim", "--report", report.to_str().unwrap(), &from, &to];
        let ran = run(&mut snapcow_in(&lab, cloud, words)).ok();
        let image = rest.show(&ran.image_id());
        hashes.push(image["os_hash_value"].clone());
        let report: Value = serde_json::from_slice(&std::fs::read(&report).unwrap()).unwrap();
        assert_eq!(report["trim"]["freed_bytes"], findings.free.bytes(), "{cloud}");
        let fetched = report["stages"]["source"]["read_bytes"].as_u64().unwrap();
        eprintln!("{cloud}: {fetched} bytes fetched, {used} in use, of {len}");
        if fetches_little {
            assert!(fetched as f64 <= used as f64 * 1.1, "{fetched} bytes fetched, {used} in use");
            assert!(report["receipt"]["source_digest"].is_null());
            let verify = ["verify", "--trimmed", &from, &to];
            run(&mut snapcow_in(&lab, cloud, verify)).ok();
        } else {
            assert!(
                report["receipt"]["source_digest"]["value"].is_string(),
                "all of it came, and is compared"
            );
        }
    }
    assert_eq!(hashes[0], hashes[1]);
}

#[test]
fn what_is_trimmed_is_no_proof_of_its_source() {
    let Some(lab) = lab() else { return };
    let rest = Rest::new(&lab);
    let (raw, new) = (Named::new(&rest, "doomed"), Named::new(&rest, "trimmed"));
    let id = rest.make(&raw.name, &[7; 1 << 20], json!({}));
    let (from, to) = (raw.glance(), new.glance());
    let words = ["convert", "--trim", "--delete-source", &from, &to];
    run(&mut snapcow_in(&lab, "lab-ranges", words)).refuses(2, &["--trim", "=unproven"]);
    new.assert_none();
    let words = ["replace", "--trim", "--yes", &raw.name];
    run(&mut snapcow_in(&lab, "lab-ranges", words)).refuses(2, &["--trim"]);
    assert_eq!(rest.show(&id)["status"], "active");
    let words = ["snapshot", "--trim", "any-server"];
    run(&mut snapcow_in(&lab, "lab-ranges", words)).refuses(2, &["--trim", "--keep-raw", "--unproven"]);
    let words = ["convert", "--trim", "--delete-source=unproven", &from, &to];
    run(&mut snapcow_in(&lab, "lab-ranges", words)).ok();
    raw.assert_none();
}
