//! Marks that real tools leave, against `blkid`, and swap areas of `mkswap`.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::*;
use snapcow::free::signatures::{Signature, look};
use snapcow::free::swap;

/// What `blkid` sees in a file: its types, one for each mark that `wipefs` would wipe.
fn wipefs(path: &Path) -> Vec<String> {
    let said = run("wipefs", &["--no-act", "--noheadings", "--output", "TYPE", text(path)]);
    // A partition table, which the mark of a boot sector is taken for, is nobody's filesystem.
    let types = said.split_whitespace().filter(|&name| name != "dos");
    let mut types: Vec<String> = types.map(str::to_owned).collect();
    types.sort();
    types.dedup();
    types
}

fn blkid_name(signature: Signature) -> &'static str {
    match signature {
        Signature::Ext => "ext4",
        Signature::Xfs => "xfs",
        Signature::Swap => "swap",
        Signature::Hibernation => "swsuspend",
        Signature::Btrfs => "btrfs",
        Signature::Fat => "vfat",
        Signature::ExFat => "exfat",
        Signature::Ntfs => "ntfs",
        Signature::F2fs => "f2fs",
        Signature::Jfs => "jfs",
        Signature::Reiserfs => "reiserfs",
        Signature::Squashfs => "squashfs",
        Signature::Luks => "crypto_LUKS",
        Signature::Lvm2 => "LVM2_member",
        Signature::LinuxRaid => "linux_raid_member",
        Signature::Zfs => "zfs_member",
        Signature::Bcache => "bcache",
        Signature::Drbd => "drbd",
        Signature::Udf => "udf",
        Signature::Iso9660 => "iso9660",
        Signature::Verity => "DM_verity_hash",
        Signature::Integrity => "DM_integrity",
        other => panic!("{other:?}"),
    }
}

fn agrees(path: &Path, expected: &[Signature]) {
    let found = of_file(path, look).unwrap();
    assert_eq!(found, expected);
    let mut names: Vec<String> = found.iter().map(|&signature| blkid_name(signature).to_owned()).collect();
    names.sort();
    assert_eq!(wipefs(path), names);
}

fn put(path: &Path, at: u64, bytes: &[u8]) {
    File::options().write(true).open(path).unwrap().write_all_at(bytes, at).unwrap();
}

/// Tools that may be missing even where tests must run: each is tried if it is there.
#[test]
fn marks_of_real_tools_agree_with_blkid() {
    if !ready(&["wipefs", "mkfs.ext4", "mkfs.xfs", "mkswap"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let makers: [(&str, &[&str], Signature); 13] = [
        ("mkfs.ext4", &["-q", "-F"], Signature::Ext),
        ("mkfs.xfs", &["-q", "-f"], Signature::Xfs),
        ("mkswap", &[], Signature::Swap),
        ("mkfs.btrfs", &["-q", "-f"], Signature::Btrfs),
        ("mkfs.vfat", &["-F", "12", "-s", "64"], Signature::Fat),
        ("mkfs.vfat", &["-F", "16"], Signature::Fat),
        ("mkfs.vfat", &["-F", "32"], Signature::Fat),
        ("mkfs.exfat", &[], Signature::ExFat),
        ("mkfs.ntfs", &["-Q", "-F"], Signature::Ntfs),
        ("mkfs.f2fs", &["-q", "-f"], Signature::F2fs),
        ("mkfs.jfs", &["-q"], Signature::Jfs),
        ("mkreiserfs", &["-ff", "-q"], Signature::Reiserfs),
        (
            "cryptsetup",
            &["luksFormat", "-q", "--pbkdf", "pbkdf2", "--key-file", "/etc/hostname"],
            Signature::Luks,
        ),
    ];
    let mut made = 0;
    for (tool, args, signature) in makers {
        if !is_there(tool) {
            eprintln!("not compared: {tool} is not installed");
            continue;
        }
        let path = image(dir.path(), tool, 120 << 20);
        run(tool, &[args, &[text(&path)]].concat());
        agrees(&path, &[signature]);
        made += 1;
    }
    assert!(made >= 3);
    let path = dir.path().join("mkfs.ext4");
    // The parameters of a FAT before an ext4 count if they are sane; a boot loader leaves them empty.
    put(&path, 0, b"\xeb\x63\x90");
    put(&path, 510, b"\x55\xaa");
    agrees(&path, &[Signature::Ext]);
    put(&path, 32769, b"CD001\x01");
    assert_eq!(of_file(&path, look).unwrap(), [Signature::Ext, Signature::Iso9660]);
    let path = dir.path().join("mkfs.xfs");
    put(&path, 1080, b"\x53\xef");
    assert_eq!(of_file(&path, look).unwrap(), [Signature::Ext, Signature::Xfs]);
}

#[test]
fn swap_areas_of_all_page_sizes_are_free_but_for_their_headers() {
    if !ready(&["mkswap", "wipefs"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    for page in [4096_u64, 8192, 16384, 32768, 65536] {
        for order in ["little", "big"] {
            let path = image(dir.path(), "swap", (8 << 20) + 5 * 512);
            let (size, order) = (page.to_string(), format!("--endianness={order}"));
            // Older ones know no byte order.
            if !tried("mkswap", &["-p", &size, &order, text(&path)]).0 {
                run("mkswap", &["-p", &size, text(&path)]);
            }
            agrees(&path, &[Signature::Swap]);
            let freed = of_file(&path, |volume| swap::freed(volume, LIMITS)).unwrap();
            let whole_pages = (8 << 20) / page * page;
            let free: Vec<(u64, u64)> =
                freed.free.as_slice().iter().map(|run| (run.start, run.end)).collect();
            assert_eq!(free, [(page, whole_pages)]);
            // A system that sleeps, in each of its ways.
            for magic in ["S1SUSPEND", "S2SUSPEND", "ULSUSPEND", "LINHIB0001"] {
                put(&path, page - 10, magic.as_bytes());
                agrees(&path, &[Signature::Hibernation]);
                reason(of_file(&path, |volume| swap::freed(volume, LIMITS)));
            }
            put(&path, page - 10, b"SWAPSPACE2");
            put(&path, 0, b"\xed\xc3\x02\xe9\x98\x56\xe5\x0c");
            assert!(of_file(&path, look).unwrap().contains(&Signature::Hibernation));
            assert!(wipefs(&path).contains(&"swsuspend".to_owned()));
            reason(of_file(&path, |volume| swap::freed(volume, LIMITS)));
        }
    }
}
