//! Disks and options out of the fuzzer's bytes.

use arbitrary::{Arbitrary, Result, Unstructured};
use snapcow::encode::Compression;
use snapcow::qcow2::Compat;
use snapcow::units::ClusterSize;

/// Longest disk, in bytes: more than a chunk.
const DISK_MAX: usize = 5 << 19;

/// A stretch of a disk.
#[derive(Arbitrary, Clone, Debug)]
enum Piece {
    Zeros(u16),
    /// Zeros of up to 2 MiB.
    ManyZeros(u8),
    Byte(u8, u16),
    /// Does not get smaller.
    Noise(u32, u16),
    /// The same, up to 128 KiB: whole clusters of it.
    MuchNoise(u32, u8),
    /// Gets much smaller.
    Text(u8, u16),
    Bytes(Vec<u8>),
    /// What stood so far back, again.
    Again(u16, u16),
    /// Zeros up to the next multiple of two to the power of 9 to 21.
    Align(u8),
}

/// A raw disk.
#[derive(Clone, Debug)]
pub struct Disk(pub Vec<u8>);

impl<'a> Arbitrary<'a> for Disk {
    fn arbitrary(input: &mut Unstructured<'a>) -> Result<Self> {
        let mut disk = Vec::new();
        for piece in input.arbitrary_iter::<Piece>()?.take(64) {
            append(&mut disk, piece?);
            if disk.len() >= DISK_MAX {
                disk.truncate(DISK_MAX);
                break;
            }
        }
        Ok(Self(disk))
    }
}

fn append(disk: &mut Vec<u8>, piece: Piece) {
    let len = disk.len();
    match piece {
        Piece::Zeros(count) => disk.resize(len + usize::from(count), 0),
        Piece::ManyZeros(count) => disk.resize(len + (usize::from(count) << 13), 0),
        Piece::Byte(byte, count) => disk.resize(len + usize::from(count), byte),
        Piece::Noise(seed, count) => noise(disk, seed, usize::from(count)),
        Piece::MuchNoise(seed, count) => noise(disk, seed, usize::from(count) << 9),
        Piece::Text(word, count) => {
            disk.extend((0..usize::from(count)).map(|at| word.wrapping_add((at % 11 + at / 300) as u8)));
        }
        Piece::Bytes(bytes) => disk.extend(bytes),
        Piece::Again(back, count) => {
            for _ in 0..count {
                let byte = disk.len().checked_sub(1 + usize::from(back)).map_or(0, |at| disk[at]);
                disk.push(byte);
            }
        }
        Piece::Align(bits) => disk.resize(len.next_multiple_of(512 << (bits % 13)), 0),
    }
}

fn noise(disk: &mut Vec<u8>, seed: u32, count: usize) {
    let mut state = u64::from(seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    disk.extend((0..count).map(|_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    }));
}

/// How to convert.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    pub cluster_size: ClusterSize,
    pub compat: Compat,
    pub compression: Compression,
    pub threads: usize,
    /// Memory of the spool, in blocks of 1 MiB; `None`: enough.
    pub spool_blocks: Option<u64>,
    /// Whether the spool has a disk.
    pub spool_disk: bool,
}

impl<'a> Arbitrary<'a> for Options {
    fn arbitrary(input: &mut Unstructured<'a>) -> Result<Self> {
        let compression = match input.int_in_range(0..=7)? {
            0 => Compression::None,
            1 | 2 => Compression::Deflate(1),
            3 => Compression::Deflate(input.int_in_range(2..=12)?),
            4 => Compression::DeflateSmallWindow(input.int_in_range(1..=9)?),
            5 | 6 => Compression::Zstd(input.int_in_range(1..=3)?),
            _ => Compression::Zstd(input.int_in_range(4..=19)?),
        };
        let old = !matches!(compression, Compression::Zstd(_)) && input.arbitrary()?;
        let bits = input.int_in_range(ClusterSize::MIN_BITS..=ClusterSize::MAX_BITS)?;
        let blocks = input.int_in_range(0..=3)?;
        Ok(Self {
            cluster_size: ClusterSize::from_bits(bits).expect("within the bounds"),
            compat: if old { Compat::V0_10 } else { Compat::V1_1 },
            compression,
            threads: input.int_in_range(1..=3)?,
            // A block holds a whole cluster, so for the largest ones it is larger than 1 MiB.
            spool_blocks: (blocks < 3).then_some(if bits > 20 { 6 } else { 2 + blocks }),
            spool_disk: input.arbitrary()?,
        })
    }
}
