//! Pictures: whole files of their formats, as wide as asked for, and true to the disk.

use std::path::Path;

use crate::common::disks;
use crate::tools::{convert, snapcow, text};

const MIB: usize = 1 << 20;

/// An 8 bit RGB picture.
struct Png {
    width: usize,
    height: usize,
    pixels: Vec<[u8; 3]>,
}

/// Reads what `map --picture` writes, chunk by chunk, with its CRCs.
fn png(path: &Path) -> Png {
    let file = std::fs::read(path).unwrap();
    let u32_at = |at: usize| u32::from_be_bytes(file[at..at + 4].try_into().unwrap());
    assert_eq!(&file[..8], b"\x89PNG\r\n\x1a\n");
    let (mut at, mut kinds, mut data) = (8, Vec::new(), Vec::new());
    while at < file.len() {
        let len = u32_at(at) as usize;
        let kind = std::str::from_utf8(&file[at + 4..at + 8]).unwrap().to_owned();
        assert_eq!(u32_at(at + 8 + len), crc32fast::hash(&file[at + 4..at + 8 + len]), "{kind}");
        if kind == "IDAT" {
            data.extend_from_slice(&file[at + 8..at + 8 + len]);
        }
        kinds.push(kind);
        at += 12 + len;
    }
    assert_eq!(kinds, ["IHDR", "IDAT", "IEND"]);
    let (width, height) = (u32_at(16) as usize, u32_at(20) as usize);
    assert_eq!(&file[24..29], [8, 2, 0, 0, 0]);
    let mut bytes = vec![0; height * (3 * width + 1)];
    let len = libdeflater::Decompressor::new().zlib_decompress(&data, &mut bytes).unwrap();
    assert_eq!(len, bytes.len());
    let rows = bytes.chunks(3 * width + 1);
    let pixels = rows.flat_map(|row| row[1..].chunks(3).map(|own| own.try_into().unwrap())).collect();
    Png { width, height, pixels }
}

impl Png {
    fn count(&self, colour: [u8; 3]) -> usize {
        self.pixels.iter().filter(|pixel| **pixel == colour).count()
    }
}

const PURPLE: [u8; 3] = [0x44, 0x01, 0x54];
const YELLOW: [u8; 3] = [0xec, 0xc8, 0x1d];
const NOTHING: [u8; 3] = [0xee, 0xef, 0xf1];

/// A quarter of noise, a quarter that becomes small, half nothing.
fn image(folder: &Path) -> std::path::PathBuf {
    let (raw, image) = (folder.join("disk.raw"), folder.join("disk.qcow2"));
    let mut disk = disks::noise(8, 8 * MIB);
    disk.resize(16 * MIB, b'a');
    disk.resize(32 * MIB, 0);
    // A partition.
    disk[440..512].fill(0);
    disk[450] = 0x83;
    disk[454..458].copy_from_slice(&20480u32.to_le_bytes());
    disk[458..462].copy_from_slice(&4096u32.to_le_bytes());
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    std::fs::write(&raw, &disk).unwrap();
    convert(&raw, &image, &["--cluster-size", "16k"]);
    image
}

#[test]
fn pictures_are_whole_and_true_at_every_width() {
    let folder = tempfile::tempdir().unwrap();
    let image = image(folder.path());
    let (shown, drawn) = (folder.path().join("disk.png"), folder.path().join("disk.svg"));
    for width in ["400", "640", "1000", "1600"] {
        let ran = snapcow(&["map", "--picture", text(&shown), "--width", width, text(&image)]).exits(0);
        assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("", ""));
        let picture = png(&shown);
        assert_eq!(picture.width.to_string(), width);
        assert!(picture.height < 2 * picture.width);
        let (noise, small, none) = (picture.count(PURPLE), picture.count(YELLOW), picture.count(NOTHING));
        // The disk and the legend.
        assert!(noise > 0 && small > 0, "{noise} {small} {none}");
        assert!((0.8..1.25).contains(&(noise as f64 / small as f64)), "{noise} {small}");
        assert!((1.6..2.4).contains(&(none as f64 / small as f64)), "{none} {small}");
        snapcow(&["map", "--picture", text(&drawn), "--width", width, text(&image)]).exits(0);
        let svg = std::fs::read_to_string(&drawn).unwrap();
        assert!(svg.starts_with("<svg xmlns") && svg.ends_with("</svg>\n"));
        assert!(svg.contains(&format!("width=\"{width}\"")) && svg.contains("a disk of 32 MiB"));
        assert!(svg.contains("MBR 1") && svg.contains("a partition begins"));
        assert!(!svg.contains("href") && !svg.contains("script"), "it needs nothing else");
        let (open, shut) = (svg.matches('<').count(), svg.matches('>').count());
        assert_eq!(open, shut);
    }
}

#[test]
fn a_name_cannot_become_markup() {
    let folder = tempfile::tempdir().unwrap();
    let raw = folder.path().join("<script>\u{1b}[2J&\"'é.raw");
    std::fs::write(&raw, disks::noise(1, 5000)).unwrap();
    let (svg, png_file) = (folder.path().join("a.svg"), folder.path().join("a.PNG"));
    snapcow(&["map", "--picture", text(&svg), text(&raw)]).exits(0);
    let drawn = std::fs::read_to_string(&svg).unwrap();
    assert!(!drawn.contains("<script") && !drawn.contains('\u{1b}') && drawn.contains("&lt;script&gt;"));
    snapcow(&["map", "--picture", text(&png_file), text(&raw)]).exits(0);
    assert_eq!(png(&png_file).width, 1000);
    let summary = snapcow(&["map", text(&raw)]).exits(0).stdout;
    assert!(!summary.contains('\u{1b}'), "{summary}");
}

/// Disks of no byte and of more than anybody has.
#[test]
fn pictures_of_extreme_disks() {
    let folder = tempfile::tempdir().unwrap();
    let (raw, shown) = (folder.path().join("disk.raw"), folder.path().join("disk.png"));
    for len in [0, 1, 512, 8 << 40] {
        std::fs::File::create(&raw).unwrap().set_len(len).unwrap();
        snapcow(&["map", "--picture", text(&shown), text(&raw)]).exits(0);
        png(&shown);
        snapcow(&["map", text(&raw)]).exits(0);
    }
}

#[test]
fn what_cannot_be_drawn_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let raw = folder.path().join("disk.png");
    std::fs::write(&raw, [7; 600]).unwrap();
    let ran = snapcow(&["map", "--picture", "disk.gif", text(&raw)]).exits(2);
    assert!(ran.stderr.contains(".svg") && ran.stderr.contains(".png"), "{ran:?}");
    let ran = snapcow(&["map", "--picture", text(&raw), text(&raw)]).exits(2);
    assert!(ran.stderr.contains("take the place"), "{ran:?}");
    assert_eq!(std::fs::read(&raw).unwrap(), [7; 600]);
    snapcow(&["map", "--picture", "/nonexistent/a.png", text(&raw)]).exits(7);
    snapcow(&["map", "--width", "399", "--picture", "/tmp/a.png", text(&raw)]).exits(2);
    snapcow(&["map", "--width", "500", text(&raw)]).exits(2);
}

#[test]
fn what_a_filesystem_has_freed_is_shown() {
    const FREED: [u8; 3] = [0xf0, 0x8f, 0xa6];
    const TRIMMED: [u8; 3] = [0xc6, 0xe2, 0xf5];
    let folder = tempfile::tempdir().unwrap();
    let (raw, image) = (folder.path().join("swap.raw"), folder.path().join("swap.qcow2"));
    let (before, after) = (folder.path().join("before.png"), folder.path().join("after.png"));
    std::fs::write(&raw, disks::noise(3, 24 * MIB)).unwrap();
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    let made = std::process::Command::new("mkswap").arg(&raw).env("PATH", path).output().unwrap();
    assert!(made.status.success(), "{made:?}");
    convert(&raw, &image, &["--trim"]);

    snapcow(&["map", "--picture", text(&before), text(&raw)]).exits(0);
    assert_eq!(png(&before).count(FREED), 0, "nobody has looked");
    snapcow(&["map", "--free", "--picture", text(&before), text(&raw)]).exits(0);
    snapcow(&["map", "--free", "--picture", text(&after), text(&image)]).exits(0);
    let (stored, left_out) = (png(&before).count(FREED), png(&after).count(TRIMMED));
    assert!(stored > 10_000, "{stored}");
    assert!((0.9..1.1).contains(&(stored as f64 / left_out as f64)), "{stored} {left_out}");
    // What the first cluster has of it is stored zeros.
    assert_eq!(png(&before).count(TRIMMED), 0);
    assert!(png(&after).count(FREED) < stored / 50);

    // All but the first page of 4 KiB.
    let lines = |file: &Path, free: &[&str]| {
        let words = [&["map", text(file)], free].concat();
        snapcow(&words).exits(0).stdout.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let said = lines(&raw, &["--free"]);
    assert!(
        said.iter().any(|line| line.starts_with("freed, stored") && line.contains("100.0 %")),
        "{said:?}"
    );
    assert!(said.iter().any(|line| line.contains("whole disk, swap")), "{said:?}");
    let said = lines(&image, &["--free"]);
    assert!(
        said.iter().any(|line| line.starts_with("freed, left out") && line.contains("99.7 %")),
        "{said:?}"
    );
    assert!(!lines(&image, &[]).iter().any(|line| line.starts_with("freed")));
    snapcow(&["map", "--free", "--json", text(&raw)]).exits(2);
}
