//! Volume groups made by the real tools, compared with what `lvs` and `pvs` say of them.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::{FileDisk, LIMITS, Loop, MIB, Random, image, json_numbers, path_text, put, ready, run, run_with};
use snapcow::free::Disk;
use snapcow::free::disk::{Findings, Part, Verdict, look};

const TOOLS: &[&str] = &["sfdisk", "losetup", "pvcreate", "lvcreate", "mkfs.ext4", "mkswap"];

/// A command of lvm2 that sees these devices only, and needs no device mapper.
pub fn lvm(devices: &[&Loop], line: &str) -> String {
    let filter: String = devices.iter().map(|device| format!("\"a|^{}$|\", ", device.0)).collect();
    let config = format!(
        "devices {{ filter = [ {filter} \"r|.*|\" ] use_devicesfile = 0 hints = \"none\" scan_lvs = 0 }} \
         global {{ use_lvmpolld = 0 use_lvmlockd = 0 wait_for_locks = 1 }} \
         activation {{ udev_sync = 0 udev_rules = 0 monitoring = 0 }} \
         backup {{ backup = 0 archive = 0 }}"
    );
    let mut words: Vec<&str> = line.split_whitespace().collect();
    words.splice(1..1, ["--config", &config]);
    if words[0].starts_with("lv") || words[0].starts_with("vgc") {
        words.splice(1..1, ["--driverloaded", "n"]);
    }
    run_with(&words, "")
}

fn create(devices: &[&Loop], group: &str, name: &str, options: &str) {
    lvm(devices, &format!("lvcreate -an -Zn -Wn -y -n {name} {options} {group}"));
}

/// A disk with partitions that all hold LVM, and loop devices for them.
fn disk(path: &Path, sizes: &[u64]) -> (Vec<Loop>, Vec<u64>) {
    let total: u64 = sizes.iter().sum::<u64>() + 2;
    image(path, total * MIB);
    let lines: String = sizes.iter().map(|size| format!("size={size}MiB,type=lvm\n")).collect();
    run_with(&["sfdisk", "--no-reread", path_text(path)], &format!("label: gpt\n{lines}"));
    let json = run(&format!("sfdisk --json {}", path_text(path)));
    let starts: Vec<u64> = json_numbers(&json, "start").into_iter().map(|start| start * 512).collect();
    let device = |(start, size): (&u64, &u64)| Loop::new(path, *start, size * MIB, 512);
    (starts.iter().zip(sizes).map(device).collect(), starts)
}

fn findings(path: &Path) -> Findings {
    let disk = FileDisk::open(path);
    look(&disk, disk.len(), LIMITS).unwrap()
}

fn part<'a>(findings: &'a Findings, name: &str) -> &'a Part {
    let found = findings.parts.iter().find(|part| part.name.ends_with(name));
    found.unwrap_or_else(|| panic!("no {name} in {findings:?}"))
}

fn why<'a>(findings: &'a Findings, name: &str) -> &'a str {
    match &part(findings, name).verdict {
        Verdict::Whole(why) => why,
        freed => panic!("{name}: {freed:?}"),
    }
}

/// A text in JSON of `lvs`.
fn texts(json: &str, name: &str) -> Vec<String> {
    let mark = format!("\"{name}\":\"");
    json.split(&mark).skip(1).map(|rest| rest.split('"').next().unwrap().into()).collect()
}

/// Extents of each logical volume, by `lvs`, as (name, stripes, stretches of (device, first, last)).
/// Name and length of a logical volume, and its stretches: number of the device, begin, length.
type Logical = (String, u64, Vec<(usize, u64, u64)>);

fn oracle(devices: &[&Loop]) -> Vec<Logical> {
    let json = lvm(devices, "lvs --reportformat json -o lv_name,stripes,seg_pe_ranges,stripe_size --units b");
    let rows =
        texts(&json, "lv_name").into_iter().zip(texts(&json, "stripes")).zip(texts(&json, "seg_pe_ranges"));
    rows.map(|((name, stripes), ranges)| {
        let range = |text: &str| {
            let (device, range) = text.split_once(':').unwrap();
            let (first, last) = range.split_once('-').unwrap();
            let index = devices.iter().position(|one| one.0 == device).unwrap();
            (index, first.parse().unwrap(), last.parse().unwrap())
        };
        (name, stripes.parse().unwrap(), ranges.split(' ').map(range).collect())
    })
    .collect()
}

/// Writes a swap area into a logical volume, piece by piece, as its segments lie.
fn fill(path: &Path, starts: &[u64], devices: &[&Loop], name: &str, from: &Path, stripe: u64) {
    const EXTENT: u64 = MIB;
    const FIRST: u64 = MIB;
    let bytes = std::fs::read(from).unwrap();
    let file = OpenOptions::new().write(true).open(path).unwrap();
    let mut at = 0u64;
    for (_, stripes, ranges) in oracle(devices).into_iter().filter(|row| row.0 == name) {
        let each: u64 = (ranges[0].2 - ranges[0].1 + 1) * EXTENT;
        let unit = if stripes == 1 { each } else { stripe };
        for step in 0..each / unit {
            for (device, first, _) in &ranges {
                let to = starts[*device] + FIRST + first * EXTENT + step * unit;
                file.write_all_at(&bytes[at as usize..(at + unit) as usize], to).unwrap();
                at += unit;
            }
        }
    }
    assert_eq!(at, bytes.len() as u64);
}

#[test]
fn plain_volumes_are_found_where_lvs_says_they_are() {
    if !ready(TOOLS) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (path, inside) = (folder.path().join("disk"), folder.path().join("inside"));
    let mut random = Random(11);
    for turn in 0..3u64 {
        let _ = std::fs::remove_file(&path);
        let (devices, starts) = disk(&path, &[40, 40]);
        let devices: Vec<&Loop> = devices.iter().collect();
        let copies = 1 + turn % 2;
        for device in &devices {
            lvm(&devices, &format!("pvcreate -y --metadatacopies {copies} {}", device.0));
        }
        lvm(&devices, &format!("vgcreate -s 1m vg-0 {} {}", devices[0].0, devices[1].0));
        // Pieces in turn, so that volumes have several segments.
        let mut sizes = [4, 6];
        create(&devices, "vg-0", "root", "-l 4");
        create(&devices, "vg-0", "var-log", "-i 2 -I 64k -l 6");
        for _ in 0..3 {
            let more = 2 * (1 + random.below(3));
            let which = random.next() as usize % 2;
            let name = ["root", "var-log"][which];
            let on = if which == 0 { devices[random.next() as usize % 2].0.as_str() } else { "" };
            lvm(&devices, &format!("lvextend -l +{more} vg-0/{name} {on}"));
            sizes[which] += more;
        }
        for (name, size) in [("root", sizes[0]), ("var-log", sizes[1])] {
            let _ = std::fs::remove_file(&inside);
            image(&inside, size * MIB);
            run(&format!("mkswap -q {}", path_text(&inside)));
            let bytes: Vec<u8> = (4096..size * MIB).map(|at| (at >> 9) as u8 | 1).collect();
            OpenOptions::new().write(true).open(&inside).unwrap().write_all_at(&bytes, 4096).unwrap();
            fill(&path, &starts, &devices, name, &inside, 64 << 10);
        }
        let found = findings(&path);
        assert_eq!(found.refused, None, "{found:?}");
        for (name, size) in [("vg-0/root", sizes[0]), ("vg-0/var-log", sizes[1])] {
            let part = part(&found, name);
            assert_eq!(part.len, size * MIB);
            let Verdict::Freed { bytes, .. } = part.verdict else { panic!("{part:?}") };
            assert_eq!(bytes, size * MIB - 4096);
        }
        assert_eq!(found.free.bytes(), (sizes[0] + sizes[1]) * MIB - 2 * 4096);
        // Everything that is said to be free is what was written as such, and vice versa.
        let whole = FileDisk::open(&path);
        for run in found.free.as_slice() {
            let bytes = whole.read(std::slice::from_ref(run)).unwrap().concat();
            assert!(bytes.iter().all(|byte| byte & 1 == 1));
        }
        assert!(why(&found, "partition 1").contains("volume group vg-0"));
    }
}

#[test]
fn a_pool_is_left_whole() {
    if !ready(TOOLS) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (path, inside) = (folder.path().join("disk"), folder.path().join("inside"));
    image(&path, 40 * MIB);
    image(&inside, 8 * MIB);
    run(&format!("mkswap -q {}", path_text(&inside)));
    let device = Loop::new(&path, 0, 40 * MIB, 512);
    let devices = [&device];
    lvm(&devices, &format!("vgcreate -s 1m vg0 {}", device.0));
    create(&devices, "vg0", "root", "-l 8");
    // The one kind besides plain volumes that the tools make without a device mapper.
    lvm(&devices, "lvcreate -an -y --type cache-pool -n pool -l 8 vg0");
    put(&inside, &path, MIB);
    let found = findings(&path);
    assert_eq!(found.free.bytes(), 8 * MIB - 4096, "{found:?}");
    assert!(why(&found, "vg0/pool").contains("of the kind cache-pool"));
    assert_eq!(found.parts.len(), 3, "hidden ones are not told: {found:?}");
}

#[test]
fn damage_to_metadata_is_noticed() {
    if !ready(TOOLS) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (path, inside) = (folder.path().join("disk"), folder.path().join("inside"));
    let (devices, starts) = disk(&path, &[30, 30]);
    let devices: Vec<&Loop> = devices.iter().collect();
    lvm(&devices, &format!("pvcreate -y --metadatacopies 2 {}", devices[0].0));
    lvm(&devices, &format!("pvcreate -y --metadatacopies 0 {}", devices[1].0));
    lvm(&devices, &format!("vgcreate -s 1m vg0 {} {}", devices[0].0, devices[1].0));
    create(&devices, "vg0", "swap", &format!("-l 8 {}", ""));
    lvm(&devices, &format!("lvextend -l +8 vg0/swap {}", devices[1].0));
    // The ring holds older texts, too.
    for turn in 0..4 {
        lvm(&devices, &format!("lvchange --addtag tag{turn} vg0/swap"));
    }
    image(&inside, 16 * MIB);
    run(&format!("mkswap -q {}", path_text(&inside)));
    fill(&path, &starts, &devices, "swap", &inside, 0);
    let good = findings(&path);
    let free = 16 * MIB - 4096;
    assert_eq!(good.free.bytes(), free, "{good:?}");
    let mut disk = std::fs::read(&path).unwrap();
    let len = disk.len() as u64;
    // The first area is gone: the second one tells the same.
    let at = starts[0] as usize + 4096 + 100;
    disk[at] ^= 1;
    let found = look(&disk, len, LIMITS).unwrap();
    let Verdict::Freed { bytes, note, .. } = &part(&found, "vg0/swap").verdict else { panic!("{found:?}") };
    assert_eq!(*bytes, free);
    assert!(note.as_ref().unwrap().contains("another copy was read"), "{note:?}");
    disk[at] ^= 1;
    // A label is gone: what lies on that volume cannot be found.
    for at in starts.iter().map(|start| *start as usize + 512 + 30) {
        disk[at] ^= 1;
        let found = look(&disk, len, LIMITS).unwrap();
        assert!(found.free.as_slice().is_empty());
        disk[at] ^= 1;
    }
    // Flips anywhere in what LVM has of its own: what is free stays the same, or nothing is.
    let mut random = Random(5);
    let used = |range: std::ops::Range<u64>, disk: &[u8]| -> Vec<usize> {
        range.map(|at| at as usize).filter(|at| disk[*at] != 0).collect()
    };
    let text = used(starts[0]..starts[0] + MIB, &disk);
    let heads = used(starts[0]..starts[0] + 5_000, &disk);
    let second = used(starts[1]..starts[1] + 5_000, &disk);
    let mut kept = 0;
    for _ in 0..200 {
        let flips: Vec<(usize, u8)> = (0..1 + random.below(3))
            .map(|_| {
                let places = [&text, &heads, &second][random.next() as usize % 3];
                (places[random.next() as usize % places.len()], 1 << random.below(8))
            })
            .collect();
        flips.iter().for_each(|(at, bit)| disk[*at] ^= bit);
        let found = look(&disk, len, LIMITS).unwrap();
        flips.iter().for_each(|(at, bit)| disk[*at] ^= bit);
        if found.free.as_slice().is_empty() {
            kept += 1;
        } else {
            assert_eq!(found.free, good.free);
        }
    }
    assert!(kept > 10, "{kept}");
}

#[test]
fn groups_of_several_disks_and_of_whole_disks() {
    if !ready(TOOLS) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = (folder.path().join("one"), folder.path().join("two"));
    let inside = folder.path().join("inside");
    for path in [&one, &two] {
        image(path, 32 * MIB);
    }
    image(&inside, 8 * MIB);
    run(&format!("mkswap -q {}", path_text(&inside)));
    let devices = [Loop::new(&one, 0, 32 * MIB, 512), Loop::new(&two, 0, 32 * MIB, 512)];
    let devices: Vec<&Loop> = devices.iter().collect();
    lvm(&devices, &format!("vgcreate -s 1m vg0 {} {}", devices[0].0, devices[1].0));
    create(&devices, "vg0", "here", &format!("-l 8 {}", ""));
    lvm(&devices, &format!("lvcreate -an -Zn -Wn -y -n both -l 4 vg0 {}", devices[0].0));
    lvm(&devices, &format!("lvextend -l +4 vg0/both {}", devices[1].0));
    put(&inside, &one, MIB);
    let found = findings(&one);
    assert_eq!(found.free.bytes(), 8 * MIB - 4096, "{found:?}");
    assert_eq!(part(&found, "vg0/here").name, "whole disk, vg0/here");
    assert!(why(&found, "vg0/both").contains("is not on this disk"));
    // An older filesystem below the physical volume.
    let file = OpenOptions::new().write(true).open(&one).unwrap();
    file.write_all_at(&[0x53, 0xef], 1080).unwrap();
    let found = findings(&one);
    assert!(found.free.as_slice().is_empty());
    assert!(why(&found, "vg0/here").contains("more than one thing"), "{found:?}");
}
