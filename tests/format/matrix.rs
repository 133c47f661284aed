//! The conformance matrix: every compat × cluster size × compression × size class × content class, written by
//! the command and judged by `qemu-img`, `imago`, our own reader, and OpenStack's own inspector.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::common::{disks, oracles};
use crate::tools::{convert, holds, in_parallel, inspector_agrees, is_clean, qemu, text};

/// Size classes: less than a sector, whole clusters of every size, and a bit more than that.
const SIZES: [usize; 3] = [300, 2 << 20, (3 << 20) + 70_001];

/// Content classes, by name.
const CONTENTS: [&str; 5] = ["zeros", "noise", "text", "mixed", "ends"];

/// Every compat with every compression that it knows.
const FORMATS: [(&str, &str); 5] =
    [("0.10", "none"), ("0.10", "zlib"), ("1.1", "none"), ("1.1", "zlib"), ("1.1", "zstd")];

fn content(class: &str, len: usize) -> Vec<u8> {
    match class {
        "zeros" => vec![0; len],
        "noise" => disks::noise(len as u64, len),
        "text" => b"every word of it is here again and again, and "
            .iter()
            .copied()
            .cycle()
            .enumerate()
            .map(|(at, byte)| byte ^ (at >> 14) as u8)
            .take(len)
            .collect(),
        "mixed" => disks::mixed(len as u64, len),
        // A byte at the very beginning and one at the very end.
        "ends" => {
            let mut disk = vec![0; len];
            disk[0] = 1;
            disk[len - 1] = 2;
            disk
        }
        _ => panic!("{class}"),
    }
}

/// One cell of the matrix.
#[derive(Clone, Debug)]
struct Cell {
    compat: &'static str,
    cluster_bytes: u64,
    compression: &'static str,
    size: usize,
    content: &'static str,
}

/// Every cell with `SNAPCOW_FULL=1`; otherwise every cluster size with one disk, and every disk with the
/// smallest, the usual and the largest cluster size.
fn cells() -> Vec<Cell> {
    let all = std::env::var("SNAPCOW_FULL").as_deref() == Ok("1");
    let mut cells = Vec::new();
    for size in SIZES {
        for content in CONTENTS {
            for cluster_bits in 9..=21 {
                if !all && ![9, 16, 21].contains(&cluster_bits) && (size, content) != (SIZES[2], "mixed") {
                    continue;
                }
                for (compat, compression) in FORMATS {
                    cells.push(Cell { compat, cluster_bytes: 1 << cluster_bits, compression, size, content });
                }
            }
        }
    }
    cells
}

/// Converts one cell and lets all but the inspector judge; gives the image and its virtual size.
fn judge(cell: &Cell, raw: &Path, disk: &[u8], image: &Path) -> (PathBuf, u64) {
    let what = format!("{cell:?}");
    let cluster_size = cell.cluster_bytes.to_string();
    let words = ["--compat", cell.compat, "--cluster-size", &cluster_size, "--compression", cell.compression];
    convert(raw, image, &words);
    oracles::qemu_img_agrees(raw, image, &what);
    let virtual_size = disk.len().next_multiple_of(512) as u64;
    if oracles::has_qemu_img() {
        let info: Value =
            serde_json::from_str(&qemu("qemu-img", &["info", "--output=json", text(image)])).unwrap();
        let specific = &info["format-specific"]["data"];
        assert_eq!(info["virtual-size"], virtual_size, "{what}");
        assert_eq!(info["cluster-size"], cell.cluster_bytes, "{what}");
        assert_eq!(info["dirty-flag"], false, "{what}");
        assert!(info.get("backing-filename").is_none() && info.get("encrypted").is_none(), "{what}");
        assert_eq!(specific["compat"], cell.compat, "{what}");
        if cell.compat == "1.1" {
            let expected = if cell.compression == "zstd" { "zstd" } else { "zlib" };
            assert_eq!(specific["compression-type"], expected, "{what}");
            assert_eq!((&specific["corrupt"], &specific["lazy-refcounts"]), (&false.into(), &false.into()));
        }
    }
    // It reads no zstd.
    if cell.compression != "zstd" {
        oracles::imago_agrees(disk, image, &what);
    }
    let facts = is_clean(image, &what).facts.unwrap();
    assert!(facts.end >= image.metadata().unwrap().len(), "{what}: something lies behind the last cluster");
    assert_eq!(facts.zero_clusters, 0, "{what}: zeros take no entry");
    holds(image, disk, &what);
    (image.to_owned(), virtual_size)
}

#[test]
fn four_judges_agree_on_every_image_that_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let mut disks_of = Vec::new();
    for size in SIZES {
        for class in CONTENTS {
            let (raw, disk) = (folder.path().join(format!("{class}-{size}.raw")), content(class, size));
            disks::write_sparse(&raw, &disk);
            disks_of.push((size, class, raw, disk));
        }
    }
    let cells: Vec<(usize, Cell)> = cells().into_iter().enumerate().collect();
    let judged = std::sync::Mutex::new(Vec::new());
    in_parallel(&cells, |(number, cell)| {
        let (_, _, raw, disk) =
            disks_of.iter().find(|(size, class, ..)| (*size, *class) == (cell.size, cell.content)).unwrap();
        let image = folder.path().join(format!("{number}.qcow2"));
        let done = judge(cell, raw, disk, &image);
        judged.lock().unwrap().push(done);
    });
    let judged = judged.into_inner().unwrap();
    assert_eq!(judged.len(), cells.len());
    inspector_agrees(&judged);
}
