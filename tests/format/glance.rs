//! `check` and `verify` on images in a Glance, with and without ranges, over connections that break.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Map, Value};
use snapcow::embedded::{Cut, EmbeddedGlance, EmbeddedOptions, Fault, Faults, ImageSpec, SeedHash};

use crate::common::disks;
use crate::tools::{Ran, command, convert, ran};

const MIB: usize = 1 << 20;

struct Cloud {
    glance: EmbeddedGlance,
    folder: tempfile::TempDir,
    disk: Vec<u8>,
}

impl Cloud {
    fn new(ranges: bool, faults: Faults) -> Self {
        let options = EmbeddedOptions { ranges, faults, ..EmbeddedOptions::default() };
        let folder = tempfile::tempdir().unwrap();
        let disk = disks::mixed(9, 12 * MIB + 700);
        let cloud = Self { glance: EmbeddedGlance::start(options).unwrap(), folder, disk };
        let raw = cloud.folder.path().join("disk.raw");
        disks::write_sparse(&raw, &cloud.disk);
        convert(&raw, &cloud.folder.path().join("disk.qcow2"), &[]);
        cloud.seed("raw", "raw", cloud.disk.clone());
        cloud.seed("qcow2", "qcow2", std::fs::read(cloud.folder.path().join("disk.qcow2")).unwrap());
        cloud
    }

    fn seed(&self, name: &str, disk_format: &str, data: Vec<u8>) -> String {
        let mut attributes = Map::new();
        attributes.insert("disk_format".into(), Value::from(disk_format));
        let data = Arc::new(Bytes::from(data));
        self.glance.seed(ImageSpec { name: name.into(), attributes, hash: SeedHash::Missing, data })
    }

    fn run(&self, words: &[&str]) -> Ran {
        let mut command = command(words);
        command.current_dir(self.folder.path());
        command.env("OS_AUTH_TYPE", "admin_token").env("OS_TOKEN", self.glance.token());
        ran(command.env("OS_ENDPOINT", self.glance.endpoint()).output().unwrap())
    }
}

#[test]
fn images_are_read_by_ranges() {
    let cut = Cut { after_bytes: 100_000, reset: true };
    for faults in
        [Faults::default(), Faults { download_cut: Some(Fault::first(5, cut)), ..Faults::default() }]
    {
        let cloud = Cloud::new(true, faults);
        cloud.run(&["check", "--decode", "glance:qcow2"]).exits(0);
        for (a, b) in [
            ("glance:raw", "glance:qcow2"),
            ("glance:qcow2", "disk.raw"),
            ("disk.qcow2", "glance:raw"),
            ("disk.qcow2", "glance:qcow2"),
        ] {
            cloud.run(&["verify", a, b]).exits(0);
        }
        let mut other = cloud.disk.clone();
        other[7 * MIB + 3] ^= 1;
        cloud.seed("other", "raw", other);
        let json = cloud.run(&["verify", "--json", "glance:other", "glance:qcow2"]).exits(10).json();
        assert_eq!(json["first_difference"], 7 * MIB + 3);
    }
}

#[test]
fn without_ranges_raw_images_are_compared_in_order_and_others_refused() {
    let cut = Cut { after_bytes: 3_000_000, reset: false };
    for faults in
        [Faults::default(), Faults { download_cut: Some(Fault::first(2, cut)), ..Faults::default() }]
    {
        let cloud = Cloud::new(false, faults);
        for (a, b) in [("glance:raw", "disk.qcow2"), ("disk.raw", "glance:raw"), ("glance:raw", "glance:raw")]
        {
            cloud.run(&["verify", a, b]).exits(0);
        }
        let mut other = cloud.disk.clone();
        other[5 * MIB] ^= 1;
        cloud.seed("other", "raw", other);
        let json = cloud.run(&["verify", "--json", "glance:other", "disk.qcow2"]).exits(10).json();
        assert_eq!(json["first_difference"], 5 * MIB);
        for words in [&["check", "glance:qcow2"][..], &["verify", "glance:qcow2", "disk.raw"]] {
            let ran = cloud.run(words).exits(3);
            assert!(ran.stderr.contains("no ranges") && ran.stderr.contains("image save"), "{}", ran.stderr);
        }
    }
}

#[test]
fn what_cannot_be_read_is_refused() {
    let cloud = Cloud::new(true, Faults::default());
    let vmdk = cloud.seed("vmdk", "vmdk", vec![1; 5000]);
    cloud.run(&["verify", &format!("glance:{vmdk}"), "disk.raw"]).exits(3);
    cloud.run(&["check", "glance:nobody"]).exits(3);
    cloud.run(&["check", "glance:raw"]).exits(3);
    cloud.run(&["check", "glance:qcow2", "--target-cloud", "x"]).exits(2);
    // A record that says raw, over bytes that are an image: the record rules.
    let image = std::fs::read(cloud.folder.path().join("disk.qcow2")).unwrap();
    cloud.seed("called-raw", "raw", image);
    cloud.run(&["verify", "glance:called-raw", "disk.raw"]).exits(10);
    cloud.run(&["verify", "glance:called-raw", "disk.raw", "-f", "qcow2"]).exits(0);
}
