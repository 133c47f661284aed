//! Tells in advance which clusters deflate would not make smaller: libdeflate and zlib-rs take longer
//! over noise than over anything else, zstd and ISA-L give up on it by themselves.
//!
//! # Decisions
//! - Several looks, the cheapest first, and noise is only what all of them take for it: byte values
//!   equally frequent in a sample, no runs of one byte, no more ASCII than else, and zstd's level 1
//!   does not get the whole cluster smaller. A sample alone would miss a text behind a compressed file.
//! - Runs and ASCII are looked for because zstd walks over noise in ever longer steps, and leaves
//!   a block alone that it would shrink by less than 1.6 %. What that misses is mostly the padding
//!   behind a file, and text between two.
//! - Measured on every 11th cluster of 64 KiB of a system's files (/usr, package caches, toolchains;
//!   4812 clusters, 620 of them flat in the sample): libdeflate's output grows by 0.003 %; without the
//!   look for ASCII by 0.009 %, without that for runs too by 0.13 %.
//! - Of libdeflate's time at level 1 the sample takes 0.4 %, which is all that most clusters pay;
//!   all looks take 5 %, which is all that noise pays: it gets 20 times as fast.
//! - What may be missed: a stretch of noise that comes again within the cluster, unless it makes up a
//!   good part of it.

use zstd_safe::{CCtx, CParameter};

/// Bytes of a cluster whose histogram is taken: groups of eight, evenly spread.
const SAMPLE_BYTES: usize = 512;
const GROUP_BYTES: usize = 8;

/// How often two bytes of the sample may be the same, in per cent of how often they are in noise.
const FLAT_PERCENT: u64 = 150;

/// Bytes that are counted at once: their count fits a byte, as the compiler's vectors like it.
const PIECE_BYTES: usize = 128;

/// A probe of one thread.
pub(super) struct Probe(Box<CCtx<'static>>);

impl Probe {
    pub(super) fn new() -> Self {
        let mut context = Box::new(CCtx::create());
        // Both are within the library's own bounds, and so always taken.
        let _ = context.set_parameter(CParameter::CompressionLevel(1));
        // Deflate lives on short matches; level 1 by itself looks for six bytes and more.
        let _ = context.set_parameter(CParameter::MinMatch(4));
        Self(context)
    }

    /// Whether a cluster is better stored as it is. `scratch` is overwritten; what does not fit into
    /// it is not smaller.
    pub(super) fn is_noise(&mut self, cluster: &[u8], scratch: &mut [u8]) -> bool {
        is_flat(cluster)
            && !has_runs(cluster)
            && !has_text(cluster)
            && self.0.compress2(scratch, cluster).is_err()
    }
}

/// Whether all byte values are about equally frequent, as far as a sample tells.
fn is_flat(cluster: &[u8]) -> bool {
    let (groups, _) = cluster.as_chunks::<GROUP_BYTES>();
    let step = (cluster.len() / SAMPLE_BYTES).max(1);
    let mut counts = [0u32; 256];
    let mut total = 0u64;
    for group in groups.iter().step_by(step) {
        for &byte in group {
            counts[usize::from(byte)] += 1;
        }
        total += GROUP_BYTES as u64;
    }
    // Ordered pairs of two places with the same byte; in noise, one pair of places in 256 is one.
    let equal: u64 = counts.iter().map(|&count| u64::from(count) * u64::from(count)).sum::<u64>() - total;
    let pairs = total * total.saturating_sub(1);
    equal * 256 * 100 <= pairs * FLAT_PERCENT
}

/// Whether neighbours are equal more often than in noise: one in 256, give or take.
fn has_runs(cluster: &[u8]) -> bool {
    let Some(next) = cluster.get(1..) else { return false };
    let equal: usize = cluster.chunks(PIECE_BYTES).zip(next.chunks(PIECE_BYTES)).map(equal_bytes).sum();
    // The standard deviation is a sixteenth of the root of the length; four of them.
    equal > cluster.len() / 256 + cluster.len().isqrt() / 4
}

/// Whether there are more bytes of ASCII than in noise: half of all, give or take.
fn has_text(cluster: &[u8]) -> bool {
    let ascii: usize = cluster.chunks(PIECE_BYTES).map(ascii_bytes).sum();
    // The standard deviation is half of the root of the length; four of them.
    ascii > cluster.len() / 2 + cluster.len().isqrt() * 2
}

fn equal_bytes((these, those): (&[u8], &[u8])) -> usize {
    usize::from(these.iter().zip(those).map(|(a, b)| u8::from(a == b)).sum::<u8>())
}

fn ascii_bytes(piece: &[u8]) -> usize {
    usize::from(piece.iter().map(|byte| u8::from(byte.is_ascii())).sum::<u8>())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::encode::{Compression, Encoder};
    use crate::units::ClusterSize;

    fn noise(seed: u64, len: usize) -> Vec<u8> {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 56) as u8
        };
        std::iter::repeat_with(&mut next).take(len).collect()
    }

    fn text(len: usize) -> Vec<u8> {
        (0..).flat_map(|number: u32| format!("line {number} of a log\n").into_bytes()).take(len).collect()
    }

    /// The length to which a cluster shrinks by each codec that is probed; `None`: plain.
    fn compressed(cluster: &[u8]) -> [Option<usize>; 2] {
        let size = ClusterSize::from_bytes(cluster.len() as u64).unwrap();
        let mut room = vec![0; cluster.len()];
        [Compression::Deflate(1), Compression::DeflateSmallWindow(3)]
            .map(|compression| Encoder::new(compression, size).compress(cluster, &mut room))
    }

    fn sizes() -> impl Iterator<Item = usize> {
        (ClusterSize::MIN_BITS..=ClusterSize::MAX_BITS).map(|bits| 1 << bits)
    }

    #[test]
    fn noise_is_noise_and_text_is_not_at_every_cluster_size() {
        for len in sizes() {
            let mut scratch = vec![0; len - 1];
            for seed in 0..50 {
                assert!(is_flat(&noise(seed, len)), "{len} bytes of noise, seed {seed}");
            }
            assert!(Probe::new().is_noise(&noise(1, len), &mut scratch), "{len} bytes of noise");
            assert_eq!(compressed(&noise(2, len)), [None; 2], "{len} bytes of noise");
            assert!(!is_flat(&text(len)), "{len} bytes of text");
            assert!(
                compressed(&text(len)).iter().all(|got| got.unwrap() < len / 2 + 64),
                "{len} bytes of text"
            );
        }
    }

    #[test]
    fn noise_that_is_not_all_is_compressed() {
        for len in sizes().filter(|&len| len >= 4096) {
            for text_at in [0..len / 2, len / 2..len, len / 4..len / 2, len - len / 8..len] {
                let mut cluster = noise(3, len);
                let share = text_at.len();
                cluster[text_at].copy_from_slice(&text(share));
                for got in compressed(&cluster) {
                    assert!(got.expect("gets smaller") < len - share / 3, "{share} bytes of text in {len}");
                }
            }
        }
    }

    #[test]
    fn flat_bytes_that_repeat_are_compressed() {
        let mut cluster = noise(4, 20_000);
        cluster.extend_from_within(..);
        cluster.extend_from_within(..25_536);
        assert!(is_flat(&cluster), "only a look at all of it tells");
        assert!(compressed(&cluster)[0].unwrap() < 25_000);
        // Words of four bytes, each byte value as frequent as the next.
        let words = noise(5, 4096);
        let cluster: Vec<u8> = noise(6, 1 << 15)
            .chunks(2)
            .flat_map(|pair| {
                words[4 * (usize::from(pair[0]) | usize::from(pair[1] & 3) << 8)..][..4].to_vec()
            })
            .collect();
        assert!(compressed(&cluster)[0].unwrap() < 50_000);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

        /// What is taken for noise, libdeflate would hardly have made smaller.
        #[test]
        fn little_is_lost(
            seed in any::<u64>(),
            bits in 12u32..=17,
            values in prop_oneof![2u16..=256, Just(256)],
            pieces in proptest::collection::vec((any::<usize>(), 0usize..3000, any::<bool>()), 0..4),
        ) {
            let len = 1usize << bits;
            let mut cluster: Vec<u8> =
                noise(seed, len).into_iter().map(|byte| (u16::from(byte) % values) as u8).collect();
            for (place, share, is_text) in pieces {
                let at = place % len;
                let share = share.min(len - at);
                let piece = if is_text { text(share) } else { vec![place as u8; share] };
                cluster[at..at + share].copy_from_slice(&piece);
            }
            let mut room = vec![0; len - 1];
            if Probe::new().is_noise(&cluster, &mut room) {
                let mut plain = libdeflater::Compressor::new(libdeflater::CompressionLvl::new(1).unwrap());
                let got = plain.deflate_compress(&cluster, &mut room).unwrap_or(len);
                prop_assert!(got + 8 * len.isqrt() + 64 > len, "{got} of {len}");
            }
        }
    }
}
