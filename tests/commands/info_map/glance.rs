//! Images in a Glance in this process: with and without ranges, and which bytes were asked for.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Map, Value};
use snapcow::embedded::{EmbeddedGlance, EmbeddedOptions, ImageSpec, SeedHash};

use crate::common::disks;
use crate::common::oracles::has_qemu_img;
use crate::tools::{Ran, command, convert, holds, qemu, ran, text};

const MIB: usize = 1 << 20;

struct Cloud {
    glance: EmbeddedGlance,
    folder: tempfile::TempDir,
    disk: Vec<u8>,
}

impl Cloud {
    /// A raw disk with zeros from 2 to 14 MiB and a qcow2 image of it.
    fn new(ranges: bool) -> Self {
        let glance = EmbeddedGlance::start(EmbeddedOptions { ranges, ..EmbeddedOptions::default() }).unwrap();
        let mut disk = disks::noise(9, 16 * MIB + 512);
        disk[2 * MIB..14 * MIB].fill(0);
        let cloud = Self { glance, folder: tempfile::tempdir().unwrap(), disk };
        let (raw, image) = (cloud.file("disk.raw"), cloud.file("disk.qcow2"));
        disks::write_sparse(&raw, &cloud.disk);
        convert(&raw, &image, &[]);
        cloud.seed("raw", "raw", SeedHash::Compute, cloud.disk.clone());
        cloud.seed("unhashed", "raw", SeedHash::Missing, cloud.disk.clone());
        cloud.seed("qcow2", "qcow2", SeedHash::Missing, std::fs::read(&image).unwrap());
        cloud
    }

    fn file(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    fn seed(&self, name: &str, disk_format: &str, hash: SeedHash, data: Vec<u8>) -> String {
        let mut attributes = Map::new();
        attributes.insert("disk_format".into(), Value::from(disk_format));
        let data = Arc::new(Bytes::from(data));
        self.glance.seed(ImageSpec { name: name.into(), attributes, hash, data })
    }

    fn run(&self, words: &[&str]) -> Ran {
        let mut command = command(words);
        command.current_dir(self.folder.path());
        command.env("OS_AUTH_TYPE", "admin_token").env("OS_TOKEN", self.glance.token());
        ran(command.env("OS_ENDPOINT", self.glance.endpoint()).output().unwrap())
    }

    fn map_file(&self, extents: &[(usize, usize)]) {
        let entry = |(offset, length): &(usize, usize)| serde_json::json!({"offset": offset, "length": length, "exists": "true"});
        let extents: Vec<Value> = extents.iter().map(entry).collect();
        std::fs::write(self.file("map.json"), Value::from(extents).to_string()).unwrap();
    }

    fn sent(&self) -> u64 {
        self.glance.records().iter().map(|record| record.sent_bytes).sum()
    }
}

#[test]
fn the_map_of_an_image_is_that_of_the_file() {
    let cloud = Cloud::new(true);
    let json = cloud.run(&["map", "--json", "glance:qcow2"]).exits(0).stdout;
    assert_eq!(json, cloud.run(&["map", "--json", "disk.qcow2"]).exits(0).stdout);
    if has_qemu_img() {
        assert_eq!(json, qemu("qemu-img", &["map", "--output=json", text(&cloud.file("disk.qcow2"))]));
    }
    let all = cloud.run(&["map", "--json", "glance:raw"]).exits(0).json();
    assert_eq!((all.as_array().unwrap().len(), &all[0]["data"]), (1, &true.into()));
    for words in [["map", "--json", "--scan", "glance:raw"], ["map", "--json", "--scan", "disk.raw"]] {
        let found = cloud.run(&words).exits(0).json();
        assert_eq!(found.as_array().unwrap().len(), 3, "{found}");
        assert_eq!((&found[1]["start"], &found[1]["zero"]), (&(2 * MIB).into(), &true.into()));
    }
    let summary = cloud.run(&["map", "glance:raw"]).exits(0).stdout;
    assert!(summary.contains("--scan reads it"), "{summary}");
    cloud.run(&["map", "--picture", "a.png", "glance:qcow2"]).exits(0);
    assert!(cloud.file("a.png").exists());
}

#[test]
fn without_ranges_a_qcow2_image_has_no_map_and_a_raw_one_is_scanned_in_order() {
    let cloud = Cloud::new(false);
    let ran = cloud.run(&["map", "glance:qcow2"]).exits(3);
    assert!(ran.stderr.contains("no ranges") && ran.stderr.contains("image save"), "{ran:?}");
    let found = cloud.run(&["map", "--json", "--scan", "glance:raw"]).exits(0).json();
    assert_eq!(found.as_array().unwrap().len(), 3, "{found}");
    cloud.run(&["map", "--json", "glance:raw"]).exits(0);
}

#[test]
fn info_tells_record_and_header_with_and_without_ranges() {
    for ranges in [true, false] {
        let cloud = Cloud::new(ranges);
        let json = cloud.run(&["info", "--json", "glance:qcow2"]).exits(0).json();
        assert_eq!((&json["ranges"], &json["format"]), (&ranges.into(), &"qcow2".into()));
        assert_eq!(json["virtual_size_bytes"], 16 * MIB + 512);
        assert_eq!(json["record"]["name"], "qcow2");
        assert_eq!(json["contents"].is_null(), !ranges, "{json}");
        assert_eq!(json["contents_unknown_because"].is_null(), ranges, "{json}");
        let raw = cloud.run(&["info", "--json", "glance:raw"]).exits(0).json();
        assert_eq!((&raw["format"], &raw["virtual_size_bytes"]), (&"raw".into(), &(16 * MIB + 512).into()));
        assert_eq!(raw["record"]["os_hash_algo"], "sha512");
        assert_eq!(raw["warnings"], Value::from(Vec::<Value>::new()));
        // Only the first bytes were taken.
        let begun = cloud.sent();
        cloud.run(&["info", "glance:raw"]).exits(0);
        assert!(cloud.sent() - begun < 8 * MIB as u64, "{}", cloud.sent() - begun);
        let image = std::fs::read(cloud.file("disk.qcow2")).unwrap();
        cloud.seed("called-raw", "raw", SeedHash::Missing, image);
        let said = cloud.run(&["info", "glance:called-raw"]).exits(0).stdout;
        assert!(said.contains("WARNING") && said.contains("raw by its record"), "{said}");
        cloud.run(&["info", "glance:nobody"]).exits(3);
    }
}

#[test]
fn what_a_map_calls_zero_is_not_fetched_and_the_hash_proves_it() {
    let cloud = Cloud::new(true);
    cloud.map_file(&[(0, 2 * MIB), (14 * MIB, 2 * MIB + 512)]);
    for size in ["64k", "512", "2M"] {
        let before = cloud.sent();
        let words =
            ["convert", "glance:raw", "a.qcow2", "--map", "map.json", "--force", "--cluster-size", size];
        let ran = cloud.run(&words).exits(0);
        assert!(ran.stderr.contains("source verified"), "{ran:?}");
        assert!(cloud.sent() - before < 6 * MIB as u64, "{size}: {}", cloud.sent() - before);
        holds(&cloud.file("a.qcow2"), &cloud.disk, size);
    }
    // Back into Glance, with a second read.
    let words = [
        "convert",
        "glance:raw",
        "glance:new",
        "--map",
        "map.json",
        "--spool-disk",
        "0",
        "--memory",
        "96MiB",
    ];
    cloud.run(&words).exits(0);
    std::fs::remove_file(cloud.file("a.qcow2")).unwrap();

    cloud.map_file(&[(0, 2 * MIB)]);
    let words = ["convert", "glance:raw", "a.qcow2", "--map", "map.json"];
    let ran = cloud.run(&words).exits(8);
    assert!(ran.stderr.contains("sha512") && ran.stderr.contains("map.json"), "{ran:?}");
    assert!(!cloud.file("a.qcow2").exists());
    let ran = cloud.run(&["convert", "glance:unhashed", "a.qcow2", "--map", "map.json"]).exits(2);
    assert!(ran.stderr.contains("nothing would prove"), "{ran:?}");
    let ran = cloud.run(&[&words[..], &["--verify-source", "off"]].concat()).exits(2);
    assert!(ran.stderr.contains("--trust-map"), "{ran:?}");
}

#[test]
fn without_ranges_the_bytes_are_held_against_the_map() {
    let cloud = Cloud::new(false);
    cloud.map_file(&[(0, 2 * MIB), (14 * MIB, 2 * MIB + 512)]);
    for name in ["glance:raw", "glance:unhashed"] {
        cloud.run(&["convert", name, "a.qcow2", "--map", "map.json", "--force"]).exits(0);
        holds(&cloud.file("a.qcow2"), &cloud.disk, name);
    }
    let words = [
        "convert",
        "glance:raw",
        "glance:new",
        "--map",
        "map.json",
        "--spool-disk",
        "0",
        "--memory",
        "96MiB",
    ];
    cloud.run(&words).exits(0);
    std::fs::remove_file(cloud.file("a.qcow2")).unwrap();
    cloud.map_file(&[(0, 2 * MIB)]);
    let ran = cloud.run(&["convert", "glance:raw", "a.qcow2", "--map", "map.json"]).exits(8);
    assert!(ran.stderr.contains("calls offset 14680064") && ran.stderr.contains("there is data"), "{ran:?}");
    assert!(!cloud.file("a.qcow2").exists());
}
