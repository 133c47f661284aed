//! Downloads that break, are ended, and go on.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;
use snapcow::embedded::{Answer, Cut, Fault, Faults, RangeAnswer, Route, SeedHash};

use super::{Bench, MIB};
use crate::lab::command::{Running, start};

/// Slow enough to be met half-way.
fn slow() -> Faults {
    Faults { download_rate: Some(12 * MIB as u64), ..Faults::default() }
}

/// Begins a download and meets it when some of it is there.
#[track_caller]
fn half_way(bench: &Bench, words: &[&str], part: &str) -> Running {
    let running = start(&mut bench.download(words));
    let begin = Instant::now();
    let there = || bench.path(part).metadata().map_or(0, |meta| meta.len());
    while there() < 5 * MIB as u64 {
        assert!(!running.has_ended() && begin.elapsed() < Duration::from_secs(60), "never half-way");
        std::thread::sleep(Duration::from_millis(5));
    }
    running
}

fn received(json: &[u8]) -> (u64, u64) {
    let result: Value = serde_json::from_slice(json).unwrap();
    (result["resumed_bytes"].as_u64().unwrap(), result["received_bytes"].as_u64().unwrap())
}

#[test]
fn ended_at_any_moment_the_same_command_goes_on() {
    for (signal, code) in [(Signal::KILL, -1), (Signal::INT, 130), (Signal::TERM, 143)] {
        for (words, whole) in [(&["snapshot", "a"][..], false), (&["compact", "a", "--to", "raw"], true)] {
            let bench = Bench::new(true, slow(), if whole { 36 } else { 24 });
            let running = half_way(&bench, words, "a.snapcow-part");
            running.signal(signal);
            let ran = running.finish().exits(code);
            assert_eq!(bench.names(), ["a.snapcow-part", "a.snapcow-part.txt"]);
            if code > 0 {
                for word in
                    ["interrupted", "are kept in `a.snapcow-part`", "goes on from there", "--no-resume"]
                {
                    assert!(ran.stderr.contains(word), "no «{word}» in {}", ran.stderr);
                }
            }
            bench.glance.faults().set(Faults::default());
            let ran = bench.ran(&[words, &["--json"]].concat()).ok();
            let (resumed, received) = received(&ran.stdout);
            let len = if whole { bench.qcow2.len() } else { bench.disk.len() } as u64;
            assert!(
                resumed >= 4 * MIB as u64 && resumed + received == len,
                "{resumed} + {received} of {len}"
            );
            bench.is_the_disk("a");
            assert_eq!(bench.names(), ["a"]);
        }
    }
}

#[test]
fn without_ranges_an_ended_download_leaves_nothing_and_begins_anew() {
    let bench = Bench::new(false, slow(), 24);
    let running = half_way(&bench, &["snapshot", "a"], "a.snapcow-part");
    running.signal(Signal::INT);
    running.finish().refuses(130, &["interrupted"]);
    assert!(bench.names().is_empty());
    // What a killed run leaves is taken over, and of no use.
    let running = half_way(&bench, &["snapshot", "a"], "a.snapcow-part");
    running.signal(Signal::KILL);
    running.finish();
    bench.glance.faults().set(Faults::default());
    let ran = bench.ran(&["snapshot", "a", "--json"]).ok();
    assert!(ran.stderr.contains("of no use"), "{}", ran.stderr);
    assert_eq!(received(&ran.stdout), (0, bench.disk.len() as u64));
    bench.is_the_disk("a");
    assert_eq!(bench.names(), ["a"]);
}

#[test]
fn a_part_of_another_image_is_kept_until_it_is_dropped() {
    let bench = Bench::new(true, slow(), 24);
    half_way(&bench, &["snapshot", "a"], "a.snapcow-part").signal(Signal::KILL);
    bench.glance.faults().set(Faults::default());
    // The signal takes its time.
    let begin = Instant::now();
    let refused = loop {
        let ran = bench.ran(&["compact", "a"]).exits(6);
        if !ran.stderr.contains("another run") || begin.elapsed() > Duration::from_secs(20) {
            break ran;
        }
    };
    refused.refuses(6, &["is a part of something else", "--no-resume"]);
    assert_eq!(bench.names(), ["a.snapcow-part", "a.snapcow-part.txt"]);
    bench.ran(&["compact", "a", "--no-resume"]).ok();
    assert!(std::fs::read(bench.path("a")).unwrap() == bench.qcow2);
    assert_eq!(bench.names(), ["a"]);
}

#[test]
fn two_at_once_do_not_write_one_file() {
    let bench = Bench::new(true, slow(), 24);
    let running = half_way(&bench, &["snapshot", "a"], "a.snapcow-part");
    bench.ran(&["snapshot", "a"]).refuses(6, &["another run"]);
    bench.ran(&["snapshot", "a", "--no-resume"]).refuses(6, &["another run"]);
    bench.glance.faults().set(Faults::default());
    running.finish().ok();
    bench.is_the_disk("a");
}

#[test]
fn connections_that_break_go_on_within_the_run() {
    for ranges in [true, false] {
        let cut = Cut { after_bytes: 3 * MIB as u64 + 77, reset: true };
        // The first occasion is the probe, where that is served.
        let skip = u32::from(ranges);
        let faults = Faults { download_cut: Some(Fault { skip, times: 2, what: cut }), ..Faults::default() };
        let bench = Bench::new(ranges, faults, 18);
        bench.ran(&["snapshot"]).ok();
        bench.is_the_disk("snapshot.raw");
        let is_cut =
            |record: &&snapcow::embedded::Record| record.route == Route::Download && !record.finished;
        assert!(bench.glance.records().iter().filter(is_cut).count() >= 2, "nothing was cut");
        let busy = (Some(Route::Download), Fault::first(2, Answer::status(503)));
        bench.glance.faults().set(Faults { answers: vec![busy], ..Faults::default() });
        bench.ran(&["compact"]).ok();
        assert!(std::fs::read(bench.path("compact.qcow2")).unwrap() == bench.qcow2);
    }
}

#[test]
fn a_service_that_breaks_for_good_is_named_with_what_to_do() {
    let cut = Cut { after_bytes: 5 * MIB as u64, reset: true };
    let faults =
        Faults { download_cut: Some(Fault { skip: 1, times: u32::MAX, what: cut }), ..Faults::default() };
    let bench = Bench::new(true, faults, 18);
    let ran = bench.ran(&["snapshot", "--retries", "0"]);
    let ran = ran.refuses(5, &["are kept in `snapshot.raw.snapcow-part`", "the same command goes on"]);
    assert!(ran.stdout.is_empty());
    // Ever further, run by run.
    let mut runs = 1;
    while bench.ran(&["snapshot", "--retries", "0"]).code != 0 {
        runs += 1;
        assert!(runs < 10, "it does not come further");
    }
    bench.is_the_disk("snapshot.raw");
    assert_eq!(bench.names(), ["snapshot.raw"]);
}

#[test]
fn bytes_that_are_not_the_image_are_found_out_and_dropped() {
    for ranges in [true, false] {
        let flip = Faults { download_flip: Some(Fault::always(2 * MIB as u64)), ..Faults::default() };
        let bench = Bench::new(ranges, flip, 9);
        bench.ran(&["snapshot"]).refuses(8, &["sha512", "by its record"]);
        assert!(bench.names().is_empty(), "{:?}", bench.names());
        bench.ran(&["compact", "--to", "raw", "a"]).refuses(8, &["sha512"]);
        assert!(bench.names().is_empty(), "{:?}", bench.names());
        let ran = bench.ran(&["snapshot", "-"]).exits(8);
        assert_eq!(ran.stdout.len(), bench.disk.len());
    }
}

#[test]
fn a_damaged_part_is_found_out() {
    let bench = Bench::new(true, slow(), 24);
    let running = half_way(&bench, &["snapshot", "a"], "a.snapcow-part");
    running.signal(Signal::KILL);
    running.finish();
    bench.glance.faults().set(Faults::default());
    let mut part = std::fs::read(bench.path("a.snapcow-part")).unwrap();
    part[1_000_000] ^= 4;
    std::fs::write(bench.path("a.snapcow-part"), part).unwrap();
    bench.ran(&["snapshot", "a"]).refuses(8, &["sha512"]);
    assert!(bench.names().is_empty());
    bench.ran(&["snapshot", "a"]).ok();
    bench.is_the_disk("a");
}

#[test]
fn ranges_that_are_not_what_was_asked_for_are_not_relied_on() {
    for answer in [RangeAnswer::WholeBodyAs206, RangeAnswer::Whole200, RangeAnswer::Shifted] {
        let faults = Faults { range_answer: Some(Fault::always(answer)), ..Faults::default() };
        let bench = Bench::new(true, faults, 9);
        let ran = bench.ran(&["snapshot", "--json"]).ok();
        let result: Value = serde_json::from_slice(&ran.stdout).unwrap();
        assert_eq!(result["ranges"], false, "{answer:?}");
        bench.is_the_disk("snapshot.raw");
    }
}

#[test]
fn an_image_that_is_deleted_meanwhile_leaves_nothing() {
    for ranges in [true, false] {
        let cut = Cut { after_bytes: 6 * MIB as u64, reset: true };
        let skip = u32::from(ranges);
        let faults = Faults { download_cut: Some(Fault { skip, times: u32::MAX, what: cut }), ..slow() };
        let bench = Bench::new(ranges, faults, 24);
        let id = bench.seed("short-lived", "raw", &bench.disk, SeedHash::Compute);
        let running = half_way(&bench, &["short-lived", "a"], "a.snapcow-part");
        let (client, url) = (reqwest::Client::new(), format!("{}/v2/images/{id}", bench.glance.endpoint()));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let answer =
            runtime.block_on(client.delete(url).header("X-Auth-Token", bench.glance.token()).send()).unwrap();
        assert!(answer.status().is_success(), "{answer:?}");
        running.finish().refuses(3, &["was deleted while it was downloaded"]);
        assert!(bench.names().is_empty(), "{:?}", bench.names());
    }
}
