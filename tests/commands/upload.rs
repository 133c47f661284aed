//! `snapcow upload`: files of every kind into the lab's Glance; and one that refuses, or is interrupted, in the process.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::bench::{MIB, with};
use crate::lab::command::{run, snapcow, snapcow_in, start};
use crate::lab::disk::Noise;
use crate::lab::lab;
use crate::lab::rest::{Named, Rest};
use rustix::process::Signal;
use serde_json::json;
use snapcow::embedded::{EmbeddedGlance, Fault, Faults, Refusal, Route};

/// Files of one disk of 3 MiB, in a folder of their own.
struct Files {
    folder: tempfile::TempDir,
}

impl Files {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut bytes = b"not all the same ".repeat(60_000);
        bytes.resize(2 << 20, 0);
        bytes.extend(Noise(3).bytes(1 << 20));
        std::fs::write(folder.path().join("disk.raw"), bytes).unwrap();
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn word(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    /// The disk as `qemu-img` writes it.
    fn made(&self, name: &str, format: &str, more: &[&str]) -> String {
        let (raw, made) = (self.word("disk.raw"), self.word(name));
        qemu_img(&[&["convert", "-f", "raw", "-O", format], more, &[&*raw, &*made]].concat());
        made
    }

    fn wrote(&self, name: &str, bytes: &[u8]) -> String {
        std::fs::write(self.path(name), bytes).unwrap();
        self.word(name)
    }
}

fn qemu_img(words: &[&str]) {
    let output = Command::new("qemu-img").args(words).output().expect("qemu-img, of Debian's qemu-utils");
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// An image in Glance holds the disk.
#[track_caller]
fn holds(rest: &Rest, id: &str, files: &Files) {
    let file = files.path("downloaded");
    rest.download(id, &file);
    let format = rest.show(id)["disk_format"].as_str().unwrap().to_owned();
    qemu_img(&["compare", "-f", "raw", "-F", &format, &files.word("disk.raw"), file.to_str().unwrap()]);
}

fn upload_in(lab: &crate::lab::Lab, words: &[&str]) -> Command {
    snapcow_in(lab, "lab-noranges", [&["upload"], words].concat())
}

#[test]
fn a_raw_disk_is_compacted_on_the_way_or_goes_as_it_is() {
    let Some(lab) = lab() else { return };
    let (rest, files) = (Rest::new(&lab), Files::new());
    let raw = files.word("disk.raw");
    for (more, format) in [(&[][..], "qcow2"), (&["--as-is"], "raw"), (&["--no-compact", "-f", "raw"], "raw")]
    {
        let image = Named::new(&rest, "upload");
        let attributes =
            ["--property", "os_distro=debian", "--tag", "t", "--min-ram", "96", "--visibility", "shared"];
        let ran = run(&mut upload_in(&lab, &[&[&*raw, &*image.name], more, &attributes].concat())).ok();
        assert!(ran.stderr.contains("target verified"), "{}", ran.stderr);
        let made = rest.show(&ran.image_id());
        for (key, value) in [
            ("name", json!(image.name)),
            ("disk_format", json!(format)),
            ("os_distro", json!("debian")),
            ("tags", json!(["t"])),
            ("min_ram", json!(96)),
            ("min_disk", json!(1)),
            ("visibility", json!("shared")),
        ] {
            assert_eq!(made[key], value, "{more:?} {key}");
        }
        holds(&rest, &ran.image_id(), &files);
        // The name is taken now.
        run(&mut upload_in(&lab, &[&[&*raw, &*image.name], more].concat()))
            .refuses(6, &["already", "--allow-duplicate"]);
    }
}

#[test]
fn a_qcow2_image_goes_as_it_is_whatever_it_is_called() {
    let Some(lab) = lab() else { return };
    let (rest, files) = (Rest::new(&lab), Files::new());
    let image = Named::new(&rest, "disk");
    let name = format!("{}.raw", image.name);
    let word = files.made(&name, "qcow2", &["-c"]);
    qemu_img(&["resize", "-f", "qcow2", &word, "2G"]);
    let dry = run(&mut upload_in(&lab, &[&word, "--dry-run"])).ok();
    assert!(String::from_utf8(dry.stdout).unwrap().contains("min_disk 2 GiB"));
    image.assert_none();
    // Its name is the file's, without the ending.
    let ran = run(&mut upload_in(&lab, &[&word])).ok();
    let made = &image.images()[0];
    assert_eq!(made["id"], ran.image_id().as_str());
    assert_eq!((&made["disk_format"], &made["min_disk"]), (&json!("qcow2"), &json!(2)));
    rest.download(&ran.image_id(), &files.path("again"));
    assert!(std::fs::read(files.path("again")).unwrap() == std::fs::read(&word).unwrap(), "byte for byte");
    for option in
        [["--compression", "zstd"], ["--cluster-size", "4k"], ["--report", "r.json"], ["--state", "s"]]
    {
        run(&mut upload_in(&lab, &[&word, "other", option[0], option[1]]))
            .refuses(2, &[option[0], "as it is"]);
    }
}

#[test]
fn what_is_no_sound_image_of_its_own_is_refused_with_advice() {
    let Some(lab) = lab() else { return };
    let (rest, files) = (Rest::new(&lab), Files::new());
    let image = Named::new(&rest, "refused");
    files.made("base.qcow2", "qcow2", &[]);
    qemu_img(&[
        "create",
        "-q",
        "-f",
        "qcow2",
        "-F",
        "qcow2",
        "-b",
        &files.word("base.qcow2"),
        &files.word("over.qcow2"),
    ]);
    files.made("out.qcow2", "qcow2", &["-o", &format!("data_file={}", files.word("data.raw"))]);
    let good = std::fs::read(files.path("base.qcow2")).unwrap();
    let mut dirty = good.clone();
    dirty[79] |= 1;
    let mut footer = vec![1; 10_240];
    footer[9728..9736].copy_from_slice(b"conectix");
    for (word, more, code, said) in [
        (files.word("over.qcow2"), &[][..], 3, &["backing file", "qemu-img convert"][..]),
        (files.word("out.qcow2"), &[], 3, &["another file", "qemu-img convert"]),
        (files.wrote("dirty.qcow2", &dirty), &[], 11, &["damaged", "dirty"]),
        (files.wrote("cut.qcow2", &good[..good.len() / 2]), &[], 11, &["damaged"]),
        (files.wrote("header.qcow2", &good[..60]), &[], 11, &["damaged"]),
        (files.made("disk.qcow2", "vmdk", &[]), &[], 3, &["VMDK", "qemu-img convert"]),
        (files.made("disk.vdi", "vdi", &[]), &[], 3, &["VDI", "qemu-img convert"]),
        (files.made("disk.vhdx", "vhdx", &[]), &[], 3, &["VHDX", "qemu-img convert"]),
        (files.wrote("fixed", &footer), &[], 3, &["VHD", "qemu-img convert"]),
        (files.wrote("disk.raw.gz", b"\x1f\x8b\x08\0\0\0\0\0"), &[], 3, &["gzip", "unpack"]),
        (files.wrote("empty.raw", b""), &[], 3, &["is empty"]),
        (files.word("disk.raw"), &["-f", "qcow2"], 3, &["is no qcow2 image"]),
        (files.word("nothing"), &[], 3, &["no such file"]),
        (files.word(""), &[], 3, &["neither a regular file"]),
        ("-".into(), &[], 2, &["standard input", "snapcow convert -"]),
    ] {
        run(&mut upload_in(&lab, &[&[&*word, &*image.name], more].concat())).refuses(code, said);
    }
    image.assert_none();
}

#[test]
fn leaks_are_allowed_and_said() {
    let Some(lab) = lab() else { return };
    let (rest, files) = (Rest::new(&lab), Files::new());
    let image = Named::new(&rest, "leaks");
    let mut bytes = std::fs::read(files.made("a.qcow2", "qcow2", &[])).unwrap();
    bytes.extend([7; 65_536]);
    let word = files.wrote("leaks.qcow2", &bytes);
    let ran = run(&mut upload_in(&lab, &[&word, &image.name])).ok();
    assert!(ran.stderr.contains("note: the image wastes space"), "{}", ran.stderr);
    holds(&rest, &ran.image_id(), &files);
}

fn upload_to(glance: &EmbeddedGlance, file: &Path, more: &[&str]) -> Command {
    let mut command = snapcow([&["upload", file.to_str().unwrap(), "new"], more].concat());
    command.env("OS_TOKEN", glance.token()).env("OS_ENDPOINT", glance.endpoint());
    command
}

#[test]
fn a_full_quota_leaves_nothing() {
    let files = Files::new();
    for more in [&["--as-is"][..], &[]] {
        let refusal = Refusal { status: 413, text: "Quota exceeded.".into(), after_bytes: None };
        let faults = Faults { upload_refused: Some(Fault::always(refusal)), ..Faults::default() };
        let glance = EmbeddedGlance::start(with(faults)).unwrap();
        run(&mut upload_to(&glance, &files.path("disk.raw"), more))
            .refuses(6, &["413", "Quota exceeded", "quota"]);
        assert!(glance.images().is_empty());
    }
}

#[test]
fn what_breaks_is_sent_again_and_what_is_damaged_on_the_way_is_taken_back() {
    let files = Files::new();
    let cut = Faults { upload_cut: Some(Fault::first(1, MIB)), ..Faults::default() };
    let glance = EmbeddedGlance::start(with(cut)).unwrap();
    let id = run(&mut upload_to(&glance, &files.path("disk.raw"), &["--as-is"])).ok().image_id();
    let data = glance.data(&id).unwrap();
    let mut bytes = vec![0; data.len() as usize];
    data.read_at(0, &mut bytes);
    assert!(bytes == std::fs::read(files.path("disk.raw")).unwrap());
    let wrong = snapcow::embedded::HashFault::Wrong;
    let faults = Faults { upload_hash: Some(Fault::always(wrong)), ..Faults::default() };
    let glance = EmbeddedGlance::start(with(faults)).unwrap();
    run(&mut upload_to(&glance, &files.path("disk.raw"), &["--as-is"])).refuses(9, &["sha512"]);
    assert!(glance.images().is_empty());
}

/// Meets an upload in its middle.
fn in_the_middle(
    meet: impl FnOnce(&crate::lab::command::Running, &Path),
) -> (crate::lab::command::Ran, EmbeddedGlance) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("disk.raw");
    std::fs::write(&file, Noise(8).bytes(24 << 20)).unwrap();
    let faults = Faults { upload_rate: Some(8 * MIB), ..Faults::default() };
    let glance = EmbeddedGlance::start(with(faults)).unwrap();
    let running = start(&mut upload_to(&glance, &file, &["--as-is"]));
    let begin = Instant::now();
    let is_uploading =
        || glance.records().iter().any(|record| record.route == Route::Upload && record.received_bytes > MIB);
    while !is_uploading() {
        assert!(begin.elapsed() < Duration::from_secs(60), "no upload");
        std::thread::sleep(Duration::from_millis(5));
    }
    meet(&running, &file);
    (running.finish(), glance)
}

#[test]
fn a_signal_or_a_file_that_changes_leaves_no_image() {
    let (ran, glance) = in_the_middle(|running, _| running.signal(Signal::INT));
    ran.refuses(130, &["interrupted"]);
    assert!(glance.images().is_empty());
    let (ran, glance) = in_the_middle(|_, file| {
        // Behind what is read by now, of the same length.
        use std::os::unix::fs::FileExt;
        std::fs::OpenOptions::new()
            .write(true)
            .open(file)
            .unwrap()
            .write_all_at(b"changed", 23 << 20)
            .unwrap();
    });
    ran.refuses(8, &["changed while it was read"]);
    assert!(glance.images().is_empty());
}
