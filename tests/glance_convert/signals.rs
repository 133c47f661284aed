//! A signal at any moment leaves nothing: no image, no file, no temporary.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::lab::command::{Running, convert, convert_in, start};
use crate::lab::disk::{Noise, disk};
use crate::lab::lab;
use crate::lab::proxy::{Hold, Proxy};
use crate::lab::rest::{Named, Rest};

/// Ends a conversion in Glance by a signal while it is held at a chosen moment.
#[track_caller]
fn ends_in_good_order(hold: Hold, signal: Signal, code: i32) {
    let Some(lab) = lab() else { return };
    let rest = Rest::new(&lab);
    let target = Named::new(&rest, "signal");
    let folder = tempfile::tempdir().unwrap();
    let spool = folder.path().join("spool");
    std::fs::create_dir(&spool).unwrap();
    let report = folder.path().join("report.json");
    let proxy = Proxy::start(&lab, "noranges", hold);
    let (source, glance) = (format!("glance:{}", disk(&lab).id), target.glance());
    let spool_word = spool.to_str().unwrap();
    // A spool that needs its disk, so that there is a temporary file to be left behind.
    let words = [&source, &glance, "--spool-dir", spool_word, "--spool-disk", "4GiB", "--memory", "128MiB"];
    let mut command = convert_in(&lab, "held", words);
    command.args(["--compression", "none", "--report", report.to_str().unwrap()]);
    command.env("OS_CLIENT_CONFIG_FILE", proxy.clouds_yaml(&lab, folder.path()));
    let running = start(&mut command);
    proxy.wait_until_held(|| !running.has_ended());
    if !matches!(hold, Hold::Lookup) {
        assert_eq!(target.images().len(), 1, "the record is there before the first byte");
    }
    running.signal(signal);
    if hold == Hold::UploadAnswer {
        // All has been sent, and nothing but the signal ends the wait for the answer.
        let begin = Instant::now();
        while !running.has_ended() {
            assert!(begin.elapsed() < Duration::from_secs(20), "the signal does not end the wait");
            std::thread::sleep(Duration::from_millis(5));
        }
    } else {
        // What is held belongs to the signalled run; its connections end as a network ends them.
        std::thread::sleep(Duration::from_millis(300));
    }
    proxy.cut();
    let ran = running.finish().refuses(code, &["interrupted"]);
    assert!(ran.stdout.is_empty());
    target.assert_none();
    assert_eq!(std::fs::read_dir(&spool).unwrap().count(), 0);
    let report: serde_json::Value = serde_json::from_slice(&std::fs::read(report).unwrap()).unwrap();
    assert_eq!((&report["outcome"], &report["exit_code"]), (&"interrupted".into(), &code.into()));
}

#[test]
fn while_looking_up() {
    ends_in_good_order(Hold::Lookup, Signal::INT, 130);
}

#[test]
fn early_in_the_survey() {
    ends_in_good_order(Hold::Download(1 << 20), Signal::INT, 130);
}

#[test]
fn in_the_middle_of_the_survey() {
    ends_in_good_order(Hold::Download(1 << 30), Signal::INT, 130);
}

#[test]
fn in_the_middle_of_the_upload() {
    ends_in_good_order(Hold::Upload(40 << 20), Signal::INT, 130);
    ends_in_good_order(Hold::Upload(40 << 20), Signal::TERM, 143);
}

#[test]
fn while_glance_finishes() {
    ends_in_good_order(Hold::UploadAnswer, Signal::INT, 130);
}

/// Feeds a command some MiB and leaves its input open.
fn fed(command: &mut Command) -> (Running, std::process::ChildStdin) {
    let mut running = start(command.stdin(Stdio::piped()));
    let mut input = running.stdin();
    input.write_all(&Noise(5).bytes(20 << 20)).unwrap();
    (running, input)
}

fn is_empty(folder: &Path) -> bool {
    std::fs::read_dir(folder).unwrap().count() == 0
}

#[test]
fn while_it_waits_for_its_input() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.qcow2");
    for (target, signal, code) in [(file.to_str().unwrap(), Signal::INT, 130), ("-", Signal::TERM, 143)] {
        let (running, input) =
            fed(&mut convert(["-", target, "--spool-dir", folder.path().to_str().unwrap()]));
        running.signal(signal);
        running.finish().refuses(code, &["interrupted"]);
        drop(input);
        assert!(is_empty(folder.path()));
    }
}

#[test]
fn while_nobody_takes_its_output() {
    let folder = tempfile::tempdir().unwrap();
    let raw = folder.path().join("raw");
    std::fs::write(&raw, Noise(6).bytes(8 << 20)).unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    let mut command = convert([raw.to_str().unwrap(), "-", "--progress", "json"]);
    let running = start(command.stdout(writer));
    running.wait_for("the output", |line| line["phase"] == "sending");
    running.signal(Signal::INT);
    running.finish().exits(130);
    drop(reader);
}
