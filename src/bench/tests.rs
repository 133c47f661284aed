//! A small benchmark from end to end, and what is made of figures.

use std::path::Path;

use super::*;
use crate::encode::Compression;
use crate::error::Kind;

fn small(dir: &Path) -> Options {
    Options {
        size_bytes: 24 << 20,
        data_fraction: 0.6,
        rounds: 1,
        threads: Some(2),
        dir: Some(dir.to_owned()),
        ..Options::default()
    }
}

fn entries(dir: &Path) -> usize {
    std::fs::read_dir(dir).unwrap().count()
}

/// Figures as a benchmark might have found them, with words that have to be escaped.
fn made_up() -> Report {
    let timing =
        |seconds: f64| Timing::of(&[lap(seconds), lap(seconds * 1.1), lap(seconds * 1.5)], 1 << 30, 2);
    let stage = |stage: &str, variant: &str, seconds| StageFigure {
        all_threads: (stage == "encode").then(|| timing(seconds / 2.0)),
        output_bytes: (stage == "encode").then_some(1 << 29),
        ..StageFigure::new(stage, variant, 1 << 30, timing(seconds))
    };
    let work =
        |stage: &str, alone_seconds, cpu_seconds| Work { stage: stage.into(), alone_seconds, cpu_seconds };
    let survey = vec![work("network in sequential", 1.0, 0.9), work("hash sha512", 1.5, 1.5)];
    let delivery = vec![work("network out upload", 0.5, 2.0)];
    Report {
        schema: SCHEMA.into(),
        started_unix_seconds: 1_800_000_000,
        versions: Versions::current(),
        machine: Machine { cpu_model: "A&B <\"'fast'\">".into(), cores: 2, ..Machine::look() },
        workload: Contents { size_bytes: 1 << 30, data_bytes: 1 << 27, extents: 3, ..Contents::default() },
        stages: vec![
            stage("source", "file", 0.1),
            stage("encode", "zlib-1", 4.0),
            stage("hash", "sha512", 1.4),
        ],
        routes: vec![RouteFigure {
            route: "file → file, <none>".into(),
            taken: "spool".into(),
            timing: timing(2.4),
            bound: bound(vec![("survey", survey), ("delivery", delivery)], 2),
            achieved_share: 0.83,
            encode_share_of_bare_loop: Some(0.97),
            ..RouteFigure::default()
        }],
        ..Report::default()
    }
}

fn lap(seconds: f64) -> timing::Lap {
    timing::Lap { wall_seconds: seconds, cpu_seconds: seconds * 0.9 }
}

#[test]
fn a_small_benchmark_times_everything_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let report = run(&small(dir.path()), &Cancel::new(), &mut |_| ()).unwrap();
    assert_eq!(entries(dir.path()), 0);
    for stage in ["source", "scan", "hash", "crc", "encode", "place", "sink", "network in", "network out"] {
        assert!(report.stages.iter().any(|figure| figure.stage == stage), "{stage}");
    }
    for figure in &report.stages {
        let timing = &figure.one_thread;
        assert!(figure.bytes > 0 && timing.bytes_per_second > 1e6, "{figure:?}");
        assert_eq!((timing.wall_seconds.len(), timing.cpu_seconds.len()), (1, 1));
    }
    for name in ["zlib-1", "zlib-5", "zlib-4k-3", "zstd-2", "zstd-3", "zstd-6"] {
        let figure = report.stage("encode", name).unwrap();
        let share = figure.output_bytes.unwrap() as f64 / figure.bytes as f64;
        assert!((0.3..0.9).contains(&share), "{name}: {share}");
        assert_eq!(figure.all_threads.as_ref().unwrap().threads, 2);
    }
    let taken: Vec<_> = report.routes.iter().map(|figure| figure.taken.as_str()).collect();
    assert_eq!(taken, ["direct", "direct", "direct", "spool", "spool", "reread", "reread"]);
    for figure in &report.routes {
        assert_eq!(figure.proved, figure.compression != "zstd-2", "{}", figure.route);
        assert_eq!(figure.data_bytes, report.workload.data_cluster_bytes, "{}", figure.route);
        assert_eq!(figure.encode_share_of_bare_loop.is_some(), figure.compression != "none");
        assert!(figure.bound.bound_seconds > 0.0 && figure.achieved_share > 0.0, "{figure:?}");
        assert_eq!(figure.reencoded_bytes > 0, figure.taken == "reread", "{}", figure.route);
    }
    assert_eq!(Report::from_json(&report.to_json(), "it").unwrap(), report);
    is_one_page(&page(&report));
}

#[test]
fn a_signal_ends_it_and_leaves_nothing() {
    for moment in ["encode", "Glance →"] {
        let dir = tempfile::tempdir().unwrap();
        let cancel = Cancel::new();
        let mut say = |what: &str| {
            if what.starts_with(moment) {
                cancel.trigger(2);
            }
        };
        let error = run(&small(dir.path()), &cancel, &mut say).unwrap_err();
        assert_eq!(error.kind(), Kind::Interrupted(2), "{moment}: {error}");
        assert_eq!(entries(dir.path()), 0, "{moment}");
    }
}

#[test]
fn the_disk_follows_from_its_parameters() {
    let contents = |change: &dyn Fn(&mut Options)| {
        let dir = tempfile::tempdir().unwrap();
        let mut options =
            Options { size_bytes: 64 << 20, dir: Some(dir.path().to_owned()), ..Options::default() };
        change(&mut options);
        let workload = Workload::make(&options, &Cancel::new()).unwrap();
        let mut head = vec![0; 16 << 20];
        workload.read_at(0, &mut head).unwrap();
        (workload.contents, crc32fast::hash(&head))
    };
    let (usual, crc) = contents(&|_| ());
    assert_eq!(contents(&|_| ()), (usual, crc), "the same seed makes the same disk");
    assert_ne!(contents(&|options| options.seed = 2).1, crc);
    let (dense, _) = contents(&|options| options.data_fraction = 0.8);
    assert!(dense.data_bytes > 2 * usual.data_bytes, "{dense:?}");
    assert!(dense.data_cluster_bytes > usual.data_cluster_bytes, "{dense:?}");
    let (noisy, _) = contents(&|options| options.incompressible_fraction = 1.0);
    assert_eq!((noisy.incompressible_bytes, noisy.data_bytes), (usual.data_bytes, usual.data_bytes));
    let (short, _) = contents(&|options| options.run_length_bytes = Some(16 << 10));
    let (long, _) = contents(&|options| options.run_length_bytes = Some(512 << 10));
    assert!(short.mean_extent_bytes < 24 << 10 && long.mean_extent_bytes > 200 << 10, "{short:?} {long:?}");
    // Short extents touch more clusters for the same data.
    let waste = |contents: Contents| contents.data_cluster_bytes as f64 / contents.data_bytes as f64;
    assert!(waste(short) > 2.0 * waste(long), "{short:?} {long:?}");
}

#[test]
fn entropy_decides_what_gets_smaller() {
    let smaller_clusters = |incompressible_fraction: f64| {
        let dir = tempfile::tempdir().unwrap();
        let options = Options { incompressible_fraction, data_fraction: 1.0, ..small(dir.path()) };
        let workload = Workload::make(&options, &Cancel::new()).unwrap();
        let sample = workload.sample(4 << 20, &Cancel::new()).unwrap();
        assert!((3 << 20..=5 << 20).contains(&sample.len()), "{}", sample.len());
        let mut encoder = crate::encode::Encoder::new(Compression::Zstd(1), workload::CLUSTER_SIZE);
        let mut room = vec![0; 65_536];
        let clusters = sample.chunks(65_536);
        clusters.filter(|cluster| encoder.compress(cluster, &mut room).is_some()).count()
    };
    let counts = [0.0, 0.5, 1.0].map(smaller_clusters);
    assert!(counts[0] >= 48 && (12..48).contains(&counts[1]) && counts[2] == 0, "{counts:?}");
}

#[test]
fn the_wished_compression_takes_the_place_of_its_codec() {
    let names = |compression| {
        let options = Options { compression, ..Options::default() };
        stages::route_codecs(&options).map(stages::codec_name)
    };
    assert_eq!(names(Compression::Deflate(2)), ["none", "zlib-2", "zstd-2"]);
    assert_eq!(names(Compression::DeflateSmallWindow(4)), ["none", "zlib-4k-4", "zstd-2"]);
    assert_eq!(names(Compression::None), ["none", "zlib-1", "zstd-2"]);
}

#[test]
fn what_cannot_be_is_refused_in_one_sentence() {
    let refused = |change: &dyn Fn(&mut Options), words: &[&str]| {
        let mut options = Options::default();
        change(&mut options);
        let error = options.check().unwrap_err();
        assert_eq!(error.kind(), Kind::Usage);
        let text = error.to_string();
        assert!(words.iter().all(|word| text.contains(word)), "{text}");
    };
    refused(&|options| options.size_bytes = 4096, &["--size of 4 KiB", "8 MiB"]);
    refused(&|options| options.size_bytes = u64::MAX, &["--size", "64 TiB"]);
    refused(&|options| options.data_fraction = 0.0, &["--density 0%"]);
    refused(&|options| options.data_fraction = 1.2, &["--density 120%", "at most 100%"]);
    refused(&|options| options.data_fraction = f64::NAN, &["--density"]);
    refused(&|options| options.data_fraction = 0.001, &["of data", "larger --size"]);
    refused(&|options| options.incompressible_fraction = 1.5, &["--entropy 150%"]);
    refused(&|options| options.run_length_bytes = Some(100), &["--run-length of 100 B", "4 KiB"]);
    refused(&|options| options.run_length_bytes = Some(1 << 40), &["do not fit", "--run-length"]);
    let dense = |options: &mut Options| {
        (options.data_fraction, options.run_length_bytes) = (0.99, Some(64 << 10));
    };
    refused(&dense, &["less than a page", "94%"]);
    let all = Options { data_fraction: 1.0, run_length_bytes: Some(4096), ..Options::default() };
    all.check().unwrap();

    let dir = tempfile::tempdir().unwrap();
    let nowhere = Options { dir: Some(dir.path().join("no")), ..small(dir.path()) };
    let error = run(&nowhere, &Cancel::new(), &mut |_| ()).unwrap_err();
    assert_eq!(error.kind(), Kind::Local, "{error}");
    let huge = Options { size_bytes: 64 << 40, data_fraction: 1.0, ..small(dir.path()) };
    let error = Workload::make(&huge, &Cancel::new()).err().unwrap();
    assert!(error.kind() == Kind::Local && error.to_string().contains("are needed"), "{error}");
    assert_eq!(entries(dir.path()), 0);
}

#[test]
fn the_table_names_limit_and_shares() {
    let text = table(&made_up());
    assert!(text.contains("A&B") && text.contains("hash sha512") && text.contains("encode zlib-1"), "{text}");
    // Survey 1.5 s, limited by the hash; delivery 1.0 s, limited by both cores.
    let line = text.lines().find(|line| line.starts_with("file →")).unwrap();
    for word in ["2.640 s", "2.500 s", "83%", "97%"] {
        assert!(line.contains(word), "{word}: {line}");
    }
    assert!(line.ends_with("hash sha512"), "{line}");
}

#[test]
fn reports_are_compared_by_ratios() {
    let (old, mut new) = (made_up(), made_up());
    new.stages[1].all_threads = Some(Timing::of(&[lap(1.1)], 1 << 30, 2));
    new.routes[0].timing = Timing::of(&[lap(1.32)], 1 << 30, 2);
    new.stages.pop();
    new.machine.cores = 4;
    new.workload.data_bytes += 1;
    let text = compare(&old, &new);
    let line = |start: &str| text.lines().find(|line| line.starts_with(start)).unwrap().to_owned();
    assert!(line("encode zlib-1").ends_with("2.00"), "{text}");
    assert!(line("source file").ends_with("1.00"), "{text}");
    assert!(line("file →").ends_with("0.50"), "{text}");
    assert_eq!(line("note: cores"), "note: cores: 2 became 4");
    assert!(line("note: the disks").contains("cannot be compared"));
    assert_eq!(line("only in the old one"), "only in the old one: hash sha512");
}

#[test]
fn a_report_survives_json_and_foreign_ones_are_refused() {
    let report = made_up();
    assert_eq!(Report::from_json(&report.to_json(), "it").unwrap(), report);
    for (text, word) in [
        ("", "not JSON"),
        ("no", "not JSON"),
        ("[]", "no schema"),
        ("{\"schema\": \"snapcow/report/1\"}", "`snapcow/report/1`"),
        ("{\"schema\": \"snapcow/bench/1\"}", "missing field"),
    ] {
        let error = Report::from_json(text, "old.json").unwrap_err();
        assert_eq!(error.kind(), Kind::Usage);
        assert!(error.to_string().contains(word) && error.to_string().contains("`old.json`"), "{error}");
    }
}

#[test]
fn the_page_is_whole_escaped_and_refers_to_nothing() {
    let text = page(&made_up());
    is_one_page(&text);
    assert!(text.contains("A&amp;B &lt;&quot;&#39;fast&#39;&quot;&gt;"), "the model is not escaped");
    assert!(text.contains("file → file, &lt;none&gt;") && !text.contains("<none>"));
    assert!(text.contains("2027-01-15"));
    is_one_page(&page(&Report::default()));
}

/// Every tag is closed in order, every chart has its title and description, nothing comes from elsewhere.
#[track_caller]
fn is_one_page(text: &str) {
    for forbidden in
        ["<script", "http:", "https:", "//", "url(", "@import", "<link", "<img", "onload", "NaN", "inf"]
    {
        assert!(!text.contains(forbidden), "{forbidden}");
    }
    let mut open: Vec<&str> = Vec::new();
    let body = text.strip_prefix("<!DOCTYPE html>\n").unwrap();
    for piece in body.split('<').skip(1) {
        let (tag, rest) = piece.split_once('>').unwrap();
        assert!(!rest.contains('>') || open.last() == Some(&"style"), "a bare `>`: {piece}");
        assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name), "{piece}");
        } else if !tag.ends_with('/') {
            open.push(tag.split(' ').next().unwrap());
        }
    }
    assert!(open.is_empty(), "{open:?}");
    let count = |what: &str| text.matches(what).count();
    assert_eq!((count("<svg"), count("<svg")), (count("<desc"), count("</title>") - 1));
    let mut ids: Vec<&str> =
        text.split(" id=\"").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
    let all = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), all, "an id stands twice");
}
