//! `map --json` against `qemu-img map --output=json`, extent for extent.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use serde_json::Value;

use crate::common::disks::{self, Seeded};
use crate::common::oracles::has_qemu_img;
use crate::tools::{convert, in_parallel, qemu, ran, snapcow, text};

const MIB: u64 = 1 << 20;

/// Both maps are equal, in every key that the installed QEMU knows.
#[track_caller]
pub fn same_map(image: &Path, format: &str) -> Vec<Value> {
    let words = ["map", "--output=json", "-f", format, text(image)];
    let theirs: Vec<Value> = serde_json::from_str(&qemu("qemu-img", &words)).unwrap();
    let mut ours: Vec<Value> =
        serde_json::from_str(&snapcow(&["map", "--json", "-f", format, text(image)]).exits(0).stdout)
            .unwrap();
    let all = ours.clone();
    // Older ones do not tell what is compressed.
    if theirs.first().is_some_and(|first| first.get("compressed").is_none()) {
        ours.iter_mut().for_each(|extent| drop(extent.as_object_mut().unwrap().remove("compressed")));
    }
    let first = ours.iter().zip(&theirs).position(|(own, their)| own != their);
    let at = first.unwrap_or(ours.len().min(theirs.len()));
    assert!(
        ours == theirs,
        "{}: extent {at} of {} and {}: {:?} is {:?}",
        image.display(),
        ours.len(),
        theirs.len(),
        ours.get(at),
        theirs.get(at)
    );
    all
}

#[test]
fn raw_disks_with_and_without_holes() {
    if !has_qemu_img() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk.raw");
    for (seed, len) in
        [(1, 3 * MIB as usize), (2, MIB as usize + 700), (3, 1), (4, 511), (5, 512), (6, 4097), (7, 0)]
    {
        disks::write_sparse(&path, &disks::mixed(seed, len));
        same_map(&path, "raw");
        std::fs::write(&path, disks::mixed(seed, len)).unwrap();
        same_map(&path, "raw");
        let file = File::create(&path).unwrap();
        file.set_len(len as u64).unwrap();
        same_map(&path, "raw");
    }
    // Holes at the beginning, in the middle and at the end, of a disk larger than any memory.
    let file = File::create(&path).unwrap();
    file.set_len((1 << 42) + 1000).unwrap();
    file.write_all_at(b"x", 5 << 30).unwrap();
    file.write_all_at(b"x", 1 << 41).unwrap();
    assert_eq!(same_map(&path, "raw").len(), 5);
}

#[test]
fn images_that_snapcow_writes() {
    if !has_qemu_img() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let raw = folder.path().join("disk.raw");
    disks::write_sparse(&raw, &disks::mixed(11, 6 * MIB as usize + 512));
    let cases: Vec<Vec<&str>> = ["512", "4k", "64k", "2M"]
        .iter()
        .flat_map(|size| {
            [
                vec!["--cluster-size", size],
                vec!["--cluster-size", size, "--compression", "none"],
                vec!["--cluster-size", size, "--compression", "zstd"],
                vec!["--cluster-size", size, "--compat", "0.10"],
            ]
        })
        .collect();
    let numbered: Vec<_> = cases.into_iter().enumerate().collect();
    in_parallel(&numbered, |(number, options)| {
        let image = folder.path().join(format!("{number}.qcow2"));
        convert(&raw, &image, options);
        same_map(&image, "qcow2");
    });
}

/// Data, zeros that keep their place and zeros that do not, nothing at all, in images that QEMU writes.
#[test]
fn images_that_qemu_writes() {
    if !has_qemu_img() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let numbered: Vec<_> = [
        "compat=1.1",
        "compat=0.10",
        "compat=1.1,cluster_size=512",
        "compat=1.1,cluster_size=2M",
        "compat=1.1,compression_type=zstd",
        "compat=1.1,lazy_refcounts=on",
        "compat=0.10,cluster_size=4k",
        "compat=1.1,preallocation=metadata",
        "compat=0.10,cluster_size=4k,preallocation=metadata",
        "compat=1.1,refcount_bits=1,preallocation=metadata",
        "compat=1.1,preallocation=falloc",
        "compat=1.1,preallocation=full",
    ]
    .into_iter()
    .enumerate()
    .collect();
    in_parallel(&numbered, |&(number, options)| {
        let image = folder.path().join(format!("{number}.qcow2"));
        let mut random = Seeded::new(number as u64 + 100);
        // The last cluster is not whole.
        qemu("qemu-img", &["create", "-q", "-f", "qcow2", "-o", options, text(&image), "9999872"]);
        let mut orders: Vec<String> = Vec::new();
        for _ in 0..60 {
            let at = random.below(9_900_000 / 512) * 512;
            let longest = 1 << random.below(20);
            let len = (512 + random.below(longest)).next_multiple_of(512).min(9_999_872 - at);
            let cluster = at / (2 * MIB) * (2 * MIB);
            orders.push(match random.below(5) {
                0 | 1 => format!("write -P 7 {at} {len}"),
                2 => format!("write -z {at} {len}"),
                3 => format!("write -z -u {at} {len}"),
                _ if cluster + 2 * MIB < 9_999_872 => format!("write -c -P 9 {cluster} 2M"),
                _ => format!("discard {at} {len}"),
            });
        }
        let words: Vec<&str> = orders.iter().flat_map(|order| ["-c", order.as_str()]).collect();
        // A compressed write onto what is there is refused; that is fine.
        let done = std::process::Command::new("qemu-io").args(&words).arg(&image).output().unwrap();
        assert!(done.status.code().is_some(), "{done:?}");
        let extents = same_map(&image, "qcow2");
        assert!(extents.len() > 3, "{options}: {extents:?}");
    });
}

#[test]
fn an_image_of_many_tables_and_one_without_a_byte() {
    if !has_qemu_img() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("disk.qcow2");
    qemu("qemu-img", &["create", "-q", "-f", "qcow2", "-o", "cluster_size=512", text(&image), "64G"]);
    let orders: Vec<String> = (0..200u64).map(|at| format!("write -P 1 {} 4k", at * 300 * MIB)).collect();
    let words: Vec<&str> = orders.iter().flat_map(|order| ["-c", order.as_str()]).collect();
    qemu("qemu-io", &[&words[..], &[text(&image)]].concat());
    assert_eq!(same_map(&image, "qcow2").len(), 400);
    qemu("qemu-img", &["create", "-q", "-f", "qcow2", text(&image), "0"]);
    same_map(&image, "qcow2");
}

/// A map of half a million extents is printed as it is found: little memory, and a reader that goes away is no failure
/// to speak of.
#[test]
fn a_long_map_is_streamed() {
    let folder = tempfile::tempdir().unwrap();
    let (raw, image) = (folder.path().join("disk.raw"), folder.path().join("disk.qcow2"));
    let mut disk = vec![0u8; 256 * MIB as usize];
    disk.chunks_mut(1024).for_each(|pair| pair[0] = 1);
    std::fs::write(&raw, &disk).unwrap();
    convert(&raw, &image, &["--cluster-size", "512", "--compression", "none"]);
    let words = format!(
        "ulimit -v 400000; {} map --json {} | tail -c 200",
        env!("CARGO_BIN_EXE_snapcow"),
        text(&image)
    );
    let end = ran(std::process::Command::new("bash").args(["-c", &words]).output().unwrap()).exits(0);
    assert!(end.stdout.ends_with("}]\n") && end.stdout.contains("\"start\": 268434944"), "{end:?}");
    let words =
        format!("set -o pipefail; {} map --json {} | head -n 1", env!("CARGO_BIN_EXE_snapcow"), text(&image));
    let cut = ran(std::process::Command::new("bash").args(["-c", &words]).output().unwrap());
    assert_eq!((cut.code, cut.stderr.as_str()), (141, ""), "{cut:?}");
}

#[test]
fn the_table_and_the_summary_tell_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let (raw, image) = (folder.path().join("disk.raw"), folder.path().join("disk.qcow2"));
    let mut disk = disks::noise(3, 2 * MIB as usize);
    disk.resize(64 * MIB as usize, 0);
    disk[32 * MIB as usize..][..MIB as usize].fill(b'a');
    std::fs::write(&raw, &disk).unwrap();
    convert(&raw, &image, &[]);
    let list = snapcow(&["map", "--list", text(&image)]).exits(0).stdout;
    let rows: Vec<Vec<&str>> = list.lines().skip(1).map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows.len(), 4, "{list}");
    assert_eq!((rows[0][3], rows[2][3], rows[3][3]), ("data", "compressed", "nothing"));
    let summary = snapcow(&["map", text(&image)]).exits(0).stdout;
    assert!(summary.is_ascii() && !summary.contains('\x1b'), "{summary}");
    assert!(summary.contains("a disk of 64 MiB, qcow2 of "), "{summary}");
    let row = summary.lines().find(|line| line.contains(" 0 KiB ") || line.contains(" 0 MiB ")).unwrap();
    assert!(row.contains("####"), "{summary}");
    assert!(summary.lines().any(|line| line.starts_with("data ") && line.contains("2 MiB")), "{summary}");
    assert_eq!(snapcow(&["map", "--quiet", text(&image)]).exits(0).stdout, "");
}

#[test]
fn a_scan_finds_the_zeros_of_a_raw_disk() {
    let folder = tempfile::tempdir().unwrap();
    let raw = folder.path().join("disk.raw");
    let mut disk = disks::noise(4, 3 * MIB as usize + 5);
    disk[8192..MIB as usize].fill(0);
    std::fs::write(&raw, &disk).unwrap();
    let kinds = |words: &[&str]| -> Vec<(u64, bool)> {
        let json = snapcow(words).exits(0).json();
        let extents = json.as_array().unwrap().iter();
        extents.map(|own| (own["length"].as_u64().unwrap(), own["zero"] == true)).collect()
    };
    let all = 3 * MIB + 5;
    assert_eq!(kinds(&["map", "--json", text(&raw)]), [(all, false), (507, true)]);
    let expected = [(8192, false), (MIB - 8192, true), (2 * MIB + 5, false), (507, true)];
    assert_eq!(kinds(&["map", "--json", "--scan", text(&raw)]), expected);
    let image = folder.path().join("disk.qcow2");
    convert(&raw, &image, &[]);
    snapcow(&["map", "--scan", text(&image)]).exits(2);
}

#[test]
fn what_has_no_map_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image");
    std::fs::write(
        &path,
        b"KDMV and more, so that it is a VMDK by its first bytes, and long enough to be seen",
    )
    .unwrap();
    let ran = snapcow(&["map", text(&path)]).exits(3);
    assert!(ran.stderr.contains("VMDK"), "{ran:?}");
    snapcow(&["map", "-"]).exits(2);
    snapcow(&["map", "/nonexistent"]).exits(3);
    snapcow(&["map", "--json", "--list", text(&path)]).exits(2);
    if has_qemu_img() {
        let (base, top) = (folder.path().join("base"), folder.path().join("top"));
        qemu("qemu-img", &["create", "-q", "-f", "qcow2", text(&base), "1M"]);
        qemu("qemu-img", &["create", "-q", "-f", "qcow2", "-b", text(&base), "-F", "qcow2", text(&top)]);
        let ran = snapcow(&["map", text(&top)]).exits(3);
        assert!(ran.stderr.contains("backing file"), "{ran:?}");
    }
}

/// Tables that name each other over and over: the walk ends, in time, with a sentence.
#[test]
fn an_image_whose_tables_repeat_does_not_keep_it_busy() {
    let folder = tempfile::tempdir().unwrap();
    let (raw, image) = (folder.path().join("disk.raw"), folder.path().join("disk.qcow2"));
    std::fs::write(&raw, disks::noise(5, 64 << 10)).unwrap();
    convert(&raw, &image, &[]);
    let mut bytes = std::fs::read(&image).unwrap();
    let entry = super::info::first_l1_entry(&bytes);
    // An L1 table of 32 MiB at the end, in which every entry names the one L2 table: a disk of 2 PiB.
    let at = (bytes.len() as u64).next_multiple_of(65536);
    bytes.resize(at as usize, 0);
    (0..4 << 20).for_each(|_| bytes.extend_from_slice(&entry.to_be_bytes()));
    bytes[24..32].copy_from_slice(&(1u64 << 51).to_be_bytes());
    bytes[36..40].copy_from_slice(&(4u32 << 20).to_be_bytes());
    bytes[40..48].copy_from_slice(&at.to_be_bytes());
    std::fs::write(&image, bytes).unwrap();
    let begin = std::time::Instant::now();
    let ran = snapcow(&["map", text(&image)]).exits(11);
    assert!(ran.stderr.contains("more tables than fit"), "{ran:?}");
    let info = snapcow(&["info", "--json", text(&image)]).exits(0).json();
    assert!(info["contents"].is_null() && info["warnings"].to_string().contains("more tables"), "{info}");
    assert!(begin.elapsed().as_secs() < 20, "{:?}", begin.elapsed());
}
