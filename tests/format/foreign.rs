//! Images that QEMU writes: all without a second file are sound by our check too, and hold what they should.

use std::path::Path;

use snapcow::read::{Class, Severity};

use crate::common::{disks, oracles};
use crate::tools::{
    check_bytes, compare_bytes, holds, in_parallel, is_clean, is_clean_up_to_its_end, qemu, snapcow, text,
};

const MIB: usize = 1 << 20;

/// Options of `qemu-img convert`: every compat, cluster size from 512 bytes to 2 MiB, compression, refcount
/// width and preallocation, and lazy refcounts.
fn convert_options() -> Vec<String> {
    let mut all = Vec::new();
    for compat in ["0.10", "1.1"] {
        for cluster_bits in 9..=21 {
            let base = format!("-o compat={compat},cluster_size={}", 1 << cluster_bits);
            all.extend([base.clone(), format!("-c {base}")]);
            if compat == "1.1" {
                all.push(format!("-c {base},compression_type=zstd"));
            }
        }
        for preallocation in ["metadata", "falloc", "full"] {
            for cluster_size in ["512", "4k", "64k", "2M"] {
                let base = format!("-o compat={compat},cluster_size={cluster_size}");
                all.push(format!("{base},preallocation={preallocation}"));
            }
        }
    }
    for bits in [1, 2, 4, 8, 32, 64] {
        for cluster_size in ["512", "64k"] {
            all.push(format!("-o refcount_bits={bits},cluster_size={cluster_size}"));
        }
        // A narrow refcount cannot count the compressed clusters of one host cluster.
        if bits >= 8 {
            all.push(format!("-c -o refcount_bits={bits}"));
        }
    }
    all.extend(
        ["-o lazy_refcounts=on", "-c -o lazy_refcounts=on", "-S 0", "-m 16 -W", "-c -m 16 -W"]
            .map(String::from),
    );
    all
}

#[test]
fn everything_that_qemu_img_convert_writes_is_sound() {
    if !oracles::has_qemu_img() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let raw = folder.path().join("disk.raw");
    let disk = disks::mixed(77, 3 * MIB + 512);
    disks::write_sparse(&raw, &disk);
    let options: Vec<(usize, String)> = convert_options().into_iter().enumerate().collect();
    in_parallel(&options, |(number, options)| {
        let image = folder.path().join(format!("{number}.qcow2"));
        let mut words = vec!["convert", "-f", "raw", "-O", "qcow2"];
        words.extend(options.split(' '));
        qemu("qemu-img", &[&words[..], &[text(&raw), text(&image)]].concat());
        let report = is_clean(&image, options);
        let facts = report.facts.unwrap();
        assert_eq!(facts.decoded_clusters, facts.compressed_clusters, "{options}");
        holds(&image, &disk, options);
        std::fs::remove_file(image).unwrap();
    });
}

#[test]
fn everything_that_qemu_img_create_makes_is_sound() {
    if !oracles::has_qemu_img() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("empty.qcow2");
    for size in ["0", "512", "1M", "10G", "1T"] {
        for options in [
            "compat=0.10",
            "cluster_size=4k",
            "cluster_size=2M",
            "lazy_refcounts=on",
            "refcount_bits=1",
            "refcount_bits=64",
        ] {
            create(&image, &["-o", options], size);
            is_clean(&image, &format!("{size}, {options}"));
        }
    }
    for preallocation in ["metadata", "falloc"] {
        for options in ["cluster_size=64k", "cluster_size=2M", "cluster_size=4k,compat=0.10"] {
            create(&image, &["-o", &format!("{options},preallocation={preallocation}")], "33M");
            is_clean(&image, &format!("{preallocation}, {options}"));
            holds(&image, &vec![0; 33 * MIB], options);
        }
    }
}

fn create(image: &Path, options: &[&str], size: &str) {
    qemu("qemu-img", &[&["create", "-q", "-f", "qcow2"], options, &[text(image), size]].concat());
}

#[test]
fn snapshots_bitmaps_and_encryption_are_walked() {
    if !oracles::has_qemu_img() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("image.qcow2");
    let image = text(&image);
    for options in ["cluster_size=64k", "cluster_size=4k,refcount_bits=8"] {
        create(Path::new(image), &["-o", options], "40M");
        qemu("qemu-io", &["-c", "write -P 1 0 3M", "-c", "write -P 2 20M 100k", image]);
        qemu("qemu-img", &["snapshot", "-c", "first, with a name", image]);
        qemu("qemu-io", &["-c", "write -P 3 1M 1M", "-c", "write -z -u 20M 64k", image]);
        qemu("qemu-img", &["snapshot", "-c", "second", image]);
        qemu("qemu-img", &["bitmap", "--add", image, "changes"]);
        qemu("qemu-img", &["bitmap", "--add", "-g", "512", image, "finer"]);
        qemu("qemu-io", &["-c", "write -P 4 30M 1M", image]);
        let report = is_clean(Path::new(image), options);
        assert_eq!(report.facts.unwrap().snapshots, 2);
        qemu("qemu-img", &["snapshot", "-d", "first, with a name", image]);
        qemu("qemu-img", &["bitmap", "--remove", image, "changes"]);
        is_clean_up_to_its_end(Path::new(image), options);
        let mut disk = vec![0; 40 * MIB];
        disk[..3 * MIB].fill(1);
        disk[MIB..2 * MIB].fill(3);
        disk[20 * MIB..20 * MIB + (100 << 10)].fill(2);
        disk[20 * MIB..20 * MIB + (64 << 10)].fill(0);
        disk[30 * MIB..31 * MIB].fill(4);
        holds(Path::new(image), &disk, options);
    }
    let secret = ["--object", "secret,id=s,data=abc123"];
    let luks = "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10";
    create(Path::new(image), &[secret[0], secret[1], "-o", luks], "10M");
    is_clean(Path::new(image), "LUKS");
    let error = compare_bytes(&[], std::fs::read(image).unwrap()).unwrap_err();
    assert!(error.to_string().contains("encrypted"), "{error}");
}

#[test]
fn a_damaged_snapshot_or_bitmap_is_noticed() {
    if !oracles::has_qemu_img() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image.qcow2");
    create(&path, &["-o", "cluster_size=4k"], "8M");
    qemu("qemu-io", &["-c", "write -P 1 0 1M", text(&path)]);
    qemu("qemu-img", &["snapshot", "-c", "kept", text(&path)]);
    qemu("qemu-img", &["bitmap", "--add", text(&path), "changes"]);
    let good = std::fs::read(&path).unwrap();
    is_clean(&path, "with a snapshot and a bitmap");
    let be = |at: usize| u64::from_be_bytes(good[at..at + 8].try_into().unwrap()) as usize;
    let snapshot = be(64);
    let seen = |class: Class, change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = good.clone();
        change(&mut bytes);
        let report = check_bytes(bytes).unwrap();
        assert!(report.findings.counts().contains_key(&class), "{class:?}: {:#?}", report.findings);
    };
    seen(Class::Outside, &|bytes| bytes[snapshot] = 1);
    seen(Class::Unaligned, &|bytes| bytes[snapshot + 7] ^= 8);
    seen(Class::Snapshots, &|bytes| bytes[snapshot + 36] = 1);
    // One entry less: what it named is a leak, and what the active tables say no longer fits.
    seen(Class::Leak, &|bytes| bytes[63] = 0);
    let extension =
        good[..4096].windows(4).position(|bytes| bytes == 0x2385_2875u32.to_be_bytes()).unwrap() + 8;
    let directory = be(extension + 16);
    seen(Class::Bitmaps, &|bytes| bytes[extension + 3] = 9);
    seen(Class::Outside, &|bytes| bytes[directory] = 1);
    seen(Class::Overlap, &|bytes| bytes[extension + 16..extension + 24].fill(0));
    // Whoever wrote to it without knowing bitmaps cleared the bit: they are void, and their place is lost.
    seen(Class::Leak, &|bytes| bytes[95] &= !1);
}

#[test]
fn what_needs_another_file_or_is_unknown_is_told_apart() {
    if !oracles::has_qemu_img() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let (base, overlay, external) = (at("base.qcow2"), at("overlay.qcow2"), at("external.qcow2"));
    create(&base, &[], "10M");
    create(&overlay, &["-b", text(&base), "-F", "qcow2"], "10M");
    create(&external, &["-o", &format!("data_file={}", text(&at("data")))], "10M");
    qemu("qemu-io", &["-c", "write -P 7 1M 3M", text(&overlay)]);
    qemu("qemu-io", &["-c", "write -P 7 1M 3M", text(&external)]);
    for (image, words) in [(&overlay, "base.qcow2"), (&external, "data")] {
        let report = check_bytes(std::fs::read(image).unwrap()).unwrap();
        assert_eq!(report.findings.counts().keys().collect::<Vec<_>>(), [&Class::ExternalFile]);
        assert_eq!(report.findings.count(Severity::Error), 1);
        assert!(report.findings.kept()[0].text.contains(words));
        snapcow(&["check", "--quiet", text(image)]).exits(11);
        snapcow(&["check", "--quiet", "--allow-external", text(image)]).exits(0);
        let ran = snapcow(&["verify", text(image), text(&base)]).exits(3);
        assert!(ran.stderr.contains(words), "{}", ran.stderr);
    }
    let extended = at("extended.qcow2");
    create(&extended, &["-o", "extended_l2=on"], "10M");
    for words in [["check", text(&extended), "--quiet"], ["verify", text(&extended), text(&base)]] {
        let ran = snapcow(&words).exits(3);
        assert!(ran.stderr.contains("subclusters"), "{}", ran.stderr);
    }
}
