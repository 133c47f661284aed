//! The numbers of the field, each with a type of its own, so that a guest offset cannot be taken
//! for a host offset or a cluster index. A leaf: it imports nothing of this crate.

use std::fmt;
use std::time::Duration;

/// Size of a sector as qcow2 counts it in compressed cluster descriptors, and the granularity to
/// which a virtual disk's size is rounded up (QEMU `BDRV_SECTOR_SIZE`), in bytes.
pub const SECTOR_BYTES: u64 = 512;

/// An offset in bytes on the disk as the virtual machine sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GuestOffset(pub u64);

/// An offset in bytes inside the qcow2 file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostOffset(pub u64);

/// The number of a guest cluster, counted from the start of the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterIndex(pub u64);

/// The size of a qcow2 cluster: a power of two from 512 bytes to 2 MiB (QEMU `MIN_CLUSTER_BITS`,
/// `MAX_CLUSTER_BITS` in `block/qcow2.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterSize {
    bits: u32,
}

impl ClusterSize {
    /// Smallest permitted exponent: 512 bytes.
    pub const MIN_BITS: u32 = 9;
    /// Largest permitted exponent: 2 MiB.
    pub const MAX_BITS: u32 = 21;
    /// QEMU's and our default: 64 KiB.
    pub const DEFAULT: Self = Self { bits: 16 };

    /// From a size in bytes; `None` unless it is a power of two from 512 to 2097152.
    pub fn from_bytes(bytes: u64) -> Option<Self> {
        bytes.is_power_of_two().then(|| Self::from_bits(bytes.trailing_zeros())).flatten()
    }

    /// From the exponent that the header stores (`cluster_bits`); `None` outside of 9..=21.
    pub fn from_bits(bits: u32) -> Option<Self> {
        (Self::MIN_BITS..=Self::MAX_BITS).contains(&bits).then_some(Self { bits })
    }

    /// The exponent, as the header stores it.
    pub fn bits(self) -> u32 {
        self.bits
    }

    /// The size in bytes.
    pub fn bytes(self) -> u64 {
        1 << self.bits
    }

    /// The size in bytes, for indexing buffers.
    pub fn size(self) -> usize {
        1 << self.bits
    }

    /// The cluster that holds a guest offset.
    pub fn cluster_of(self, offset: GuestOffset) -> ClusterIndex {
        ClusterIndex(offset.0 >> self.bits)
    }

    /// Where a guest cluster begins.
    pub fn start_of(self, cluster: ClusterIndex) -> GuestOffset {
        GuestOffset(cluster.0 << self.bits)
    }

    /// How many clusters it takes to hold `bytes`.
    pub fn clusters_for(self, bytes: u64) -> u64 {
        bytes.div_ceil(self.bytes())
    }

    /// `bytes` rounded up to whole clusters. Callers bound `bytes` far below 2^63 first.
    pub fn round_up(self, bytes: u64) -> u64 {
        self.clusters_for(bytes) << self.bits
    }

    /// The part of an offset that lies inside its cluster.
    pub fn offset_in(self, bytes: u64) -> u64 {
        bytes & (self.bytes() - 1)
    }
}

/// A byte count as people write it: `1.5 GiB`.
#[derive(Clone, Copy)]
pub struct Human(pub u64);

impl fmt::Display for Human {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
        if self.0 < 1024 {
            return write!(f, "{} B", self.0);
        }
        let exponent = (self.0.ilog2() / 10) as usize;
        let value = self.0 as f64 / (1u64 << (10 * exponent)) as f64;
        if value.fract() == 0.0 {
            write!(f, "{value:.0} {}", UNITS[exponent - 1])
        } else {
            write!(f, "{value:.1} {}", UNITS[exponent - 1])
        }
    }
}

/// Reads a size such as `65536`, `64k`, `64KiB`, `1G` or `1.5GiB`. All suffixes are powers of
/// 1024, as in `qemu-img`.
///
/// # Errors
/// A sentence that names the text and the accepted forms.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{text}` is not a size: write bytes or use k, M, G, T, as in 64k or 1.5GiB");
    let trimmed = text.trim();
    let split = trimmed.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(trimmed.len());
    let (number, suffix) = trimmed.split_at(split);
    let shift = match suffix.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        "p" | "pb" | "pib" => 50,
        _ => return Err(wrong()),
    };
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(1 << shift).ok_or_else(wrong);
    }
    let value = number.parse::<f64>().map_err(|_| wrong())? * (1u64 << shift) as f64;
    if value.is_finite() && value >= 0.0 && value < 2f64.powi(63) { Ok(value as u64) } else { Err(wrong()) }
}

/// Reads a duration such as `90`, `90s`, `15m` or `1.5h`; without a unit it is seconds.
///
/// # Errors
/// A sentence that names the text and the accepted forms.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is not a duration: write seconds or use s, m, h, as in 90s or 15m");
    let trimmed = text.trim();
    let split = trimmed.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(trimmed.len());
    let (number, suffix) = trimmed.split_at(split);
    let seconds = match suffix.trim() {
        "" | "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        _ => return Err(wrong()),
    };
    let value = number.parse::<f64>().map_err(|_| wrong())? * seconds;
    // A year is more than anybody waits, and keeps sums of times far from their limits.
    if (0.0..=366.0 * 86400.0).contains(&value) { Ok(Duration::from_secs_f64(value)) } else { Err(wrong()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_unit_or_are_seconds() {
        for (text, seconds) in [("0", 0.0), ("90", 90.0), ("90s", 90.0), ("15m", 900.0), ("1.5h", 5400.0)] {
            assert_eq!(parse_duration(text), Ok(Duration::from_secs_f64(seconds)), "{text}");
        }
        for text in ["", "s", "-1", "1d", "1e9h", "9999999h", "1..5m", "nan"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_are_read_as_qemu_img_reads_them() {
        for (text, bytes) in
            [("0", 0), ("65536", 65536), ("64k", 65536), ("64KiB", 65536), ("1.5G", 3 << 29), ("2T", 2 << 40)]
        {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for text in ["", "k", "-1", "1x", "99999999P", "1..5G", "nan"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn cluster_sizes_are_powers_of_two_from_512_bytes_to_2_mib() {
        assert_eq!(ClusterSize::from_bytes(65536), Some(ClusterSize::DEFAULT));
        for bytes in [0, 1, 256, 513, 4 << 20, u64::MAX] {
            assert_eq!(ClusterSize::from_bytes(bytes), None, "{bytes}");
        }
    }

    #[test]
    fn human_sizes_keep_one_decimal_at_most() {
        assert_eq!(Human(1023).to_string(), "1023 B");
        assert_eq!(Human(3 << 29).to_string(), "1.5 GiB");
        assert_eq!(Human(10 << 30).to_string(), "10 GiB");
    }
}
