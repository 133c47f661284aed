//! The marks, and where they lie.

use super::super::bytes::{be16, be32, be64, le16, le32, le64};
use super::{Area, Signature, Signature as S, zfs_lists};

/// Marks that are long enough to be believed as they are, and where they begin.
const MAGICS: &[(Signature, &[u64], &[u8])] = &[
    // ext.c; two bytes only, but no other format has them there, and missing an ext4 is worse than seeing one.
    (S::Ext, &[0x438], b"\x53\xef"),
    (S::Xfs, &[0], b"XFSB"),
    // swap.c: the last ten bytes of a page; TuxOnIce at the beginning.
    (S::Swap, &[0xff6, 0x1ff6, 0x3ff6, 0x7ff6, 0xfff6], b"SWAPSPACE2"),
    (S::Swap, &[0xff6, 0x1ff6, 0x3ff6, 0x7ff6, 0xfff6], b"SWAP-SPACE"),
    (S::Hibernation, &[0xff6, 0x1ff6, 0x3ff6, 0x7ff6, 0xfff6], b"S1SUSPEND"),
    (S::Hibernation, &[0xff6, 0x1ff6, 0x3ff6, 0x7ff6, 0xfff6], b"S2SUSPEND"),
    (S::Hibernation, &[0xff6, 0x1ff6, 0x3ff6, 0x7ff6, 0xfff6], b"ULSUSPEND"),
    (S::Hibernation, &[0xff6, 0x1ff6, 0x3ff6, 0x7ff6, 0xfff6], b"LINHIB0001"),
    (S::Hibernation, &[0], b"\xed\xc3\x02\xe9\x98\x56\xe5\x0c"),
    // partitions/gpt.c: the header with its revision, in the second sector of either size.
    (S::PartitionTable, &[0x200, 0x1000], b"EFI PART\0\0\x01\0"),
    // lvm.c
    (S::Lvm2, &[0x18, 0x218, 0x418, 0x618], b"LVM2 001"),
    (S::Verity, &[0], b"verity\0\0"),
    (S::Integrity, &[0], b"integrt\0"),
    (S::SnapshotStore, &[0], b"SnAp"),
    // luks.c
    (S::Luks, &[0], b"LUKS\xba\xbe"),
    // bitlocker.c
    (S::BitLocker, &[3], b"-FVE-FS-"),
    // btrfs.c
    (S::Btrfs, &[0x10040], b"_BHRfS_M"),
    // bcache.c; bcachefs at its end besides.
    (S::Bcache, &[0x1018], b"\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81"),
    (S::Bcachefs, &[0x1018, 0x20_0018], BCACHEFS),
    // ntfs.c, exfat.c, refs.c
    (S::Ntfs, &[3], b"NTFS    "),
    (S::ExFat, &[3], b"EXFAT   "),
    (S::Refs, &[0], b"\0\0\0ReFS\0"),
    // f2fs.c: both superblocks.
    (S::F2fs, &[0x400, 0x1400], b"\x10\x20\xf5\xf2"),
    (S::Jfs, &[0x8000], b"JFS1"),
    // reiserfs.c
    (S::Reiserfs, &[0x2034, 0x10034, 0x2014], b"ReIsErFs"),
    (S::Reiserfs, &[0x10034], b"ReIsEr2Fs"),
    (S::Reiserfs, &[0x10034], b"ReIsEr3Fs"),
    (S::Reiserfs, &[0x10000], b"ReIsEr4"),
    // ufs.c: UFS2 and UFS1, in the byte order of PCs, where the BSDs have them.
    (S::Ufs, &[0x255c, 0x1055c], b"\x19\x01\x54\x19"),
    (S::Ufs, &[0x255c, 0x1055c], b"\x54\x19\x01\x00"),
    // apfs.c, gfs.c, ocfs.c
    (S::Apfs, &[0x20], b"NXSB"),
    (S::Gfs, &[0x10000], b"\x01\x16\x19\x70"),
    (S::Ocfs2, &[0x400, 0x800, 0x1000, 0x2000], b"OCFSV2"),
    (S::OracleAsm, &[0x20], b"ORCLDISK"),
    // vmfs.c
    (S::Vmfs, &[0x10_0000], b"\x0d\xd0\x01\xc0"),
    (S::Vmfs, &[0x20_0000], b"\x5e\xf1\xab\x2f"),
    // iso9660.c, udf.c
    (S::Iso9660, &[0x8001], b"CD001"),
    (S::Udf, &[0x8001, 0x8801, 0x9001, 0x9801], b"NSR02"),
    (S::Udf, &[0x8001, 0x8801, 0x9001, 0x9801], b"NSR03"),
    (S::Udf, &[0x8001, 0x8801, 0x9001, 0x9801], b"BEA01"),
    (S::Squashfs, &[0], b"hsqs"),
    (S::Squashfs, &[0], b"sqsh"),
    (S::Erofs, &[0x400], b"\xe2\xe1\xf5\xe0"),
    (S::BlueStore, &[0], b"bluestore block device"),
    (S::Vdo, &[0], b"dmvdo001"),
    (S::Stratis, &[0x204, 0x1204], b"!Stra0tis\x86\xff\x02^\x41rh"),
];

const BCACHEFS: &[u8] = b"\xc6\x85\x73\xf6\x66\xce\x90\xa9\xd9\x6a\x60\xcf\x80\x3d\xf7\xef";
/// `MD_SB_MAGIC` of linux_raid.c.
const MD: u32 = 0xa92b_4efc;
/// `LUKS2_HDR2_OFFSETS` of luks.c: where the second header may lie.
pub(super) const LUKS_SECOND: [u64; 9] = [16, 32, 64, 128, 256, 512, 1024, 2048, 4096];

/// All marks of an area.
pub(super) fn all(area: &Area<'_>) -> impl Iterator<Item = Signature> {
    let last_mib = area.len.checked_sub(1 << 20);
    let others = [
        (S::PartitionTable, is_partition_table(area).unwrap_or(false)),
        (S::Luks, is_luks_second(area)),
        (S::LinuxRaid, is_linux_raid(area)),
        (S::DdfRaid, is_ddf(area)),
        (S::IntelRaid, is_intel_raid(area)),
        (S::Drbd, is_drbd(area)),
        (S::Zfs, zfs_lists(area.len).any(|at| is_zfs_list(area, at))),
        (S::Bcachefs, last_mib.is_some_and(|at| area.has(at + 0x18, BCACHEFS))),
        (S::Fat, is_fat(area).unwrap_or(false)),
        (S::Nilfs, is_nilfs(area)),
        (S::HfsPlus, is_hfs_plus(area)),
    ];
    MAGICS
        .iter()
        .map(|&(signature, places, magic)| (signature, places.iter().any(|&at| area.has(at, magic))))
        .chain(others)
        .filter(|&(_, is)| is)
        .map(|(signature, _)| signature)
}

/// `probe_dos_pt` of partitions/dos.c: a table whose entries are all sane, one of them in use, and inside of the area.
/// Whoever makes one leaves what stood before it in its sector, the mark of an XFS too.
fn is_partition_table(area: &Area<'_>) -> Option<bool> {
    let sector = area.get(0, 512)?;
    let entries: Vec<&[u8]> = sector[446..510].chunks_exact(16).collect();
    let is_sane = sector[510..] == [0x55, 0xaa] && entries.iter().all(|entry| entry[0] & 0x7f == 0);
    let is_used = |entry: &&&[u8]| entry[4] != 0;
    let is_inside = |entry: &&[u8]| {
        let (start, sectors) = (le32(entry, 8).unwrap_or(0), le32(entry, 12).unwrap_or(0));
        start > 0 && sectors > 0 && u64::from(start) < area.len / 512
    };
    let mut used = entries.iter().filter(is_used).peekable();
    Some(is_sane && used.peek().is_some() && used.all(is_inside))
}

/// The second header of LUKS2, which knows where it lies.
fn is_luks_second(area: &Area<'_>) -> bool {
    LUKS_SECOND.into_iter().map(|kib| kib << 10).any(|at| {
        let header = area.get(at, 264).unwrap_or_default();
        header.starts_with(b"SKUL\xba\xbe") && be16(header, 6) == Some(2) && be64(header, 256) == Some(at)
    })
}

/// `probe_raid`: 0.90 in either byte order and 1.0 at the end, 1.1 and 1.2 at the beginning.
fn is_linux_raid(area: &Area<'_>) -> bool {
    let old = (area.len & !0xffff).checked_sub(0x1_0000).and_then(|at| area.get(at, 4)).unwrap_or_default();
    let new = |at: u64| {
        let block = area.get(at, 152).unwrap_or_default();
        let is_one = le32(block, 0) == Some(MD) && le32(block, 4) == Some(1);
        is_one && le64(block, 144) == Some(at >> 9)
    };
    let at_end = (area.len & !0xfff).checked_sub(0x2000).is_some_and(new);
    le32(old, 0) == Some(MD) || be32(old, 0) == Some(MD) || at_end || new(0) || new(0x1000)
}

/// `probe_ddf`: the anchor in the last sector, or 256 before.
fn is_ddf(area: &Area<'_>) -> bool {
    let sectors = area.len / 512;
    [1, 257].into_iter().any(|back| {
        sectors.checked_sub(back).is_some_and(|sector| area.has(sector * 512, b"\xde\x11\xde\x11"))
    })
}

/// `probe_iswraid`: the sector before the last one, of either size.
fn is_intel_raid(area: &Area<'_>) -> bool {
    [512, 4096].into_iter().any(|sector| {
        let at = (area.len / sector).checked_sub(2).map(|number| number * sector);
        at.is_some_and(|at| area.has(at, b"Intel Raid ISM Cfg Sig. "))
    })
}

/// `probe_drbd`: the metadata of version 8 or 9, clean or not, in the last 4 KiB.
fn is_drbd(area: &Area<'_>) -> bool {
    let magic = area.len.checked_sub(4096).and_then(|at| area.get(at + 60, 4));
    magic.is_some_and(|magic| magic.starts_with(b"\x83\x74\x02") && (0x6b..=0x6d).contains(&magic[3]))
}

/// `probe_zfs`: an XDR list (version 0, unique names) whose first pair has a name.
fn is_zfs_list(area: &Area<'_>, at: u64) -> bool {
    let list = area.get(at, 64).unwrap_or_default();
    let is_header = list.first() == Some(&1)
        && list.get(1).is_some_and(|&order| order <= 1)
        && list.get(2..8) == Some(&[0; 6][..])
        && be32(list, 8) == Some(1);
    let name_len = be32(list, 20).unwrap_or(0) as usize;
    let name = (1..=40).contains(&name_len).then(|| list.get(24..24 + name_len)).flatten();
    is_header && name.is_some_and(|name| name.iter().all(|byte| byte.is_ascii_graphic()))
}

/// `fat_valid_superblock`, for boot sectors that bear its name, or a jump and the mark of a boot sector.
fn is_fat(area: &Area<'_>) -> Option<bool> {
    let sector = area.get(0, 512)?;
    let named = |at: usize, names: &[&[u8]]| names.iter().any(|name| sector[at..].starts_with(name));
    let is_boot = matches!(sector[0], 0xeb | 0xe9) && sector[510..] == [0x55, 0xaa];
    let is_other = named(54, &[b"JFS     ", b"HPFS    "]);
    let is_named = named(0x52, &[b"MSWIN", b"FAT32   "])
        || named(0x36, &[b"MSDOS", b"FAT16   ", b"FAT12   ", b"FAT     "]);
    let sector_bytes = le16(sector, 11)?;
    let (per_cluster, reserved, fats, media) = (sector[13], le16(sector, 14)?, sector[16], sector[21]);
    let is_sane = fats > 0
        && reserved > 0
        && (media >= 0xf8 || media == 0xf0)
        && per_cluster.is_power_of_two()
        && sector_bytes.is_power_of_two()
        && (512..=4096).contains(&sector_bytes);
    Some(is_sane && (is_named || is_boot && !is_other))
}

/// `nilfs_valid_sb`: revision 2 and the magic number, at the beginning or in the last 4 KiB but one sector's rounding.
fn is_nilfs(area: &Area<'_>) -> bool {
    let second = (area.len / 512).checked_sub(8).map(|sector| sector * 512);
    [Some(0x400), second].into_iter().flatten().any(|at| {
        let block = area.get(at, 8).unwrap_or_default();
        le32(block, 0) == Some(2) && le16(block, 6) == Some(0x3434)
    })
}

/// `probe_hfsplus`: the mark with its version, and a size of blocks that is one.
fn is_hfs_plus(area: &Area<'_>) -> bool {
    let header = area.get(0x400, 44).unwrap_or_default();
    let is_marked = header.starts_with(b"H+\0\x04") || header.starts_with(b"HX\0\x05");
    is_marked
        && be32(header, 40).is_some_and(|bytes| bytes.is_power_of_two() && (512..=65536).contains(&bytes))
}
