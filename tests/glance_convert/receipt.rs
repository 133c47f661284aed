//! The report against its schema, and the digest of the guest's content against its construction.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::lab::Lab;
use crate::lab::command::{convert, convert_in, run, start};
use crate::lab::disk::Noise;
use crate::lab::rest::{Named, Rest};

const SCHEMA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/cli/report-1.schema.json");

/// Reads JSON lines and says of each what is wrong with it; the schema itself is checked first.
const VALIDATOR: &str = r#"
import json, sys
import jsonschema
schema = json.load(open(sys.argv[1]))
jsonschema.Draft202012Validator.check_schema(schema)
validator = jsonschema.Draft202012Validator(schema)
for line in sys.stdin:
    errors = [f"{error.json_path}: {error.message}"[:300] for error in validator.iter_errors(json.loads(line))]
    print(json.dumps(errors))
"#;

/// What the schema says against each of the reports.
fn complaints(lab: &Lab, reports: &[Value]) -> Vec<Vec<String>> {
    let mut python = Command::new(lab.folder.join("venv/bin/python"));
    python.args(["-c", VALIDATOR, SCHEMA]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = python.spawn().unwrap();
    let lines: String = reports.iter().map(|report| format!("{report}\n")).collect();
    child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "the validator failed");
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn report_of(words: &[&str], folder: &Path, command: impl FnOnce(Vec<&str>) -> Command) -> (i32, Value) {
    let path = folder.join("report.json");
    let ran = run(&mut command([words, &["--report", path.to_str().unwrap()]].concat()));
    (ran.code, serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap())
}

/// The report of a run that is ended by a signal in the middle of its input.
fn interrupted(folder: &Path) -> (i32, Value) {
    let report = folder.join("report.json");
    let mut command = convert(["-", "-", "--report", report.to_str().unwrap()]);
    let mut running = start(command.stdin(Stdio::piped()));
    let mut input = running.stdin();
    input.write_all(&Noise(3).bytes(8 << 20)).unwrap();
    running.signal(Signal::INT);
    let ran = running.finish();
    drop(input);
    (ran.code, serde_json::from_slice(&std::fs::read(&report).unwrap()).unwrap())
}

#[test]
fn every_report_fits_the_schema() {
    let Some(lab) = crate::lab::lab() else { return };
    let scene = tempfile::tempdir().unwrap();
    let path = |name: &str| scene.path().join(name).to_str().unwrap().to_owned();
    let (raw, made) = (path("raw"), path("made"));
    std::fs::write(&raw, Noise(1).bytes(300_000)).unwrap();
    let rest = Rest::new(&lab);
    let (from, to) = (Named::new(&rest, "receipt-source"), Named::new(&rest, "receipt"));
    rest.make(&from.name, &Noise(2).bytes(3_000_000), json!({}));
    let (source, target) = (from.glance(), to.glance());
    let local = |words: &[&str]| report_of(words, scene.path(), |words| convert(words));
    let cloud =
        |words: &[&str]| report_of(words, scene.path(), |words| convert_in(&lab, "lab-noranges", words));
    let (code, from_glance) = cloud(&[&source, &target, "--compression", "zstd"]);
    assert_eq!(code, 0, "{from_glance}");
    assert!(from_glance["receipt"]["verified_clusters"].as_u64() > Some(0), "by default, where Glance is");
    let mut reports = vec![from_glance];
    let mut add = |(code, report): (i32, Value), expected| {
        assert_eq!(code, expected, "{report}");
        reports.push(report);
    };
    add(local(&[&raw, &made]), 0);
    add(local(&[&raw, &made]), 6);
    add(local(&[&raw, &made, "--force", "--guest-digest", "off", "--compression", "none"]), 0);
    add(local(&[&raw, &made, "--force", "--dry-run"]), 0);
    add(local(&["/nonexistent", &made]), 3);
    add(local(&[&raw, &made, "--compression", "none", "--level", "1"]), 2);
    add(local(&[&raw, &target]), 4);
    let stdin = |words: Vec<&str>| {
        let mut command = convert(words);
        command.stdin(File::open(&raw).unwrap());
        command
    };
    add(report_of(&["-", "-", "--cluster-size", "512", "--compat", "0.10"], scene.path(), stdin), 0);
    let nobody = |words: Vec<&str>| {
        let mut command = convert(words);
        command.env("OS_TOKEN", "t").env("OS_ENDPOINT", "http://127.0.0.1:1");
        command
    };
    add(report_of(&["glance:x", &target, "--retries", "0"], scene.path(), nobody), 5);
    add(interrupted(scene.path()), 130);
    let outcomes: Vec<_> = reports[reports.len() - 2..].iter().map(|report| &report["outcome"]).collect();
    assert_eq!(outcomes, ["network", "interrupted"]);
    assert!(reports[1]["receipt"]["verified_clusters"].is_null(), "not between files, by default");
    for (report, errors) in reports.iter().zip(complaints(&lab, &reports)) {
        assert_eq!(errors, [""; 0], "{report:#}");
    }
    the_schema_is_strict(&lab, &reports[0]);
    for library in ["libdeflater", "zlib-rs", "zstd-sys", "ruzstd", "sha2", "crc32fast"] {
        assert!(reports[0]["versions"]["libraries"][library].is_string(), "{library}");
    }
}

/// A schema that takes everything would prove nothing.
fn the_schema_is_strict(lab: &Lab, good: &Value) {
    let changes: [(&str, Value); 8] = [
        ("/schema", json!("snapcow/report/2")),
        ("/outcome", json!("network")),
        ("/exit_code", json!(1)),
        ("/receipt/guest_digest/value", json!("abc")),
        ("/receipt/image_bytes", json!(-1)),
        ("/receipt/route", json!("detour")),
        ("/source_identity/kind", json!("file")),
        ("/stages/encode/thread_seconds", json!("1")),
    ];
    let mut bad: Vec<Value> = changes
        .into_iter()
        .map(|(pointer, value)| {
            let mut report = good.clone();
            *report.pointer_mut(pointer).unwrap_or_else(|| panic!("{pointer}")) = value;
            report
        })
        .collect();
    let mut unknown = good.clone();
    unknown["receipt"]["unknown"] = json!(1);
    let mut missing = good.clone();
    missing.as_object_mut().unwrap().remove("receipt");
    bad.extend([unknown, missing]);
    for (report, errors) in bad.iter().zip(complaints(lab, &bad)) {
        assert!(!errors.is_empty(), "taken: {report:#}");
    }
}

/// By the construction in the README, in a few lines of somebody else's hashes.
const BLKSUM: &str = r#"
import hashlib, sys
outer, length = hashlib.sha256(), 0
with open(sys.argv[1], "rb") as disk:
    while block := disk.read(65536):
        outer.update(hashlib.sha256(block).digest())
        length += len(block)
outer.update(length.to_bytes(8, "little"))
print(outer.hexdigest())
"#;

#[test]
fn the_guest_digest_is_that_of_the_raw_disk_and_of_what_qemu_reads_back() {
    let scene = tempfile::tempdir().unwrap();
    let path = |name: &str| scene.path().join(name).to_str().unwrap().to_owned();
    let (raw, made, back) = (path("raw"), path("made"), path("back"));
    let mut bytes = Noise(5).bytes(200_000);
    bytes.resize(900_096, 0);
    bytes.extend(Noise(6).bytes(70_144));
    std::fs::write(&raw, &bytes).unwrap();
    let digest = |file: &str| {
        let output = Command::new("python3").args(["-c", BLKSUM, file]).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    for cluster_size in ["512", "64k", "2M"] {
        let words = [raw.as_str(), &made, "--force", "--cluster-size", cluster_size];
        let (code, report) = report_of(&words, scene.path(), |words| convert(words));
        assert_eq!((code, &report["receipt"]["guest_digest"]["length_bytes"]), (0, &json!(bytes.len())));
        assert_eq!(report["receipt"]["guest_digest"]["value"], digest(&raw), "{cluster_size}");
        let mut qemu = Command::new("qemu-img");
        assert!(qemu.args(["convert", "-O", "raw", &made, &back]).status().unwrap().success());
        assert_eq!(report["receipt"]["guest_digest"]["value"], digest(&back), "{cluster_size}");
    }
}
