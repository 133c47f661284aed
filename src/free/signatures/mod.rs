//! What an area begins and ends with: the marks of filesystems, arrays, encryption and hibernation.
//!
//! Places and magic numbers are those of libblkid (`util-linux/libblkid/src/superblocks/*.c`), which each entry names.
//! A mark says what may lie there, not that it is sound: a broken or an old one counts, for it may be what the area is
//! really used as. Only where a mark is so short that other data are often taken for it, more of what is around it
//! must fit: a FAT without a sane BIOS parameter block is the boot code that a boot loader left before an ext4.
//!
//! How it is used: exactly one mark, and it is that of a filesystem that can be read → its reader; several, or one of
//! anything else → left whole; [`Signature::Hibernation`] → nothing on that disk is touched. What may lawfully lie in
//! the same place is left whole too: an ext4 that is half of a mirror (md at its end) or that DRBD carries. The two
//! parts of a UDF bridge disk (ISO 9660 and UDF) count as two.

mod marks;
#[cfg(test)]
mod tests;

use std::ops::Range;

use super::{Outcome, Volume};

/// What a mark stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Signature {
    /// A sleeping system's memory; only that memory knows what is in use.
    Hibernation,
    /// ext2, ext3, ext4, or an external journal of theirs.
    Ext,
    /// XFS.
    Xfs,
    /// A swap area.
    Swap,
    /// A partition table with at least one partition: what lies in its partitions is somebody else's.
    PartitionTable,
    /// A physical volume of LVM2.
    Lvm2,
    /// LUKS 1 or 2.
    Luks,
    /// BitLocker.
    BitLocker,
    /// btrfs.
    Btrfs,
    /// bcache.
    Bcache,
    /// bcachefs.
    Bcachefs,
    /// A member of a Linux software array (md).
    LinuxRaid,
    /// A member of a DDF array.
    DdfRaid,
    /// A member of an array of Intel's firmware (IMSM).
    IntelRaid,
    /// A member of a ZFS pool.
    Zfs,
    /// NTFS.
    Ntfs,
    /// FAT 12, 16 or 32.
    Fat,
    /// exFAT.
    ExFat,
    /// ReFS.
    Refs,
    /// F2FS.
    F2fs,
    /// JFS.
    Jfs,
    /// ReiserFS or Reiser4.
    Reiserfs,
    /// NILFS2.
    Nilfs,
    /// UFS or FFS of the BSDs.
    Ufs,
    /// HFS+ or HFSX.
    HfsPlus,
    /// APFS.
    Apfs,
    /// GFS or GFS2.
    Gfs,
    /// OCFS2.
    Ocfs2,
    /// A disk of Oracle ASM.
    OracleAsm,
    /// VMFS, or a volume of it.
    Vmfs,
    /// ISO 9660.
    Iso9660,
    /// UDF.
    Udf,
    /// SquashFS.
    Squashfs,
    /// EROFS.
    Erofs,
    /// Ceph's BlueStore.
    BlueStore,
    /// DRBD.
    Drbd,
    /// The hashes of dm-verity.
    Verity,
    /// dm-integrity.
    Integrity,
    /// The store of a device-mapper snapshot.
    SnapshotStore,
    /// VDO.
    Vdo,
    /// Stratis.
    Stratis,
}

use Signature as S;

impl Signature {
    /// How a person calls it.
    pub fn name(self) -> &'static str {
        match self {
            S::Hibernation => "hibernation image",
            S::Ext => "ext2/3/4",
            S::Xfs => "XFS",
            S::Swap => "swap",
            S::PartitionTable => "partition table",
            S::Lvm2 => "LVM2",
            S::Luks => "LUKS",
            S::BitLocker => "BitLocker",
            S::Btrfs => "btrfs",
            S::Bcache => "bcache",
            S::Bcachefs => "bcachefs",
            S::LinuxRaid => "Linux software RAID",
            S::DdfRaid => "DDF RAID",
            S::IntelRaid => "Intel RAID",
            S::Zfs => "ZFS",
            S::Ntfs => "NTFS",
            S::Fat => "FAT",
            S::ExFat => "exFAT",
            S::Refs => "ReFS",
            S::F2fs => "F2FS",
            S::Jfs => "JFS",
            S::Reiserfs => "ReiserFS",
            S::Nilfs => "NILFS2",
            S::Ufs => "UFS",
            S::HfsPlus => "HFS+",
            S::Apfs => "APFS",
            S::Gfs => "GFS2",
            S::Ocfs2 => "OCFS2",
            S::OracleAsm => "Oracle ASM",
            S::Vmfs => "VMFS",
            S::Iso9660 => "ISO 9660",
            S::Udf => "UDF",
            S::Squashfs => "SquashFS",
            S::Erofs => "EROFS",
            S::BlueStore => "Ceph BlueStore",
            S::Drbd => "DRBD",
            S::Verity => "dm-verity",
            S::Integrity => "dm-integrity",
            S::SnapshotStore => "device-mapper snapshot",
            S::Vdo => "VDO",
            S::Stratis => "Stratis",
        }
    }
}

/// The beginning in which most marks lie, the end in which the others do, and how much of a mark alone is read.
const BEGIN: u64 = 68 << 10;
const END: u64 = 132 << 10;
const ALONE: u64 = 512;

/// Where a ZFS label keeps its list of names and values, and the length of a label: zfs.c.
const ZFS_LIST: u64 = 16 << 10;
const ZFS_LABEL: u64 = 256 << 10;

/// The places of an area of `len` bytes that [`found`] needs, in rising order, in bytes: so that a caller may read
/// those of several areas at once.
pub fn wanted(len: u64) -> Vec<Range<u64>> {
    let mut places = vec![(0, BEGIN), (len.saturating_sub(END), END)];
    places.extend(marks::LUKS_SECOND.map(|kib| (kib << 10, ALONE)));
    places.extend([(0x10_0000, ALONE), (0x20_0000, ALONE)]);
    places.extend(zfs_lists(len).map(|at| (at, ALONE)));
    places.extend(len.checked_sub(1 << 20).map(|at| (at, ALONE)));
    places.sort_unstable();
    let mut ranges: Vec<Range<u64>> = Vec::new();
    for (start, bytes) in places {
        let end = start.saturating_add(bytes).min(len);
        match ranges.last_mut() {
            Some(last) if start <= last.end => last.end = last.end.max(end),
            _ if start < end => ranges.push(start..end),
            _ => {}
        }
    }
    ranges
}

/// The lists of the four labels of ZFS: two at the beginning, two at the end.
fn zfs_lists(len: u64) -> impl Iterator<Item = u64> {
    let end = len - len % ZFS_LABEL;
    let labels = [Some(0), Some(ZFS_LABEL), end.checked_sub(2 * ZFS_LABEL), end.checked_sub(ZFS_LABEL)];
    labels.into_iter().flatten().map(|label| label + ZFS_LIST)
}

/// An area of which only a few places are known.
struct Area<'a> {
    len: u64,
    parts: Vec<(u64, &'a [u8])>,
}

impl Area<'_> {
    /// `len` bytes from `at`; `None` if they are beyond the end.
    fn get(&self, at: u64, len: usize) -> Option<&[u8]> {
        self.parts.iter().find_map(|(start, bytes)| {
            let from = usize::try_from(at.checked_sub(*start)?).ok()?;
            bytes.get(from..from.checked_add(len)?)
        })
    }

    fn has(&self, at: u64, magic: &[u8]) -> bool {
        self.get(at, magic.len()) == Some(magic)
    }
}

/// The marks in an area of `len` bytes, whose places [`wanted`] hold these bytes: each kind once, in the order of
/// [`Signature`].
pub fn found(len: u64, read: &[Vec<u8>]) -> Vec<Signature> {
    let starts = wanted(len).into_iter().map(|range| range.start);
    let area = Area { len, parts: starts.zip(read.iter().map(Vec::as_slice)).collect() };
    let mut found: Vec<Signature> = marks::all(&area).collect();
    found.sort_unstable();
    found.dedup();
    found
}

/// The marks in an area: one round of small reads.
///
/// # Errors
/// What keeps the bytes from coming.
pub fn look(volume: &Volume<'_>) -> Outcome<Vec<Signature>> {
    Ok(found(volume.len(), &volume.read(&wanted(volume.len()))?))
}
