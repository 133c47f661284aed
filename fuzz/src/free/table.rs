//! Partition tables: their checksums made to fit, and what their entries say.

use std::ops::Range;

use super::sparse::Image;
use super::sums::crc32;

const SECTOR: u64 = 512;

/// The headers of a GPT: in the second and in the last sector.
fn headers(image: &Image<'_>) -> [u64; 2] {
    [SECTOR, (image.len / SECTOR).saturating_sub(1) * SECTOR]
}

/// Makes the checksums of both copies of a GPT fit, for sectors of 512 bytes.
pub fn fit_gpt(image: &mut Image<'_>) {
    for at in headers(image) {
        if image.get(at, 8) != b"EFI PART" {
            continue;
        }
        let len = image.le32(at + 80) * image.le32(at + 84);
        let entries = image.le64(at + 72).saturating_mul(SECTOR);
        if len <= 1 << 20 && entries <= image.len {
            let sum = !crc32(!0, &image.get(entries, len as usize));
            image.put(at + 88, &sum.to_le_bytes());
        }
        let len = image.le32(at + 12).min(SECTOR);
        image.put(at + 16, &[0; 4]);
        let sum = !crc32(!0, &image.get(at, len as usize));
        image.put(at + 16, &sum.to_le_bytes());
    }
}

/// The places that the entries of either copy of a GPT tell.
pub fn gpt_entries(image: &Image<'_>) -> Vec<Range<u64>> {
    let mut told = Vec::new();
    for sector in [SECTOR, 4096] {
        for at in [sector, (image.len / sector).saturating_sub(1) * sector] {
            let (count, each) = (image.le32(at + 80).min(1 << 13), image.le32(at + 84));
            let entries = image.le64(at + 72).saturating_mul(sector);
            for entry in (0..count).map(|index| entries.saturating_add(index * each)) {
                let (first, last) =
                    (image.le64(entry.saturating_add(32)), image.le64(entry.saturating_add(40)));
                told.push(first.saturating_mul(sector)..last.saturating_add(1).saturating_mul(sector));
            }
        }
    }
    told
}

/// Places worth a change.
pub fn spots(image: &Image<'_>) -> Vec<Range<u64>> {
    let mut spots = vec![446..512, 446..462, 462..478, 478..494, 494..510, 510..512];
    if image.get(SECTOR, 8) == b"EFI PART" {
        for at in headers(image) {
            let fields =
                [(0, 8), (8, 4), (12, 4), (16, 4), (24, 8), (32, 8), (40, 8), (48, 8), (56, 16), (72, 8)];
            let more = [(80, 4), (84, 4), (88, 4), (0, 92)];
            spots.extend(fields.into_iter().chain(more).map(|(more, len)| at + more..at + more + len));
            let entries = image.le64(at + 72) * SECTOR;
            spots.extend((0..8).map(|index| entries + index * 128).map(|at| at..at + 128));
            spots.extend((0..6).map(|index| entries + index * 128 + 32).map(|at| at..at + 16));
        }
    }
    // The chain of an extended partition.
    let is_extended = |at: &u64| matches!(image.u8(at + 4), 5 | 15);
    if let Some(entry) = [446, 462, 478, 494].into_iter().find(is_extended) {
        let base = image.le32(entry + 8);
        let mut next = base;
        for _ in 0..8 {
            let at = next * SECTOR;
            spots.extend([at + 446..at + 512, at + 446..at + 462, at + 462..at + 478]);
            let link = image.le32(at + 462 + 8);
            if link == 0 {
                break;
            }
            next = base + link;
        }
    }
    spots
}
