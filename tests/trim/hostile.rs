//! Disks that somebody has damaged: the command converts them, keeps what it does not understand bit for bit, and says why.

use std::fs::{self, OpenOptions};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use serde_json::Value;
use snapcow::error::Result;
use snapcow::free::disk::look;
use snapcow::free::{Disk, Limits, Runs};

use crate::disk::json_numbers;
use crate::lab::disk::Noise;
use crate::tools::{FileDisk, Random, feed, ready, run, snapcow, text};

const MIB: u64 = 1 << 20;
const LIMITS: Limits = Limits { memory_bytes: 64 << 20 };
const TOOLS: [&str; 7] = ["sfdisk", "mkfs.ext4", "mkfs.xfs", "mkswap", "debugfs", "dd", "qemu-img"];
const SIZES: [u64; 4] = [24, 24, 4, 12];

/// A disk that is noise wherever its filesystems hold nothing.
struct Scene {
    folder: tempfile::TempDir,
    bytes: Vec<u8>,
    starts: Vec<u64>,
    free: Runs,
    /// Where what is read of it lies.
    metadata: Vec<Range<u64>>,
}

/// Remembers what it is asked for.
struct Watched(FileDisk, Mutex<Vec<Range<u64>>>);

impl Disk for Watched {
    fn read(&self, wanted: &[Range<u64>]) -> Result<Vec<Vec<u8>>> {
        self.1.lock().unwrap().extend_from_slice(wanted);
        self.0.read(wanted)
    }
}

impl Scene {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let disk = folder.path().join("disk");
        let len = (SIZES.iter().sum::<u64>() + 2) * MIB;
        fs::write(&disk, Noise(9).bytes(len)).unwrap();
        let lines: String = SIZES.iter().map(|size| format!("size={size}MiB\n")).collect();
        // The noise may look like anything.
        fs::File::options().write(true).open(&disk).unwrap().write_all_at(&[0; 1 << 16], 0).unwrap();
        feed("sfdisk -q --wipe never", &disk, &format!("label: gpt\n{lines}"));
        let starts: Vec<u64> = json_numbers(&run(&format!("sfdisk --json {}", text(&disk))), "start")
            .iter()
            .map(|start| start * 512)
            .collect();
        for ((size, start), mkfs) in SIZES.iter().zip(&starts).zip([
            "mkfs.ext4 -q -F -E nodiscard",
            "mkfs.xfs -q -f -K",
            "mkswap -q",
            "mkfs.ext4 -q -F -b 1024 -E nodiscard",
        ]) {
            let fs = folder.path().join("fs");
            fs::write(&fs, Noise(*start).bytes(size * MIB)).unwrap();
            run(&format!("{mkfs} {}", text(&fs)));
            if mkfs.contains("ext4") {
                let script: String =
                    (0..5).map(|name| format!("write {} f{name}\n", text(&fs_part(&folder)))).collect();
                feed("debugfs -w -f /dev/stdin", &fs, &(script + "rm f1\nrm f3\n"));
            }
            put_all(&fs, &disk, *start);
        }
        let watched = Watched(FileDisk::open(&disk), Mutex::default());
        let findings = look(&watched, len, LIMITS).unwrap();
        assert_eq!(findings.refused, None);
        assert!(findings.free.bytes() > len / 2, "{findings:?}");
        let bytes = fs::read(&disk).unwrap();
        Self { folder, bytes, starts, free: findings.free, metadata: watched.1.into_inner().unwrap() }
    }

    /// Converts these bytes, and holds the image against them; how many parts were left whole.
    #[track_caller]
    fn survives(&self, bytes: &[u8], what: &str) -> usize {
        let path = |name: &str| -> PathBuf { self.folder.path().join(name) };
        let (disk, made, back, report) = (path("hostile"), path("made.qcow2"), path("back"), path("report"));
        fs::write(&disk, bytes).unwrap();
        let said = snapcow(&format!(
            "convert --trim --force --compression none --report {} {} {}",
            text(&report),
            text(&disk),
            text(&made)
        ));
        run(&format!("qemu-img check -q {}", text(&made)));
        run(&format!("qemu-img convert -O raw {} {}", text(&made), text(&back)));
        let back = fs::read(&back).unwrap();
        let report: Value = serde_json::from_slice(&fs::read(&report).unwrap()).unwrap();
        let mut whole: Vec<Range<u64>> = Vec::new();
        for part in report["trim"]["parts"].as_array().unwrap() {
            let Some(why) = part["left_whole_because"].as_str() else { continue };
            assert!(said.contains(why), "{what}: nobody is told `{why}`: {said}");
            let start = part["start_bytes"].as_u64().unwrap();
            whole.push(start..start.saturating_add(part["length_bytes"].as_u64().unwrap()));
        }
        if let Some(why) = report["trim"]["refused_because"].as_str() {
            assert!(said.contains(why), "{what}: nobody is told `{why}`: {said}");
            whole.push(0..u64::MAX);
        }
        for (index, (one, other)) in bytes.chunks(512).zip(back.chunks(512)).enumerate() {
            let at = index as u64 * 512;
            if *one == other[..one.len()] {
                continue;
            }
            let end = at + one.len() as u64;
            assert!(other.iter().all(|byte| *byte == 0), "{what}: neither equal nor zero at {at}");
            assert_eq!(
                self.free.within(at..end).next(),
                Some(at..end),
                "{what}: used bytes are lost at {at}"
            );
            assert!(!whole.iter().any(|part| part.contains(&at)), "{what}: not left whole at {at}");
        }
        whole.len()
    }
}

/// Half a megabyte to be put into a filesystem.
fn fs_part(folder: &tempfile::TempDir) -> PathBuf {
    let path = folder.path().join("content");
    fs::write(&path, Noise(1).bytes(500_000)).unwrap();
    path
}

/// Copies all of a file, zeros too.
fn put_all(from: &Path, to: &Path, at: u64) {
    let bytes = fs::read(from).unwrap();
    OpenOptions::new().write(true).open(to).unwrap().write_all_at(&bytes, at).unwrap();
}

#[test]
fn damage_anywhere_costs_nothing_but_the_trimming() {
    if !ready(&TOOLS) {
        return;
    }
    let scene = Scene::new();
    assert_eq!(scene.survives(&scene.bytes, "undamaged"), 0);
    let mut random = Random(17);
    let mut whole = 0;
    for case in 0..32 {
        let mut bytes = scene.bytes.clone();
        for _ in 0..1 + case % 3 {
            // Anything that is read, or what every filesystem begins with.
            let place = match case % 2 {
                0 => scene.metadata[random.below(scene.metadata.len() as u64) as usize].clone(),
                _ => scene.starts.iter().map(|start| *start..start + 4096).nth(case / 2 % 4).unwrap(),
            };
            let at = place.start + random.below(place.end - place.start);
            let len = [1, 8, 512][random.below(3) as usize].min(bytes.len() as u64 - at);
            let junk = Noise(random.next()).bytes(len);
            bytes[at as usize..][..len as usize].copy_from_slice(&junk);
        }
        whole += scene.survives(&bytes, &format!("case {case}")).min(1);
    }
    // Some places are read and hold nothing that counts, such as those of other filesystems' marks.
    assert!(whole >= 12, "only {whole} of 32 damaged disks had a part that was left whole");
}

#[test]
fn disks_cut_and_tables_that_lie_cost_nothing_but_the_trimming() {
    if !ready(&TOOLS) {
        return;
    }
    let scene = Scene::new();
    let len = scene.bytes.len();
    for left in [len - 512, len - 100, len / 2, len / 3 + 77, MIB as usize + 1024, 700] {
        scene.survives(&scene.bytes[..left], &format!("cut to {left}"));
    }
    // An MBR in place of the GPT: a partition within another one, one too short for its filesystem, one beyond the end.
    let sectors = |bytes: u64| u32::try_from(bytes / 512).unwrap();
    let starts: Vec<u32> = scene.starts.iter().map(|start| sectors(*start)).collect();
    for (what, entries, least) in [
        ("overlapping", [(starts[0], sectors(24 * MIB)), (starts[0] + 2048, sectors(40 * MIB))], 2),
        ("short", [(starts[0], sectors(20 * MIB)), (starts[1], sectors(17 * MIB))], 2),
        ("beyond the end", [(starts[0], sectors(24 * MIB)), (starts[3], sectors(50 * MIB))], 1),
        ("whole", [(starts[0], sectors(24 * MIB)), (starts[3], sectors(12 * MIB))], 0),
    ] {
        let mut bytes = scene.bytes.clone();
        // Neither header is left.
        bytes[512..1024].fill(0);
        bytes[len - 512..].fill(0);
        bytes[446..510].fill(0);
        for (index, (start, count)) in entries.into_iter().enumerate() {
            let entry = &mut bytes[446 + 16 * index..][..16];
            entry[4] = 0x83;
            entry[8..12].copy_from_slice(&start.to_le_bytes());
            entry[12..].copy_from_slice(&count.to_le_bytes());
        }
        let whole = scene.survives(&bytes, what);
        assert!(whole >= least, "{what}: {whole}");
    }
}
