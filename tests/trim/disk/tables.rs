//! Partition tables made by real tools, compared with what `sfdisk` says of them.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::{FileDisk, LIMITS, Loop, MIB, Random, image, json_numbers, path_text, ready, run, run_with};
use snapcow::free::Trouble;
use snapcow::free::disk::look;
use snapcow::free::table::{Role, Scheme, Table, read};

fn table(path: &Path) -> Result<Option<Table>, String> {
    let disk = FileDisk::open(path);
    read(&disk, disk.len()).map_err(|trouble| match trouble {
        Trouble::Whole(why) => why,
        Trouble::Failed(error) => panic!("{error}"),
    })
}

/// Starts and lengths of the partitions, in bytes, by `sfdisk`.
fn oracle(device: &str, sector: u64) -> Vec<(u64, u64)> {
    let json = run(&format!("sfdisk --json {device}"));
    let json = json.split("\"partitions\":").nth(1).unwrap_or_default();
    let sizes = json_numbers(json, "size");
    json_numbers(json, "start")
        .into_iter()
        .zip(sizes)
        .map(|(start, len)| (start * sector, len * sector))
        .collect()
}

fn places(table: &Table) -> Vec<(u64, u64)> {
    table.partitions.iter().map(|part| (part.start, part.len)).collect()
}

fn script(label: &str, random: &mut Random, extended: bool) -> String {
    let mut text = format!("label: {label}\n");
    let most = if extended { 3 } else { 1 + random.below(12) };
    let most = if label == "dos" && !extended { most.min(4) } else { most };
    for index in 0..most {
        let kind = if extended && index == 1 { ",type=E" } else { "" };
        let size = if extended && index == 1 { 40 } else { 1 + random.below(4) };
        text += &format!("size={size}MiB{kind}\n");
    }
    if extended {
        for _ in 0..random.below(8) {
            text += &format!("size={}MiB\n", 1 + random.below(3));
        }
    }
    text
}

#[test]
fn tables_of_real_tools_are_read_as_they_read_them() {
    if !ready(&["sfdisk", "losetup"]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk");
    let mut random = Random(1);
    for turn in 0..40u64 {
        let (label, extended) = [("gpt", false), ("dos", false), ("dos", true)][turn as usize % 3];
        let sector = if label == "gpt" && turn % 2 == 0 { 4096 } else { 512 };
        let len = 64 * MIB + random.below(9) * 4096;
        let _ = std::fs::remove_file(&path);
        image(&path, len);
        let text = script(label, &mut random, extended);
        let device = Loop::new(&path, 0, len, sector as u32);
        run_with(&["sfdisk", "--no-reread", "--no-tell-kernel", &device.0], &text);
        let expected = oracle(&device.0, sector);
        drop(device);
        let found = table(&path).unwrap().unwrap();
        assert_eq!(places(&found), expected, "{text}");
        assert_eq!(found.sector_bytes, sector);
        assert_eq!(found.scheme, if label == "gpt" { Scheme::Gpt } else { Scheme::Mbr });
        assert!(found.partitions.iter().all(|part| part.doubt.is_none()), "{found:?}");
        assert_eq!(found.note, None);
        assert!(!extended || found.partitions.iter().any(|part| part.role == Role::Container));
    }
}

fn change(path: &Path, at: u64, bytes: &[u8]) {
    OpenOptions::new().write(true).open(path).unwrap().write_all_at(bytes, at).unwrap();
}

fn bytes(path: &Path, at: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    std::fs::File::open(path).unwrap().read_exact_at(&mut bytes, at).unwrap();
    bytes
}

#[test]
fn the_backup_of_a_gpt_counts() {
    if !ready(&["sfdisk", "sgdisk"]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (path, other) = (folder.path().join("disk"), folder.path().join("other"));
    let fresh = || {
        for (path, sizes) in [(&path, "size=10MiB\nsize=4MiB\n"), (&other, "size=10MiB\nsize=5MiB\n")] {
            let _ = std::fs::remove_file(path);
            image(path, 64 * MIB);
            run_with(
                &["sfdisk", path_text(path)],
                &format!("label: gpt\nlabel-id: 2D9F6D2A-0F0B-4F0E-8C5B-0A7E1C0F0001\n{sizes}"),
            );
        }
        table(&path).unwrap().unwrap()
    };
    let good = fresh();
    let last = 64 * MIB - 512;
    // One of the two is gone.
    for at in [512, 1024 + 40] {
        fresh();
        change(&path, at, &[0x55; 90]);
        let found = table(&path).unwrap().unwrap();
        assert_eq!(places(&found), places(&good));
        assert!(found.note.as_ref().unwrap().contains("the backup at its end was read"), "{:?}", found.note);
    }
    for (at, words) in [(last, "is missing"), (last - 32 * 512 + 40, "is damaged")] {
        fresh();
        change(&path, at, &[0x55; 90]);
        let found = table(&path).unwrap().unwrap();
        assert_eq!(places(&found), places(&good));
        assert!(found.note.as_ref().unwrap().contains(words), "{:?}", found.note);
    }
    // Both are gone.
    fresh();
    change(&path, 512, &[0; 90]);
    change(&path, last, &[0; 90]);
    assert!(table(&path).unwrap_err().contains("no valid backup"));
    // Both are valid, and tell different tables.
    fresh();
    let tail = bytes(&other, 64 * MIB - 33 * 512, 33 * 512);
    change(&path, 64 * MIB - 33 * 512, &tail);
    assert_eq!(table(&path).unwrap_err(), "its GPT and the backup of it disagree");
    // The disk has grown or shrunk since.
    fresh();
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(80 * MIB).unwrap();
    let found = table(&path).unwrap().unwrap();
    assert_eq!(
        (places(&found), found.note.as_deref()),
        (places(&good), Some("its GPT was made for a smaller disk"))
    );
    file.set_len(14 * MIB).unwrap();
    let found = table(&path).unwrap().unwrap();
    assert_eq!((places(&found), found.note.is_some()), (places(&good), true));
    let doubts: Vec<bool> = found.partitions.iter().map(|part| part.doubt.is_some()).collect();
    assert_eq!(doubts, [false, true]);
    // A backup alone, and one under a filesystem that was made on the whole disk.
    fresh();
    change(&path, 0, &[0; 34 * 512]);
    assert!(table(&path).unwrap_err().contains("but no GPT at its beginning"));
    // Without the protective MBR.
    fresh();
    change(&path, 446, &[0; 64]);
    assert!(table(&path).unwrap_err().contains("without the protective MBR"));
}

#[test]
fn a_hybrid_mbr_has_to_agree() {
    if !ready(&["sgdisk"]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk");
    image(&path, 64 * MIB);
    let name = path_text(&path);
    run(&format!("sgdisk -n 1:0:+4M -n 2:0:+5M -n 3:0:+6M {name}"));
    run(&format!("sgdisk -h 1:3 {name}"));
    assert_eq!(table(&path).unwrap().unwrap().partitions.len(), 3);
    // The first entry that is not the protective one.
    let entry = (446..510).step_by(16).find(|at| bytes(&path, at + 4, 1)[0] == 0x83).unwrap();
    let sectors = bytes(&path, entry + 12, 1)[0];
    change(&path, entry + 12, &[sectors ^ 8]);
    assert!(table(&path).unwrap_err().contains("disagrees with its GPT"));
    let findings = look(&FileDisk::open(&path), 64 * MIB, LIMITS).unwrap();
    assert!(findings.refused.is_some() && findings.free.as_slice().is_empty());
}

#[test]
fn flipped_bits_are_borne_and_never_believed() {
    if !ready(&["sfdisk"]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk");
    let mut random = Random(3);
    for label in ["gpt", "dos"] {
        let _ = std::fs::remove_file(&path);
        image(&path, 64 * MIB);
        let text = script(label, &mut random, label == "dos");
        run_with(&["sfdisk", path_text(&path)], &text);
        let good = table(&path).unwrap().unwrap();
        let mut bad = std::fs::read(&path).unwrap();
        let own: Vec<u64> = good.own.iter().flat_map(|range| range.clone().take(512)).collect();
        let mut refused = 0;
        for _ in 0..3_000 {
            let flips: Vec<(usize, u8)> = (0..1 + random.below(3))
                .map(|_| {
                    let at = own[random.next() as usize % own.len()];
                    (at as usize, 1 << random.below(8))
                })
                .collect();
            flips.iter().for_each(|(at, bit)| bad[*at] ^= bit);
            let found = read(&bad, 64 * MIB);
            flips.iter().for_each(|(at, bit)| bad[*at] ^= bit);
            match found {
                Err(_) => refused += 1,
                Ok(None) => assert_eq!(label, "dos"),
                Ok(Some(found)) => {
                    if label == "gpt" {
                        assert_eq!(places(&found), places(&good));
                    }
                    let mut sure: Vec<_> = found
                        .partitions
                        .iter()
                        .filter(|part| part.doubt.is_none() && part.role != Role::Container)
                        .map(|part| part.range())
                        .collect();
                    sure.sort_by_key(|range| range.start);
                    assert!(sure.windows(2).all(|pair| pair[0].end <= pair[1].start));
                    assert!(sure.iter().all(|range| range.end <= 64 * MIB && range.start > 0));
                }
            }
        }
        assert!(refused > 10, "{refused}");
    }
}
