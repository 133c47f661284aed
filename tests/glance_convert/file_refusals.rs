//! Files and streams that are refused, limits that are reached, and what is left behind: nothing.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::lab::command::{convert, run, start};
use crate::lab::disk::Noise;
use crate::proof::{check, equal};

struct Scene(tempfile::TempDir);

impl Scene {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn word(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    fn file(&self, name: &str, bytes: &[u8]) -> String {
        std::fs::write(self.path(name), bytes).unwrap();
        self.word(name)
    }

    /// Exactly these files are here.
    #[track_caller]
    fn has(&self, names: &[&str]) {
        let mut found: Vec<_> = std::fs::read_dir(self.0.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        found.sort();
        assert_eq!(found, names);
    }
}

#[test]
fn awkward_lengths_are_disks() {
    let scene = Scene::new();
    let mut noise = Noise(3);
    for len in [0, 1, 511, 512, 513, 65_535, 65_537, (2 << 20) + 1] {
        let raw = scene.file("raw", &noise.bytes(len));
        let one = scene.word("one");
        run(&mut convert([&raw, &one, "--force"])).ok();
        // QEMU rounds a raw file up to 512 by itself.
        equal(Path::new(&one), Path::new(&raw));
        let two = scene.word("two");
        run(convert(["-", &two, "--force"]).stdin(File::open(&raw).unwrap())).ok();
        assert!(std::fs::read(&one).unwrap() == std::fs::read(&two).unwrap(), "{len}");
        let three = File::create(scene.path("three")).unwrap();
        run(convert([&raw, "-"]).stdout(three)).ok();
        equal(&scene.path("three"), Path::new(&raw));
    }
}

#[test]
fn words_that_mean_nothing_are_refused() {
    let scene = Scene::new();
    let raw = scene.file("raw", &[1; 4096]);
    let target = scene.word("t");
    let refuses = |words: &[&str], code, expected: &[&str]| {
        run(&mut convert([&[raw.as_str(), &target], words].concat())).refuses(code, expected);
    };
    refuses(&["--level", "13"], 2, &["--level 13", "fast, default, small, 1 to 12"]);
    refuses(&["--level", "0"], 2, &["1 to 12"]);
    refuses(&["--level", "-1", "--compression", "zstd"], 2, &["--level -1", "1 to 19"]);
    refuses(&["--level", "12", "--deflate-window", "4k"], 2, &["1 to 9"]);
    refuses(&["--level", "small", "--compression", "none"], 2, &["--level"]);
    refuses(&["--compression", "none", "--level", "1"], 2, &["--level"]);
    refuses(&["--compression", "zstd", "--compat", "0.10"], 2, &["zlib"]);
    refuses(&["--deflate-window", "4k", "--compression", "zstd"], 2, &["zlib"]);
    refuses(&["--memory", "1MiB"], 2, &["--memory"]);
    run(&mut convert([raw.as_str(), "glance:"])).refuses(2, &["glance:NAME"]);
    for words in [
        ["--cluster-size", "3k"],
        ["--no-such", "1"],
        ["--spool-disk", "many"],
        ["--threads", "0"],
        ["--level", "best"],
    ] {
        let ran = run(&mut convert([&[raw.as_str(), &target], words.as_slice()].concat())).exits(2);
        assert!(ran.stdout.is_empty() && ran.stderr.contains("error:"), "{}", ran.stderr);
    }
    scene.has(&["raw"]);
}

#[test]
fn sources_that_are_no_disk_are_refused() {
    let scene = Scene::new();
    let target = scene.word("t");
    run(&mut convert(["mySnapshot", &target])).refuses(3, &["no such file", "glance:mySnapshot"]);
    run(&mut convert([&scene.word("nothing"), &target])).refuses(3, &["no such file"]);
    run(&mut convert([scene.0.path().to_str().unwrap(), &target])).refuses(3, &["neither a regular file"]);
    run(&mut convert(["/dev/null", &target])).refuses(3, &["neither a regular file"]);
    let raw = scene.file("raw", &Noise(4).bytes(300_000));
    let inner = scene.word("inner");
    run(&mut convert([&raw, &inner])).ok();
    run(&mut convert([&inner, &target])).refuses(3, &["qcow2", "--source-format raw"]);
    run(convert(["-", &target]).stdin(File::open(&inner).unwrap()))
        .refuses(3, &["qcow2", "--source-format raw"]);
    scene.has(&["inner", "raw"]);
    run(&mut convert([&inner, &target, "-f", "raw"])).ok();
    equal(Path::new(&target), Path::new(&inner));
}

#[test]
fn a_file_may_be_called_like_an_image() {
    let scene = Scene::new();
    scene.file("glance:x", &[3; 70_000]);
    run(convert(["./glance:x", "./glance:y"]).current_dir(scene.0.path())).ok();
    equal(&scene.path("glance:y"), &scene.path("glance:x"));
}

#[test]
fn targets_that_are_no_free_name_are_refused() {
    let scene = Scene::new();
    let raw = scene.file("raw", &Noise(7).bytes(300_000));
    let old = scene.file("old", b"old");
    std::fs::hard_link(&raw, scene.path("same")).unwrap();
    std::os::unix::fs::symlink("nowhere", scene.path("link")).unwrap();
    run(&mut convert([&raw, &old])).refuses(6, &["exists already", "--force"]);
    run(&mut convert([&raw, &old, "--dry-run"])).refuses(6, &["exists already", "--force"]);
    run(&mut convert([&raw, &raw, "--force"])).refuses(2, &["both source and target"]);
    run(&mut convert([&raw, &scene.word("same"), "--force"])).refuses(2, &["both source and target"]);
    run(&mut convert([raw.as_str(), scene.0.path().to_str().unwrap(), "--force"]))
        .refuses(6, &["not a regular file"]);
    run(&mut convert([&raw, "/dev/null", "--force"])).refuses(6, &["not a regular file"]);
    run(&mut convert([&raw, &scene.word("link")])).refuses(6, &["symbolic link"]);
    run(&mut convert([&raw, &scene.word("no/folder")])).refuses(7, &["No such file"]);
    let ran = run(convert(["-", &old, "--force"]).stdin(File::open(scene.0.path()).unwrap()));
    ran.refuses(3, &["standard input"]);
    assert_eq!(std::fs::read(&old).unwrap(), b"old");
    scene.has(&["link", "old", "raw", "same"]);
    run(&mut convert([&raw, &old, "--force"])).ok();
    equal(Path::new(&old), Path::new(&raw));
}

#[test]
fn a_dry_run_prints_a_plan_and_makes_nothing() {
    let scene = Scene::new();
    let raw = scene.file("raw", &[1; 4096]);
    let ran = run(&mut convert([&raw, &scene.word("t"), "--dry-run"])).ok();
    assert!(String::from_utf8(ran.stdout).unwrap().contains("direct"));
    scene.has(&["raw"]);
}

#[test]
fn a_source_that_is_written_to_is_noticed() {
    for truncate in [true, false] {
        let scene = Scene::new();
        let raw = scene.file("raw", &Noise(8).bytes(1 << 20));
        let file = File::options().write(true).open(&raw).unwrap();
        file.set_len(3 << 40).unwrap();
        // Random bytes at the highest level keep it busy for long enough behind the first line.
        std::os::unix::fs::FileExt::write_all_at(&file, &Noise(9).bytes(48 << 20), 1 << 30).unwrap();
        let words = [
            "--compression",
            "zstd",
            "--level",
            "19",
            "--threads",
            "1",
            "--progress",
            "json",
            "--cluster-size",
            "2M",
        ];
        let running = start(convert([&raw, &scene.word("t")]).args(words));
        running.wait_for("its source", |line| line["phase"] != "preparing");
        file.set_len(if truncate { 1000 } else { (3 << 40) + 4096 }).unwrap();
        running.finish().exits(8);
        scene.has(&["raw"]);
    }
}

#[test]
fn a_disk_of_a_running_qemu_is_refused() {
    let scene = Scene::new();
    let raw = scene.file("raw", &[1; 1 << 20]);
    // Standard input stays open, so it goes on holding the file.
    let mut qemu = Command::new("qemu-io")
        .args(["-f", "raw", &raw])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("qemu-io, of Debian's qemu-utils");
    // Its prompt comes when the file is open.
    qemu.stdout.as_mut().unwrap().read_exact(&mut [0; 1]).unwrap();
    run(&mut convert([&raw, &scene.word("t")])).refuses(3, &["in use by a running QEMU"]);
    drop(qemu.stdin.take());
    qemu.wait().unwrap();
    run(&mut convert([&raw, &scene.word("t")])).ok();
    check(&scene.path("t"));
}

#[test]
fn whoever_stops_reading_hears_no_complaint() {
    let scene = Scene::new();
    let raw = scene.file("raw", &Noise(10).bytes(8 << 20));
    let (mut reader, writer) = std::io::pipe().unwrap();
    let running = start(convert([&raw, "-", "-q"]).stdout(writer));
    reader.read_exact(&mut [0; 1000]).unwrap();
    drop(reader);
    let ran = running.finish().exits(141);
    assert_eq!(ran.stderr, "");
}

#[test]
fn a_reader_that_is_gone_before_the_plan_hears_no_complaint() {
    let scene = Scene::new();
    let raw = scene.file("raw", &[1; 4096]);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let ran = run(convert([&raw, &scene.word("t"), "--dry-run"]).stdout(writer)).exits(141);
    assert_eq!(ran.stderr, "");
}

#[test]
fn a_report_that_cannot_be_written_does_not_hide_the_failure() {
    let scene = Scene::new();
    let ran = run(&mut convert([&scene.word("nothing"), "-", "--report", &scene.word("no/report")])).exits(3);
    assert!(ran.stderr.contains("no such file") && ran.stderr.contains("report"), "{}", ran.stderr);
}
