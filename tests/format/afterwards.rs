//! An image goes on to live: writes, a larger disk, snapshots, an overlay and its commit. Whatever QEMU does
//! to our images, they stay sound, and hold what a plain model of the disk holds.

use std::path::Path;

use crate::common::{disks, oracles};
use crate::tools::{convert, holds, in_parallel, is_clean_up_to_its_end, qemu, qemu_img_check, text};

const MIB: usize = 1 << 20;

/// An image, and what it has to hold.
struct Living<'a> {
    image: &'a Path,
    disk: Vec<u8>,
    random: disks::Seeded,
    what: &'a str,
}

impl Living<'_> {
    /// Random writes, of zeros and of patterns, and discards.
    fn write(&mut self, file: &Path, writes: usize) {
        let mut words = Vec::new();
        for _ in 0..writes {
            let at = self.random.below(self.disk.len() as u64 / 512) as usize * 512;
            let longest = 1 << (9 + self.random.below(10));
            let len =
                (1 + self.random.below(longest) as usize).next_multiple_of(512).min(self.disk.len() - at);
            let (verb, byte) = match self.random.below(6) {
                0 => ("write -z".to_owned(), 0),
                1 => ("write -z -u".to_owned(), 0),
                _ => {
                    let byte = 1 + self.random.below(255) as u8;
                    (format!("write -P {byte}"), byte)
                }
            };
            self.disk[at..at + len].fill(byte);
            words.push("-c".to_owned());
            words.push(format!("{verb} {at} {len}"));
        }
        words.extend(["-f", "qcow2", text(file)].map(String::from));
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        qemu("qemu-io", &words);
    }

    #[track_caller]
    fn is_sound(&self, after: &str) {
        let what = format!("{}, after {after}", self.what);
        assert_eq!(qemu_img_check(self.image), 0, "{what}");
        is_clean_up_to_its_end(self.image, &what);
        holds(self.image, &self.disk, &what);
    }

    fn live(&mut self, overlay: &Path) {
        let image = self.image;
        self.is_sound("conversion");
        self.write(image, 60);
        self.is_sound("random writes");
        qemu("qemu-img", &["resize", "-q", "-f", "qcow2", text(image), "+3M"]);
        self.disk.resize(self.disk.len() + 3 * MIB, 0);
        self.write(image, 20);
        self.is_sound("growing");
        qemu("qemu-img", &["snapshot", "-c", "one", text(image)]);
        let at_snapshot = self.disk.clone();
        self.write(image, 40);
        self.is_sound("a snapshot and more writes");
        qemu("qemu-img", &["snapshot", "-a", "one", text(image)]);
        self.disk = at_snapshot;
        self.is_sound("going back to the snapshot");
        self.write(image, 20);
        qemu("qemu-img", &["snapshot", "-d", "one", text(image)]);
        self.is_sound("deleting the snapshot");
        let backing = ["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", text(image), text(overlay)];
        qemu("qemu-img", &backing);
        self.write(overlay, 40);
        qemu("qemu-img", &["commit", "-q", "-f", "qcow2", text(overlay)]);
        self.is_sound("the commit of an overlay");
        qemu("qemu-img", &["resize", "-q", "-f", "qcow2", "--shrink", text(image), "2M"]);
        self.disk.truncate(2 * MIB);
        self.is_sound("shrinking");
    }
}

#[test]
fn an_image_stays_sound_whatever_qemu_does_to_it() {
    if !oracles::has_qemu_img() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let disk = disks::mixed(123, 9 * MIB);
    let raw = folder.path().join("disk.raw");
    disks::write_sparse(&raw, &disk);
    let all: Vec<(usize, &str)> = [
        "--cluster-size 64k",
        "--cluster-size 64k --compression none",
        "--cluster-size 4k --compression zstd",
        "--cluster-size 2M --compression zlib",
        "--cluster-size 512 --compression zlib",
        "--cluster-size 64k --compat 0.10",
        "--cluster-size 4k --compat 0.10 --compression none",
    ]
    .into_iter()
    .enumerate()
    .collect();
    in_parallel(&all, |(number, options)| {
        let at = |name: &str| folder.path().join(format!("{number}-{name}.qcow2"));
        let (image, overlay) = (at("image"), at("overlay"));
        convert(&raw, &image, &options.split(' ').collect::<Vec<_>>());
        let random = disks::Seeded::new(*number as u64 + 7);
        Living { image: &image, disk: disk.clone(), random, what: options }.live(&overlay);
    });
}
