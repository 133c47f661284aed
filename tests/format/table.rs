//! The table of mutations: what is done to a good image, and how that has to be noticed.

use snapcow::qcow2::entry::{COMPRESSED, COPIED};
use snapcow::read::Class;

use crate::anatomy::{Anatomy, put_u16, put_u32, put_u64, u64_at};
use crate::common::disks;

/// How a mutation is to be noticed.
#[derive(Clone, Copy, Debug)]
pub enum Seen {
    /// By a finding of this class.
    As(Class),
    /// By any error: what a number means when it is wrong depends on the image.
    Error,
    /// By being refused as something else than an image that can be checked.
    Refused,
    /// By the comparison of contents alone: the structure is sound.
    ByVerify,
}

/// Makes an image bad; `false` if this one has nothing of the kind.
pub type Change = fn(&mut Vec<u8>, &Anatomy) -> bool;

const MIB: u64 = 1 << 20;

/// Sets 64 bits and gives `true`.
fn put(bytes: &mut [u8], at: usize, value: u64) -> bool {
    put_u64(bytes, at, value);
    true
}

fn put32(bytes: &mut [u8], at: usize, value: u32) -> bool {
    put_u32(bytes, at, value);
    true
}

fn put16(bytes: &mut [u8], at: usize, value: u16) -> bool {
    put_u16(bytes, at, value);
    true
}

fn set(bytes: &mut [u8], at: usize, change: impl Fn(u8) -> u8) -> bool {
    bytes[at] = change(bytes[at]);
    true
}

fn cut(bytes: &mut Vec<u8>, len: usize) -> bool {
    bytes.truncate(len);
    true
}

/// Changes 64 bits, if there is such a place.
fn edit(bytes: &mut [u8], at: Option<&usize>, change: impl Fn(u64) -> u64) -> bool {
    at.is_some_and(|&at| {
        let value = change(u64_at(bytes, at));
        put(bytes, at, value)
    })
}

/// Lets the second entry name what the first one names, if there are two.
fn twice(bytes: &mut [u8], entries: &[usize]) -> bool {
    let [first, second, ..] = entries else { return false };
    let value = u64_at(bytes, *first);
    put(bytes, *second, value)
}

pub const HEADER: &[(&str, Seen, Change)] = &[
    ("the magic", Seen::Refused, |b, _| put(b, 0, 0)),
    ("a version from the future", Seen::Refused, |b, _| set(b, 7, |_| 4)),
    ("extended L2 entries", Seen::Refused, |b, a| a.version == 3 && set(b, 79, |byte| byte | 16)),
    ("clusters of 256 bytes", Seen::As(Class::Header), |b, _| set(b, 23, |_| 8)),
    ("clusters of twice the size", Seen::Error, |b, _| set(b, 23, |byte| byte + 1)),
    ("a disk of a byte more", Seen::As(Class::Header), |b, a| put(b, 24, a.virtual_size + 1)),
    ("a disk larger than its L1 table", Seen::As(Class::Header), |b, a| put(b, 24, a.virtual_size << 24)),
    ("a disk of half the size", Seen::As(Class::BehindDisk), |b, a| put(b, 24, a.virtual_size / 2)),
    ("an L1 table without entries", Seen::As(Class::Header), |b, _| put32(b, 36, 0)),
    ("an L1 table of 2^32 entries", Seen::As(Class::Header), |b, _| put32(b, 36, u32::MAX)),
    ("an L1 table at an odd place", Seen::As(Class::Header), |b, a| put(b, 40, a.l1 as u64 + 8)),
    ("an L1 table behind the end", Seen::As(Class::Outside), |b, _| put(b, 40, 1 << 40)),
    ("a refcount table at an odd place", Seen::As(Class::Header), |b, a| {
        put(b, 48, a.refcount_table as u64 + 1)
    }),
    ("a refcount table of no clusters", Seen::As(Class::Header), |b, _| put32(b, 56, 0)),
    ("an unknown encryption", Seen::As(Class::Header), |b, _| put32(b, 32, 3)),
    ("a backing file", Seen::As(Class::ExternalFile), |b, _| {
        b[400..411].copy_from_slice(b"/etc/passwd");
        put_u32(b, 16, 11);
        put(b, 8, 400)
    }),
    ("a data file", Seen::As(Class::ExternalFile), |b, a| a.version == 3 && set(b, 79, |byte| byte | 4)),
    ("the dirty bit", Seen::As(Class::Dirty), |b, a| a.version == 3 && set(b, 79, |byte| byte | 1)),
    ("the corrupt bit", Seen::As(Class::Corrupt), |b, a| a.version == 3 && set(b, 79, |byte| byte | 2)),
    ("an unknown incompatible feature", Seen::As(Class::Header), |b, a| {
        a.version == 3 && set(b, 74, |byte| byte | 1)
    }),
    ("refcounts of 128 bits", Seen::As(Class::Header), |b, a| a.version == 3 && put32(b, 96, 7)),
    ("refcounts of 8 bits", Seen::Error, |b, a| a.version == 3 && put32(b, 96, 3)),
    ("a header of 96 bytes", Seen::As(Class::Header), |b, a| a.version == 3 && put32(b, 100, 96)),
    ("an unknown compression", Seen::As(Class::Header), |b, a| a.version == 3 && set(b, 104, |_| 7)),
    ("the other compression", Seen::As(Class::Header), |b, a| a.version == 3 && set(b, 104, |byte| byte ^ 1)),
    ("a snapshot that is not there", Seen::As(Class::Snapshots), |b, a| {
        put_u32(b, 60, 1);
        put(b, 64, (a.len / a.cluster * a.cluster) as u64 + 2 * MIB)
    }),
    ("a snapshot table at an odd place", Seen::As(Class::Header), |b, _| {
        put_u32(b, 60, 1);
        put(b, 64, 1)
    }),
    ("a header extension without an end", Seen::As(Class::Extension), |b, a| {
        let at =
            if a.version == 3 { u32::from_be_bytes(b[100..104].try_into().unwrap()) as usize } else { 72 };
        put(b, at, 0x1234_5678_ffff_fff0)
    }),
];

pub const TABLES: &[(&str, Seen, Change)] = &[
    ("an L1 entry gone", Seen::As(Class::Leak), |b, a| put(b, a.l1_entries[0], 0)),
    ("an L1 entry with a reserved bit", Seen::As(Class::ReservedBits), |b, a| {
        edit(b, a.l1_entries.first(), |entry| entry | 4)
    }),
    ("an L1 entry without COPIED", Seen::As(Class::CopiedFlag), |b, a| {
        edit(b, a.l1_entries.first(), |entry| entry & !COPIED)
    }),
    ("an L2 table behind the end", Seen::As(Class::Outside), |b, a| {
        edit(b, a.l1_entries.first(), |entry| entry | 1 << 45)
    }),
    ("an L2 table at an odd place", Seen::As(Class::Unaligned), |b, a| {
        a.cluster > 512 && edit(b, a.l1_entries.first(), |entry| entry + 512)
    }),
    ("an L2 table on the header", Seen::As(Class::ReservedBits), |b, a| {
        // An offset of zero means no table; what is left of the entry betrays it.
        edit(b, a.l1_entries.first(), |_| COPIED | 1 << 56)
    }),
    ("an L2 table on the L1 table", Seen::As(Class::Overlap), |b, a| {
        put(b, a.l1_entries[0], COPIED | a.l1 as u64)
    }),
    ("one L2 table for two places", Seen::As(Class::Overlap), |b, a| twice(b, &a.l1_entries)),
    ("an L2 entry gone", Seen::As(Class::Leak), |b, a| edit(b, a.plain.first(), |_| 0)),
    ("a plain cluster without COPIED", Seen::As(Class::CopiedFlag), |b, a| {
        edit(b, a.plain.first(), |entry| entry & !COPIED)
    }),
    ("a plain cluster with a reserved bit", Seen::As(Class::ReservedBits), |b, a| {
        edit(b, a.plain.first(), |entry| entry | 1 << 57)
    }),
    ("a zero flag in version 2", Seen::As(Class::ReservedBits), |b, a| {
        a.version == 2 && edit(b, a.plain.first(), |entry| entry | 1)
    }),
    ("a plain cluster at an odd place", Seen::As(Class::Unaligned), |b, a| {
        a.cluster > 512 && edit(b, a.plain.first(), |entry| entry + 512)
    }),
    ("a plain cluster behind the end", Seen::As(Class::Outside), |b, a| {
        edit(b, a.plain.first(), |entry| entry | 1 << 45)
    }),
    ("one plain cluster for two", Seen::As(Class::RefcountTooLow), |b, a| twice(b, &a.plain)),
    ("a plain cluster on the L1 table", Seen::As(Class::Overlap), |b, a| {
        edit(b, a.plain.first(), |_| COPIED | a.l1 as u64)
    }),
    ("a plain cluster on the refcounts", Seen::As(Class::Overlap), |b, a| {
        edit(b, a.plain.first(), |_| COPIED | a.refcounts as u64)
    }),
    ("a plain cluster called compressed", Seen::Error, |b, a| {
        edit(b, a.plain.first(), |entry| entry & !COPIED | COMPRESSED)
    }),
    ("a compressed cluster with COPIED", Seen::As(Class::CopiedFlag), |b, a| {
        edit(b, a.compressed.first(), |entry| entry | COPIED)
    }),
    ("a compressed cluster called plain", Seen::Error, |b, a| {
        edit(b, a.compressed.first(), |entry| entry & !COMPRESSED)
    }),
    ("a compressed cluster behind the end", Seen::As(Class::Outside), |b, a| {
        edit(b, a.compressed.first(), |entry| entry | 1 << 45)
    }),
    ("a compressed cluster a byte further", Seen::As(Class::Undecodable), |b, a| {
        edit(b, a.compressed.first(), |entry| entry + 1)
    }),
    ("a compressed cluster of one sector", Seen::As(Class::Undecodable), |b, a| {
        let long = a.compressed.iter().find(|at| a.span(b, **at).1 > 1024);
        let bits = 62 - (a.cluster.trailing_zeros() - 8);
        edit(b, long, |entry| entry & (COMPRESSED | ((1 << bits) - 1)))
    }),
];

pub const REFCOUNTS: &[(&str, Seen, Change)] = &[
    ("a refcount of zero for data", Seen::As(Class::RefcountTooLow), |b, a| refcount_of_data(b, a, 0)),
    ("a refcount of seven for data", Seen::As(Class::Leak), |b, a| refcount_of_data(b, a, 7)),
    ("a refcount of zero for the header", Seen::As(Class::RefcountTooLow), |b, a| {
        put16(b, a.refcount_of(0), 0)
    }),
    ("a refcount of two for the L1 table", Seen::As(Class::Leak), |b, a| put16(b, a.refcount_of(a.l1), 2)),
    ("a refcount behind the end of the file", Seen::As(Class::Leak), |b, a| {
        let at = a.refcount_of(a.len.next_multiple_of(a.cluster) + a.cluster);
        put_u16(b, at, 1);
        true
    }),
    ("no refcount block", Seen::As(Class::RefcountTooLow), |b, a| put(b, a.refcount_table, 0)),
    ("a refcount table entry with a reserved bit", Seen::As(Class::ReservedBits), |b, a| {
        put(b, a.refcount_table, a.refcounts as u64 | 1)
    }),
    ("a refcount block behind the end", Seen::As(Class::Outside), |b, a| put(b, a.refcount_table, 1 << 45)),
    ("a refcount block at an odd place", Seen::As(Class::Unaligned), |b, a| {
        a.cluster > 512 && put(b, a.refcount_table, a.refcounts as u64 + 512)
    }),
    ("one refcount block twice", Seen::As(Class::Overlap), |b, a| {
        put(b, a.refcount_table + a.cluster - 8, a.refcounts as u64)
    }),
];

pub const PAYLOAD_AND_TAIL: &[(&str, Seen, Change)] = &[
    ("noise in a compressed cluster", Seen::As(Class::Undecodable), |b, a| {
        let Some(&entry) = a.compressed.first() else { return false };
        let (host, len) = a.span(b, entry);
        b[host..host + len.min(64)].fill(0xff);
        true
    }),
    ("a bit of a plain cluster", Seen::ByVerify, |b, a| {
        let Some(&entry) = a.plain.first() else { return false };
        let host = a.host(b, entry);
        b[host + 100] ^= 1;
        true
    }),
    ("two plain clusters swapped", Seen::ByVerify, |b, a| swap(b, &a.plain)),
    ("two compressed clusters swapped", Seen::ByVerify, |b, a| swap(b, &a.compressed)),
    ("a cluster cut off the tail", Seen::Error, |b, a| cut(b, a.len - a.cluster)),
    ("a sector cut off the tail", Seen::Error, |b, a| cut(b, a.len - 512)),
    ("half of the file cut off", Seen::As(Class::Outside), |b, a| cut(b, a.len / 2)),
    ("all but the header cut off", Seen::As(Class::Outside), |b, a| cut(b, a.cluster)),
    ("the header cut", Seen::As(Class::Outside), |b, _| cut(b, 50)),
    ("a cluster of noise behind the end", Seen::As(Class::TrailingData), |b, a| {
        b.resize(a.len.next_multiple_of(a.cluster), 0);
        b.extend(disks::noise(3, a.cluster));
        true
    }),
    ("a sector of noise behind the end", Seen::As(Class::TrailingData), |b, _| {
        b.extend(disks::noise(3, 512));
        true
    }),
];

fn refcount_of_data(bytes: &mut [u8], a: &Anatomy, value: u16) -> bool {
    let host = match (a.plain.first(), a.compressed.first()) {
        (Some(&entry), _) => a.host(bytes, entry),
        (None, Some(&entry)) => a.span(bytes, entry).0,
        (None, None) => return false,
    };
    put_u16(bytes, a.refcount_of(host), value);
    true
}

/// Swaps the payloads of two clusters by their entries: every reference stays what it was.
fn swap(bytes: &mut [u8], entries: &[usize]) -> bool {
    let [first, .., last] = entries else { return false };
    let (one, other) = (u64_at(bytes, *first), u64_at(bytes, *last));
    put(bytes, *first, other) && put(bytes, *last, one)
}
