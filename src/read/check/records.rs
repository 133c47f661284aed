//! What is neither L1, L2 nor refcount: the LUKS header, the snapshot table, and the bitmaps.

use super::super::finding::{Class, Place};
use super::Check;
use crate::error::Result;
use crate::qcow2::entry::OFFSET;
use crate::qcow2::parse::{self, BitmapHead, BitmapsExtension, SnapshotHead, entries};

/// Longest snapshot table that QEMU opens (`QCOW_MAX_SNAPSHOTS_SIZE`).
const SNAPSHOT_TABLE_MAX: u64 = 1024 * 65_536;
/// Most extra data of a snapshot that QEMU keeps (`QCOW_MAX_SNAPSHOT_EXTRA_DATA`).
const SNAPSHOT_EXTRA_MAX: u32 = 1024;
/// Largest bitmap directory that QEMU opens (`BME_MAX_DIRECTORY_SIZE`).
const BITMAP_DIRECTORY_MAX: u64 = 1 << 26;
/// Most bitmaps (`QCOW2_MAX_BITMAPS`).
const BITMAPS_MAX: u32 = 65_535;
/// Largest table of a bitmap, in entries (`BME_MAX_TABLE_SIZE`).
const BITMAP_TABLE_MAX: u32 = 0x800_0000;
/// Entries of a bitmap's table that are read at once.
const BITMAP_ENTRIES_AT_ONCE: u64 = 65_536;
/// Bit 0 of a bitmap's flags: whoever had it open has not stored it again.
const BITMAP_IN_USE: u32 = 1;

/// An L1 table that something names.
#[derive(Clone, Copy, Debug)]
pub(super) struct L1Place {
    pub offset: u64,
    pub entries: u32,
}

impl Check {
    /// The LUKS header lies in clusters of its own, which the extension names.
    pub(super) fn encryption_header(&mut self) -> Result<()> {
        let Some(data) = self.image.extension(parse::EXTENSION_ENCRYPTION) else {
            if self.image.header.crypt_method == 2 {
                let text = "LUKS without an extension that tells where its header is";
                self.findings.add(Class::Extension, Place::host(32), format_args!("{text}"));
            }
            return Ok(());
        };
        let fields: Vec<u64> = entries(data).take(2).collect();
        let (&[offset, len], 16) = (&fields[..], data.len()) else {
            let text = "the extension that tells where the LUKS header is does not have 16 bytes";
            self.findings.add(Class::Extension, Place::NONE, format_args!("{text}"));
            return Ok(());
        };
        self.region(offset, len, "the LUKS header").map(drop)
    }

    /// The snapshot table: where the L1 tables of the internal snapshots are.
    pub(super) fn snapshots(&mut self) -> Result<Vec<L1Place>> {
        let (count, start) = (self.image.header.snapshots, self.image.header.snapshots_offset);
        let mut found = Vec::new();
        if count == 0 {
            return Ok(found);
        }
        let mut at = start;
        for number in 0..count {
            let mut head = [0; SnapshotHead::BYTES];
            let there = self.image.input.read(&mut head, at)?;
            let head = SnapshotHead::parse(&head[..there]);
            let head = head.filter(|head| {
                let end = at.saturating_add(head.entry_len);
                head.extra_len <= SNAPSHOT_EXTRA_MAX
                    && end - start <= SNAPSHOT_TABLE_MAX
                    && end <= self.image.input.len.next_multiple_of(8)
            });
            let Some(head) = head else {
                let text = format_args!("entry {number} of the snapshot table is not one");
                self.findings.add(Class::Snapshots, Place::host(at), text);
                break;
            };
            if head.l1_entries as u64 * 8 > crate::qcow2::limits::L1_TABLE_BYTES_MAX {
                let text = format_args!("snapshot {number} has an L1 table of {} entries", head.l1_entries);
                self.findings.add(Class::Snapshots, Place::host(at), text);
            } else {
                found.push(L1Place { offset: head.l1_offset, entries: head.l1_entries });
            }
            at += head.entry_len;
        }
        let len = (at - start).min(self.image.input.len.saturating_sub(start));
        if self.region(start, len, "the snapshot table")? { Ok(found) } else { Ok(Vec::new()) }
    }

    /// The bitmap directory, the tables of the bitmaps, and their data.
    pub(super) fn bitmaps(&mut self) -> Result<()> {
        let Some(data) = self.image.extension(parse::EXTENSION_BITMAPS) else { return Ok(()) };
        let extension = BitmapsExtension::parse(data).filter(|found| {
            found.reserved == 0
                && (1..=BITMAPS_MAX).contains(&found.bitmaps)
                && (1..=BITMAP_DIRECTORY_MAX).contains(&found.directory_len)
        });
        if self.image.header.autoclear & parse::AUTOCLEAR_BITMAPS == 0 {
            // Then nothing in it counts: QEMU does not look at it either, and its clusters are leaks.
            let text = "it has bitmaps that something wrote to without knowing them; they are void";
            self.findings.add(Class::Note, Place::host(88), format_args!("{text}"));
            return Ok(());
        }
        let Some(extension) = extension else {
            let text = "the bitmaps extension is not one";
            self.findings.add(Class::Bitmaps, Place::NONE, format_args!("{text}"));
            return Ok(());
        };
        let (start, len) = (extension.directory_offset, extension.directory_len);
        if !self.region(start, len, "the bitmap directory")? {
            return Ok(());
        }
        let mut directory = vec![0; len as usize];
        self.image.input.read(&mut directory, start)?;
        let mut rest = &directory[..];
        for number in 0..extension.bitmaps {
            let head = BitmapHead::parse(rest);
            let head = head
                .filter(|head| head.entry_len <= rest.len() as u64 && head.table_entries <= BITMAP_TABLE_MAX);
            let Some(head) = head else {
                let at = start + (directory.len() - rest.len()) as u64;
                let text = format_args!("entry {number} of the bitmap directory is not one");
                self.findings.add(Class::Bitmaps, Place::host(at), text);
                return Ok(());
            };
            rest = &rest[head.entry_len as usize..];
            if head.flags & BITMAP_IN_USE != 0 {
                let text = format_args!("bitmap {number} was in use and not stored again: it is void");
                self.findings.add(Class::Note, Place::NONE, text);
            }
            self.bitmap_table(head)?;
        }
        if !rest.is_empty() {
            let text = format_args!("{} bytes behind the last entry of the bitmap directory", rest.len());
            self.findings.add(Class::Bitmaps, Place::host(start), text);
        }
        Ok(())
    }

    fn bitmap_table(&mut self, head: BitmapHead) -> Result<()> {
        let entries_total = u64::from(head.table_entries);
        if !self.region(head.table_offset, entries_total * 8, "the table of a bitmap")? {
            return Ok(());
        }
        let cluster = self.image.cluster_size.bytes();
        let mut done = 0;
        while done < entries_total {
            let take = (entries_total - done).min(BITMAP_ENTRIES_AT_ONCE);
            let table = self.read_table(head.table_offset + done * 8, take as usize)?;
            for (index, entry) in entries(&table).enumerate() {
                let at = head.table_offset + (done + index as u64) * 8;
                let offset = entry & OFFSET;
                // Bit 0 says what all bits are, where there is no cluster for them.
                let allowed = if offset == 0 { 1 } else { OFFSET };
                if entry & !allowed != 0 {
                    let text = format_args!("entry {entry:#x} of a bitmap's table has reserved bits");
                    self.findings.add(Class::ReservedBits, Place::host(at), text);
                }
                if offset != 0 {
                    self.region(
                        offset,
                        cluster.min(self.image.input.len.saturating_sub(offset)).max(1),
                        "a bitmap",
                    )?;
                }
            }
            done += take;
        }
        Ok(())
    }
}
