//! The command as a person meets it: on a wide and a narrow terminal, on none, with a reader that went away.

mod defaults;
mod papers;
mod pty;

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use crate::lab::disk::Noise;
use pty::{Pty, drawn, without_colours};
use serde_json::Value;

const MIB: usize = 1 << 20;

/// The command, with nothing of the person who runs the tests.
fn snapcow<S: AsRef<std::ffi::OsStr>>(words: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_snapcow"));
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        if name.starts_with("OS_") || name.starts_with("SNAPCOW_") || name.starts_with("LC_") {
            command.env_remove(name);
        }
    }
    command.env("OS_CLIENT_CONFIG_FILE", "/nonexistent/clouds.yaml").env("XDG_CONFIG_HOME", "/nonexistent");
    command.env("TERM", "xterm-256color").env("LANG", "C.UTF-8").env_remove("NO_COLOR").env_remove("COLUMNS");
    command.args(words).stdin(Stdio::null());
    command
}

fn run(command: &mut Command) -> Output {
    command.output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// Half noise, half zeros.
fn disk(folder: &Path, mib: usize) -> PathBuf {
    let path = folder.join("disk.raw");
    let mut bytes = Noise(1).bytes((mib * MIB / 2) as u64);
    bytes.resize(mib * MIB, 0);
    std::fs::write(&path, bytes).unwrap();
    path
}

/// Converts to standard output, which somebody takes slowly, on a terminal; what the terminal got.
fn on_a_terminal(columns: u16, change: impl FnOnce(&mut Command), meanwhile: impl FnOnce(&Pty)) -> String {
    let folder = tempfile::tempdir().unwrap();
    let pty = Pty::new(columns);
    let mut command = snapcow(["convert", disk(folder.path(), 32).to_str().unwrap(), "-"]);
    change(&mut command);
    let mut child = command.stderr(pty.terminal()).stdout(Stdio::piped()).spawn().unwrap();
    drop(command);
    let reader = pty.reader();
    let mut image = child.stdout.take().unwrap();
    let mut part = vec![0; MIB];
    let mut take = |parts: usize| {
        for _ in 0..parts {
            std::thread::sleep(Duration::from_millis(60));
            if image.read(&mut part).unwrap() == 0 {
                break;
            }
        }
    };
    // A pipe gives 64 KiB at a time.
    take(20);
    meanwhile(&pty);
    take(20);
    std::io::copy(&mut image, &mut std::io::sink()).unwrap();
    assert!(child.wait().unwrap().success());
    drop(pty);
    String::from_utf8(reader.join().unwrap()).unwrap()
}

/// The words with which lines begin, without repetitions.
fn order(lines: &[String]) -> Vec<String> {
    let mut words: Vec<String> =
        lines.iter().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect();
    words.dedup();
    words
}

#[test]
fn no_line_is_wider_than_the_terminal_and_the_stages_come_in_order() {
    for columns in [80, 40, 25] {
        let lines = drawn(&on_a_terminal(columns, |_| (), |_| ()));
        let stages: Vec<&String> =
            lines.iter().filter(|line| !line.starts_with("snapcow: ") && !line.is_empty()).collect();
        for line in &stages {
            assert!(line.chars().count() < usize::from(columns), "{columns} columns: {line}");
        }
        let order = order(&stages.into_iter().cloned().collect::<Vec<_>>());
        let order: Vec<&str> = order.iter().map(String::as_str).filter(|word| *word != "preparing").collect();
        assert_eq!(order, ["reading", "sending"], "{lines:#?}");
        assert!(lines.iter().any(|line| line.starts_with("sending") && line.contains(" %")), "{lines:#?}");
        // A stage that is done stays, with what it came to.
        let kept =
            lines.iter().filter(|line| line.starts_with("reading") && line.contains("32 MiB  ")).count();
        assert!(kept >= 1, "{lines:#?}");
    }
}

#[test]
fn a_terminal_that_becomes_narrower_gets_narrower_lines() {
    let text = on_a_terminal(80, |_| (), |pty| pty.resize(30));
    let lines = drawn(&text);
    let wide = lines.iter().rposition(|line| line.starts_with("sending") && line.chars().count() >= 30);
    let last = lines.iter().rposition(|line| line.starts_with("sending") && line.contains(" %")).unwrap();
    assert!(wide.is_none_or(|wide| wide < last), "{lines:#?}");
    // What the terminal broke into several lines was taken away whole.
    assert!(text.contains("\r\x1b[1A\x1b[J") || text.contains("\r\x1b[2A\x1b[J"), "{text:?}");
}

#[test]
fn colours_and_marks_are_left_out_where_they_are_not_wanted() {
    let plain = on_a_terminal(80, |command| _ = command.env("NO_COLOR", "1"), |_| ());
    assert!(!plain.contains("\x1b[1;") && plain.contains("\r\x1b[J"), "{plain:?}");
    assert!(
        on_a_terminal(80, |command| _ = command.env("NO_COLOR", ""), |_| ()).contains("\x1b[1;36mreading")
    );
    let ascii = on_a_terminal(80, |command| _ = command.env("LANG", "C"), |_| ());
    let bars = drawn(&ascii).into_iter().filter(|line| line.starts_with("sending"));
    assert!(bars.clone().count() > 1 && bars.into_iter().all(|line| line.is_ascii()), "{ascii:?}");
    let dumb = on_a_terminal(80, |command| _ = command.env("TERM", "dumb"), |_| ());
    assert!(!dumb.contains('\x1b'), "{dumb:?}");
}

#[test]
fn without_a_terminal_lines_are_plain_and_few() {
    let folder = tempfile::tempdir().unwrap();
    let raw = disk(folder.path(), 8);
    let convert = |extra: &[&str]| {
        let words = [&["convert", raw.to_str().unwrap(), "-"], extra].concat();
        said(&run(snapcow(words).stdout(Stdio::null())))
    };
    let auto = convert(&[]);
    assert!(!auto.contains("reading") && !auto.contains('\x1b'), "{auto:?}");
    for mode in ["plain", "bar"] {
        let plain = convert(&["--progress", mode]);
        let lines: Vec<&str> = plain.lines().filter(|line| line.contains(" done: ")).collect();
        assert_eq!(lines.len(), 2, "{plain}");
        assert!(lines[0].starts_with("snapcow: reading done: 8 MiB, "), "{plain}");
        assert!(lines[1].starts_with("snapcow: sending done: "), "{plain}");
        assert!(!plain.contains('\x1b'), "{plain:?}");
    }
    assert_eq!(convert(&["-q"]), "");
    assert_eq!(convert(&["-q", "--progress", "none"]), "");
}

#[test]
fn events_follow_their_schema() {
    let Some(lab) = crate::lab::lab() else { return };
    let folder = tempfile::tempdir().unwrap();
    let raw = disk(folder.path(), 8);
    let good =
        run(snapcow(["convert", raw.to_str().unwrap(), "-", "--progress", "json"]).stdout(Stdio::null()));
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let bad = run(snapcow(["convert", raw.to_str().unwrap(), "-", "--progress", "json"]).stdout(full));
    assert_eq!((good.status.code(), bad.status.code()), (Some(0), Some(7)));
    let (mut lines, mut ends) = (Vec::new(), Vec::new());
    for output in [&good, &bad] {
        let events: Vec<Value> = said(output)
            .lines()
            .filter(|line| line.starts_with('{'))
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let stages: Vec<&str> = events
            .iter()
            .filter(|event| event["event"] == "stage")
            .map(|event| event["phase"].as_str().unwrap())
            .filter(|phase| *phase != "preparing")
            .collect();
        assert!(["reading", "sending"].starts_with(&stages) || stages == ["sending"], "{stages:?}");
        let end = events.last().unwrap();
        assert_eq!(end["event"], "done");
        ends.push(end["outcome"].clone());
        lines.extend(events);
    }
    assert_eq!(ends, ["ok", "failed"]);
    // The schema can be broken, and is noticed.
    let mut broken = lines[0].clone();
    broken["left_seconds"] = "soon".into();
    lines.push(broken);
    let schema = concat!(env!("CARGO_MANIFEST_DIR"), "/src/cli/progress-1.schema.json");
    let script = "import json, sys, jsonschema\nschema = json.load(open(sys.argv[1]))\n\
                  jsonschema.Draft202012Validator.check_schema(schema)\n\
                  validator = jsonschema.Draft202012Validator(schema)\n\
                  for line in sys.stdin: print(len(list(validator.iter_errors(json.loads(line)))))";
    let mut python = Command::new(lab.folder.join("venv/bin/python"))
        .args(["-c", script, schema])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    python.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = python.wait_with_output().unwrap();
    let counts = String::from_utf8(output.stdout).unwrap();
    let counts: Vec<&str> = counts.lines().collect();
    assert_eq!(counts.len(), lines.len());
    let (broken, sound) = counts.split_last().unwrap();
    assert!(*broken == "1" && sound.iter().all(|count| *count == "0"), "{counts:?}");
}

#[test]
fn an_error_is_wrapped_on_a_terminal_and_one_line_elsewhere() {
    let missing = "/nonexistent/folder/with/a/rather/long/name/disk.raw";
    let words = ["convert", missing, "x.qcow2"];
    let output = run(&mut snapcow(words));
    assert_eq!(output.status.code(), Some(3));
    let text = said(&output);
    assert!(text.starts_with("snapcow: source: open `") && text.lines().count() == 1, "{text}");
    let pty = Pty::new(60);
    let mut command = snapcow(words);
    let mut child = command.stderr(pty.terminal()).spawn().unwrap();
    drop(command);
    let reader = pty.reader();
    assert_eq!(child.wait().unwrap().code(), Some(3));
    drop(pty);
    let text = String::from_utf8(reader.join().unwrap()).unwrap();
    assert!(text.starts_with("\x1b[1;31merror: \x1b[0m"), "{text:?}");
    let text = without_colours(&text).replace('\r', "");
    assert!(text.lines().any(|line| line.starts_with(" next: there is no folder")), "{text}");
    // The name alone is longer than a line; nothing else is.
    assert!(text.lines().filter(|line| line.len() >= 60).all(|line| line.contains("/nonexistent")), "{text}");
}

#[test]
fn whoever_stops_reading_hears_no_complaint() {
    let folder = tempfile::tempdir().unwrap();
    let (raw, image) = (disk(folder.path(), 2), folder.path().join("disk.qcow2"));
    let (raw, image) = (raw.to_str().unwrap(), image.to_str().unwrap());
    assert!(run(&mut snapcow(["convert", "-q", raw, image])).status.success());
    let cases: [&[&str]; 9] = [
        &["--help"],
        &["-h"],
        &["--version"],
        &["convert", "--help"],
        &["completions", "bash"],
        &["man"],
        &["check", "--json", image],
        &["verify", raw, image],
        &["convert", "--dry-run", raw, "y.qcow2"],
    ];
    for words in cases {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = run(snapcow(words).stdout(writer));
        assert_eq!((output.status.code(), said(&output).as_str()), (Some(141), ""), "{words:?}");
    }
}

#[test]
fn near_misses_are_proposed() {
    let folder = tempfile::tempdir().unwrap();
    disk(folder.path(), 2);
    let told = |words: &[&str], code: i32| {
        let output = run(snapcow(words).current_dir(folder.path()));
        assert_eq!(output.status.code(), Some(code), "{words:?}: {}", said(&output));
        said(&output)
    };
    for command in
        [&["convert", "dsik.raw", "x"][..], &["check", "dsik.raw"], &["verify", "dsik.raw", "disk.raw"]]
    {
        assert!(told(command, 3).contains("did you mean `disk.raw`? for an image write glance:dsik.raw"));
    }
    assert!(told(&["convert", "glanse:web", "x"], 3).contains("did you mean glance:web?"));
    assert!(told(&["convrt"], 2).contains("'convert'"));
    assert!(told(&["convert", "a", "b", "--memroy", "1"], 2).contains("'--memory'"));
}
