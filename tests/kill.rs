//! The command, ended at any moment, against an in-process Glance: with `--state` the same command goes on and
//! comes to the right result; nothing is left but what is promised.
//!
//! SNAPCOW_KILLS: how many random moments (6). SNAPCOW_SEED: the seed of the moments.
#![cfg(all(feature = "cli", feature = "embedded"))]

#[path = "faults/bench.rs"]
#[allow(dead_code, reason = "each test program uses a part of it")]
mod bench;
#[path = "kill/early.rs"]
mod early;
#[path = "kill/moments.rs"]
mod moments;

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bench::{Bench, MIB, Noise, with};
use rustix::process::{Pid, Signal, kill_process};
use sha2::{Digest, Sha256};
use snapcow::embedded::{Answer, Fault, Faults, Route};

/// Fast enough for a run of about a second and a half, slow enough to be met anywhere in it.
const RATE: u64 = 24 * MIB;

fn bench() -> Bench {
    let disk = Noise { len: 20 * MIB + 777, extents: vec![0..9 * MIB, 13 * MIB..20 * MIB] };
    let faults = Faults { download_rate: Some(RATE), upload_rate: Some(RATE), ..Faults::default() };
    Bench::new(with(faults), Arc::new(disk))
}

/// Where a run keeps its files: the state file and, empty afterwards, the spool's folder.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("spool")).unwrap();
        Self(folder)
    }

    fn state(&self) -> std::path::PathBuf {
        self.0.path().join("state")
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = std::fs::read_dir(self.0.path())
            .unwrap()
            .chain(std::fs::read_dir(self.0.path().join("spool")).unwrap())
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

fn convert(bench: &Bench, folder: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_snapcow"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("OS_") {
            command.env_remove(name);
        }
    }
    command.env("OS_TOKEN", bench.glance.token()).env("OS_ENDPOINT", bench.glance.endpoint());
    command.args(["convert", "--threads", "2", "--spool-dir"]).arg(folder.join("spool")).args(words);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn usual(bench: &Bench, folder: &Folder) -> Command {
    let state = folder.state();
    let words = ["glance:snapshot", "glance:compact", "--state", state.to_str().unwrap()];
    convert(bench, folder.0.path(), &words)
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The run comes to its end; the ID that it tells is the image's.
#[track_caller]
fn completes(bench: &Bench, folder: &Folder) -> (String, String) {
    let output = usual(bench, folder).output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    let id = String::from_utf8(output.stdout.clone()).unwrap().trim().to_owned();
    bench.prove(&id);
    assert_eq!(folder.names(), ["spool"]);
    (id, text(&output))
}

/// The run ends with this exit code and one sentence that has these words.
#[track_caller]
fn refuses(command: &mut Command, code: i32, words: &[&str]) -> String {
    let output = command.output().unwrap();
    let said = text(&output);
    assert_eq!(output.status.code(), Some(code), "{said}");
    for word in words {
        assert!(said.contains(word), "no «{word}» in: {said}");
    }
    assert!(output.stdout.is_empty() && !said.contains("panicked"), "{said}");
    said
}

#[track_caller]
fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !is_so() {
        assert!(begin.elapsed() < Duration::from_secs(60), "never: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn is_uploading(bench: &Bench) -> bool {
    bench.records(Route::Upload).iter().any(|record| record.received_bytes > MIB)
}

/// Begins the usual run and meets it in the middle of its upload.
fn in_pass_2(bench: &Bench, folder: &Folder) -> Child {
    let child = usual(bench, folder).spawn().unwrap();
    wait_until("an upload", || is_uploading(bench));
    child
}

fn kill(mut child: Child) -> Output {
    child.kill().unwrap();
    child.wait_with_output().unwrap()
}

/// The next number of a splitmix64 sequence.
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut word = *state;
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text}")))
}

#[test]
fn killed_at_any_moment_the_same_command_comes_to_the_right_result() {
    let kills = number("SNAPCOW_KILLS").unwrap_or(6);
    let seed = number("SNAPCOW_SEED").unwrap_or_else(|| {
        std::time::SystemTime::UNIX_EPOCH.elapsed().map_or(1, |elapsed| elapsed.as_nanos() as u64)
    });
    println!("SNAPCOW_SEED={seed}");
    let mut state = seed;
    let (mut done, mut with_survey, mut compared, mut late) = (0, 0, 0, 0);
    while done < kills {
        let (bench, folder, mut is_done) = (bench(), Folder::new(), false);
        for _ in 0..1 + next(&mut state) % 2 {
            let moment = Duration::from_millis(next(&mut state) % 1900);
            let child = usual(&bench, &folder).spawn().unwrap();
            std::thread::sleep(moment);
            let output = kill(child);
            let left = folder.names();
            assert!(left.iter().all(|name| ["spool", "state", "state.new"].contains(&&**name)), "{left:?}");
            if output.status.success() || (!folder.state().exists() && !output.stdout.is_empty()) {
                // It was faster: a second run would be another one.
                late += 1;
                is_done = true;
                bench.prove(String::from_utf8(output.stdout).unwrap().trim());
                break;
            }
            done += 1;
            with_survey += u64::from(folder.state().metadata().is_ok_and(|meta| meta.len() > 1000));
        }
        if !is_done {
            let (_, said) = completes(&bench, &folder);
            compared += u64::from(said.contains("only compared"));
        }
    }
    println!(
        "{done} kills, {with_survey} of them after pass 1, {compared} after the upload; {late} came too late"
    );
}

#[test]
fn after_a_kill_the_second_pass_is_all_that_is_done() {
    let (bench, folder) = (bench(), Folder::new());
    let output = kill(in_pass_2(&bench, &folder));
    assert!(output.stdout.is_empty());
    let left: Vec<_> = bench.glance.images().iter().map(|image| image["name"].clone()).collect();
    assert_eq!(left, ["compact", "snapshot"]);
    bench.glance.clear_records();
    let (_, said) = completes(&bench, &folder);
    assert!(said.contains("pass 1 is done"), "{said}");
    assert_eq!(bench.whole_downloads().len(), 1);
    let whole = convert(&bench, folder.0.path(), &["glance:snapshot", "glance:whole"]).output().unwrap();
    let digest = |said: &str| said.lines().find(|line| line.contains("blksum")).map(str::to_owned);
    assert!(digest(&said).is_some(), "{said}");
    assert_eq!(digest(&said), digest(&text(&whole)));
}

/// The same state file as another build would have written it, in good order: the first of its texts lies behind 48
/// bytes of numbers and its own length, and the last 32 bytes are the sum of all others.
fn of_another_build(good: &[u8]) -> Vec<u8> {
    let mut bytes = good[..good.len() - 32].to_vec();
    let build = &mut bytes[52..];
    assert!(build.starts_with(b"snapcow "), "{:?}", &build[..8]);
    build[0] = b'S';
    bytes.extend(Sha256::digest(&bytes));
    bytes
}

#[test]
fn what_does_not_fit_is_refused_with_the_reason() {
    let (bench, folder) = (bench(), Folder::new());
    kill(in_pass_2(&bench, &folder));
    let state = folder.state();
    let state = state.to_str().unwrap();
    let with_words = |words: &[&str]| convert(&bench, folder.0.path(), words);
    let other: Arc<dyn snapcow::embedded::ImageData> = Noise::full(20 * MIB + 777);
    bench.glance.seed(snapcow::embedded::ImageSpec {
        name: "other".into(),
        attributes: serde_json::Map::new(),
        hash: snapcow::embedded::SeedHash::Compute,
        data: other,
    });
    let usual_words = ["glance:snapshot", "glance:compact", "--state", state];
    for (words, name) in [
        (&["glance:other", "glance:compact", "--state", state][..], "another source"),
        (&["glance:snapshot", "glance:elsewhere", "--state", state], "another target"),
        (&["glance:snapshot", "-", "--state", state], "another target"),
        (&[&usual_words[..], &["--compression", "zstd"]].concat(), "another format"),
        (&[&usual_words[..], &["--level", "6"]].concat(), "another format"),
        (&[&usual_words[..], &["--cluster-size", "4k"]].concat(), "another format"),
        (&[&usual_words[..], &["--cluster-size", "2M"]].concat(), "another format"),
        (&[&usual_words[..], &["--verify-source", "off"]].concat(), "another source"),
        (&["glance:snapshot", "/nonexistent/file", "--state", state], "file as target"),
        (&["-", "glance:compact", "--state", state], "standard input"),
    ] {
        refuses(&mut with_words(words), 2, &[name]);
    }
    // A clock, a smaller machine, more threads: nothing that shows in the image.
    let good = std::fs::read(state).unwrap();
    std::fs::write(state, of_another_build(&good)).unwrap();
    refuses(&mut with_words(&usual_words), 2, &["another build"]);
    let mut bad = good.clone();
    let middle = bad.len() / 2;
    bad[middle] ^= 4;
    std::fs::write(state, bad).unwrap();
    refuses(&mut with_words(&usual_words), 7, &["damaged", "delete it"]);
    std::fs::write(state, good).unwrap();
    let ended = with_words(&[&usual_words[..], &["--memory", "128MiB", "--retries", "2"]].concat()).output();
    assert!(ended.as_ref().unwrap().status.success(), "{}", text(&ended.unwrap()));
}

#[test]
fn after_a_failure_or_a_signal_no_image_is_left_and_the_same_command_goes_on() {
    let signals = [(Signal::INT, 130), (Signal::TERM, 143), (Signal::HUP, 129), (Signal::QUIT, 131)];
    for signal in std::iter::once(None).chain(signals.map(Some)) {
        let (bench, folder) = (bench(), Folder::new());
        match signal {
            None => {
                bench.glance.faults().update(|faults| faults.upload_cut = Some(Fault::first(2, 3 * MIB)));
                let said =
                    refuses(usual(&bench, &folder).args(["--retries", "1"]), 5, &["upload", "goes on"]);
                assert!(said.contains("broke off 2 times"), "{said}");
            }
            Some((signal, code)) => {
                let child = in_pass_2(&bench, &folder);
                kill_process(Pid::from_child(&child), signal).unwrap();
                let output = child.wait_with_output().unwrap();
                assert_eq!(output.status.code(), Some(code), "{}", text(&output));
                assert!(text(&output).contains("interrupted"), "{}", text(&output));
            }
        }
        assert_eq!(bench.glance.images().len(), 1, "the new image is deleted");
        assert_eq!(folder.names(), ["spool", "state"]);
        bench.glance.clear_records();
        completes(&bench, &folder);
        assert_eq!(bench.whole_downloads().len(), 1);
    }
}

#[test]
fn a_signal_before_pass_1_has_ended_leaves_no_state_file() {
    let (bench, folder) = (bench(), Folder::new());
    let child = usual(&bench, &folder).spawn().unwrap();
    wait_until("a download", || !bench.whole_downloads().is_empty());
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    assert_eq!(child.wait_with_output().unwrap().status.code(), Some(143));
    assert_eq!((bench.glance.images().len(), folder.names()), (1, vec!["spool".to_owned()]));
}

#[test]
fn an_image_that_was_sent_to_its_end_is_only_compared() {
    let (bench, folder) = (bench(), Folder::new());
    // Glance is busy whenever the run asks what became of its upload.
    let made = kill_after_the_upload(&bench, &folder);
    bench.glance.clear_records();
    let (id, said) = completes(&bench, &folder);
    assert_eq!(id, made);
    assert!(said.contains("only compared") && bench.records(Route::Upload).is_empty(), "{said}");
}

/// Ends a run when Glance has taken all of its upload; the image's ID.
fn kill_after_the_upload(bench: &Bench, folder: &Folder) -> String {
    let busy = Fault { skip: 0, times: u32::MAX, what: Answer::status(503) };
    let child = in_pass_2(bench, folder);
    bench.glance.faults().update(|faults| faults.answers.push((Some(Route::Show), busy)));
    wait_until("a whole upload", || bench.records(Route::Upload).iter().any(|put| put.status == Some(204)));
    kill(child);
    bench.glance.faults().set(Faults { download_rate: Some(RATE), ..Faults::default() });
    bench.glance.images()[0]["id"].as_str().unwrap().to_owned()
}

#[test]
fn an_image_that_an_earlier_run_sent_whole_survives_the_failure_of_the_next() {
    let (bench, folder) = (bench(), Folder::new());
    let made = kill_after_the_upload(&bench, &folder);
    bench.glance.clear_records();
    let child = usual(&bench, &folder).spawn().unwrap();
    wait_until("a download", || !bench.whole_downloads().is_empty());
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(143), "{}", text(&output));
    assert!(text(&output).contains(&made), "{}", text(&output));
    assert_eq!(bench.glance.images()[0]["status"], "active", "somebody may use it");
    assert_eq!(folder.names(), ["spool", "state"]);
    let dry = usual(&bench, &folder).arg("--dry-run").output().unwrap();
    assert!(dry.status.success() && text(&dry).contains("pass 1 is done"), "{}", text(&dry));
    assert_eq!(folder.names(), ["spool", "state"]);
    assert_eq!(completes(&bench, &folder).0, made);
}

#[test]
fn an_image_that_no_earlier_run_made_is_not_touched() {
    let (bench, folder) = (bench(), Folder::new());
    kill(in_pass_2(&bench, &folder));
    let source =
        bench.glance.images().iter().find(|image| image["name"] == "snapshot").unwrap()["id"].clone();
    let other = bench.glance.seed(snapcow::embedded::ImageSpec {
        name: "other".into(),
        attributes: serde_json::Map::new(),
        hash: snapcow::embedded::SeedHash::Compute,
        data: Noise::full(MIB),
    });
    let saved = snapcow::state::read(&mut std::fs::File::open(folder.state()).unwrap(), u64::MAX).unwrap();
    for id in [source.as_str().unwrap(), &other] {
        let mut file = std::fs::File::create(folder.state()).unwrap();
        let found = saved.survey.as_ref().map(snapcow::state::Survey::found);
        snapcow::state::write(&saved.key, Some(id), found, &mut file).unwrap();
        refuses(&mut usual(&bench, &folder), 6, &[id, "not the one that this command makes"]);
    }
    let left = bench.glance.images();
    assert!(
        ["snapshot", "other", "compact"].iter().all(|name| left.iter().any(|image| image["name"] == *name))
    );
}

#[test]
fn a_source_that_changed_since_then_is_refused_and_the_state_file_goes() {
    let (bench, folder) = (bench(), Folder::new());
    kill(in_pass_2(&bench, &folder));
    bench.glance.faults().update(|faults| faults.download_flip = Some(Fault::always(MIB)));
    refuses(&mut usual(&bench, &folder), 8, &["changed between the passes"]);
    assert_eq!((bench.glance.images().len(), folder.names()), (1, vec!["spool".to_owned()]));
}

#[test]
fn two_runs_do_not_get_into_each_others_way() {
    let (bench, folder, other) = (bench(), Folder::new(), Folder::new());
    let first = usual(&bench, &folder).spawn().unwrap();
    wait_until("a download", || !bench.whole_downloads().is_empty());
    // The same state file; then the same name alone.
    refuses(&mut usual(&bench, &folder), 7, &["in use by another run"]);
    refuses(&mut usual(&bench, &other), 6, &["an image of that name"]);
    assert_eq!(other.names(), ["spool"]);
    let output = first.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    bench.prove(String::from_utf8(output.stdout).unwrap().trim());
}
