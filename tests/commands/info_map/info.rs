//! `info`, against `qemu-img info` and over what nobody should believe.

use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;

use serde_json::Value;

use crate::common::disks;
use crate::common::oracles::has_qemu_img;
use crate::tools::{convert, qemu, snapcow, text};

const MIB: usize = 1 << 20;

/// The first entry of the L1 table.
pub fn first_l1_entry(image: &[u8]) -> u64 {
    let u64_at = |at: usize| u64::from_be_bytes(image[at..at + 8].try_into().unwrap());
    u64_at(u64_at(40) as usize)
}

fn info(image: &Path) -> Value {
    let json = snapcow(&["info", "--json", text(image)]).exits(0).json();
    assert_eq!(json["schema"], "snapcow/info/1");
    json
}

#[test]
fn images_are_described_as_qemu_describes_them() {
    if !has_qemu_img() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("disk.qcow2");
    for (options, size) in [
        ("compat=0.10", "10M"),
        ("compat=1.1,cluster_size=2M,lazy_refcounts=on", "3G"),
        ("compat=1.1,compression_type=zstd,refcount_bits=1", "512"),
        ("compat=1.1,extended_l2=on", "5M"),
        ("compat=1.1,refcount_bits=64", "0"),
    ] {
        qemu("qemu-img", &["create", "-q", "-f", "qcow2", "-o", options, text(&image), size]);
        let words = ["info", "--output=json", "-f", "qcow2", text(&image)];
        let theirs: Value = serde_json::from_str(&qemu("qemu-img", &words)).unwrap();
        let (ours, data) = (info(&image), &theirs["format-specific"]["data"]);
        assert_eq!(ours["format"], "qcow2");
        assert_eq!(ours["virtual_size_bytes"], theirs["virtual-size"], "{options}");
        let own = &ours["qcow2"];
        assert_eq!(own["cluster_size_bytes"], theirs["cluster-size"], "{options}");
        assert_eq!(own["compression"], data["compression-type"], "{options}");
        let version = if data["compat"] == "0.10" { 2 } else { 3 };
        assert_eq!(own["version"], version);
        if version == 3 {
            assert_eq!(own["refcount_bits"], data["refcount-bits"]);
            let features = own["features"].to_string();
            assert_eq!(features.contains("lazy refcounts"), data["lazy-refcounts"] == true, "{features}");
            assert_eq!(features.contains("extended L2"), data["extended-l2"] == true, "{features}");
        }
        snapcow(&["info", text(&image)]).exits(0);
    }
}

#[test]
fn what_is_inside_is_counted_as_the_check_counts_it() {
    let folder = tempfile::tempdir().unwrap();
    let (raw, image) = (folder.path().join("disk.raw"), folder.path().join("disk.qcow2"));
    disks::write_sparse(&raw, &disks::mixed(21, 8 * MIB));
    convert(&raw, &image, &[]);
    let (ours, check) = (info(&image), snapcow(&["check", "--json", text(&image)]).exits(0).json());
    let contents = &ours["contents"];
    for name in ["plain_clusters", "compressed_clusters", "zero_clusters"] {
        assert_eq!(contents[name], check["facts"][name], "{name}");
    }
    let of = |name: &str| contents[name].as_u64().unwrap();
    assert_eq!(of("data_bytes") + of("zero_bytes") + of("unallocated_bytes"), 8 * MIB as u64);
    assert!(of("stored_bytes") < of("data_bytes") && of("compressed_stored_bytes") > 0);
    let text_out = snapcow(&["info", text(&image)]).exits(0).stdout;
    assert!(text_out.contains("version 3, clusters of 64 KiB, zlib"), "{text_out}");

    let holes = info(&raw);
    assert_eq!((&holes["format"], &holes["qcow2"]), (&"raw".into(), &Value::Null));
    assert_eq!(holes["virtual_size_bytes"], 8 * MIB);
    assert!(snapcow(&["info", text(&raw)]).exits(0).stdout.contains("holes"));
}

#[test]
fn other_files_are_named_and_not_opened() {
    if !has_qemu_img() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (base, top) = (folder.path().join("base"), folder.path().join("top"));
    qemu("qemu-img", &["create", "-q", "-f", "qcow2", text(&base), "1M"]);
    qemu("qemu-img", &["create", "-q", "-f", "qcow2", "-b", "base", "-F", "qcow2", text(&top)]);
    std::fs::remove_file(&base).unwrap();
    let ours = info(&top);
    assert_eq!(ours["qcow2"]["backing_file"], "base");
    assert_eq!(ours["qcow2"]["backing_format"], "qcow2");
    assert!(ours["contents"]["unallocated_bytes"] == MIB, "{ours}");

    let data = folder.path().join("data.raw");
    let option = format!("data_file={}", text(&data));
    qemu("qemu-img", &["create", "-q", "-f", "qcow2", "-o", &option, text(&top), "1M"]);
    std::fs::remove_file(&data).unwrap();
    let ours = info(&top);
    assert!(ours["qcow2"]["data_file"].as_str().unwrap().ends_with("data.raw"), "{ours}");
    qemu("qemu-img", &["create", "-q", "-f", "qcow2", text(&top), "1M"]);
    qemu("qemu-img", &["bitmap", "--add", text(&top), "b0"]);
    qemu("qemu-img", &["snapshot", "-c", "s0", text(&top)]);
    let ours = info(&top);
    assert_eq!((&ours["qcow2"]["bitmaps"], &ours["qcow2"]["snapshots"]), (&1.into(), &1.into()));
}

#[test]
fn other_formats_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image");
    std::fs::write(&path, [b"KDMV".as_slice(), &[0; 600]].concat()).unwrap();
    let ours = info(&path);
    assert_eq!((&ours["format"], &ours["virtual_size_bytes"]), (&"VMDK".into(), &Value::Null));
    std::fs::write(&path, b"").unwrap();
    assert_eq!(info(&path)["format"], "empty");
    snapcow(&["info", "-"]).exits(2);
    snapcow(&["info", "/nonexistent"]).exits(3);
}

/// Whatever the bytes of the header are: a sentence or a result, soon, in little memory, and nothing that commands a
/// terminal.
#[test]
fn hostile_images_are_borne() {
    let folder = tempfile::tempdir().unwrap();
    let (raw, image) = (folder.path().join("disk.raw"), folder.path().join("disk.qcow2"));
    std::fs::write(&raw, disks::mixed(31, MIB)).unwrap();
    convert(&raw, &image, &["--cluster-size", "4k"]);
    let good = std::fs::read(&image).unwrap();
    let mut random = disks::Seeded::new(77);
    for round in 0..120 {
        let mut bad = good.clone();
        for _ in 0..3 {
            let at = random.below(if round % 2 == 0 { 120 } else { 12_288 }) as usize;
            bad[at] = random.next() as u8;
        }
        if round % 10 == 0 {
            bad.truncate(random.below(9000) as usize);
        }
        bad[..4].copy_from_slice(&good[..4]);
        std::fs::write(&image, &bad).unwrap();
        for words in [&["info", "--json", text(&image)][..], &["info", text(&image)], &["map", text(&image)]]
        {
            let ran = snapcow(words);
            assert!([0, 2, 3, 11].contains(&ran.code), "{ran:?}");
            assert!(!ran.stderr.contains("panicked"), "{ran:?}");
            assert!(!ran.stdout.chars().any(|c| c.is_control() && c != '\n'), "{ran:?}");
        }
    }
}

#[test]
fn partitions_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let raw = folder.path().join("disk.raw");
    let mut disk = vec![0u8; 8 * MIB];
    disk[450] = 0x83;
    disk[454..458].copy_from_slice(&2048u32.to_le_bytes());
    disk[458..462].copy_from_slice(&4096u32.to_le_bytes());
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    std::fs::write(&raw, &disk).unwrap();
    let ours = info(&raw);
    let first = &ours["partition_table"]["partitions"][0];
    assert_eq!(ours["partition_table"]["scheme"], "MBR");
    assert_eq!((&first["start_bytes"], &first["length_bytes"]), (&MIB.into(), &(2 * MIB).into()));
    let image = folder.path().join("disk.qcow2");
    convert(&raw, &image, &[]);
    assert_eq!(info(&image)["partition_table"], ours["partition_table"]);
    assert!(snapcow(&["info", text(&image)]).exits(0).stdout.contains("2 MiB from 1 MiB, Linux"));
}

#[test]
fn partition_tables_of_a_real_tool_are_read_to_their_ends() {
    let folder = tempfile::tempdir().unwrap();
    let raw = folder.path().join("disk.raw");
    let table = |script: &str| {
        let file = std::fs::File::create(&raw).unwrap();
        file.set_len(64 * MIB as u64).unwrap();
        let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
        let mut child = std::process::Command::new("sfdisk")
            .args(["-q", text(&raw)])
            .env("PATH", path)
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success(), "{script}");
    };
    table("label: dos\np1: size=4MiB\np2: size=40MiB,type=5\np5: size=8MiB\np6: size=8MiB,type=82\n");
    let ours = info(&raw);
    let partitions = ours["partition_table"]["partitions"].as_array().unwrap();
    let named: Vec<_> = partitions
        .iter()
        .map(|one| (one["number"].as_u64().unwrap(), one["type"].as_str().unwrap()))
        .collect();
    assert_eq!(named, [(1, "Linux"), (2, "extended"), (5, "Linux"), (6, "Linux swap")]);
    assert!(snapcow(&["map", text(&raw)]).exits(0).stdout.contains("MBR 6  8 MiB from"));

    table("label: gpt\nsize=4MiB\n");
    assert_eq!(info(&raw)["warnings"], serde_json::json!([]));
    // Without the entry that guards it, the table means nothing to whoever knows MBR alone.
    let file = std::fs::OpenOptions::new().write(true).open(&raw).unwrap();
    file.write_all_at(&[0; 66], 446).unwrap();
    let ours = info(&raw);
    assert_eq!(ours["partition_table"], Value::Null);
    let warning = ours["warnings"][0].as_str().unwrap();
    assert!(warning.contains("GPT without the protective MBR"), "{warning}");
}
