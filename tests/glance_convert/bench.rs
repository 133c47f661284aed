//! `snapcow bench` from outside: its files, its words, and that it leaves nothing. Needs no lab.

use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::Signal;
use serde_json::Value;

use crate::lab::command::{run, start};

fn bench(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_snapcow"));
    command.arg("bench").args(words).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn word(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn a_small_run_writes_all_it_promises_and_can_be_compared() {
    let (files, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (json, html) = (out.path().join("a.json"), out.path().join("a.html"));
    let words = ["--size=16MiB", "--density=50", "--rounds=1", "--dir", word(files.path())];
    let more = ["--json", word(&json), "--html", word(&html), "--compression=zstd", "--level=2"];
    let ran = run(&mut bench(&[words.as_slice(), &more].concat())).ok();
    assert_eq!(std::fs::read_dir(files.path()).unwrap().count(), 0);
    let table = String::from_utf8(ran.stdout).unwrap();
    for part in ["stage alone", "encode zstd-2", "limit", "Glance → Glance, reread"] {
        assert!(table.contains(part), "{part}: {table}");
    }
    assert!(ran.stderr.contains("snapcow bench: hash"), "{}", ran.stderr);
    let report: Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    assert_eq!((&report["schema"], &report["parameters"]["rounds"]), (&"snapcow/bench/1".into(), &1.into()));
    assert_eq!(report["parameters"]["size_bytes"], 16 << 20);
    assert!(std::fs::read_to_string(&html).unwrap().ends_with("</html>\n"));

    let ran = run(&mut bench(&["--compare", word(&json), word(&json)])).ok();
    let table = String::from_utf8(ran.stdout).unwrap();
    let ratios: Vec<_> = table.lines().filter(|line| line.contains("/s") || line.contains("→")).collect();
    assert!(ratios.len() > 15 && ratios.iter().all(|line| line.ends_with(" 1.00")), "{table}");

    let foreign = out.path().join("foreign");
    std::fs::write(&foreign, "{\"schema\": \"other\"}").unwrap();
    run(&mut bench(&["--compare", word(&json), word(&foreign)])).refuses(2, &["foreign", "`other`"]);
    run(&mut bench(&["--compare", "/nonexistent/a", word(&json)])).refuses(7, &["/nonexistent/a"]);
}

#[test]
fn what_cannot_be_is_refused_before_anything_is_made() {
    let files = tempfile::tempdir().unwrap();
    let dir = ["--dir", word(files.path())];
    let refuses = |words: &[&str], code, expected: &[&str]| {
        run(&mut bench(&[words, dir.as_slice()].concat())).refuses(code, expected);
        assert_eq!(std::fs::read_dir(files.path()).unwrap().count(), 0);
    };
    refuses(&["--density", "0"], 2, &["--density 0%"]);
    refuses(&["--entropy", "2"], 2, &["--entropy 200%"]);
    refuses(&["--run-length", "1k"], 2, &["--run-length"]);
    refuses(&["--compression", "none", "--level", "1"], 2, &["--level"]);
    refuses(&["--level", "99"], 2, &["99"]);
    refuses(&["--size", "64T", "--density", "100"], 7, &["needed", "--size"]);
    refuses(&["--json", "/nonexistent/a"], 7, &["/nonexistent/a"]);
    run(&mut bench(&["--dir", "/nonexistent"])).refuses(7, &["/nonexistent", "--dir"]);
}

#[test]
fn a_signal_leaves_nothing() {
    let files = tempfile::tempdir().unwrap();
    let running = start(&mut bench(&["--rounds=100", "--dir", word(files.path())]));
    // Its folder is there from the beginning to the end.
    while std::fs::read_dir(files.path()).unwrap().count() == 0 {
        assert!(!running.has_ended());
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    std::thread::sleep(std::time::Duration::from_millis(700));
    running.signal(Signal::INT);
    running.finish().refuses(130, &["interrupted"]);
    assert_eq!(std::fs::read_dir(files.path()).unwrap().count(), 0);
}
