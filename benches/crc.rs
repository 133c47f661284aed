//! The CRC-32 that every data cluster costs, for the cluster sizes of the format, over data that does
//! not stay in the cache.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use snapcow::encode::Encoder;

/// More than the caches of a core hold, in bytes.
const BYTES: usize = 32 << 20;

fn crc(criterion: &mut Criterion) {
    let mut state = 1u64;
    let next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    };
    let bytes: Vec<u8> = std::iter::repeat_with(next).take(BYTES).collect();
    let mut group = criterion.benchmark_group("guest CRC, 32 MiB");
    group.throughput(Throughput::Bytes(BYTES as u64));
    for cluster_bytes in [512, 4096, 65_536, 2 << 20] {
        group.bench_function(format!("clusters of {cluster_bytes}"), |bencher| {
            bencher.iter(|| {
                let crcs = bytes.chunks(cluster_bytes).map(|cluster| Encoder::guest_crc(black_box(cluster)));
                crcs.fold(0, |all, crc| all ^ crc)
            });
        });
    }
    group.finish();
}

criterion_group!(benches, crc);
criterion_main!(benches);
