//! Marks at their places, and what must not be taken for one.

use super::*;

fn marks(disk: &Vec<u8>) -> Vec<Signature> {
    look(&Volume::linear(disk, 0..disk.len() as u64)).unwrap()
}

/// A disk of zeros with these bytes at these places.
fn disk(len: usize, parts: &[(usize, &[u8])]) -> Vec<u8> {
    let mut disk = vec![0; len];
    for (at, bytes) in parts {
        disk[*at..*at + bytes.len()].copy_from_slice(bytes);
    }
    disk
}

const LEN: usize = (8 << 20) + 7 * 512;

#[test]
fn each_mark_is_seen_where_it_lies_and_nowhere_else() {
    let old_raid = (LEN & !0xffff) - 0x1_0000;
    let new_raid = (LEN & !0xfff) - 0x2000;
    let raid = |at: usize| {
        let mut block = vec![0; 152];
        block[..4].copy_from_slice(&0xa92b_4efc_u32.to_le_bytes());
        block[4] = 1;
        block[144..].copy_from_slice(&((at / 512) as u64).to_le_bytes());
        block
    };
    let mut second = vec![0; 264];
    second[..8].copy_from_slice(b"SKUL\xba\xbe\0\x02");
    second[256..].copy_from_slice(&0x8000_u64.to_be_bytes());
    let zfs = b"\x01\x01\0\0\0\0\0\0\0\0\0\x01\0\0\0\x24\0\0\0\x20\0\0\0\x07version\0";
    let last_zfs = LEN - LEN % (256 << 10) - (256 << 10) + (16 << 10);
    let bcachefs = b"\xc6\x85\x73\xf6\x66\xce\x90\xa9\xd9\x6a\x60\xcf\x80\x3d\xf7\xef";
    let cases: &[(Signature, usize, &[u8])] = &[
        (Signature::Ext, 0x438, b"\x53\xef"),
        (Signature::Xfs, 0, b"XFSB"),
        (Signature::Swap, 0x3ff6, b"SWAPSPACE2"),
        (Signature::Hibernation, 0xff6, b"S1SUSPEND\0"),
        (Signature::Hibernation, 0xfff6, b"ULSUSPEND\0"),
        (Signature::Hibernation, 0x1ff6, b"LINHIB0001"),
        (Signature::Hibernation, 0, b"\xed\xc3\x02\xe9\x98\x56\xe5\x0c"),
        (Signature::Lvm2, 0x218, b"LVM2 001"),
        (Signature::PartitionTable, 0x200, b"EFI PART\0\0\x01\0"),
        (Signature::Luks, 0, b"LUKS\xba\xbe\0\x01"),
        (Signature::Luks, 0x8000, &second),
        (Signature::LinuxRaid, 0, &raid(0)),
        (Signature::LinuxRaid, 4096, &raid(4096)),
        (Signature::LinuxRaid, new_raid, &raid(new_raid)),
        (Signature::LinuxRaid, old_raid, b"\xfc\x4e\x2b\xa9"),
        (Signature::LinuxRaid, old_raid, b"\xa9\x2b\x4e\xfc"),
        (Signature::DdfRaid, LEN - 512, b"\xde\x11\xde\x11"),
        (Signature::DdfRaid, LEN - 257 * 512, b"\xde\x11\xde\x11"),
        (Signature::IntelRaid, LEN - 1024, b"Intel Raid ISM Cfg Sig. 1.0"),
        (Signature::Drbd, LEN - 4096 + 60, b"\x83\x74\x02\x6d"),
        (Signature::Zfs, 16 << 10, zfs),
        (Signature::Zfs, 272 << 10, zfs),
        (Signature::Zfs, last_zfs, zfs),
        (Signature::Bcachefs, 0x20_0018, bcachefs),
        (Signature::Bcachefs, LEN - (1 << 20) + 0x18, bcachefs),
        (Signature::Vmfs, 0x20_0000, b"\x5e\xf1\xab\x2f"),
        (Signature::Nilfs, LEN - 4096, b"\x02\0\0\0\0\0\x34\x34"),
        (Signature::Udf, 0x8801, b"NSR03"),
    ];
    for &(signature, at, bytes) in cases {
        assert_eq!(marks(&disk(LEN, &[(at, bytes)])), [signature], "at {at}");
        assert_eq!(marks(&disk(LEN, &[(at + 3, bytes)])), [], "at {at}, moved");
    }
    let two = disk(LEN, &[(0x438, b"\x53\xef"), (new_raid, &raid(new_raid)), (0x438, b"\x53\xef")]);
    assert_eq!(marks(&two), [Signature::Ext, Signature::LinuxRaid]);
}

#[test]
fn boot_code_is_no_fat_unless_its_parameters_are_sane() {
    let boot: &[(usize, &[u8])] = &[(0, b"\xeb\x63\x90"), (510, b"\x55\xaa"), (0x438, b"\x53\xef")];
    assert_eq!(marks(&disk(LEN, boot)), [Signature::Ext]);
    let named = [boot, &[(0x36, &b"FAT16   "[..])]].concat();
    assert_eq!(marks(&disk(LEN, &named)), [Signature::Ext]);
    let sane = [boot, &[(11, &b"\0\x02\x04\x01\0\x02"[..]), (21, b"\xf8")]].concat();
    assert_eq!(marks(&disk(LEN, &sane)), [Signature::Ext, Signature::Fat]);
    let other = [&sane[..], &[(0x36, b"HPFS    ")]].concat();
    assert_eq!(marks(&disk(LEN, &other)), [Signature::Ext]);
}

#[test]
fn a_boot_sector_is_a_partition_table_only_with_partitions() {
    let mut entry = [0; 16];
    (entry[4], entry[9], entry[13]) = (0x83, 8, 8);
    let boot: &[(usize, &[u8])] = &[(0, b"XFSB"), (510, b"\x55\xaa")];
    assert_eq!(marks(&disk(LEN, boot)), [Signature::Xfs]);
    let with = |entry: &[u8]| marks(&disk(LEN, &[boot, &[(462, entry)]].concat()));
    assert_eq!(with(&entry), [Signature::Xfs, Signature::PartitionTable]);
    for (at, byte) in [(0, 1), (4, 0), (9, 0), (13, 0), (11, 1)] {
        let mut bad = entry;
        bad[at] = byte;
        assert_eq!(with(&bad), [Signature::Xfs], "{at}");
    }
}

#[test]
fn areas_of_any_length_and_content_are_looked_at() {
    let mut seed = 7_u64;
    let mut lens: Vec<usize> =
        (0..200).chain([4095, 4096, 4097, 65535, 65536, 65600, 131_072, 140_000]).collect();
    lens.extend([262_144, 300_000, 524_288, 786_432, 1 << 20, (1 << 20) + 511, 3 << 20]);
    for len in lens {
        let ranges = wanted(len as u64);
        assert!(ranges.windows(2).all(|pair| pair[0].end < pair[1].start), "{ranges:?}");
        assert!(ranges.iter().all(|range| range.start < range.end && range.end <= len as u64));
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 56) as u8
        })
        .take(len)
        .collect();
        marks(&noise);
        assert_eq!(marks(&vec![0; len]), []);
    }
}
