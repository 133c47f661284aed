//! A made-up virtual machine's disk: the same bytes for the same seed, at any offset, never stored.
//!
//! The disk is cut into regions of 8 MiB. A region is all hole, all data, or a mix of extents of
//! 4 KiB to 512 KiB with gaps between them; which of these, and every page of it, follows from the
//! seed and the position alone, so any offset can be read first. Pages look like what disks of
//! servers hold: log lines and configuration, program-like records, and bytes that do not compress.
//! Sector 0 is an MBR with one Linux partition that keeps the rules of Glance's format inspector.
//! There is no filesystem in it.

use super::data::ImageData;
use super::hash::Hashes;
use super::looks::{Look, PAGE_BYTES, Random};

/// The unit whose layout is drawn at once, in bytes; the longest extent inside of one.
const REGION_BYTES: u64 = 8 << 20;
/// Pages of a region.
const REGION_PAGES: u64 = REGION_BYTES / PAGE_BYTES;
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

/// A deterministic, VM-shaped raw image.
#[derive(Clone, Debug)]
pub struct VmImage {
    seed: u64,
    virtual_size: u64,
    /// Chance of a region to be all data, and to be all data or mixed, as 64-bit thresholds.
    full: u64,
    mixed: u64,
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
        let fraction = data_fraction.clamp(0.0, 1.0);
        // Half of the data in full regions, half in mixed ones, as long as there is room for them.
        let (full, mixed) = if fraction <= 2.0 * MIXED_SHARE {
            (fraction / 2.0, (fraction / 2.0 / MIXED_SHARE).min(1.0 - fraction / 2.0))
        } else {
            let full = (fraction - MIXED_SHARE) / (1.0 - MIXED_SHARE);
            (full, 1.0 - full)
        };
        let threshold = |share: f64| (share.clamp(0.0, 1.0) * u64::MAX as f64) as u64;
        Self { seed, virtual_size, full: threshold(full), mixed: threshold(full + mixed) }
    }

    /// The demo's disk, 4 GiB of which an eighth is data, and its hashes. They are written down here
    /// because computing them would take longer than the conversion; a conversion that verifies its
    /// source checks them.
    pub fn demo() -> (Self, Hashes) {
        let hashes = Hashes { md5: DEMO_MD5.into(), sha512: DEMO_SHA512.into() };
        (Self::new(1, 4 << 30, 0.125), hashes)
    }

    /// Walks over the extents of a region, in order.
    fn extents(&self, region: u64, mut visit: impl FnMut(Extent)) {
        let mut random = Random::new(self.seed, region);
        let class = random.next();
        if class < self.full {
            // A run that large is mostly one file: one look, now and then two.
            let split = random.below(REGION_PAGES * 3).clamp(1, REGION_PAGES);
            visit(Extent { start: 0, end: split, look: Look::draw(&mut random) });
            if split < REGION_PAGES {
                visit(Extent { start: split, end: REGION_PAGES, look: Look::draw(&mut random) });
            }
            return;
        }
        // Region 0 holds the MBR and the boot loader's part, so it is never empty.
        if class >= self.mixed && region != 0 {
            return;
        }
        let mut page = random.below(if region == 0 { 1 } else { 256 });
        while page < REGION_PAGES {
            let len = random.log_uniform(MIXED_EXTENT_BITS);
            let end = (page + len).min(REGION_PAGES);
            visit(Extent { start: page, end, look: Look::draw(&mut random) });
            let gap = random.log_uniform(MIXED_EXTENT_BITS) as f64 * (1.0 - MIXED_SHARE) / MIXED_SHARE;
            page = end + (gap as u64).max(1);
        }
    }

    /// Fills `buf` from inside of one region.
    fn read_region(&self, offset: u64, buf: &mut [u8]) {
        let region = offset / REGION_BYTES;
        let base = region * REGION_BYTES;
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

impl ImageData for VmImage {
    fn len(&self) -> u64 {
        self.virtual_size
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) {
        assert!(offset + buf.len() as u64 <= self.virtual_size, "a read beyond the end of the image");
        let mut done = 0;
        while done < buf.len() {
            let at = offset + done as u64;
            let len = (REGION_BYTES - at % REGION_BYTES).min((buf.len() - done) as u64) as usize;
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
            let region = at / REGION_BYTES;
            let base = region * REGION_BYTES;
            let stop = end.min(base + REGION_BYTES);
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
mod tests {
    use super::*;

    fn image() -> VmImage {
        VmImage::new(7, 256 << 20, 0.2)
    }

    #[test]
    fn any_cut_of_the_reads_gives_the_same_bytes() {
        let image = image();
        let mut whole = vec![0; 24 << 20];
        image.read_at(0, &mut whole);
        for len in [1usize, 511, 4096, 4097, 65_536, 1_000_003] {
            let mut random = Random::new(1, len as u64);
            for _ in 0..200 {
                let offset = random.below((whole.len() - len) as u64);
                let mut part = vec![0xff; len];
                image.read_at(offset, &mut part);
                assert!(part == whole[offset as usize..][..len], "offset {offset}, {len} bytes");
            }
        }
        let mut other = vec![0; 1 << 20];
        VmImage::new(8, 256 << 20, 0.2).read_at(0, &mut other);
        assert!(other != whole[..1 << 20]);
    }

    #[test]
    fn holes_are_told_where_and_only_where_every_byte_is_zero() {
        let image = VmImage::new(3, (64 << 20) + 100, 0.3);
        let mut buf = vec![0; 4096];
        let mut data = 0;
        for page in 0..image.len() / 4096 {
            image.read_at(page * 4096, &mut buf);
            let zero = buf.iter().all(|&byte| byte == 0);
            assert_eq!(image.is_hole(page * 4096, 4096), zero, "page {page}");
            data += u64::from(!zero);
        }
        assert!(data > 0);
        assert!(!image.is_hole(0, image.len()));
    }

    #[test]
    fn the_share_of_data_is_about_what_was_asked() {
        for fraction in [0.05, 0.15, 0.5, 0.8] {
            let image = VmImage::new(11, 16 << 30, fraction);
            let mut pages = 0;
            for region in 0..image.len() / REGION_BYTES {
                image.extents(region, |extent| pages += extent.end - extent.start);
            }
            let share = (pages * PAGE_BYTES) as f64 / image.len() as f64;
            assert!((share / fraction - 1.0).abs() < 0.25, "{share} for {fraction}");
        }
    }

    #[test]
    fn sector_0_is_an_mbr_that_a_strict_reader_takes() {
        for size in [512, 4096, 1 << 20, (2 << 20) + 7, 3 << 40] {
            let mut sector = [0; 512];
            VmImage::new(1, size, 0.1).read_at(0, &mut sector);
            assert_eq!(sector[510..], [0x55, 0xaa]);
            assert_eq!([446, 462, 478, 494].map(|at| sector[at]), [0x80, 0, 0, 0]);
            assert_eq!([450, 466, 482, 498].map(|at| sector[at]), [0x83, 0, 0, 0]);
        }
        VmImage::new(1, 0, 0.1).read_at(0, &mut []);
        VmImage::new(1, 100, 0.1).read_at(0, &mut [0; 100]);
    }

    #[test]
    fn the_generated_bytes_stay_what_they_were() {
        // If this fails on purpose, write down the hashes that the test below prints as well.
        let (image, _) = VmImage::demo();
        let mut bytes = vec![0; 64 << 20];
        image.read_at(0, &mut bytes);
        assert_eq!(crc32fast::hash(&bytes), 96_228_222);
    }

    #[test]
    #[ignore = "hashes 4 GiB; the demo checks the same"]
    fn the_demo_has_the_hashes_written_down() {
        let (image, hashes) = VmImage::demo();
        assert_eq!(Hashes::of(&image), hashes);
    }
}
