//! The same against a real Glance, with the shared disk.

use std::path::Path;

use serde_json::json;

use crate::common::oracles::has_qemu_img;
use crate::lab::command::{run, snapcow_in};
use crate::lab::disk::disk;
use crate::lab::lab;
use crate::lab::rest::{Named, Rest};
use crate::tools::{qemu, text};

#[test]
fn a_real_image_has_the_map_of_its_file() {
    let Some(lab) = lab() else { return };
    if !has_qemu_img() {
        return;
    }
    let disk = disk(&lab);
    let folder = tempfile::tempdir_in(disk.raw.parent().unwrap()).unwrap();
    let image = folder.path().join("disk.qcow2");
    let small = folder.path().join("small.raw");
    qemu("qemu-img", &["convert", "-O", "raw", text(&disk.raw), text(&small)]);
    std::fs::File::options().write(true).open(&small).unwrap().set_len(64 << 20).unwrap();
    qemu("qemu-img", &["convert", "-c", "-O", "qcow2", text(&small), text(&image)]);
    let rest = Rest::new(&lab);
    let named = Named::new(&rest, "map");
    let id = rest.make(&named.name, &std::fs::read(&image).unwrap(), json!({"disk_format": "qcow2"}));
    let ran = run(&mut snapcow_in(&lab, "lab-ranges", ["map", "--json", &format!("glance:{id}")])).ok();
    let theirs = qemu("qemu-img", &["map", "--output=json", text(&image)]);
    assert!(String::from_utf8(ran.stdout).unwrap() == theirs, "not the map of qemu-img");
    run(&mut snapcow_in(&lab, "lab-noranges", ["map", &named.glance()])).refuses(3, &["no ranges"]);
    for (cloud, knows) in [("lab-ranges", true), ("lab-noranges", false)] {
        let ran = run(&mut snapcow_in(&lab, cloud, ["info", "--json", &named.glance()])).ok();
        let info: serde_json::Value = serde_json::from_slice(&ran.stdout).unwrap();
        assert_eq!(info["record"]["id"], id.as_str());
        assert_eq!(info["record"]["os_hash_algo"], "sha512");
        assert_eq!((&info["ranges"], info["contents"].is_null()), (&knows.into(), !knows), "{info}");
        assert_eq!(info["virtual_size_bytes"], 64 << 20);
    }
}

#[test]
fn holes_that_a_map_knows_are_not_fetched_from_a_real_glance() {
    let Some(lab) = lab() else { return };
    if !has_qemu_img() {
        return;
    }
    let disk = disk(&lab);
    let folder = tempfile::tempdir_in(disk.raw.parent().unwrap()).unwrap();
    let (map, image) = (folder.path().join("map.json"), folder.path().join("disk.qcow2"));
    std::fs::write(&map, qemu("qemu-img", &["map", "--output=json", "-f", "raw", text(&disk.raw)])).unwrap();
    for cloud in ["lab-ranges", "lab-noranges"] {
        let source = format!("glance:{}", disk.id);
        let words = ["convert", &source, text(&image), "--map", text(&map), "--force"];
        let ran = run(&mut snapcow_in(&lab, cloud, words)).ok();
        assert!(ran.stderr.contains("source verified"), "{}", ran.stderr);
        equal(&disk.raw, &image);
    }
}

fn equal(raw: &Path, image: &Path) {
    qemu("qemu-img", &["compare", "-f", "raw", "-F", "qcow2", text(raw), text(image)]);
}
