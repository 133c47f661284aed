//! `convert --map` for files and streams: what is called zero is not read, and is believed by order alone.

use std::path::{Path, PathBuf};

use crate::common::disks;
use crate::common::oracles::has_qemu_img;
use crate::tools::{Ran, holds, qemu, snapcow, snapcow_reading, text};

const MIB: usize = 1 << 20;

struct Scene {
    folder: tempfile::TempDir,
    disk: Vec<u8>,
}

impl Scene {
    /// A disk with zeros from 1 to 3 MiB, and from 5 MiB to its end, which is no whole cluster.
    fn new() -> Self {
        let mut disk = disks::noise(5, 7 * MIB + 1024);
        disk[MIB..3 * MIB].fill(0);
        disk[5 * MIB..].fill(0);
        let scene = Self { folder: tempfile::tempdir().unwrap(), disk };
        std::fs::write(scene.raw(), &scene.disk).unwrap();
        scene
    }

    fn raw(&self) -> PathBuf {
        self.folder.path().join("disk.raw")
    }

    fn image(&self) -> PathBuf {
        self.folder.path().join("disk.qcow2")
    }

    fn map(&self, json: &str) -> PathBuf {
        let path = self.folder.path().join("map.json");
        std::fs::write(&path, json).unwrap();
        path
    }

    fn convert(&self, map: &Path, more: &[&str]) -> Ran {
        let (raw, image) = (self.raw(), self.image());
        snapcow(&[&["convert", text(&raw), text(&image), "--force", "--map", text(map)], more].concat())
    }
}

fn rbd(extents: &[(usize, usize)]) -> String {
    let extents: Vec<_> = extents
        .iter()
        .map(|(offset, length)| serde_json::json!({"offset": offset, "length": length, "exists": "true"}))
        .collect();
    serde_json::Value::from(extents).to_string()
}

#[test]
fn what_the_map_calls_zero_is_not_read() {
    let scene = Scene::new();
    let report = scene.folder.path().join("report.json");
    let map = scene.map(&rbd(&[(0, MIB), (3 * MIB, 2 * MIB)]));
    let ran = scene.convert(&map, &["--trust-map", "--report", text(&report)]).exits(0);
    assert!(ran.stderr.contains("nothing proves it (--trust-map)"), "{ran:?}");
    holds(&scene.image(), &scene.disk, "trusted");
    let report: serde_json::Value = serde_json::from_slice(&std::fs::read(&report).unwrap()).unwrap();
    // 3 MiB of data, and the last cluster, which is not whole.
    let source = &report["stages"]["source"];
    assert_eq!(
        (&source["read_bytes"], &report["map"]["trusted"]),
        (&(3 * MIB + 1024).into(), &true.into()),
        "{report:#}"
    );
    if has_qemu_img() {
        // QEMU's own map of the same disk, as a sparse file.
        let sparse = scene.folder.path().join("sparse.raw");
        disks::write_sparse(&sparse, &scene.disk);
        let json = qemu("qemu-img", &["map", "--output=json", "-f", "raw", text(&sparse)]);
        scene.convert(&scene.map(&json), &["--trust-map"]).exits(0);
        holds(&scene.image(), &scene.disk, "by QEMU's map");
        for size in ["512", "2M"] {
            scene.convert(&scene.map(&json), &["--trust-map", "--cluster-size", size]).exits(0);
            holds(&scene.image(), &scene.disk, size);
        }
    }
}

/// Proof that the bytes are not read: a trusted map that lies loses them.
#[test]
fn a_trusted_map_is_believed_and_one_that_nothing_proves_is_refused() {
    let scene = Scene::new();
    let map = scene.map(&rbd(&[(0, MIB)]));
    let ran = scene.convert(&map, &[]).exits(2);
    assert!(ran.stderr.contains("nothing would prove") && ran.stderr.contains("--trust-map"), "{ran:?}");
    assert!(!scene.image().exists());
    scene.convert(&map, &["--trust-map"]).exits(0);
    let mut left = scene.disk.clone();
    left[3 * MIB..].fill(0);
    holds(&scene.image(), &left, "as the map says");
}

#[test]
fn a_stream_is_held_against_its_map() {
    let scene = Scene::new();
    let image = scene.image();
    let run = |map: &str| {
        let map = scene.map(map);
        let words = ["convert", "-", text(&image), "--force", "--map", text(&map)];
        snapcow_reading(&words, &scene.disk)
    };
    let ran = run(&rbd(&[(0, MIB), (3 * MIB, 2 * MIB)])).exits(0);
    assert!(ran.stderr.contains("held against it"), "{ran:?}");
    holds(&image, &scene.disk, "a stream");
    std::fs::remove_file(&image).unwrap();
    // A sector of data is called zero, at the beginning and in the middle, and a byte before the zeros at the end.
    for (extents, at) in [
        (vec![(512, MIB - 512), (3 * MIB, 2 * MIB)], 0),
        (vec![(0, MIB), (3 * MIB, MIB), (4 * MIB + 512, MIB - 512)], 4 * MIB),
        (vec![(0, MIB), (3 * MIB, 2 * MIB - 1)], 5 * MIB - 1),
    ] {
        // Noise has zeros, too.
        if scene.disk[at] == 0 {
            continue;
        }
        let ran = run(&rbd(&extents)).exits(8);
        assert!(ran.stderr.contains(&format!("calls offset {at} of standard input zero")), "{ran:?}");
        assert!(ran.stderr.contains("leave --map out"), "{ran:?}");
        assert!(!image.exists());
    }
    for end in [6 * MIB, 9 * MIB] {
        let ran = run(&format!("[{{\"start\": 0, \"length\": {end}, \"zero\": false}}]")).exits(8);
        assert!(ran.stderr.contains("does not fit"), "{ran:?}");
        assert!(!image.exists());
    }
}

#[test]
fn maps_that_are_none_are_refused_before_anything_is_made() {
    let scene = Scene::new();
    let huge = format!("[{}]", ["{\"offset\":5,\"length\":1,\"exists\":\"false\"}"; 3].join(","));
    for (json, words) in [
        ("", "ends too early"),
        ("{\"a\u{1b}\": 1}", "something else"),
        ("[{\"start\":0,\"length\":512,\"zero\":true}]", "ends at 512"),
        ("[{\"start\":0,\"length\":99999999,\"zero\":true}]", "goes to 99999999"),
        (
            "[{\"start\":0,\"length\":8192,\"zero\":true},{\"start\":4096,\"length\":8192,\"zero\":true}]",
            "overlaps",
        ),
        ("[{\"offset\":0,\"length\":99999999,\"exists\":\"true\"}]", "goes to 99999999"),
        (&huge, "overlaps"),
    ] {
        let ran = scene.convert(&scene.map(json), &["--trust-map"]).exits(2);
        assert!(ran.stderr.contains(words) && ran.stderr.contains("rbd diff"), "{json}: {ran:?}");
        assert!(!ran.stderr.contains('\u{1b}') && !scene.image().exists(), "{ran:?}");
    }
    scene.convert(Path::new("/nonexistent/map.json"), &["--trust-map"]).exits(7);
    let raw = scene.raw();
    snapcow(&["convert", text(&raw), "-", "--trust-map"]).exits(2);
}
