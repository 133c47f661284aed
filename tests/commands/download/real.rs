//! Against the real Keystone and Glance: every server, plain and TLS, raw and qcow2.

use std::path::Path;
use std::process::Command;

use rustix::process::Signal;
use serde_json::{Value, json};

use super::{MIB, disk, names, said};
use crate::lab::command::{Ran, run, snapcow_in, start};
use crate::lab::rest::{Named, Rest};
use crate::lab::{Lab, lab};

fn download(lab: &Lab, cloud: &str, folder: &Path, words: &[&str]) -> Command {
    let mut command = snapcow_in(lab, cloud, [&["download"], words].concat());
    command.current_dir(folder);
    command
}

fn ran(lab: &Lab, cloud: &str, folder: &Path, words: &[&str]) -> Ran {
    run(&mut download(lab, cloud, folder, words))
}

#[test]
fn from_every_server_the_same_bytes() {
    let Some(lab) = lab() else { return };
    let rest = Rest::new(&lab);
    let (raw, compact) = (Named::new(&rest, "download-raw"), Named::new(&rest, "download-qcow2"));
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let disk = disk(60);
    std::fs::write(path("disk"), &disk).unwrap();
    let qemu = |words: &[&str]| {
        let status = Command::new("qemu-img").args(words).current_dir(folder.path()).status();
        assert!(status.expect("qemu-img, of Debian's qemu-utils").success(), "{words:?}");
    };
    qemu(&["convert", "-c", "-O", "qcow2", "disk", "disk.qcow2"]);
    let raw_id = rest.make(&raw.name, &disk, json!({}));
    rest.make(&compact.name, &std::fs::read(path("disk.qcow2")).unwrap(), json!({"disk_format": "qcow2"}));
    for (cloud, ranges) in
        [("lab-ranges", true), ("lab-noranges", false), ("lab-uwsgi", false), ("lab-tls", true)]
    {
        let out = ran(&lab, cloud, folder.path(), &[&raw_id, "a.raw", "--json"]).ok();
        let result: Value = serde_json::from_slice(&out.stdout).unwrap();
        assert_eq!((&result["ranges"], &result["verified"]), (&ranges.into(), &true.into()), "{cloud}");
        assert!(result["allocated_bytes"].as_u64().unwrap() < disk.len() as u64 / 2, "{result}");
        assert!(std::fs::read(path("a.raw")).unwrap() == disk, "{cloud}");
        let out = ran(&lab, cloud, folder.path(), &[&compact.glance(), "b.raw", "--to", "raw"]).ok();
        assert_eq!(said(&out), "b.raw");
        qemu(&["compare", "-f", "raw", "-F", "qcow2", "b.raw", "disk.qcow2"]);
        assert!(std::fs::read(path("b.raw")).unwrap() == disk, "{cloud}");
        let out = ran(&lab, cloud, folder.path(), &[&raw.name, "-"]).ok();
        assert!(out.stdout == disk, "{cloud}");
        std::fs::remove_file(path("a.raw")).unwrap();
        std::fs::remove_file(path("b.raw")).unwrap();
    }
    // Under its own name, which no other image has.
    let out = ran(&lab, "lab-ranges", folder.path(), &[&compact.name]).ok();
    assert_eq!(said(&out), format!("{}.qcow2", compact.name));
    qemu(&["compare", "-f", "raw", "-F", "qcow2", "disk", &said(&out)]);
}

#[test]
fn killed_half_way_it_goes_on() {
    let Some(lab) = lab() else { return };
    let rest = Rest::new(&lab);
    let image = Named::new(&rest, "download-kill");
    let disk = disk(120);
    rest.make(&image.name, &disk, json!({}));
    let folder = tempfile::tempdir().unwrap();
    let part = folder.path().join("a.snapcow-part");
    let there = || part.metadata().map_or(0, |meta| meta.len());
    for signal in [Signal::KILL, Signal::INT] {
        let reached = there();
        let running = start(&mut download(&lab, "lab-ranges", folder.path(), &[&image.name, "a"]));
        while there() < reached.max(2 * MIB as u64) + 16 * MIB as u64 && !running.has_ended() {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        running.signal(signal);
        running.finish();
    }
    let reached = there();
    let out = ran(&lab, "lab-ranges", folder.path(), &[&image.name, "a", "--json"]).ok();
    let result: Value = serde_json::from_slice(&out.stdout).unwrap();
    assert!(
        result["resumed_bytes"].as_u64().unwrap() + 2 * MIB as u64 > reached.min(disk.len() as u64),
        "{result}"
    );
    assert!(std::fs::read(folder.path().join("a")).unwrap() == disk);
    assert_eq!(names(folder.path()), ["a"]);
}
