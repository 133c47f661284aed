//! Every codec on one seeded cluster of 64 KiB that gets about half as large, the CRC that each cluster costs
//! besides, and what it costs to decode and compare it.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use snapcow::encode::{Compression, Encoder, Verifier};
use snapcow::units::ClusterSize;

/// Words from a small vocabulary with noise between, about as compressible as a system's files.
fn cluster(len: usize) -> Vec<u8> {
    let mut state = 42u64;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let words: Vec<[u8; 8]> = (0..512).map(|_| next().to_le_bytes()).collect();
    let mut bytes = Vec::with_capacity(len + 16);
    while bytes.len() < len {
        let draw = next();
        bytes.extend_from_slice(&words[(draw % 512) as usize]);
        if draw >> 32 & 1 == 0 {
            bytes.extend_from_slice(&(draw >> 40).to_le_bytes()[..3]);
        }
    }
    bytes.truncate(len);
    bytes
}

fn codecs(criterion: &mut Criterion) {
    let size = ClusterSize::DEFAULT;
    let input = cluster(size.size());
    let mut room = vec![0; size.size()];
    let mut group = criterion.benchmark_group("encode, 64 KiB");
    group.throughput(Throughput::Bytes(size.bytes()));
    for compression in [
        Compression::Deflate(1),
        Compression::Deflate(6),
        Compression::Deflate(12),
        Compression::DeflateSmallWindow(1),
        #[cfg(feature = "isal-sys")]
        Compression::DeflateIsal,
        #[cfg(feature = "isal-sys")]
        Compression::DeflateIsalSmallWindow,
        Compression::Zstd(1),
        Compression::Zstd(19),
    ] {
        let mut encoder = Encoder::new(compression, size);
        assert!(
            encoder.compress(&input, &mut room).is_some(),
            "{compression:?}: the cluster is compressible"
        );
        group.bench_function(format!("{compression:?}"), |bencher| {
            bencher.iter(|| encoder.compress(black_box(&input), &mut room));
        });
        let len = encoder.compress(&input, &mut room).unwrap_or_default();
        let mut verifier = Verifier::new(compression, size).expect("there is something to verify");
        group.bench_function(format!("{compression:?}, verified by {}", verifier.library()), |bencher| {
            bencher.iter(|| verifier.check(black_box(&input), &room[..len]).is_ok());
        });
    }
    group.bench_function("guest CRC", |bencher| bencher.iter(|| Encoder::guest_crc(black_box(&input))));
    group.finish();
}

/// Noise: the probe spares libdeflate what its own figure, without the probe, shows.
fn noise(criterion: &mut Criterion) {
    let size = ClusterSize::DEFAULT;
    let mut state = 42u64;
    let input: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 56) as u8
    })
    .take(size.size())
    .collect();
    let mut room = vec![0; size.size()];
    let mut group = criterion.benchmark_group("encode, 64 KiB of noise");
    group.throughput(Throughput::Bytes(size.bytes()));
    for compression in [Compression::Deflate(1), Compression::DeflateSmallWindow(3), Compression::Zstd(1)] {
        let mut encoder = Encoder::new(compression, size);
        assert!(encoder.compress(&input, &mut room).is_none(), "{compression:?}: noise is stored plain");
        group.bench_function(format!("{compression:?}"), |bencher| {
            bencher.iter(|| encoder.compress(black_box(&input), &mut room));
        });
    }
    let mut unprobed = libdeflater::Compressor::new(libdeflater::CompressionLvl::new(1).expect("a level"));
    group.bench_function("libdeflate 1 without the probe", |bencher| {
        bencher.iter(|| unprobed.deflate_compress(black_box(&input), &mut room[..size.size() - 1]).is_err());
    });
    group.finish();
}

criterion_group!(benches, codecs, noise);
criterion_main!(benches);
