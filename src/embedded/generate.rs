//! A made-up virtual machine's disk: the same bytes for the same seed, at any offset, never stored.
//!
//! The disk is cut into regions, of 8 MiB as a rule. A region is all hole, all data, or a mix of
//! extents of 4 KiB to 512 KiB with gaps between them; or, where a mean length of extents is asked
//! for ([`Shape`]), extents and gaps of random lengths. All of it, and every page, follows from the
//! seed and the position alone, so any offset can be read first. Pages look like what disks of
//! servers hold: log lines and configuration, program-like records, and bytes that do not compress.
//! Sector 0 is an MBR with one Linux partition that keeps the rules of Glance's format inspector.
//! There is no filesystem in it.

use std::ops::Range;

use super::data::ImageData;
use super::hash::Hashes;
use super::looks::{Look, PAGE_BYTES, Random};

/// The unit whose layout is drawn at once, in bytes, unless long extents need a larger one.
const REGION_BYTES: u64 = 8 << 20;
/// Mean extents that a region holds at least, so that few are cut by its ends.
const REGION_EXTENTS: u64 = 64;
/// Which part of the data does not compress, unless a [`Shape`] says otherwise.
const NOISE_SHARE: f64 = 0.25;
/// A piece of a shaped disk that has one look, in pages: 256 KiB.
const PIECE_PAGES: u64 = 64;
/// By which the kinds of a shaped disk's regions are spread evenly: 2^64 times the golden section.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;
/// Which part of a mixed region is data, on average.
const MIXED_SHARE: f64 = 0.3;
/// Longest extent of a mixed region, as a power of two of pages: 512 KiB.
const MIXED_EXTENT_BITS: u64 = 7;
/// Size of a sector in an MBR, in bytes.
const SECTOR_BYTES: u64 = 512;
/// Where the partition begins, in sectors: 1 MiB, as every installer of today has it.
const PARTITION_START: u64 = 2048;

/// Hashes of [`VmImage::demo`].
const DEMO_MD5: &str = "10e505bf1243b3ad29453737b8777096";
const DEMO_SHA512: &str = "6ddb1cc8b4f616338c19d60640f97984458937044840faf2b6833fa15f16e220\
    ab29894cd35bace31d57fed2a2dd62489e99c41e4e14f4361817c8d928afcef7";

/// What a generated disk is to look like.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shape {
    /// Share of the disk that holds data, from 0.0 to 1.0.
    pub data_fraction: f64,
    /// Share of the data that does not get smaller when compressed, from 0.0 to 1.0.
    pub noise_fraction: f64,
    /// Mean length of an extent of data in bytes, at least a page of 4 KiB; gaps are as long as
    /// `data_fraction` makes them, and a page at least. `None`: the mix of a server's disk, half of
    /// it in regions of 8 MiB, half in extents of 4 KiB to 512 KiB.
    pub mean_extent_bytes: Option<u64>,
}

/// A deterministic, VM-shaped raw image.
#[derive(Clone, Debug)]
pub struct VmImage {
    seed: u64,
    virtual_size: u64,
    region_bytes: u64,
    pattern: Pattern,
    /// Which part of the data does not compress, as a 64-bit threshold.
    noise: u64,
    /// Whether kinds of regions are spread evenly and looks are drawn for each piece, so that shares
    /// come out as asked on small disks too; else both are drawn as they come.
    is_even: bool,
}

/// How the data of a disk is laid out.
#[derive(Clone, Copy, Debug)]
enum Pattern {
    /// Regions of three kinds: the chance of one to be all data, and to be all data or mixed, as
    /// 64-bit thresholds.
    Mix { full: u64, mixed: u64 },
    /// Extents and gaps of random lengths, with their means in pages; the chance that a region
    /// begins with data, as a threshold.
    Runs { begins: u64, run_pages: f64, gap_pages: f64 },
}

/// An extent: the pages `start..end` of a region look like `look`.
#[derive(Clone, Copy, Debug)]
struct Extent {
    start: u64,
    end: u64,
    look: Look,
}

impl VmImage {
    /// A disk of `virtual_size` bytes of which about `data_fraction` (0.0 to 1.0) is data.
    pub fn new(seed: u64, virtual_size: u64, data_fraction: f64) -> Self {
        Self {
            seed,
            virtual_size,
            region_bytes: REGION_BYTES,
            pattern: Pattern::mix(data_fraction.clamp(0.0, 1.0)),
            noise: threshold(NOISE_SHARE),
            is_even: false,
        }
    }

    /// A disk of `virtual_size` bytes with that shape; shares outside of 0.0 to 1.0 count as the
    /// nearest.
    pub fn shaped(seed: u64, virtual_size: u64, shape: Shape) -> Self {
        let fraction = shape.data_fraction.clamp(0.0, 1.0);
        let (pattern, region_bytes) = match shape.mean_extent_bytes {
            None => (Pattern::mix(fraction), REGION_BYTES),
            Some(bytes) => {
                let region = bytes.saturating_mul(REGION_EXTENTS).clamp(REGION_BYTES, 1 << 50);
                (Pattern::runs(fraction, bytes), region.next_power_of_two())
            }
        };
        let noise = threshold(shape.noise_fraction);
        Self { seed, virtual_size, region_bytes, pattern, noise, is_even: true }
    }

    /// The demo's disk, 4 GiB of which an eighth is data, and its hashes. They are written down here
    /// because computing them would take longer than the conversion; a conversion that verifies its
    /// source checks them.
    pub fn demo() -> (Self, Hashes) {
        let hashes = Hashes { md5: DEMO_MD5.into(), sha512: DEMO_SHA512.into() };
        (Self::new(1, 4 << 30, 0.125), hashes)
    }

    /// Walks over all data but the boot sector, in order: a range in bytes, and whether it is of the
    /// kind that does not compress. Ranges may touch.
    pub fn for_each_extent(&self, mut visit: impl FnMut(Range<u64>, bool)) {
        for region in 0..self.virtual_size.div_ceil(self.region_bytes) {
            let base = region * self.region_bytes;
            self.extents(region, |extent| {
                let start = base + extent.start * PAGE_BYTES;
                let end = (base + extent.end * PAGE_BYTES).min(self.virtual_size);
                if start < end {
                    visit(start..end, extent.look == Look::Noise);
                }
            });
        }
    }

    /// Walks over the extents of a region, in order, each with one look.
    fn extents(&self, region: u64, mut visit: impl FnMut(Extent)) {
        let base = region * (self.region_bytes / PAGE_BYTES);
        self.runs(region, |run| {
            if !self.is_even {
                return visit(run);
            }
            let mut start = run.start;
            while start < run.end {
                let piece = (base + start) / PIECE_PAGES;
                let end = ((piece + 1) * PIECE_PAGES - base).min(run.end);
                let mut random = Random::new(self.seed ^ 0x0100_c500_f00d, piece);
                visit(Extent { start, end, look: Look::draw(&mut random, self.noise) });
                start = end;
            }
        });
    }

    /// Walks over the runs of data of a region, in order.
    fn runs(&self, region: u64, mut visit: impl FnMut(Extent)) {
        let mut random = Random::new(self.seed, region);
        let pages = self.region_bytes / PAGE_BYTES;
        match self.pattern {
            Pattern::Mix { full, mixed } => {
                let drawn = random.next();
                let spread = || Random::new(self.seed, 0).next().wrapping_add(region.wrapping_mul(SPREAD));
                let class = if self.is_even { spread() } else { drawn };
                // Region 0 holds the MBR and the boot loader's part, so it is never empty.
                let boots = region == 0 && !self.is_even;
                if class < full {
                    self.full_region(pages, &mut random, visit);
                } else if class < mixed || boots {
                    self.mixed_region(region, pages, &mut random, visit);
                }
            }
            Pattern::Runs { begins, run_pages, gap_pages } => {
                // Lengths without memory: a region begins as if it went on from the one before.
                let mut page = if random.next() < begins { 0 } else { random.length(gap_pages) };
                while page < pages {
                    let end = (page + random.length(run_pages)).min(pages);
                    visit(Extent { start: page, end, look: Look::Noise });
                    page = end + random.length(gap_pages);
                }
            }
        }
    }

    /// A run that large is mostly one file: one look, now and then two.
    fn full_region(&self, pages: u64, random: &mut Random, mut visit: impl FnMut(Extent)) {
        let split = random.below(pages * 3).clamp(1, pages);
        visit(Extent { start: 0, end: split, look: Look::draw(random, self.noise) });
        if split < pages {
            visit(Extent { start: split, end: pages, look: Look::draw(random, self.noise) });
        }
    }

    fn mixed_region(&self, region: u64, pages: u64, random: &mut Random, mut visit: impl FnMut(Extent)) {
        let mut page = random.below(if region == 0 { 1 } else { 256 });
        while page < pages {
            let len = random.log_uniform(MIXED_EXTENT_BITS);
            let end = (page + len).min(pages);
            visit(Extent { start: page, end, look: Look::draw(random, self.noise) });
            let gap = random.log_uniform(MIXED_EXTENT_BITS) as f64 * (1.0 - MIXED_SHARE) / MIXED_SHARE;
            page = end + (gap as u64).max(1);
        }
    }

    /// Fills `buf` from inside of one region.
    fn read_region(&self, offset: u64, buf: &mut [u8]) {
        let region = offset / self.region_bytes;
        let base = region * self.region_bytes;
        let (from, until) = (offset - base, offset - base + buf.len() as u64);
        let mut done = from;
        let mut page_buf = [0u8; PAGE_BYTES as usize];
        self.extents(region, |extent| {
            let start = (extent.start * PAGE_BYTES).max(from);
            let end = (extent.end * PAGE_BYTES).min(until);
            if start >= end {
                return;
            }
            buf[(done - from) as usize..(start - from) as usize].fill(0);
            let mut at = start;
            while at < end {
                let page_start = at - at % PAGE_BYTES;
                let stop = (page_start + PAGE_BYTES).min(end);
                let out = &mut buf[(at - from) as usize..(stop - from) as usize];
                let number = (base + page_start) / PAGE_BYTES;
                if let Ok(whole) = <&mut [u8; PAGE_BYTES as usize]>::try_from(&mut *out) {
                    extent.look.fill(self.seed, number, whole);
                } else {
                    extent.look.fill(self.seed, number, &mut page_buf);
                    out.copy_from_slice(&page_buf[(at - page_start) as usize..(stop - page_start) as usize]);
                }
                at = stop;
            }
            done = end;
        });
        buf[(done - from) as usize..].fill(0);
    }

    /// Sector 0. The rules that Glance's inspector checks: the signature, and boot flags that are 0
    /// or 0x80.
    fn boot_sector(&self) -> [u8; SECTOR_BYTES as usize] {
        let mut page = [0u8; PAGE_BYTES as usize];
        Look::Binary.fill(self.seed, u64::MAX, &mut page);
        let mut sector = [0u8; SECTOR_BYTES as usize];
        sector[..440].copy_from_slice(&page[..440]);
        sector[..3].copy_from_slice(&[0xeb, 0x63, 0x90]);
        sector[440..444].copy_from_slice(&(Random::new(self.seed, u64::MAX).next() as u32).to_le_bytes());
        let sectors = self.virtual_size / SECTOR_BYTES;
        let start = if sectors > PARTITION_START { PARTITION_START } else { 1 };
        let count = sectors.saturating_sub(start).min(u64::from(u32::MAX)) as u32;
        // Active, type 0x83 (Linux); CHS at its maximum, «look at the LBA».
        sector[446..454].copy_from_slice(&[0x80, 0xfe, 0xff, 0xff, 0x83, 0xfe, 0xff, 0xff]);
        sector[454..458].copy_from_slice(&(start as u32).to_le_bytes());
        sector[458..462].copy_from_slice(&count.to_le_bytes());
        sector[510..].copy_from_slice(&[0x55, 0xaa]);
        sector
    }
}

impl Pattern {
    /// Half of the data in full regions, half in mixed ones, as long as there is room for them.
    fn mix(fraction: f64) -> Self {
        let (full, mixed) = if fraction <= 2.0 * MIXED_SHARE {
            (fraction / 2.0, (fraction / 2.0 / MIXED_SHARE).min(1.0 - fraction / 2.0))
        } else {
            let full = (fraction - MIXED_SHARE) / (1.0 - MIXED_SHARE);
            (full, 1.0 - full)
        };
        Self::Mix { full: threshold(full), mixed: threshold(full + mixed) }
    }

    fn runs(fraction: f64, mean_bytes: u64) -> Self {
        if fraction == 0.0 || fraction == 1.0 {
            let all = threshold(fraction);
            return Self::Mix { full: all, mixed: all };
        }
        let run_pages = (mean_bytes as f64 / PAGE_BYTES as f64).max(1.0);
        let gap_pages = (run_pages * (1.0 - fraction) / fraction).max(1.0);
        Self::Runs { begins: threshold(fraction), run_pages, gap_pages }
    }
}

/// A share as the number below which that share of all 64-bit numbers lies.
fn threshold(share: f64) -> u64 {
    (share.clamp(0.0, 1.0) * u64::MAX as f64) as u64
}

impl ImageData for VmImage {
    fn len(&self) -> u64 {
        self.virtual_size
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) {
        assert!(offset + buf.len() as u64 <= self.virtual_size, "a read beyond the end of the image");
        let mut done = 0;
        while done < buf.len() {
            let at = offset + done as u64;
            let len = (self.region_bytes - at % self.region_bytes).min((buf.len() - done) as u64) as usize;
            self.read_region(at, &mut buf[done..done + len]);
            done += len;
        }
        if offset < SECTOR_BYTES && self.virtual_size >= SECTOR_BYTES {
            let sector = self.boot_sector();
            let start = offset as usize;
            let len = (sector.len() - start).min(buf.len());
            buf[..len].copy_from_slice(&sector[start..start + len]);
        }
    }

    fn is_hole(&self, offset: u64, len: u64) -> bool {
        let end = (offset + len).min(self.virtual_size);
        if offset < SECTOR_BYTES {
            return false;
        }
        let mut at = offset;
        while at < end {
            let region = at / self.region_bytes;
            let base = region * self.region_bytes;
            let stop = end.min(base + self.region_bytes);
            let mut hole = true;
            self.extents(region, |extent| {
                hole &= extent.end * PAGE_BYTES + base <= at || extent.start * PAGE_BYTES + base >= stop;
            });
            if !hole {
                return false;
            }
            at = stop;
        }
        true
    }
}

#[cfg(test)]
#[path = "tests/generate.rs"]
mod generate_tests;
