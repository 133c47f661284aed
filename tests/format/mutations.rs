//! Every row of the table of mutations is done to good images of several writers, and has to be noticed, by
//! `check` or, where no structure shows it, by `verify`.

use std::path::Path;

use snapcow::error::Kind;
use snapcow::read::Severity;

use crate::anatomy::{Anatomy, u64_at};
use crate::common::{disks, oracles};
use crate::table::{HEADER, PAYLOAD_AND_TAIL, REFCOUNTS, Seen, TABLES};
use crate::tools::{check_bytes, compare_bytes, convert, is_clean, qemu, qemu_img_check, text};

/// Good images of several writers, and the disk that they hold.
struct Good {
    disk: Vec<u8>,
    images: Vec<(String, Vec<u8>)>,
}

fn good(folder: &Path) -> Good {
    // With 4 KiB clusters several L2 tables; all refcounts in one block.
    let mut disk = disks::mixed(41, 5 << 20);
    // Clusters that are surely plain, compressed, and unlike each other.
    disk[..128 << 10].copy_from_slice(&disks::noise(5, 128 << 10));
    for (index, byte) in disk[256 << 10..768 << 10].iter_mut().enumerate() {
        *byte = (index / 4096) as u8 ^ (index % 50) as u8;
    }
    let raw = folder.join("disk.raw");
    disks::write_sparse(&raw, &disk);
    let mut images = Vec::new();
    for options in [
        "--cluster-size 4k",
        "--cluster-size 4k --compression zstd",
        "--cluster-size 4k --compression none --compat 0.10",
        "--cluster-size 64k",
    ] {
        let image = folder.join("image.qcow2");
        let words: Vec<&str> = options.split(' ').collect();
        convert(&raw, &image, &words);
        images.push((format!("snapcow {options}"), std::fs::read(&image).unwrap()));
        // Streamed, the head comes first: another order of the same parts.
        let streamed = folder.join("streamed.qcow2");
        let mut command =
            crate::tools::command(&[&["convert", "--quiet", text(&raw), "-"], &words[..]].concat());
        command.stdout(std::fs::File::create(&streamed).unwrap());
        assert!(command.status().unwrap().success());
        images.push((format!("snapcow {options} to a stream"), std::fs::read(&streamed).unwrap()));
    }
    if oracles::has_qemu_img() {
        for options in ["-c -o cluster_size=4k", "-o cluster_size=4k,compat=0.10", "-c -o cluster_size=64k"] {
            let image = folder.join("qemu.qcow2");
            let mut words = vec!["convert", "-O", "qcow2"];
            words.extend(options.split(' '));
            qemu("qemu-img", &[&words[..], &[text(&raw), text(&image)]].concat());
            images.push((format!("qemu-img {options}"), std::fs::read(&image).unwrap()));
        }
    }
    for (name, bytes) in &images {
        let path = folder.join("good.qcow2");
        std::fs::write(&path, bytes).unwrap();
        is_clean(&path, name);
        assert!(compare_bytes(&disk, bytes.clone()).unwrap().is_equal(), "{name}");
    }
    Good { disk, images }
}

#[track_caller]
fn notice(what: &str, seen: Seen, bytes: Vec<u8>, disk: &[u8]) {
    let outcome = check_bytes(bytes.clone());
    match (seen, &outcome) {
        (Seen::Refused, Err(error)) => assert_eq!(error.kind(), Kind::Source, "{what}: {error}"),
        (Seen::As(class), Ok(report)) => {
            assert!(report.findings.counts().contains_key(&class), "{what}: {:#?}", report.findings);
            assert!(report.worst() > Some(Severity::Note), "{what}");
        }
        (Seen::Error, Ok(report)) => {
            assert_eq!(report.worst(), Some(Severity::Error), "{what}: {:#?}", report.findings);
        }
        (Seen::ByVerify, Ok(report)) => {
            assert!(report.worst() < Some(Severity::Leak), "{what}: {:#?}", report.findings);
            let comparison = compare_bytes(disk, bytes).unwrap();
            assert!(!comparison.is_equal(), "{what}: verify sees no difference");
        }
        (_, outcome) => panic!("{what}: {outcome:?}"),
    }
}

#[test]
fn every_mutation_of_a_good_image_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let good = good(folder.path());
    let rows: Vec<_> = [HEADER, TABLES, REFCOUNTS, PAYLOAD_AND_TAIL].concat();
    assert!(rows.len() >= 25, "{}", rows.len());
    for (name, seen, change) in rows {
        let mut done = 0;
        for (writer, image) in &good.images {
            let (anatomy, mut bytes) = (Anatomy::of(image), image.clone());
            if !change(&mut bytes, &anatomy) {
                continue;
            }
            done += 1;
            notice(&format!("{name}, {writer}"), seen, bytes, &good.disk);
        }
        assert!(done > 0, "{name}: no image has anything of the kind");
    }
}

/// Whatever `qemu-img check` complains of we complain of as well, wherever a file is hit; and nothing makes
/// the reader panic or run for ever.
#[test]
fn what_qemu_img_notices_in_randomly_damaged_images_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let good = good(folder.path());
    let mut random = disks::Seeded::new(2026);
    let path = folder.path().join("damaged.qcow2");
    let (mut noticed, mut by_qemu) = (0, 0);
    for round in 0..400 {
        let (writer, image) = &good.images[round % good.images.len()];
        let anatomy = Anatomy::of(image);
        let mut bytes = image.clone();
        // Where structure is: in the header, in an L1 entry, in the first L2 table, in the refcounts.
        let table = (u64_at(image, anatomy.l1_entries[0]) & snapcow::qcow2::entry::OFFSET) as usize;
        let (start, len) = [
            (0, 112),
            (anatomy.l1, 64),
            (table, anatomy.cluster),
            (anatomy.refcounts, 2 * anatomy.len.div_ceil(anatomy.cluster)),
            (anatomy.refcount_table, 16),
        ][round / good.images.len() % 5];
        for _ in 0..1 + random.below(3) {
            let at = start + random.below(len as u64) as usize;
            bytes[at] ^= 1 << random.below(8);
        }
        let outcome = check_bytes(bytes.clone());
        let is_noticed = outcome.as_ref().map_or(true, |report| report.worst() > Some(Severity::Note));
        // Must end, and must not panic; what it says does not matter.
        drop(compare_bytes(&good.disk, bytes.clone()));
        noticed += usize::from(is_noticed);
        // QEMU would run for long where a size is far off.
        if oracles::has_qemu_img() && start != 0 {
            std::fs::write(&path, &bytes).unwrap();
            let code = qemu_img_check(&path);
            by_qemu += usize::from(code != 0);
            assert!(code == 0 || is_noticed, "round {round}, {writer}: qemu-img says {code}, we {outcome:?}");
        }
    }
    assert!(noticed >= 200 && noticed >= by_qemu, "{noticed} noticed, {by_qemu} by qemu-img");
}
