//! Block bitmaps: their checksums (`ext4_block_bitmap_csum_verify`), those that were never written and are computed
//! (`ext4_init_block_bitmap`, both in `fs/ext4`), and the free runs in them.

use std::ops::Range;

use super::super::checksum::crc32c;
use super::super::{Outcome, Trouble};
use super::groups::Group;
use super::super_block::Geometry;

/// Whether a bitmap is the one that the descriptor of group `index` speaks of.
pub(super) fn check(geometry: &Geometry, index: u64, group: &Group, bitmap: &[u8]) -> Outcome<()> {
    let Some((has, mask)) = group.bitmap_checksum else { return Ok(()) };
    let len = (geometry.clusters_per_group / 8) as usize;
    let must = bitmap.get(..len).map(|bits| crc32c(geometry.seed, bits) & mask);
    if must == Some(has) {
        return Ok(());
    }
    Err(Trouble::whole(format_args!("the checksum of the block bitmap of group {index} is wrong")))
}

/// The bitmap of a group whose bitmap was never written: copies of superblock and descriptors at its beginning, and its
/// own bitmaps and inode table as far as they lie in it.
pub(super) fn compute(geometry: &Geometry, index: u64, group: &Group) -> Vec<u8> {
    let mut bitmap = vec![0; geometry.block_bytes as usize];
    let (start, end) = (geometry.group_start(index), geometry.group_end(index));
    let own = [
        start..start.saturating_add(geometry.base_blocks(index)),
        group.block_bitmap..group.block_bitmap + 1,
        group.inode_bitmap..group.inode_bitmap + 1,
        group.inode_table..group.inode_table + geometry.inode_table_blocks,
    ];
    for blocks in own {
        for block in blocks.start.max(start)..blocks.end.min(end) {
            let cluster = (block - start) / geometry.cluster_blocks;
            if let Some(byte) = bitmap.get_mut((cluster / 8) as usize) {
                *byte |= 1 << (cluster % 8);
            }
        }
    }
    bitmap
}

/// Calls `each` with every run of free clusters among the first `clusters` of a bitmap; gives their number.
pub(super) fn free_runs(
    bitmap: &[u8],
    clusters: u64,
    mut each: impl FnMut(Range<u64>) -> Outcome<()>,
) -> Outcome<u64> {
    let (mut free, mut at) = (0, 0);
    while at < clusters {
        let start = next(bitmap, at, clusters, false);
        at = next(bitmap, start, clusters, true);
        if start < at {
            free += at - start;
            each(start..at)?;
        }
    }
    Ok(free)
}

/// The first cluster from `at` on that is in use (or is free), or `clusters`. What lies behind the bitmap is in use.
fn next(bitmap: &[u8], mut at: u64, clusters: u64, in_use: bool) -> u64 {
    let skipped = if in_use { 0 } else { 0xff };
    while at < clusters {
        let byte = bitmap.get((at / 8) as usize).copied().unwrap_or(0xff);
        if at.is_multiple_of(8) && byte == skipped && (at / 8) < bitmap.len() as u64 {
            at += 8;
            continue;
        }
        if (byte >> (at % 8) & 1 == 1) == in_use {
            return at;
        }
        at += 1;
    }
    clusters
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runs(bitmap: &[u8], clusters: u64) -> (u64, Vec<Range<u64>>) {
        let mut runs = Vec::new();
        let free = free_runs(bitmap, clusters, |run| {
            runs.push(run);
            Ok(())
        });
        (free.unwrap(), runs)
    }

    #[test]
    fn runs_are_those_of_every_bit_by_itself() {
        assert_eq!(runs(&[0b1110_0001, 0, 0xff, 0b0111_1111], 32), (13, vec![1..5, 8..16, 31..32]));
        assert_eq!(runs(&[0, 0], 11), (11, std::iter::once(0..11).collect()));
        assert_eq!(runs(&[0xff; 3], 24), (0, vec![]));
        assert_eq!(runs(&[0], 20), (8, std::iter::once(0..8).collect()), "behind the bitmap all is in use");
        let mut state = 7u64;
        for _ in 0..2000 {
            let bitmap: Vec<u8> = (0..9)
                .map(|_| {
                    state =
                        state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    [0, 0xff, (state >> 40) as u8][(state >> 60) as usize % 3]
                })
                .collect();
            let clusters = 40 + state % 33;
            let (free, runs) = runs(&bitmap, clusters);
            let is_free = |at: u64| at < clusters && bitmap[(at / 8) as usize] >> (at % 8) & 1 == 0;
            let in_runs = |at: u64| runs.iter().any(|run| run.contains(&at));
            assert!((0..100).all(|at| is_free(at) == in_runs(at)), "{bitmap:?} {clusters} {runs:?}");
            assert_eq!(free, (0..100).filter(|at| is_free(*at)).count() as u64);
            assert!(runs.windows(2).all(|pair| pair[0].end < pair[1].start));
        }
    }
}
