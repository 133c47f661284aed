//! Every pair of a source and a target, with the shared disk, proven in the same way.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::lab::command::{Ran, convert, convert_in, run};
use crate::lab::disk::{Disk, disk};
use crate::lab::lab;
use crate::lab::rest::{Named, Rest};
use crate::proof::{equal, image_equals, sha512};

struct Scene {
    lab: crate::lab::Lab,
    disk: &'static Disk,
    folder: tempfile::TempDir,
}

/// The lab, the disk, and a folder beside it: `/tmp` may be small, or memory.
fn scene() -> Option<Scene> {
    let lab = lab()?;
    let disk = disk(&lab);
    let folder = tempfile::tempdir_in(disk.raw.parent().unwrap()).unwrap();
    Some(Scene { lab, disk, folder })
}

impl Scene {
    fn raw(&self) -> &str {
        self.disk.raw.to_str().unwrap()
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn glance(&self) -> String {
        format!("glance:{}", self.disk.id)
    }
}

fn words(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn files_and_streams_to_files() {
    let Some(scene) = scene() else { return };
    let (one, two) = (scene.file("one.qcow2"), scene.file("two.qcow2"));
    let ran = run(&mut convert([scene.raw(), words(&one)])).ok();
    assert!(ran.stdout.is_empty());
    equal(&one, &scene.disk.raw);
    run(convert(["-", words(&two)]).stdin(File::open(&scene.disk.raw).unwrap())).ok();
    assert_eq!(sha512(&one), sha512(&two));
    // The same from Glance.
    let three = scene.file("three.qcow2");
    run(&mut convert_in(&scene.lab, "lab-ranges", [&scene.glance(), words(&three)])).ok();
    assert_eq!(sha512(&one), sha512(&three));
}

#[test]
fn anything_to_standard_output() {
    let Some(scene) = scene() else { return };
    let (one, two) = (scene.file("one.qcow2"), scene.file("two.qcow2"));
    let to = |path: &Path| Stdio::from(File::create(path).unwrap());
    run(convert(["-", "-"]).stdin(File::open(&scene.disk.raw).unwrap()).stdout(to(&one))).ok();
    equal(&one, &scene.disk.raw);
    run(convert_in(&scene.lab, "lab-noranges", [scene.glance().as_str(), "-"]).stdout(to(&two))).ok();
    assert_eq!(sha512(&one), sha512(&two));
}

/// Converts to a new image, and proves it.
fn to_glance(
    scene: &Scene,
    start: impl FnOnce(&mut Command) -> &mut Command,
    source: &str,
    more: &[&str],
) -> Ran {
    let rest = Rest::new(&scene.lab);
    let target = Named::new(&rest, "pair");
    let glance = target.glance();
    let words = [[source, &glance].as_slice(), more].concat();
    let ran = run(start(&mut convert_in(&scene.lab, "lab-noranges", words))).ok();
    let image = image_equals(&rest, &ran.image_id(), &scene.disk.raw);
    assert_eq!(image["min_disk"], scene.disk.len >> 30);
    assert_eq!(image["visibility"], "private");
    ran
}

#[test]
fn standard_input_to_glance() {
    let Some(scene) = scene() else { return };
    let input = File::open(&scene.disk.raw).unwrap();
    to_glance(&scene, |command| command.stdin(input), "-", &[]);
}

#[test]
fn a_file_to_glance() {
    let Some(scene) = scene() else { return };
    to_glance(&scene, |command| command, scene.raw(), &[]);
}

#[test]
fn a_block_device_to_glance() {
    let Some(scene) = scene() else { return };
    let Some(device) = Loop::attach(&scene.disk.raw) else { return };
    to_glance(&scene, |command| command, &device.0, &[]);
}

/// A loop device, detached when dropped.
struct Loop(String);

impl Loop {
    fn attach(file: &Path) -> Option<Self> {
        let answer = Command::new("losetup")
            .env("PATH", format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default()))
            .args(["--find", "--show", "--read-only"])
            .arg(file)
            .output();
        match answer {
            Ok(answer) if answer.status.success() => {
                Some(Self(String::from_utf8(answer.stdout).unwrap().trim().into()))
            }
            other => {
                let required = std::env::var("SNAPCOW_REQUIRE").as_deref() == Ok("1");
                let possible =
                    Path::new("/dev/loop-control").exists() && rustix::process::geteuid().is_root();
                assert!(!(required && possible), "losetup: {other:?}");
                eprintln!("SKIPPED: no loop device here: {other:?}");
                None
            }
        }
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
        let _ = Command::new("losetup").env("PATH", path).args(["--detach", &self.0]).status();
    }
}
