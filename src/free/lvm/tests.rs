//! Groups that have more than plain volumes in them, as lvm2 writes them, and damage to labels and areas.

use super::*;
use crate::free::{Limits, Volume};

const LIMITS: Limits = Limits { memory_bytes: 64 << 20 };

/// A logical volume on `pv0`, with what differs from a plain one.
fn logical(name: &str, first: u64, status: &str, more: &str) -> String {
    format!(
        "{name} {{\nid = \"x\"\nstatus = [{status}]\nflags = []\ncreation_time = 1\ncreation_host = \"vm\"\n{more}\
         segment_count = 1\nsegment1 {{\nstart_extent = 0\nextent_count = 4\ntype = \"striped\"\nstripe_count = 1\n\
         stripes = [\n\"pv0\", {first}\n]\n}}\n}}\n"
    )
}

fn special(name: &str, segment: &str) -> String {
    format!(
        "{name} {{\nid = \"x\"\nstatus = [\"READ\", \"WRITE\", \"VISIBLE\"]\nflags = []\nsegment_count = 1\n\
         segment1 {{\nstart_extent = 0\nextent_count = 4\n{segment}\n}}\n}}\n"
    )
}

fn text(group: &str, physical: &str, logicals: &str) -> String {
    format!(
        "vg0 {{\nid = \"group\"\nseqno = 7\nformat = \"lvm2\"\n{group}extent_size = 2048\nmax_lv = 0\nmax_pv = 0\n\
         metadata_copies = 0\nphysical_volumes {{\npv0 {{\nid = \"a-b\"\ndevice = \"/dev/vda2\"\n\
         status = [\"ALLOCATABLE\"]\n{physical}dev_size = 204800\npe_start = 2048\npe_count = 99\n}}\n}}\n\
         logical_volumes {{\n{logicals}}}\n}}\ncontents = \"Text Format Volume Group\"\nversion = 1\n\0"
    )
}

const STATUS: &str = "status = [\"RESIZEABLE\", \"READ\", \"WRITE\"]\nflags = []\n";
const PLAIN: &str = "\"READ\", \"WRITE\", \"VISIBLE\"";

fn parse(logicals: &str) -> Group {
    Group::parse(text(STATUS, "flags = []\n", logicals).as_bytes()).unwrap()
}

fn doubt(group: &Group, name: &str) -> Option<String> {
    let found = group.logicals.iter().find(|logical| logical.name == name).unwrap();
    group.doubt.clone().or(found.doubt.clone())
}

#[test]
fn a_plain_volume_is_not_doubted() {
    let group = parse(&logical("root", 3, PLAIN, ""));
    assert_eq!((doubt(&group, "root"), group.seqno, group.extent_bytes), (None, 7, 1 << 20));
    let stretch = Stretch { extents: 4, stripe_bytes: 0, stripes: vec![(0, 3)] };
    assert_eq!(group.logicals[0].stretches, [stretch]);
    assert_eq!((group.physicals[0].uuid.as_str(), group.physicals[0].start), ("ab", 1 << 20));
}

#[test]
fn what_others_are_built_on_is_doubted() {
    let others = [
        special("snapshot0", "type = \"snapshot\"\nchunk_size = 8\norigin = \"root\"\ncow_store = \"cow\""),
        special("pool", "type = \"thin-pool\"\nmetadata = \"meta\"\npool = \"root\"\nchunk_size = 128"),
        special("thin", "type = \"thin\"\nthin_pool = \"pool\"\ndevice_id = 1\nexternal_origin = \"root\""),
        special(
            "raid",
            "type = \"raid1\"\ndevice_count = 2\nraids = [\n\"meta\", \"root\",\n\"b\", \"c\"\n]",
        ),
        special("mirror", "type = \"mirror\"\nmirror_count = 2\nmirrors = [\n\"root\", 0,\n\"b\", 0\n]"),
        special("cached", "type = \"cache+METADATA_FORMAT\"\ncache_pool = \"pool\"\norigin = \"root\""),
        special("wc", "type = \"writecache\"\norigin = \"x\"\nwritecache = \"root\""),
        special("integrity", "type = \"integrity\"\norigin = \"root\"\ndata_sectors = 8"),
        special("vdo", "type = \"vdo-pool\"\ndata = \"root\""),
        special("stack", "type = \"striped\"\nstripe_count = 1\nstripes = [\n\"root\", 0\n]"),
    ];
    for other in others {
        let name = other.split(' ').next().unwrap().to_owned();
        let group = parse(&(logical("root", 3, PLAIN, "") + &other + &logical("free", 20, PLAIN, "")));
        let why = doubt(&group, "root").unwrap();
        assert_eq!(why, "another logical volume is built on it", "{name}");
        assert!(doubt(&group, &name).is_some(), "{name}");
        assert_eq!(doubt(&group, "free"), None, "{name}");
    }
}

#[test]
fn flags_and_words_that_are_not_known_are_doubted() {
    for flag in ["PVMOVE", "LOCKED", "NOTSYNCED", "REBUILD", "SOMETHING"] {
        let group = parse(&logical("root", 3, &format!("{PLAIN}, \"{flag}\""), ""));
        assert!(doubt(&group, "root").unwrap().contains(flag));
    }
    let group = parse(&logical("root", 3, PLAIN, "lock_args = \"dlm\"\n"));
    assert!(doubt(&group, "root").unwrap().contains("lock_args"));
    let bad = |group: &str, physical: &str| {
        let bytes = text(group, physical, &logical("root", 3, PLAIN, ""));
        let group = Group::parse(bytes.as_bytes()).unwrap();
        doubt(&group, "root").or(group.physicals[0].doubt.clone()).unwrap()
    };
    assert!(bad(STATUS, "flags = [\"MISSING\"]\n").contains("MISSING"));
    for flag in ["EXPORTED", "PARTIAL", "PVMOVE", "CLUSTERED", "SHARED"] {
        assert!(bad(&STATUS.replace("RESIZEABLE", flag), "").contains(flag));
    }
    assert!(bad(&format!("{STATUS}lock_type = \"sanlock\"\n"), "").contains("shared"));
    assert!(bad(&format!("{STATUS}news = 1\n"), "").contains("`news`"));
    assert!(bad(&format!("{STATUS}news {{ }}\n"), "").contains("`news`"));
}

#[test]
fn extents_have_to_fit() {
    let group = parse(&(logical("one", 3, PLAIN, "") + &logical("two", 6, PLAIN, "")));
    assert!(doubt(&group, "one").unwrap().contains("one and two lie on the same extents"));
    assert_eq!(doubt(&parse(&(logical("one", 3, PLAIN, "") + &logical("two", 7, PLAIN, ""))), "one"), None);
    // A kind that is not understood counts with all that it may take.
    let other = special("other", "type = \"new\"\nareas = [\n\"pv0\", 0\n]");
    assert!(doubt(&parse(&(logical("one", 3, PLAIN, "") + &other)), "one").is_some());
    assert!(doubt(&parse(&logical("one", 96, PLAIN, "")), "one").unwrap().contains("beyond the end of pv0"));
    assert!(
        doubt(&parse(&logical("one", 3, PLAIN, "").replace("start_extent = 0", "start_extent = 1")), "one")
            .is_some()
    );
    assert!(
        doubt(&parse(&logical("one", 3, PLAIN, "").replace("segment_count = 1", "segment_count = 2")), "one")
            .is_some()
    );
    let hidden = parse(&logical("one", 3, "\"READ\", \"WRITE\"", ""));
    assert!(!hidden.logicals[0].is_visible);
}

/// A metadata area of 4 KiB at 4096, with this text in its ring.
fn area(text: &[u8], offset: usize) -> Vec<u8> {
    let mut disk = vec![0; 16 << 10];
    for (index, byte) in text.iter().enumerate() {
        let at = if offset + index < 4096 { offset + index } else { offset + index - 4096 + 512 };
        disk[4096 + at] = *byte;
    }
    let header = &mut disk[4096..4096 + 512];
    header[4..20].copy_from_slice(b" LVM2 x[5A%r0N*>");
    header[20..24].copy_from_slice(&1u32.to_le_bytes());
    for (at, value) in [(24, 4096u64), (32, 4096), (40, offset as u64), (48, text.len() as u64)] {
        header[at..at + 8].copy_from_slice(&value.to_le_bytes());
    }
    header[56..60].copy_from_slice(&crc(text).to_le_bytes());
    seal(&mut disk);
    disk
}

fn seal(disk: &mut [u8]) {
    let sum = crc(&disk[4100..4096 + 512]);
    disk[4096..4100].copy_from_slice(&sum.to_le_bytes());
}

#[test]
fn a_text_goes_round_the_ring() {
    let text = text(STATUS, "", &logical("root", 3, PLAIN, ""));
    let read = |disk: &Vec<u8>| super::text(&Volume::linear(disk, 0..16 << 10), &(4096..8192), LIMITS);
    for offset in [512, 1024, 3584, 4095] {
        let disk = area(text.as_bytes(), offset);
        assert!(matches!(read(&disk), Ok(Copy::Text(found)) if found == text.as_bytes()), "{offset}");
    }
    let good = area(text.as_bytes(), 3584);
    for at in [4096 + 30, 4096 + 512 + 9, 4096 + 3600] {
        let mut bad = good.clone();
        bad[at] ^= 1;
        assert!(matches!(read(&bad), Ok(Copy::Damaged(_))), "{at}");
    }
    // A text that was written, but is not yet the valid one; an area that is not kept up to date; none.
    let mut busy = good.clone();
    busy[4096 + 64..4096 + 72].copy_from_slice(&512u64.to_le_bytes());
    busy[4096 + 72..4096 + 80].copy_from_slice(&10u64.to_le_bytes());
    seal(&mut busy);
    assert!(read(&busy).is_err());
    let mut ignored = good.clone();
    ignored[4096 + 60] = 1;
    seal(&mut ignored);
    assert!(matches!(read(&ignored), Ok(Copy::None)));
    let mut empty = good;
    empty[4096 + 40..4096 + 64].fill(0);
    seal(&mut empty);
    assert!(matches!(read(&empty), Ok(Copy::None)));
}

#[test]
fn any_text_is_borne() {
    let good = text(STATUS, "", &(logical("one", 3, PLAIN, "") + &logical("two", 20, PLAIN, "")));
    let mut state = 1u64;
    for _ in 0..20_000 {
        let mut bytes = good.clone().into_bytes();
        for _ in 0..3 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let at = (state >> 20) as usize % bytes.len();
            bytes[at] =
                [b'{', b'}', b'"', b'9', b'[', b'#', b'\n', (state >> 56) as u8][(state >> 50) as usize % 8];
        }
        for logical in Group::parse(&bytes).into_iter().flat_map(|group| group.logicals) {
            assert!(logical.stretches.iter().all(|one| one.stripes.iter().all(|(index, _)| *index == 0)));
        }
    }
}

#[test]
fn the_checksum_is_that_of_lvm() {
    // As `calc_crc` would, bit by bit.
    let slow =
        |bytes: &[u8]| {
            bytes.iter().fold(INITIAL_CRC, |crc, byte| {
                (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
                    if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 }
                })
            })
        };
    for text in [&b""[..], b"a", b"LVM2 001 and more"] {
        assert_eq!(crc(text), slow(text));
    }
}
